"""Sides that take turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def take_turns(
    sides: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 0
) -> dict[str, list[float]]:
    """What each side returned, round by round; every other round goes the other way about.

    Args:
        sides: what to call, by name.
        rounds: how often each is called.
        warm_up: rounds before them that do not count.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm_up, rounds):
        for name in sides if number % 2 else reversed(sides):
            value = sides[name]()
            if number >= 0:
                values[name].append(value)
    return values


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """The first over the second, round by round."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and greatest of some values, and all of them."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "all": list(values),
    }
