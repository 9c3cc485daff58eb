"""Boxes of objects from the CSV that ImageNet's scripts have always used.

A line is `n00007846_64193.JPEG,0.0060,0.2620,0.7545,0.9940`: file name, xmin, ymin, xmax, ymax, as
fractions of width and height. An image with several objects has several lines; their order stays.

tf-slim cuts values to the range 0 to 1 without a word. Here only what rounding explains is cut;
values further out are an error, since they mean pixels or another order of the columns.
"""

from __future__ import annotations

from common.errors import UserError
from common.files import read_bytes

Box = tuple[float, float, float, float]

ROUNDING = 1e-3


def read_bounding_boxes(path: str) -> dict[str, list[Box]]:
    """Boxes `(xmin, ymin, xmax, ymax)` by file name; a heading is passed over.

    Raises:
        UserError: the file cannot be read, or a line is not as it should be.
    """
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(
            f"--bounding_boxes={path} cannot be read: {error.strerror or error}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"--bounding_boxes={path} is not a text file in UTF-8") from None
    boxes: dict[str, list[Box]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and _is_heading(line)):
            continue
        try:
            name, box = _parse(line)
        except ValueError as error:
            raise UserError(f"--bounding_boxes={path}: line {number}: {error}") from None
        boxes.setdefault(name, []).append(box)
    if not boxes:
        raise UserError(f"--bounding_boxes={path} holds no boxes")
    return boxes


def _parse(line: str) -> tuple[str, Box]:
    name, *words = line.rsplit(",", 4)
    name = name.strip()
    try:
        xmin, ymin, xmax, ymax = map(float, words)
    except ValueError:
        raise ValueError(
            f"{line!r} is not `file_name,xmin,ymin,xmax,ymax` with four numbers"
        ) from None
    if not name:
        raise ValueError(f"{line!r} names no file")
    box = (xmin, ymin, xmax, ymax)
    if not all(-ROUNDING <= value <= 1 + ROUNDING for value in box):  # so is no NaN
        raise ValueError(f"{box} is not within 0 to 1: fractions of width and height are expected")
    if xmin > xmax or ymin > ymax:
        raise ValueError(f"{box} ends before it begins: xmin, ymin, xmax, ymax are expected")
    return name, tuple(min(max(value, 0.0), 1.0) for value in box)


def _is_heading(line: str) -> bool:
    words = line.split(",")
    return len(words) == 5 and not any(map(_is_number, words[1:]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
