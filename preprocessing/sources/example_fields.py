"""Finds values in a serialized `tf.train.Example` by hopping over what is not wanted.

Field numbers, from example.proto and feature.proto:

    Example   1 features
    Features  1 feature, a map: each entry has 1 key and 2 value
    Feature   1 bytes_list, 2 float_list, 3 int64_list: the one that comes last counts
    a list    1 value, again and again; int64 packed into one field or not
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from preprocessing.sources.views import View

BYTES_LIST, INT64_LIST = 1, 3

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10


class MalformedError(Exception):
    """The bytes are no message of this kind."""


class Piece(NamedTuple):
    """Where the value of a bytes feature lies."""

    offset: int
    length: int


def find_features(
    view: View, start: int, end: int, wanted: Collection[bytes]
) -> dict[bytes, Piece | int]:
    """The first value of each wanted feature, where it has one: a place, or an integer.

    Args:
        view: the file.
        start: where the Example begins in it.
        end: where it ends.
        wanted: keys of features of bytes or integers.

    Raises:
        MalformedError: it is no Example.
    """
    found: dict[bytes, Piece | int] = {}
    for _, features_start, features_end in _messages(view, start, end, 1):
        for _, entry_start, entry_end in _messages(view, features_start, features_end, 1):
            key, value = b"", None
            for number, at, stop in _messages(view, entry_start, entry_end, 1, 2):
                if number == 1:
                    key = view.read_at(at, stop - at)
                else:
                    value = (at, stop)
            if key in wanted:
                found.pop(key, None)  # of entries with one key the last counts
                first = _first_value(view, *value) if value else None
                if first is not None:
                    found[key] = first
    return found


def _first_value(view: View, start: int, end: int) -> Piece | int | None:
    kind, first = 0, None
    for number, at, stop in _messages(view, start, end, 1, 2, 3):
        if number != kind:
            kind, first = number, None
        if first is not None:
            continue
        for field, wire, value, value_end in _fields(view, at, stop):
            if field != 1:
                continue
            if kind == BYTES_LIST and wire == _LENGTH:
                first = Piece(value, value_end - value)
            elif kind == INT64_LIST and wire == _VARINT:
                first = _signed(value)
            elif kind == INT64_LIST and wire == _LENGTH and value < value_end:
                first = _signed(_varint(view, value, value_end)[0])
            if first is not None:
                break
    return first


def _messages(view: View, start: int, end: int, *numbers: int) -> Iterator[tuple[int, int, int]]:
    for number, wire, at, stop in _fields(view, start, end):
        if wire == _LENGTH and number in numbers:
            yield number, at, stop


def _fields(view: View, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """`(number, wire type, start, end)` of each field; of a varint its value instead of a start."""
    while start < end:
        tag, start = _varint(view, start, end)
        number, wire = tag >> 3, tag & 7
        value = start
        if wire == _VARINT:
            value, start = _varint(view, start, end)
        elif wire == _LENGTH:
            length, value = _varint(view, start, end)
            start = value + length
        elif wire in (_FIXED32, _FIXED64):
            start += 4 if wire == _FIXED32 else 8
        else:
            raise MalformedError(f"wire type {wire}")
        if start > end:
            raise MalformedError("a field is longer than its message")
        yield number, wire, value, start


def _varint(view: View, start: int, end: int) -> tuple[int, int]:
    """The integer at `start`, and where it ends."""
    content = view.read_at(start, min(_MAX_VARINT, end - start))
    value = shift = 0
    for position, byte in enumerate(content, start + 1):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise MalformedError("an integer does not end")


def _signed(value: int) -> int:
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value
