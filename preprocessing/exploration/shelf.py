"""Entries for pictures of all splits: a caption, a key, a thumbnail where one is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from preprocessing.exploration.numbers import Classes
from preprocessing.exploration.odd import Place
from preprocessing.exploration.pictures import Pictures
from preprocessing.exploration.rows import Split, read_keys


@dataclasses.dataclass(frozen=True)
class SampleLook:
    """What a sample of a split looks like.

    Attributes:
        split: its name.
        seen: how many pictures were looked at.
        grey: those that have no colour.
        color: mean red, green and blue, 0 to 255.
    """

    split: str
    seen: int
    grey: list[Place]
    color: tuple[int, int, int]


class Shelf:
    """The pictures of some splits.

    Keys stand in the tables only, and are read in one pass over each: entries have theirs from
    `fill_keys` on.
    """

    def __init__(self, data_dir: str, splits: Sequence[Split], classes: Classes):
        self._data_dir = data_dir
        self._splits = {split.name: split for split in splits}
        self._pictures = {split.name: Pictures(data_dir, split) for split in splits}
        self._classes = classes
        self._unnamed: list[tuple[Place, dict[str, Any]]] = []

    def entry(self, place: Place) -> dict[str, Any]:
        """An entry for a row, whether it is stored or rejected."""
        split, row = place
        rows = self._splits[split].rows
        at = self._classes.positions[split][rows.label[row]]
        entry = {
            "split": split,
            "class": self._classes.texts[at],
            "width": int(rows.width[row]),
            "height": int(rows.height[row]),
            "bytes": int(rows.jpeg_length[row]),
        }
        self._unnamed.append((place, entry))
        return entry

    def shown(self, places: Sequence[Place], *, square: bool = False) -> list[dict[str, Any]]:
        """Entries with a `picture`; see `Pictures.thumbnails`."""
        rows: dict[str, list[int]] = {name: [] for name in self._splits}
        for split, row in places:
            rows[split].append(row)
        drawn = {
            split: iter(self._pictures[split].thumbnails(wanted, square=square))
            for split, wanted in rows.items()
        }
        entries = [self.entry(place) for place in places]
        for (split, _), entry in zip(places, entries, strict=True):
            entry["picture"] = next(drawn[split])
        return entries

    def looks(self, number: int) -> list[SampleLook]:
        """Looks at up to `number` pictures of each split."""
        found = []
        for name, pictures in self._pictures.items():
            rows = _sample(self._splits[name], number)
            looks = zip(rows, pictures.looks(rows), strict=True)
            seen = [(row, look) for row, look in looks if look is not None]
            if seen:
                color = np.mean([look.mean for _, look in seen], axis=0).round().astype(int)
                grey = [(name, row) for row, look in seen if look.grey]
                found.append(SampleLook(name, len(seen), grey, tuple(color.tolist())))
        return found

    def fill_keys(self) -> None:
        """Gives every entry its `key`."""
        for name in self._splits:
            mine = [(row, entry) for (split, row), entry in self._unnamed if split == name]
            keys = read_keys(self._data_dir, name, [row for row, _ in mine])
            for row, entry in mine:
                entry["key"] = keys[row]
        self._unnamed.clear()


def _sample(split: Split, number: int) -> list[int]:
    """Rows taken evenly from the table, whose order is that of a hash."""
    rows = np.flatnonzero(split.rows.stored)
    return rows[np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(int)].tolist()
