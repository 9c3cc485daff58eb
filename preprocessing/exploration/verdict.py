"""One line on each split: what its team should look at before training on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from preprocessing.exploration.duplicates import Between, Within
from preprocessing.manifest import Manifest

GOOD, LOOK, BAD = "good", "look", "bad"

# Up to here classes count as balanced, and shards as even.
_BALANCED_RATIO = 3.0
_EVEN_SPREAD = 0.25


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A judgement and its reasons: `GOOD` to use, `LOOK` at something, or `BAD` in a way."""

    level: str
    line: str


def judge(
    manifest: Manifest,
    balance: dict[str, Any],
    within: Within,
    between: Sequence[Between],
    shards: dict[str, Any],
    faults: Sequence[str],
) -> Verdict:
    """Judges a split.

    Args:
        manifest: of the split.
        balance: see `numbers.balance`.
        within: its repeated pictures.
        between: what it shares with the splits before it.
        shards: see `numbers.shards`.
        faults: what is wrong with the files of the shards.
    """
    bad, look, good = [], [], []
    bad += faults[:1]
    if within.mixed:
        bad.append(
            f"{_number(within.mixed, 'picture')} filed under more than one class: one label or"
            " the other is wrong"
        )
    bad += [
        f"{_number(pair.in_second, 'picture')} also in {pair.first}"
        for pair in between
        if pair.contents
    ]
    if balance["missing"]:
        num_classes = f"{len(manifest.classes):,}"
        look.append(f"{balance['missing']:,} of {num_classes} classes have no picture")
    rejected = sum(manifest.rejected.values())
    if rejected:
        share = f"{100 * rejected / manifest.num_listed:.2g} %"
        look.append(f"{_number(rejected, 'file')} of {manifest.num_listed:,} rejected ({share})")
    else:
        good.append("every listed file is in the shards")
    if within.spare:
        look.append(f"{_number(within.spare, 'picture')} stored a second time")
    elif not within.contents:
        good.append("no picture is stored twice")
    if balance["ratio"] and balance["ratio"] > _BALANCED_RATIO:
        ratio = f"{balance['ratio']:,.3g}"
        look.append(f"the most frequent class has {ratio} times the pictures of the least frequent")
    elif not balance["missing"]:
        good.append("the classes are balanced")
    if shards["spread"] > _EVEN_SPREAD:
        look.append(f"the largest shard is {100 * shards['spread']:.0f} % above the mean")
    level = BAD if bad else LOOK if look else GOOD
    return Verdict(level, " ".join(_sentence(parts) for parts in (bad + look, good) if parts))


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _sentence(parts: Sequence[str]) -> str:
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
