"""Turns of a side that lives in a process of its own; needs the standard library only."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

BATCH = 32
SIZE = 224  # pixels, height and width
THREADS = 2
MIN_AREA, MAX_ASPECT = 0.05, 1.33  # of a random crop
# Batches before the clock starts: more than a side keeps ready while the others have their turn.
_UNCOUNTED = 12


def serve(make_batches: Callable[[str], Iterable[Any]], side: str) -> None:
    """Answers each line of standard input, the number of batches, with seconds for these.

    Args:
        make_batches: endless batches of BATCH images from a directory or data set. A tf.data
            pipeline begins anew in every turn: its buffers grow with every pause, and what they
            hold was made while others were measured.
        side: what a help text calls it.
    """
    parser = argparse.ArgumentParser(description=side)
    parser.add_argument("source")
    batches = make_batches(parser.parse_args().source)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    next(iter(batches))
    print("ready", file=answers)
    for line in sys.stdin:
        turn = iter(batches)  # of a generator: itself
        for _ in range(_UNCOUNTED):
            next(turn)
        print("started", file=answers)
        start = time.perf_counter()
        for _ in range(int(line)):
            next(turn)
        print(time.perf_counter() - start, file=answers)
        del turn


def photo_paths(directory: str) -> list[str]:
    """All files of a tree, sorted."""
    return sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in names
    )


def shuffled_forever(items: list[Any]) -> Iterator[Any]:
    """Items in a new order in every round."""
    import random

    generator = random.Random(0)
    while True:
        yield from generator.sample(items, len(items))
