"""One split of a data set, ready to be read: any run of records, by its place."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os

import numpy as np

from common.errors import UserError
from preprocessing.manifest import Manifest, load_manifest, shard_offsets
from preprocessing.tfrecord import payload_of


@dataclasses.dataclass(frozen=True)
class Shards:
    """The files of a split, and where each record lies in them.

    Attributes:
        paths: the files.
        bounds: for each file the byte offset of each record, and the file's size.
        manifest: what the split is.
    """

    paths: tuple[str, ...]
    bounds: tuple[np.ndarray, ...]
    manifest: Manifest

    @classmethod
    def open(cls, data_dir: str, split: str) -> Shards:
        """Reads manifest and record table.

        Raises:
            UserError: there is no such split, or it is damaged.
        """
        manifest = load_manifest(data_dir, split)
        if manifest.num_examples == 0:
            raise UserError(f"split {split!r} of {data_dir} holds no examples")
        offsets = shard_offsets(data_dir, split)
        return cls(
            paths=tuple(os.path.join(data_dir, shard.name) for shard in manifest.shards),
            bounds=tuple(
                np.append(starts, shard.num_bytes)
                for starts, shard in zip(offsets, manifest.shards, strict=True)
            ),
            manifest=manifest,
        )

    @property
    def num_examples(self) -> int:
        return self.manifest.num_examples

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Records in each file."""
        return [len(bounds) - 1 for bounds in self.bounds]

    @functools.cached_property
    def first_examples(self) -> list[int]:
        """Number of each file's first example, counted through all files."""
        return [0, *itertools.accumulate(self.sizes)]

    def read(self, shard: int, first: int, count: int) -> list[bytes]:
        """Payloads of `count` consecutive records, read at once and checked.

        Raises:
            UserError: the file cannot be read, or a record is damaged.
        """
        path, bounds = self.paths[shard], self.bounds[shard]
        start, stop = int(bounds[first]), int(bounds[first + count])
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(start)
                content = memoryview(file.read(stop - start))
        except OSError as error:
            raise UserError(f"shard {path} cannot be read: {error.strerror}") from None
        payloads = []
        for record in range(first, first + count):
            framed = content[int(bounds[record]) - start : int(bounds[record + 1]) - start]
            payload = payload_of(bytes(framed))
            if payload is None:
                raise UserError(
                    f"record {record} of shard {path}, at byte {int(bounds[record])}, is damaged:"
                    " `python -m preprocessing.verify` finds all such records"
                )
            payloads.append(payload)
        return payloads
