"""Why an image cannot be in a data set: the vocabulary, and the exception that carries a reason."""

from __future__ import annotations

EMPTY = "empty"
NOT_AN_IMAGE = "not an image"
TRUNCATED = "truncated"
DAMAGED = "damaged"
NO_PIXELS = "no pixels"
TOO_MANY_PIXELS = "too many pixels"
UNREADABLE = "unreadable"


_LARGEST_SIDE = 2**31 - 1


class Rejection(Exception):
    """An image cannot be stored.

    Attributes:
        reason: one of the above.
        detail: more on it, for the person who mends the file.
        width: pixels per row, as the header says; 0 when not known.
        height: rows, as the header says; 0 when not known.
    """

    def __init__(self, reason: str, detail: str, width: int = 0, height: int = 0):
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.width = width
        self.height = height


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises Rejection for a picture without pixels or with more than `max_pixels`."""
    if width < 1 or height < 1:
        raise Rejection(NO_PIXELS, f"{width} x {height} pixels")
    if width * height > max_pixels:
        detail = f"{width} x {height} pixels, the limit is {max_pixels}"
        if max(width, height) > _LARGEST_SIDE:  # a made-up header: the table has no room for it
            raise Rejection(TOO_MANY_PIXELS, detail)
        raise Rejection(TOO_MANY_PIXELS, detail, width, height)
