"""The Example schema of the shards, written and read in one place.

A record is a `tf.train.Example` with the classic ImageNet keys (`image/encoded`,
`image/class/label` ...), which tf-slim and the TPU models read, and two more that suit TFDS:
`label`, the 0-based class index, and `file_name`. `image/class/label` is the class index + 1, since
the classic records keep 0 for a background class.

Writing needs no TensorFlow: the message is encoded here, around the image bytes, which are not
copied. Map entries stand in the order of their keys, so that equal examples are equal bytes.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import tensorflow as tf

# Label of class 0 in `image/class/label`.
LABEL_OFFSET = 1

# Tags of fields that hold bytes: entries of the map of features, their keys and their values, the
# three kinds of lists, and the values of a list.
_ENTRY = _KEY = _VALUES = b"\x0a"
_FEATURE = b"\x12"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"


def encode_example(
    jpeg: bytes,
    *,
    width: int,
    height: int,
    class_index: int,
    class_name: str,
    class_text: str,
    file_name: str,
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> tuple[bytes, bytes, bytes]:
    """Encodes one example as three parts: what precedes the image, the image, what follows it.

    The parts, joined, are `tf.train.Example(...).SerializeToString(deterministic=True)`.

    Args:
        jpeg: an encoded RGB or grey JPEG.
        width: pixels per row.
        height: rows.
        class_index: 0-based position in the class list.
        class_name: the class's line in the class list, for ImageNet its synset.
        class_text: what the class is called in plain words.
        file_name: name of the source file, without folders.
        boxes: (xmin, ymin, xmax, ymax) of each object of the class, in fractions of the image.
    """
    name = _feature(_BYTES_LIST, _field(_VALUES, _utf8(file_name)))
    of_class = _class_entries(class_index, class_name, class_text)
    size = len(jpeg)
    values = _VALUES + _varint(size)
    bytes_list = _BYTES_LIST + _varint(len(values) + size) + values
    feature = _ENCODED_KEY + _FEATURE + _varint(len(bytes_list) + size) + bytes_list
    head = b"".join(
        (
            _field(_ENTRY, _FILE_NAME_KEY + name),
            of_class.before_image,
            _ENTRY,
            _varint(len(feature) + size),
            feature,
        )
    )
    tail = b"".join(
        (
            _field(_ENTRY, _IMAGE_FILENAME_KEY + name),
            _FORMAT,
            _int_entry("image/height", height),
            _box_entries(boxes, class_index + LABEL_OFFSET) if boxes else _NO_BOXES,
            _int_entry("image/width", width),
            of_class.last,
        )
    )
    return b"\x0a" + _varint(len(head) + size + len(tail)) + head, jpeg, tail


def feature_spec() -> dict[str, Any]:
    """What to ask of `tf.io.parse_example` for training and evaluation."""
    import tensorflow as tf

    return {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "file_name": tf.io.FixedLenFeature([], tf.string),
    }


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Reads one serialized example (a string scalar), or a batch of them (a string vector).

    Returns:
        `jpeg` (string), `class_index` (int64, 0-based) and `file_name` (string), each of the
        shape of `serialized`.
    """
    import tensorflow as tf

    features = tf.io.parse_example(serialized, feature_spec())
    return {
        "jpeg": features["image/encoded"],
        "class_index": features["label"],
        "file_name": features["file_name"],
    }


class _ClassEntries(NamedTuple):
    """The entries that depend on the class alone, by where they stand."""

    before_image: bytes
    last: bytes


@functools.lru_cache(maxsize=32_768)
def _class_entries(class_index: int, class_name: str, class_text: str) -> _ClassEntries:
    before_image = (
        _int_entry("image/channels", 3)
        + _int_entry("image/class/label", class_index + LABEL_OFFSET)
        + _bytes_entry("image/class/synset", _utf8(class_name))
        + _bytes_entry("image/class/text", _utf8(class_text))
        + _bytes_entry("image/colorspace", b"RGB")
    )
    return _ClassEntries(before_image, _int_entry("label", class_index))


def _box_entries(boxes: Sequence[tuple[float, float, float, float]], label: int) -> bytes:
    labels = _list_entry("image/object/bbox/label", _INT64_LIST, _varint(label) * len(boxes))
    pack = struct.Struct(f"<{len(boxes)}f").pack
    xmin, ymin, xmax, ymax = (pack(*side) for side in zip(*boxes, strict=True)) if boxes else _NONE
    sides = (("xmax", xmax), ("xmin", xmin), ("ymax", ymax), ("ymin", ymin))
    return labels + b"".join(
        _list_entry(f"image/object/bbox/{name}", _FLOAT_LIST, values) for name, values in sides
    )


@functools.lru_cache(maxsize=32_768)
def _int_entry(key: str, value: int) -> bytes:
    return _list_entry(key, _INT64_LIST, _varint(value))


def _bytes_entry(key: str, value: bytes) -> bytes:
    return _field(_ENTRY, _key(key) + _feature(_BYTES_LIST, _field(_VALUES, value)))


def _list_entry(key: str, kind: bytes, values: bytes) -> bytes:
    """An entry whose list of numbers is `values`, which may be none."""
    return _field(_ENTRY, _key(key) + _feature(kind, _field(_VALUES, values) if values else b""))


def _key(key: str) -> bytes:
    return _field(_KEY, key.encode())


def _feature(kind: bytes, values: bytes) -> bytes:
    return _field(_FEATURE, _field(kind, values))


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _utf8(text: str) -> bytes:
    """UTF-8 in every locale; bytes of a file name that are none stay as they are."""
    return text.encode("utf-8", "surrogateescape")


def _varint(value: int) -> bytes:
    """A number from 0 on, seven bits per byte, the lowest first."""
    if value < 0x80:
        return _ONE_BYTE[value]
    if 0x4000 <= value < 0x20_0000:  # most sizes of images
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))
_NONE = (b"",) * 4
# What is the same in every example.
_ENCODED_KEY = _key("image/encoded")
_FILE_NAME_KEY, _IMAGE_FILENAME_KEY = _key("file_name"), _key("image/filename")
_FORMAT = _bytes_entry("image/format", b"JPEG")
_NO_BOXES = _box_entries((), 0)
