"""The order of examples: a pure function of the seed, the epoch and the position.

An epoch's examples are dealt to `num_streams` streams, and position p of the epoch belongs to
stream p mod num_streams. The shards, permuted anew for each epoch, are laid end to end, and every
stream is one contiguous piece of that line, so that a stream reads its files from front to back, a
window of consecutive records at a time. The records of a window are permuted among each other.

A global batch is so many consecutive positions. Workers share it in pairs of neighbours, dealt in
turn, so that which examples it holds, and which two are neighbours, does not depend on how many
workers, replicas or threads there are; and where a run goes on at position p follows by arithmetic.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 2  # examples that stay together on one replica, to be mixed with each other
STRETCH = 64  # positions, for each worker, whose records are handed on at once


@dataclasses.dataclass(frozen=True)
class Share:
    """What one worker takes of the global batches from position `start` on.

    Attributes:
        start: global position of the first example.
        worker: number of the worker, from 0.
        num_workers: how many share each batch.
    """

    start: int = 0
    worker: int = 0
    num_workers: int = 1

    def takes(self, positions: np.ndarray) -> np.ndarray:
        """Whether the worker takes the examples at these global positions, (n,) bool."""
        since = positions - self.start
        return (since >= 0) & (since // NEIGHBOURS % self.num_workers == self.worker)


# Columns of the table that `stream_windows` gives for a stream.
SHARD, FIRST, COUNT, PLACE = range(4)


def stream_windows(
    shard_sizes: Sequence[int], num_streams: int, window: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """What each stream reads in `epoch`, in order.

    Args:
        shard_sizes: records in each shard.
        num_streams: how many streams the epoch is dealt to.
        window: most records of a window.
        seed: seed of the run.
        epoch: number of the epoch, from 0.

    Returns:
        For each stream a table of its windows, consecutive records of one shard each, as (windows,
        4) int64: the shard, the index in it of the window's first record, the number of records,
        and the place in the stream of the first of them. Streams differ by at most one record, and
        the longer ones come first, so that taking one record from each stream in turn uses up all.
    """
    shard_order = np.random.default_rng([seed, epoch]).permutation(len(shard_sizes))
    ends = np.cumsum(np.asarray(shard_sizes, np.int64)[shard_order])
    short, longer = divmod(int(ends[-1]), num_streams)
    lengths = short + (np.arange(num_streams) < longer)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    return [
        _windows_of_line(shard_order, ends, int(start), int(stop), window)
        for start, stop in itertools.pairwise(edges)
    ]


def window_permutation(seed: int, epoch: int, window: np.ndarray) -> np.ndarray:
    """The order in which the records of a window are delivered, as (count,) int64 indices."""
    key = [seed, epoch, int(window[SHARD]), int(window[FIRST])]
    return np.random.default_rng(key).permutation(int(window[COUNT]))


def epoch_order(
    shard_sizes: Sequence[int], num_streams: int, window: int, seed: int, epoch: int
) -> np.ndarray:
    """The number of the example at each position of an epoch, (examples,) int64.

    Examples are counted through all shards. The input pipeline never needs the whole order; this is
    for whoever wants to know what came, or comes, when.
    """
    first_examples = np.concatenate([[0], np.cumsum(shard_sizes)])
    order = np.empty([int(first_examples[-1])], np.int64)
    streams = stream_windows(shard_sizes, num_streams, window, seed, epoch)
    for stream, windows in enumerate(streams):
        for row in windows:
            examples = (
                first_examples[row[SHARD]] + row[FIRST] + window_permutation(seed, epoch, row)
            )
            places = row[PLACE] + np.arange(row[COUNT])
            order[stream + places * num_streams] = examples
    return order


def _windows_of_line(
    shard_order: np.ndarray, ends: np.ndarray, start: int, stop: int, window: int
) -> np.ndarray:
    """Cuts [start, stop) of the line of shards at the shards' boundaries and into windows."""
    tables = [np.zeros([0, 4], np.int64)]
    line = start
    place = int(np.searchsorted(ends, line, side="right"))
    while line < stop:
        beginning = int(ends[place - 1]) if place else 0
        end = min(stop, int(ends[place]))
        firsts = np.arange(line, end, window, dtype=np.int64)
        table = np.empty([len(firsts), 4], np.int64)
        table[:, SHARD] = shard_order[place]
        table[:, FIRST] = firsts - beginning
        table[:, COUNT] = np.minimum(window, end - firsts)
        table[:, PLACE] = firsts - start
        tables.append(table)
        line = end
        place += 1
    return np.concatenate(tables)
