"""The order of examples: a pure function of the seed, the epoch and the position.

An epoch's examples are dealt to `num_streams` streams, and position p of the epoch belongs to
stream p mod num_streams. The shards, permuted anew for each epoch, are laid end to end, and every
stream is one contiguous piece of that line, so that a stream reads its files from front to back, a
window of consecutive records at a time. The records of a window are permuted among each other.

Nothing here depends on how many workers, replicas or threads read the streams, and where a run goes
on at position p follows by arithmetic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive records of one shard, read at once and permuted among each other.

    Attributes:
        shard: index of the shard.
        first: index in the shard of the window's first record.
        count: number of records.
        skip: how many, after the permutation, are left out because they were seen already.
    """

    shard: int
    first: int
    count: int
    skip: int = 0


def stream_windows(
    shard_sizes: Sequence[int], num_streams: int, window: int, seed: int, epoch: int, start: int = 0
) -> list[list[Window]]:
    """What each stream reads in `epoch`, in order.

    Args:
        shard_sizes: records in each shard.
        num_streams: how many streams the epoch is dealt to.
        window: most records of a window.
        seed: seed of the run.
        epoch: number of the epoch, from 0.
        start: records at the beginning of every stream that were seen already.

    Returns:
        For each stream its windows. Streams differ by at most one record, and the longer ones come
        first, so that taking one record from each stream in turn uses up all of them.
    """
    shard_order = np.random.default_rng([seed, epoch]).permutation(len(shard_sizes))
    ends = np.cumsum(np.asarray(shard_sizes, np.int64)[shard_order])
    short, longer = divmod(int(ends[-1]), num_streams)
    streams, position = [], 0
    for stream in range(num_streams):
        length = short + (stream < longer)
        windows = _windows_of_line(shard_order, ends, position, position + length, window)
        streams.append(_without_seen(windows, start))
        position += length
    return streams


def window_permutation(seed: int, epoch: int, window: Window) -> np.ndarray:
    """The order in which the records of a window are delivered, those left out included."""
    key = [seed, epoch, window.shard, window.first]
    return np.random.default_rng(key).permutation(window.count)


def _windows_of_line(
    shard_order: np.ndarray, ends: np.ndarray, start: int, stop: int, window: int
) -> list[Window]:
    """Cuts [start, stop) of the line of shards at the shards' boundaries and into windows."""
    windows = []
    place = int(np.searchsorted(ends, start, side="right"))
    while start < stop:
        beginning = int(ends[place - 1]) if place else 0
        end = min(stop, int(ends[place]))
        for first in range(start, end, window):
            count = min(window, end - first)
            windows.append(Window(int(shard_order[place]), first - beginning, count))
        start = end
        place += 1
    return windows


def _without_seen(windows: list[Window], seen: int) -> list[Window]:
    """Drops the windows that were seen whole, and marks what was seen of the next."""
    remaining = []
    for window in windows:
        skip = min(seen, window.count)
        seen -= skip
        if skip < window.count:
            remaining.append(dataclasses.replace(window, skip=skip))
    return remaining
