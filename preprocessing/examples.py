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
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

# Label of class 0 in `image/class/label`.
LABEL_OFFSET = 1

_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = b"\x0a", b"\x12", b"\x1a"
_NO_BOXES = b"".join(
    [
        b"\x0a" + bytes([len(entry)]) + entry
        for name, kind in (
            (b"label", _INT64_LIST),
            (b"xmax", _FLOAT_LIST),
            (b"xmin", _FLOAT_LIST),
            (b"ymax", _FLOAT_LIST),
            (b"ymin", _FLOAT_LIST),
        )
        for key in (b"image/object/bbox/" + name,)
        for entry in (b"\x0a" + bytes([len(key)]) + key + b"\x12\x02" + kind + b"\x00",)
    ]
)


def encode_example(
    jpeg: bytes, width: int, height: int, class_index: int, class_name: str, file_name: str
) -> tuple[bytes, bytes, bytes]:
    """Encodes one example as three parts: what precedes the image, the image, what follows it.

    The parts, joined, are `tf.train.Example(...).SerializeToString(deterministic=True)`.

    Args:
        jpeg: an encoded RGB or grey JPEG.
        width: pixels per row.
        height: rows.
        class_index: 0-based position in the class list.
        class_name: the class's line in the class list; stands for synset and text.
        file_name: name of the source file, without folders.
    """
    name = os.fsencode(file_name)
    before, after = _class_entries(class_index, class_name)
    head = _bytes_entry(b"file_name", name) + before
    tail = b"".join(
        (
            _bytes_entry(b"image/filename", name),
            _bytes_entry(b"image/format", b"JPEG"),
            _int_entry(b"image/height", height),
            _NO_BOXES,
            _int_entry(b"image/width", width),
            after,
        )
    )
    value = _prefix(_BYTES_LIST, _prefix_size(len(jpeg)) + len(jpeg)) + _prefix(b"\x0a", len(jpeg))
    value = _prefix(b"\x12", len(value) + len(jpeg)) + value
    key = _field(b"\x0a", b"image/encoded")
    head += _prefix(b"\x0a", len(key) + len(value) + len(jpeg)) + key + value
    return _prefix(b"\x0a", len(head) + len(jpeg) + len(tail)) + head, jpeg, tail


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


def stored_jpeg(serialized: bytes) -> bytes:
    """The image of a serialized example, without TensorFlow.

    Raises:
        ValueError: there is none.
    """
    wanted = _field(b"\x0a", b"image/encoded")
    features = _content(serialized, 0)
    position = 0
    while position < len(features):
        entry = _content(features, position)
        if entry.startswith(wanted):
            feature = _content(entry, len(wanted))
            return _content(_content(feature, 0), 0)
        position += len(_prefix(b"\x0a", len(entry))) + len(entry)
    raise ValueError("the example has no image/encoded")


@functools.lru_cache(maxsize=4096)
def _class_entries(class_index: int, class_name: str) -> tuple[bytes, bytes]:
    """The entries that depend on the class alone: between `file_name` and the image, and last."""
    name = os.fsencode(class_name)
    before = (
        _int_entry(b"image/channels", 3)
        + _int_entry(b"image/class/label", class_index + LABEL_OFFSET)
        + _bytes_entry(b"image/class/synset", name)
        + _bytes_entry(b"image/class/text", name)
        + _bytes_entry(b"image/colorspace", b"RGB")
    )
    return before, _int_entry(b"label", class_index)


def _bytes_entry(key: bytes, value: bytes) -> bytes:
    return _entry(key, _field(_BYTES_LIST, _field(b"\x0a", value)))


def _int_entry(key: bytes, value: int) -> bytes:
    return _entry(key, _field(_INT64_LIST, _field(b"\x0a", _varint(value))))


def _entry(key: bytes, feature: bytes) -> bytes:
    return _field(b"\x0a", _field(b"\x0a", key) + _field(b"\x12", feature))


def _field(tag: bytes, content: bytes) -> bytes:
    return _prefix(tag, len(content)) + content


def _prefix(tag: bytes, length: int) -> bytes:
    return tag + _varint(length)


def _prefix_size(length: int) -> int:
    return len(_prefix(b"\x0a", length))


def _content(message: bytes, position: int) -> bytes:
    """What `_field` has put at `position`."""
    size = shift = 0
    more = True
    while more:
        position += 1
        more = message[position] > 0x7F
        size |= (message[position] & 0x7F) << shift
        shift += 7
    return message[position + 1 : position + 1 + size]


def _varint(value: int) -> bytes:
    """A number from 0 on, seven bits per byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
