"""Pictures of equal bytes: within a split, between splits, and under different classes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Within:
    """Repeated contents of one split.

    Attributes:
        contents: how many occur more than once.
        spare: pictures that could go if each content stayed once.
        mixed: how many occur under more than one class.
    """

    contents: int
    spare: int
    mixed: int


@dataclasses.dataclass(frozen=True)
class Between:
    """Contents that two splits share.

    Attributes:
        first: one split.
        second: the other.
        contents: how many they share.
        in_first: pictures of the first with such a content.
        in_second: pictures of the second with such a content.
        mixed: how many of the contents are not under one and the same class.
    """

    first: str
    second: str
    contents: int
    in_first: int
    in_second: int
    mixed: int


@dataclasses.dataclass(frozen=True)
class Group:
    """The pictures of one content: (split number, position in it) of some, and their number."""

    members: list[tuple[int, int]]
    size: int
    mixed: bool
    across: bool


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """All of it; `groups` holds some contents, those under several classes first."""

    within: dict[str, Within]
    between: list[Between]
    groups: list[Group]
    num_groups: int


def find_duplicates(
    names: Sequence[str],
    contents: Sequence[np.ndarray],
    classes: Sequence[np.ndarray],
    *,
    most_groups: int,
    most_members: int,
) -> Duplicates:
    """Finds equal contents.

    Args:
        names: of the splits.
        contents: of each split's pictures, as numbers; 0 equals nothing.
        classes: of each split's pictures, numbered alike in all splits.
        most_groups: how many contents to give as examples.
        most_members: how many pictures to give of each.
    """
    split = np.concatenate([np.full(len(c), n, np.int16) for n, c in enumerate(contents)])
    position = np.concatenate([np.arange(len(c)) for c in contents])
    label = np.concatenate(classes)
    chosen, group = _repeated(np.concatenate(contents))
    split, position, label = split[chosen], position[chosen], label[chosen]
    table = _Table(group, split, label, len(names))
    return Duplicates(
        within={name: table.within(number) for number, name in enumerate(names)},
        between=[
            table.between(first, second, names)
            for first, second in itertools.combinations(range(len(names)), 2)
        ],
        groups=[
            table.group(number, split, position, most_members)
            for number in table.ranked()[:most_groups].tolist()
        ],
        num_groups=len(table.sizes),
    )


def _repeated(contents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions whose content occurs more than once, equal ones together; and group numbers."""
    order = np.argsort(contents, kind="stable")
    ordered = contents[order]
    is_new = np.ones(len(order), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    group = np.cumsum(is_new) - 1
    repeated = (np.bincount(group, minlength=1)[group] > 1) & (ordered != 0)
    _, numbers = np.unique(group[repeated], return_inverse=True)
    return order[repeated], numbers


class _Table:
    """Counts and ranges of classes by group and split; members of a group lie together."""

    def __init__(self, group: np.ndarray, split: np.ndarray, label: np.ndarray, num_splits: int):
        self.starts = np.flatnonzero(np.diff(group, prepend=-1))
        shape = (len(self.starts), num_splits)
        self.counts = np.zeros(shape, np.int64)
        self.lowest = np.full(shape, np.iinfo(np.int64).max)
        self.highest = np.full(shape, -1, np.int64)
        np.add.at(self.counts, (group, split), 1)
        np.minimum.at(self.lowest, (group, split), label)
        np.maximum.at(self.highest, (group, split), label)
        self.sizes = self.counts.sum(axis=1)
        self.mixed = self.lowest.min(axis=1, initial=np.iinfo(np.int64).max) < self.highest.max(
            axis=1, initial=-1
        )
        self.across = np.count_nonzero(self.counts, axis=1) > 1

    def within(self, split: int) -> Within:
        counts = self.counts[:, split]
        many = counts > 1
        mixed = many & (self.lowest[:, split] < self.highest[:, split])
        return Within(int(many.sum()), int((counts[many] - 1).sum()), int(mixed.sum()))

    def between(self, first: int, second: int, names: Sequence[str]) -> Between:
        pair = [first, second]
        shared = (self.counts[:, pair] > 0).all(axis=1)
        lowest, highest = self.lowest[:, pair].min(axis=1), self.highest[:, pair].max(axis=1)
        return Between(
            names[first],
            names[second],
            int(shared.sum()),
            int(self.counts[shared, first].sum()),
            int(self.counts[shared, second].sum()),
            int((shared & (lowest < highest)).sum()),
        )

    def group(self, number: int, split: np.ndarray, position: np.ndarray, most: int) -> Group:
        start, size = int(self.starts[number]), int(self.sizes[number])
        some = slice(start, start + min(size, most))
        members = list(zip(split[some].tolist(), position[some].tolist(), strict=True))
        return Group(members, size, bool(self.mixed[number]), bool(self.across[number]))

    def ranked(self) -> np.ndarray:
        """Group numbers: several classes first, then several splits, then the largest."""
        return np.lexsort((self.starts, -self.sizes, ~self.across, ~self.mixed))
