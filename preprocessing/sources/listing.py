"""What a source holds: a row an image, and no image's bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from common.errors import UserError

WHOLE_FILE = -1


class SourceImage(NamedTuple):
    """One image and where its bytes lie.

    Attributes:
        key: `class/file`; the same in class folders, in a flat folder and in a tar.
        class_name: what it shows.
        num_bytes: its size; 0 where a link leads nowhere.
        path: the file that holds it, relative to the root; "" where the root is that file.
        offset: its first byte there; `WHOLE_FILE` if the file is the image.
    """

    key: str
    class_name: str
    num_bytes: int
    path: str
    offset: int


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        kind: what the source is, in words.
        root: the folder or file that the images' paths are relative to.
        classes: names of the classes, those without images among them: sorted, or in a TFDS data
            set's own order.
        images: sorted by key.
        ignored: what nothing is taken from (folders inside class folders), sorted.
    """

    kind: str
    root: str
    classes: tuple[str, ...]
    images: list[SourceImage]
    ignored: tuple[str, ...]


def make_listing(
    kind: str,
    root: str,
    classes: Iterable[str],
    images: list[SourceImage],
    ignored: Iterable[str] = (),
) -> Listing:
    """A listing in order. The images are sorted where they are, since there can be many."""
    images.sort()
    return Listing(kind, root, tuple(classes), images, tuple(sorted(ignored)))


def is_hidden(name: str) -> bool:
    """Whether a name (`.DS_Store`, `._photo.jpg`) is passed over."""
    return name.startswith(".")


def require_text(class_name: str, source: str) -> None:
    """A class name goes into text files, which a file's name need not.

    Raises:
        UserError: it is not UTF-8, or of several lines.
    """
    if class_name.splitlines() != [class_name]:
        raise UserError(
            f"--source={source}: the name of the class folder {class_name!r} has a line break:"
            " rename it"
        )
    try:
        class_name.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            f"--source={source}: the name of the class folder {class_name!r} is not UTF-8:"
            " rename it"
        ) from None
