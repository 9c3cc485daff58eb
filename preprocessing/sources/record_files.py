"""Images in TFRecord files of Examples, found without reading them and without TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from common.errors import UserError
from preprocessing.sources.example_fields import MalformedError, Piece, find_features
from preprocessing.sources.views import BLOCKS_AHEAD, View, open_view
from preprocessing.tfrecord import FOOTER_BYTES, HEADER_BYTES, masked_crc

_LENGTH_BYTES = 8


class RecordFile(NamedTuple):
    """A file of records, and the keys of the features that are wanted."""

    path: str
    image_key: str
    label_key: str
    name_key: str | None


class RecordImage(NamedTuple):
    """An image in a record: where it lies in the file, its label, and its name if it has one."""

    offset: int
    num_bytes: int
    label: int
    name: str


def find_images(file: RecordFile) -> list[RecordImage]:
    """The image of each record of a file, in order.

    Raises:
        UserError: the file is missing, cut or damaged, or a record has no image or no label.
    """
    keys = [os.fsencode(key) for key in (file.image_key, file.label_key, file.name_key) if key]
    with open_view(file.path, file.path, BLOCKS_AHEAD) as view:
        return [
            _find_image(view, file.path, number, start, end, keys)
            for number, (start, end) in enumerate(record_bounds(view, file.path))
        ]


def record_bounds(view: View, path: str) -> Iterator[tuple[int, int]]:
    """Where the payload of each record begins and ends.

    The lengths are proved by their checksums; the payloads, which are not read, are not.

    Raises:
        UserError: the file is cut or damaged.
    """
    position = 0
    while position < view.size:
        header = view.read_at(position, HEADER_BYTES)
        start = position + HEADER_BYTES
        if len(header) == HEADER_BYTES:
            length = int.from_bytes(header[:_LENGTH_BYTES], "little")
            if header[_LENGTH_BYTES:] != masked_crc(header[:_LENGTH_BYTES]):
                raise UserError(
                    f"{path} is damaged: at byte {position} there is no TFRecord header; prepare"
                    " the data set anew"
                )
            end = start + length
            position = end + FOOTER_BYTES
        if len(header) < HEADER_BYTES or position > view.size:
            raise UserError(
                f"{path} is cut: it ends at byte {view.size}, within a record; prepare the data set"
                " anew"
            )
        yield start, end


def _find_image(
    view: View, path: str, number: int, start: int, end: int, keys: list[bytes]
) -> RecordImage:
    where = f"{path}: record {number} at byte {start - HEADER_BYTES}"
    try:
        found = find_features(view, start, end, keys)
    except MalformedError as error:
        raise UserError(f"{where} is no tf.train.Example ({error})") from None
    image, label, *names = (found.get(key) for key in keys)
    if not isinstance(image, Piece):
        raise UserError(f"{where} has no image under {os.fsdecode(keys[0])!r}")
    if not isinstance(label, int):
        raise UserError(f"{where} has no label under {os.fsdecode(keys[1])!r}")
    name = ""
    if names and isinstance(names[0], Piece):
        name = os.fsdecode(view.read_at(*names[0]))
    return RecordImage(image.offset, image.length, label, name)
