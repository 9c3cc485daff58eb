"""The records of any stretch of positions, for one worker.

Each stream is read a window at a time, and its newest window is kept until the positions have
passed it; so a record is read once, whatever stretches are asked for one after the other, and the
first stretch of a run that goes on somewhere costs no more than any other.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from common import files
from common.errors import UserError
from training.order import COUNT, FIRST, PLACE, SHARD, Share, stream_windows, window_permutation
from training.randomness import example_keys
from training.shards import Shards

_REMOTE_READS = 16  # at once: a bucket takes tens of milliseconds to answer, and answers many


class Stretch(NamedTuple):
    """What a worker takes of some consecutive positions, n examples in order.

    Attributes:
        examples: (n,) int64 numbers of the examples.
        keys: (n, 2) uint32, from which all random numbers of an example come.
        class_index: (n,) int64, as `Shards.read_stored` gives it.
        stored: (n,) bytes objects, likewise.
    """

    examples: np.ndarray
    keys: np.ndarray
    class_index: np.ndarray
    stored: np.ndarray


class _Window(NamedTuple):
    """Records of an epoch's stream, from place `start` to before `stop`, as they are delivered."""

    epoch: int
    start: int
    stop: int
    examples: np.ndarray
    class_index: np.ndarray
    stored: list[bytes]


class RecordFeed:
    """Reads records by position; safe to use from several threads.

    Args:
        shards: what is read.
        share: what the worker takes.
        num_streams: streams that an epoch is dealt to.
        shuffle_window: most records of a window.
        seed: seed of the run.
        passed_over: numbers of examples whose place a neighbour takes.
    """

    def __init__(
        self,
        shards: Shards,
        share: Share,
        num_streams: int,
        shuffle_window: int,
        seed: int,
        passed_over: frozenset[int] = frozenset(),
    ):
        self._shards, self._share, self._seed = shards, share, seed
        self._num_streams, self._shuffle_window = num_streams, shuffle_window
        self._passed_over = passed_over
        self._tables: dict[int, list[np.ndarray]] = {}
        self._windows: dict[int, _Window] = {}
        self._lock = threading.Lock()
        remote = files.is_remote(shards.paths[0])
        self._pool = ThreadPoolExecutor(_REMOTE_READS) if remote else None

    def read(self, first: int, count: int) -> Stretch:
        """What the worker takes of `count` global positions from `first` on.

        Raises:
            UserError: a file cannot be read.
            DamagedRecordError: a record is damaged.
        """
        positions = np.arange(first, first + count)
        positions = positions[self._share.takes(positions)]
        epochs, in_epoch = np.divmod(positions, self._shards.num_examples)
        places, streams = np.divmod(in_epoch, self._num_streams)
        wanted = list(zip(epochs.tolist(), streams.tolist(), places.tolist(), strict=True))
        examples = np.empty([len(wanted)], np.int64)
        class_index = np.empty([len(wanted)], np.int64)
        stored = np.empty([len(wanted)], object)
        with self._lock:
            self._plan(np.unique(epochs).tolist())
            if self._pool:
                missing = {row[:2]: row for row in reversed(wanted) if not self._is_kept(*row)}
                list(self._pool.map(lambda row: self._find(*row), missing.values()))
            for i, (epoch, stream, place) in enumerate(wanted):
                window = self._find(epoch, stream, place)
                examples[i] = window.examples[place - window.start]
                class_index[i] = window.class_index[place - window.start]
                stored[i] = window.stored[place - window.start]
        keys = np.empty([len(wanted), 2], np.uint32)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            keys[here] = example_keys(self._seed, epoch, examples[here])
        return Stretch(examples, keys, class_index, stored)

    def _is_kept(self, epoch: int, stream: int, place: int) -> bool:
        window = self._windows.get(stream)
        return bool(window) and window.epoch == epoch and window.start <= place < window.stop

    def _find(self, epoch: int, stream: int, place: int) -> _Window:
        """The stream's window that holds a place; it is read unless it is the newest one."""
        if not self._is_kept(epoch, stream, place):
            table = self._tables[epoch][stream]
            row = table[np.searchsorted(table[:, PLACE], place, side="right") - 1]
            self._windows[stream] = self._read_window(epoch, row)
        return self._windows[stream]

    def _plan(self, epochs: list[int]) -> None:
        """Works out the windows of the streams in these epochs, and forgets those of others."""
        self._tables = {
            epoch: self._tables.get(epoch)
            or stream_windows(
                self._shards.sizes, self._num_streams, self._shuffle_window, self._seed, epoch
            )
            for epoch in epochs
        }

    def _read_window(self, epoch: int, window: np.ndarray) -> _Window:
        shard, first, count, start = (int(window[c]) for c in (SHARD, FIRST, COUNT, PLACE))
        records = range(first, first + count)
        indices = [self._whole(index, shard) for index in records]
        stored, class_index = self._shards.read_stored(
            shard, first, count, set(records) - set(indices)
        )
        for place, (record, index) in enumerate(zip(records, indices, strict=True)):
            if record != index:
                (stored[place],), (class_index[place],) = self._shards.read_stored(shard, index, 1)
        order = window_permutation(self._seed, epoch, window)
        return _Window(
            epoch,
            start,
            start + count,
            (np.array(indices, np.int64) + self._shards.first_examples[shard])[order],
            class_index[order],
            [stored[i] for i in order.tolist()],
        )

    def _whole(self, index: int, shard: int) -> int:
        """The record itself, or the next in its shard that is not passed over."""
        if not self._passed_over:
            return index
        size, first = self._shards.sizes[shard], self._shards.first_examples[shard]
        others = (i % size for i in range(index, index + size))
        whole = next((i for i in others if first + i not in self._passed_over), None)
        if whole is None:
            raise UserError(f"all records of shard {self._shards.paths[shard]} are damaged")
        return whole
