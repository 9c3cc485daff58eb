"""One whole shard: read its images in order, inspect, frame, hash, rename, then its row file.

A shard's bytes depend on the plan and the images alone. It is written under a temporary name and
renamed when it is whole, so doing it twice, or in two places at once, is harmless.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from typing import BinaryIO

from common.command import explain_system_error
from common.errors import UserError
from common.files import atomic_write, join
from preprocessing import images, layout
from preprocessing.examples import encode_example
from preprocessing.gather_writer import GatherWriter
from preprocessing.plan import Plan, PlannedImage, read_shard
from preprocessing.records import DETAIL, ShardSummary, schema, write_rows
from preprocessing.shard_digest import ShardDigest
from preprocessing.sources.reader import SourceReader, Unreadable
from preprocessing.tfrecord import frame


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A finished shard: bytes of its file, and how many images came to which end.

    Attributes:
        num_bytes: of the file.
        counts: images by what became of them: `verbatim`, `repaired`, `resized`,
            `rejected: REASON`.
    """

    num_bytes: int
    counts: dict[str, int]


def write_shard(
    source: str, data_dir: str, plan: Plan, index: int, read_threads: int | None = None
) -> ShardResult:
    """Writes shard `index` of `plan` and its row file.

    Args:
        source: what the paths of the plan are relative to.
        data_dir: where plan and shards lie.
        plan: header of the plan.
        index: number of the shard.
        read_threads: threads that read ahead; None leaves it to the kind of source.

    Raises:
        UserError: it cannot be written; the temporary file is gone.
    """
    path = join(data_dir, plan.shard_name(index))
    planned = read_shard(data_dir, plan, index)
    try:
        with (
            SourceReader(source, read_threads) as reader,
            atomic_write(path, buffering=0) as file,
        ):
            writer = _ShardWriter(file, plan, index, os.path.basename(source))
            for image, content in reader.read_ahead(planned):
                writer.add(image, content)
            writer.flush()
        write_rows(layout.row_file(data_dir, plan.split, index), writer.columns(), writer.summary())
    except OSError as error:
        error.filename = error.filename or path
        ours = os.path.basename(path) in str(error.filename)
        doing = f"cannot write {path}" if ours else f"cannot read {error.filename}"
        reason = explain_system_error(error) or f"{doing}: {error.strerror}"
        raise UserError(f"{reason} (finished shards are kept)") from error
    return ShardResult(writer.position, dict(writer.counts))


class _ShardWriter:
    """Adds images to an open shard and keeps a row for each."""

    def __init__(self, file: BinaryIO, plan: Plan, index: int, source_name: str):
        self._file = GatherWriter(file)
        self._plan, self._index, self._source_name = plan, index, source_name
        self._policy = images.ImagePolicy.of_flags(plan.flags)
        self._digest = ShardDigest()
        self.position = 0
        self._rows: list[tuple] = []
        self.counts: collections.Counter[str] = collections.Counter()

    def flush(self) -> None:
        self._file.flush()

    def columns(self) -> dict[str, tuple]:
        """The rows as columns of the table of records, and the details."""
        return dict(zip((*schema().names, DETAIL), zip(*self._rows, strict=True), strict=True))

    def summary(self) -> ShardSummary:
        return ShardSummary(self.position, self._digest.digest, self._digest.crc32c)

    def add(self, image: PlannedImage, content: bytes | Unreadable) -> None:
        if isinstance(content, Unreadable):
            sha256, found = "", images.reject(images.UNREADABLE, str(content))
        else:
            _require_planned_size(image, content)
            digest = hashlib.sha256(content)
            sha256, found = digest.hexdigest(), images.inspect(content, self._policy)
        offset, length, jpeg_offset = -1, 0, -1
        if found.action == images.REJECTED:
            self.counts[f"{images.REJECTED}: {found.reason}"] += 1
        else:
            self.counts[found.action] += 1
            if found.content is not content:
                digest = hashlib.sha256(found.content)
            offset = self.position
            before, after = self._frame(image, found)
            self._file.add(before, found.content, after)
            self._digest.add(before, found.content, after, digest.digest())
            jpeg_offset = offset + len(before)
            length = len(before) + len(found.content) + len(after)
            self.position += length
        row = (
            _as_text(image.key),
            sha256,
            image.class_index,
            self._plan.classes[image.class_index],
            self._index,
            offset,
            length,
            jpeg_offset,
            len(found.content),
            found.width,
            found.height,
            found.action,
            found.reason,
            _as_text(image.path or self._source_name),
            image.offset,
            found.detail,
        )
        self._rows.append(row)

    def _frame(self, image: PlannedImage, found: images.Inspection) -> tuple[bytes, bytes]:
        """What comes before and after the image in its framed record."""
        head, jpeg, tail = encode_example(
            found.content,
            width=found.width,
            height=found.height,
            class_index=image.class_index,
            class_name=self._plan.classes[image.class_index],
            class_text=self._plan.class_texts[image.class_index],
            file_name=image.key.rpartition("/")[2],
            boxes=image.boxes,
        )
        header, footer = frame((head, jpeg, tail))
        return header + head, tail + footer


def _require_planned_size(image: PlannedImage, content: bytes) -> None:
    if len(content) != image.num_bytes:
        raise UserError(
            f"{image.key!r} has {len(content)} bytes, but had {image.num_bytes} when the images"
            " were listed: leave the source alone while a data set is built, and run again"
        )


def _as_text(name: str) -> str:
    """A file's name may be any bytes, a text column may not."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name
