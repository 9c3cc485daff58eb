"""What is wrong with one shard: it is held against the manifest and the table of records."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from common.files import crc32c_of_file, file_size, is_remote, join, open_for_reading
from preprocessing import images
from preprocessing.manifest import ShardInfo
from preprocessing.records import spans_of
from preprocessing.shard_digest import Span, digest_of_file, read_records
from preprocessing.tfrecord import payload_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class ShardRows:
    """The stored records of one shard, in order.

    Attributes:
        spans: where each lies.
        keys: of each image.
        sha256: of each image as it is stored; None where it is not that of its source.
    """

    spans: Sequence[Span]
    keys: Sequence[str]
    sha256: Sequence[str | None]

    @classmethod
    def of_table(cls, rows: pa.Table) -> ShardRows:
        import pyarrow.compute as pc

        stored = rows.filter(pc.greater_equal(rows["offset"], 0))
        hashes = zip(stored["sha256"].to_pylist(), stored["action"].to_pylist(), strict=True)
        return cls(
            spans_of(stored),
            stored["key"].to_pylist(),
            [sha256 if action == images.VERBATIM else None for sha256, action in hashes],
        )

    def name(self, number: int) -> str:
        return f"record {number} ({self.keys[number]})"


def faults_of_shard(
    data_dir: str, shard: ShardInfo, rows: ShardRows | None, names: dict[str, str], deep: bool
) -> Iterator[str]:
    """Yields a line for each thing that is not as it should be.

    Args:
        data_dir: where the shard lies.
        shard: what the manifest says of it.
        rows: what the table says of its records; None where the table is not to be trusted.
        names: of all shards, by their CRC32C.
        deep: whether to decode every image.
    """
    path = join(data_dir, shard.name)
    try:
        size = file_size(path)
    except FileNotFoundError:
        yield f"{path} is missing ({shard.num_examples} records)"
        return
    crc32c = crc32c_of_file(path)
    right = size == shard.num_bytes and crc32c == shard.crc32c
    # A checksum is no proof against intent; where the file is at hand, its digest is checked too.
    if right and rows is not None and not is_remote(path):
        right = digest_of_file(path, rows.spans) == shard.digest
    if right:
        if deep and rows is not None:
            yield from _undecodable(path, rows)
        return
    if names.get(crc32c, shard.name) != shard.name:
        yield f"{path} holds the bytes of {names[crc32c]}: they were swapped or copied"
        return
    if size < shard.num_bytes:
        yield f"{path} is cut: {size} of {shard.num_bytes} bytes{_first_lost(rows, size)}"
    elif size > shard.num_bytes:
        yield f"{path} is too long: {size} bytes instead of {shard.num_bytes}"
    if rows is None:
        if size == shard.num_bytes:
            yield f"{path} is damaged: its hashes are not those of the manifest"
        return
    found = False
    for number, fault in _faults_of_records(path, rows):
        found = True
        yield f"{path} {fault} {rows.name(number)}"
    if not found and size == shard.num_bytes:
        yield (
            f"{path} is not the file of the manifest, though each record's checksum is right: one"
            " of them was edited"
        )


def _first_lost(rows: ShardRows | None, size: int) -> str:
    if rows is None:
        return ""
    ends = (span.offset + span.length for span in rows.spans)
    number = next((number for number, end in enumerate(ends) if end > size), None)
    return "" if number is None else f", from {rows.name(number)} on"


def _faults_of_records(path: str, rows: ShardRows) -> Iterator[tuple[int, str]]:
    """Numbers of the records that lie inside the file but are not what they were."""
    with open_for_reading(path) as file:
        for number, (span, content) in enumerate(read_records(file, rows.spans)):
            if len(content) < span.length:
                return
            if payload_of(bytes(content)) is None:
                yield number, "is damaged in"
            elif rows.sha256[number] not in (None, _sha256_of_image(span, content)):
                yield number, "holds another image in"


def _sha256_of_image(span: Span, content: memoryview) -> str:
    return hashlib.sha256(_image(span, content)).hexdigest()


def _image(span: Span, content: memoryview) -> memoryview:
    start = span.jpeg_offset - span.offset
    return content[start : start + span.jpeg_length]


def _undecodable(path: str, rows: ShardRows) -> Iterator[str]:
    with open_for_reading(path) as file:
        for number, (span, content) in enumerate(read_records(file, rows.spans)):
            reason = images.decode_error(bytes(_image(span, content)))
            if reason:
                yield f"{path}: the image of {rows.name(number)} cannot be decoded: {reason}"
