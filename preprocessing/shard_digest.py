"""The hashes of a shard, made while it is written and checked when it is read.

The digest is the SHA-256 of the shard's bytes with each image replaced by its own SHA-256 (32
bytes). It vouches for every byte of the file, as a SHA-256 of the file would, but an image, which
is nearly all of a record, need not be hashed a second time: its SHA-256 is taken anyway.

The CRC32C is that of the file itself, in the form in which Cloud Storage keeps it for every object,
so that a shard in a bucket is checked without being read.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import google_crc32c

from common.buckets import printed_crc32c
from common.files import open_for_reading

_BLOCK = 8 << 20


class Span(NamedTuple):
    """Where a record lies in its shard, and the image in it; in bytes."""

    offset: int
    length: int
    jpeg_offset: int
    jpeg_length: int


class ShardDigest:
    """Takes a shard record by record."""

    def __init__(self):
        self._digest = hashlib.sha256()
        self._crc32c = 0

    def add(self, before: bytes, image: bytes, after: bytes, image_sha256: bytes) -> None:
        """Adds a record: the bytes before its image, the image with its SHA-256, the rest."""
        self._digest.update(before + image_sha256 + after)
        extend = google_crc32c.extend
        self._crc32c = extend(extend(extend(self._crc32c, before), image), after)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    @property
    def crc32c(self) -> str:
        return printed_crc32c(self._crc32c)


def digest_of_file(path: str, spans: Sequence[Span]) -> str:
    """The digest of a shard whose records are said to lie at `spans`.

    Bytes that belong to no record count as well, so that no other file has the digest of a shard.

    Raises:
        FileNotFoundError: there is no such file.
    """
    digest = hashlib.sha256()
    with open_for_reading(path) as file:
        end = 0
        for record in read_records(file, spans):
            span = record.span
            start = span.jpeg_offset - span.offset
            image = record.content[start : start + span.jpeg_length]
            digest.update(record.content[:start])
            digest.update(hashlib.sha256(image).digest())
            digest.update(record.content[start + span.jpeg_length :])
            end = span.offset + span.length
        file.seek(end)
        while rest := file.read(_BLOCK):
            digest.update(rest)
    return digest.hexdigest()


class Record(NamedTuple):
    """The framed bytes of one record; fewer than its span says where the file ends before."""

    span: Span
    content: memoryview


def read_records(file: BinaryIO, spans: Sequence[Span]) -> Iterator[Record]:
    """Reads records one after the other, several of them at a time."""
    group: list[Span] = []
    for span in spans:
        if group and span.offset + span.length - group[0].offset > _BLOCK:
            yield from _read_group(file, group)
            group = []
        group.append(span)
    if group:
        yield from _read_group(file, group)


def _read_group(file: BinaryIO, group: Sequence[Span]) -> Iterator[Record]:
    start = group[0].offset
    file.seek(start, os.SEEK_SET)
    content = memoryview(file.read(group[-1].offset + group[-1].length - start))
    for span in group:
        yield Record(span, content[span.offset - start : span.offset - start + span.length])
