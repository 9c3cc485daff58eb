"""One split of a data set, or a part of one, ready to be read: any run of records, by its place."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import os
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import numpy as np

from common import files
from common.errors import UserError, first_line
from preprocessing.examples import parse_example
from preprocessing.manifest import Manifest, ShardPlaces, load_manifest, shard_places
from preprocessing.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame

if TYPE_CHECKING:
    import tensorflow as tf

Parse = Callable[["tf.Tensor"], dict[str, "tf.Tensor"]]


class DamagedRecordError(UserError):
    """A record whose checksum is wrong, or that is cut off.

    Attributes:
        shard: number of its file in `Shards.paths`.
        record: its number among the file's records that belong to the part.
    """

    def __init__(self, message: str, shard: int, record: int):
        super().__init__(message)
        self.shard, self.record = shard, record


@dataclasses.dataclass(frozen=True, eq=False)
class Shards:
    """The files of a split, and where each record lies in them.

    A part of a split, such as `train[:98%]`, holds consecutive records only. Its examples keep the
    numbers that they have in the whole split, so that what is random about an example does not
    depend on how the split is cut; an example is numbered by the order of the shards.

    Attributes:
        paths: the files.
        bounds: for each file the byte offset of each record, and the end of the last one.
        name: what a log calls the split.
        classes: class names in the order of their indices.
        fingerprint: SHA-256 that vouches for the whole split: of the manifest, or where there is
            none of the files' names, their sizes and where records begin.
        parse: reads serialized examples, one or a vector of them, in a graph: `jpeg` (string),
            `class_index` (int64, 0-based), `file_name` (string, "" where none is stored).
        fused: whether all images are JPEG, so that they may be cropped while they are decoded.
        manifest: what the split is; None for shards that others made.
        places: where in its records each file's images lie, and their classes; None for shards that
            others made.
        first_example: number of the first example.
        first_record: number of the first record within the first file.
    """

    paths: tuple[str, ...]
    bounds: tuple[np.ndarray, ...]
    name: str
    classes: tuple[str, ...]
    fingerprint: str
    parse: Parse = parse_example
    fused: bool = True
    manifest: Manifest | None = None
    places: tuple[ShardPlaces, ...] | None = None
    first_example: int = 0
    first_record: int = 0

    @classmethod
    def open(cls, data_dir: str, split: str) -> Shards:
        """Reads manifest and record table of a split that this project built.

        Raises:
            UserError: there is no such split, or it is damaged.
        """
        manifest = load_manifest(data_dir, split)
        if manifest.num_examples == 0:
            raise UserError(f"split {split!r} of {data_dir} holds no examples")
        places = tuple(shard_places(data_dir, split))
        return cls(
            paths=tuple(files.join(data_dir, shard.name) for shard in manifest.shards),
            bounds=tuple(
                np.append(of_shard.offset, shard.num_bytes)
                for of_shard, shard in zip(places, manifest.shards, strict=True)
            ),
            name=split,
            classes=manifest.classes,
            fingerprint=manifest.sha256,
            manifest=manifest,
            places=places,
        )

    @functools.cached_property
    def num_examples(self) -> int:
        return sum(self.sizes)

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Records in each file, as far as they belong to the part."""
        return [len(bounds) - 1 for bounds in self.bounds]

    @functools.cached_property
    def first_examples(self) -> list[int]:
        """Number of each file's first example, and one more than that of the last example."""
        return [self.first_example + n for n in (0, *itertools.accumulate(self.sizes))]

    @functools.cached_property
    def mean_record_bytes(self) -> float:
        num_bytes = sum(int(bounds[-1] - bounds[0]) for bounds in self.bounds)
        return num_bytes / max(1, self.num_examples)

    def part(self, start: int, stop: int, name: str) -> Shards:
        """The examples from place `start` to before `stop`, counted from the first one here.

        Raises:
            UserError: there are none.
        """
        if not 0 <= start < stop <= self.num_examples:
            raise UserError(f"{name} holds no examples: {self.name} has {self.num_examples:,}")
        firsts = np.asarray(self.first_examples) - self.first_example
        kept = [
            number
            for number in range(len(self.paths))
            if firsts[number] < stop and firsts[number + 1] > start
        ]
        spans = [(max(0, start - firsts[n]), stop - firsts[n]) for n in kept]
        bounds = tuple(
            self.bounds[n][low : high + 1] for n, (low, high) in zip(kept, spans, strict=True)
        )
        places = self.places and tuple(
            ShardPlaces(*(column[low:high] for column in self.places[n]))
            for n, (low, high) in zip(kept, spans, strict=True)
        )
        skipped = int(start - firsts[kept[0]])
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[n] for n in kept),
            bounds=bounds,
            places=places,
            name=name,
            first_example=self.first_example + start,
            first_record=skipped + (self.first_record if kept[0] == 0 else 0),
        )

    def place_of(self, example: int) -> tuple[int, int]:
        """Where an example lies: number of its file in `paths`, and of the record as `read` counts.

        Args:
            example: its number in the whole split.

        Raises:
            IndexError: it does not belong to the part.
        """
        if not self.first_example <= example < self.first_examples[-1]:
            raise IndexError(f"{self.name} has no example {example}")
        shard = bisect.bisect_right(self.first_examples, example) - 1
        return shard, example - self.first_examples[shard]

    def windows(self, count: int) -> np.ndarray:
        """All records in order, as (n, 3) int64 rows of shard, first, count for `read`."""
        rows = [
            (shard, first, min(count, size - first))
            for shard, size in enumerate(self.sizes)
            for first in range(0, size, count)
        ]
        return np.array(rows, np.int64).reshape(-1, 3)

    def read(
        self, shard: int, first: int, count: int, bad: Collection[int] = frozenset()
    ) -> list[bytes]:
        """Payloads of `count` consecutive records, read at once and checked.

        Args:
            shard: number of the file in `paths`.
            first: number of the first record, among the file's that belong to the part.
            count: number of records.
            bad: numbers, counted as `first` is, of records that are passed over: b"" takes the
                place of each, whether it is damaged or not.

        Raises:
            UserError: the file cannot be read.
            DamagedRecordError: a record is damaged.
        """
        content, bounds = self._read_framed(shard, first, count, bad)
        return [
            b"" if first + i in bad else content[begin + HEADER_BYTES : end - FOOTER_BYTES]
            for i, (begin, end) in enumerate(itertools.pairwise(bounds))
        ]

    def read_stored(
        self, shard: int, first: int, count: int, bad: Collection[int] = frozenset()
    ) -> tuple[list[bytes], np.ndarray]:
        """As `read`, for training, which needs no more than image and class: see `example`.

        Returns:
            Where the table of records tells where they are, images and class indices; else whole
            payloads, and -1 for each. The latter (count,) int64.
        """
        if self.places is None:
            return self.read(shard, first, count, bad), np.full([count], -1)
        content, bounds = self._read_framed(shard, first, count, bad)
        places = ShardPlaces(*(column[first : first + count] for column in self.places[shard]))
        begins = places.jpeg_offset - places.offset + bounds[:-1]
        ends = begins + places.jpeg_length
        images = [
            b"" if first + i in bad else content[begin:end]
            for i, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True))
        ]
        return images, places.label.astype(np.int64)

    def example(self, stored: tf.Tensor, class_index: tf.Tensor) -> dict[str, tf.Tensor]:
        """`jpeg` and `class_index` of what `read_stored` gave, in a graph."""
        if self.places is None:
            return self.parse(stored)
        return {"jpeg": stored, "class_index": class_index}

    def _read_framed(
        self, shard: int, first: int, count: int, bad: Collection[int]
    ) -> tuple[bytes, list[int]]:
        """Framed records as `read` reads them, checked, and where each begins and the last ends."""
        # Plain numbers: arithmetic on those of numpy would cost as much as a checksum.
        bounds = self.bounds[shard][first : first + count + 1].tolist()
        start = bounds[0]
        content = self._read_bytes(shard, start, bounds[-1] - start)
        bounds = [bound - start for bound in bounds]
        view = np.frombuffer(content, np.uint8)  # parts of it are no copies
        for number, (begin, end) in enumerate(itertools.pairwise(bounds), first):
            if number not in bad and not _is_whole(content, view, begin, end):
                raise DamagedRecordError(
                    f"{self.where(shard, number)}, is damaged: {self._remedy}",
                    shard,
                    number,
                )
        return content, bounds

    def check(self, shard: int, record: int) -> str | None:
        """Why a record is of no use: it is damaged, has no such class, or its image is broken.

        Returns:
            A sentence that names shard, record, byte offset and source, or None if all is well.

        Raises:
            UserError: the file cannot be read, which says nothing of the record.
        """
        import tensorflow as tf

        try:
            payload = self.read(shard, record, 1)[0]
        except DamagedRecordError:
            return f"{self.where(shard, record)}, is damaged"
        try:
            example = self.parse(tf.constant(payload))
        except tf.errors.OpError as error:
            return f"{self.where(shard, record)}, is of no use: {what_op_says(error)}"
        image = example["jpeg"].numpy()
        if self.fused and not image.startswith(b"\xff\xd8"):
            reason = "is no JPEG"
        else:
            try:
                tf.io.decode_image(image, channels=3, expand_animations=False)
                return None
            except tf.errors.OpError as error:
                reason = f"cannot be decoded: {what_op_says(error)}"
        where = self.where(shard, record)
        name = example["file_name"].numpy().decode("utf-8", "replace")
        called = f" ({name})" if name and name not in where else ""
        return f"{where}{called}, holds an image that {reason}"

    def where(self, shard: int, record: int) -> str:
        """A record's place in words: number, file, byte, and its source where that is known."""
        number = record + (self.first_record if shard == 0 else 0)
        begin = int(self.bounds[shard][record])
        source = self._source(shard, begin)
        made_from = f", made from {source}" if source else ""
        return f"record {number} of shard {self.paths[shard]}, at byte {begin}{made_from}"

    @property
    def _remedy(self) -> str:
        if self.manifest is None:
            return "fetch the file anew"
        return "`python -m preprocessing.verify` finds all such records"

    def _read_bytes(self, shard: int, start: int, length: int) -> bytes:
        path = self.paths[shard]
        try:
            if files.is_remote(path):
                return files.read_range(path, start, length)
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _pread(descriptor, length, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UserError(f"shard {path} cannot be read: {error.strerror or error}") from None

    def _source(self, shard: int, begin: int) -> str | None:
        """Which image a record was made from, by the table of records; None where none tells."""
        if self.manifest is None:
            return None
        from preprocessing.records import load_table

        data_dir, _, name = self.paths[shard].rpartition("/")
        number = [info.name for info in self.manifest.shards].index(name)
        try:
            table = load_table(
                data_dir or ".", self.manifest.split, ["shard", "offset", "key", "source"]
            )
        except UserError:
            return None
        shards, offsets = (table.column(column).to_numpy() for column in ("shard", "offset"))
        rows = np.flatnonzero((shards == number) & (offsets == begin))
        if not len(rows):
            return None
        key, source = (table.column(c)[int(rows[0])].as_py() for c in ("key", "source"))
        return source if source.endswith(key) else f"{key} in {source}"


def what_op_says(error: Exception) -> str:
    """What TensorFlow says, in one line, without the op's name around it."""
    _, is_assertion, data = str(error).partition("Summarized data: ")
    if is_assertion:  # each datum is a line of its own, strings as Python writes bytes
        return " ".join(re.sub(r"^b(['\"])(.*)\1$", r"\2", line) for line in data.splitlines())
    return first_line(error).split("}} ", 1)[-1].split(" [Op:", 1)[0].strip()


def _pread(descriptor: int, length: int, start: int) -> bytes:
    """The bytes from `start` on; fewer only where the file ends. A read may return a part."""
    content = os.pread(descriptor, length, start)
    while len(content) < length:
        more = os.pread(descriptor, length - len(content), start + len(content))
        if not more:
            break
        content += more
    return content


def _is_whole(content: bytes, view: np.ndarray, begin: int, end: int) -> bool:
    """Whether the framed record between two places is all there, and its checksums fit.

    As `preprocessing.tfrecord.payload_of` finds, but without a copy of the payload.
    """
    header, footer = frame([view[begin + HEADER_BYTES : end - FOOTER_BYTES]])
    return (
        content[begin : begin + HEADER_BYTES] == header
        and content[end - FOOTER_BYTES : end] == footer
    )
