"""Which pictures of a data set are worth a look: the extreme ones, and those that were changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from preprocessing import images
from preprocessing.exploration.numbers import evenly, measures
from preprocessing.exploration.rows import Split

# A picture: the name of its split, and its row.
Place = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class Oddity:
    """A few pictures that stand out in one way, and the way."""

    title: str
    note: str
    places: list[Place]


def extremes(splits: Sequence[Split], number: int) -> list[Oddity]:
    """The outermost pictures by size, shape and compression; none where all are alike."""
    stored = {split.name: np.flatnonzero(split.rows.stored) for split in splits}
    measured = {split.name: measures(split.rows) for split in splits}
    columns = {
        "megapixels": _joined(measured, "megapixels"),
        "aspect": _joined(measured, "aspect"),
        "density": _joined(measured, "bytes") / (1e6 * _joined(measured, "megapixels")),
    }
    found = []
    for column, sign, title, note in (
        ("megapixels", -1, "Largest", "most pixels"),
        ("megapixels", 1, "Smallest", "fewest pixels"),
        ("aspect", -1, "Widest", "a square crop keeps little of them"),
        ("aspect", 1, "Tallest", "a square crop keeps little of them"),
        ("density", 1, "Emptiest", "fewest bytes a pixel: often plain or blurred"),
    ):
        values = columns[column]
        if values.min() < values.max():
            order = np.argsort(sign * values, kind="stable")[:number]
            found.append(Oddity(title, note, [_place(stored, at) for at in order.tolist()]))
    return found


def changed(splits: Sequence[Split], number: int) -> list[Oddity]:
    """Pictures that are not in the shards as they were found."""
    found = []
    for action, title, note in (
        (images.REPAIRED, "Repaired", "encoded anew, as they are now"),
        (images.RESIZED, "Resized", "made smaller, as they are now"),
    ):
        places = [
            (split.name, row)
            for split in splits
            for row in evenly(np.flatnonzero(_met(split, action)), number).tolist()
        ]
        if places:
            found.append(Oddity(title, note, places[:number]))
    return found


def _met(split: Split, action: str) -> np.ndarray:
    codes = [code for code, (what, _) in enumerate(split.rows.outcomes) if what == action]
    return np.isin(split.rows.outcome, codes)


def _joined(measured: Mapping[str, Mapping[str, np.ndarray]], column: str) -> np.ndarray:
    return np.concatenate([values[column] for values in measured.values()])


def _place(stored: Mapping[str, np.ndarray], at: int) -> Place:
    """The picture at a position of the arrays that all splits share."""
    for name, rows in stored.items():
        if at < len(rows):
            return name, int(rows[at])
        at -= len(rows)
    raise IndexError(at)
