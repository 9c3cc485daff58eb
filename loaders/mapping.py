"""The bijection between a TF1 checkpoint's variables and a model's weights.

Every variable and every weight is matched, or left over for a reason that is written down. Nothing
is loaded by halves: whatever stays unexplained on either side is an error.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Collection, Mapping
from typing import Any

from common.errors import UserError
from loaders.name_map import AVERAGE, reason_to_leave, tf1_name


@dataclasses.dataclass(frozen=True)
class WeightMapping:
    """Which variable fills which weight.

    Attributes:
        raw: variable by weight name, for every weight of the model.
        averages: variable of the moving average by weight name, for those that have one.
        left: reason by name, for the variables that fill no weight.
    """

    raw: dict[str, str]
    averages: dict[str, str]
    left: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def log(self, what: str) -> None:
        """Prints how many variables went where, in a table."""
        rows = [("weights", len(self.raw)), ("moving averages", len(self.averages))]
        rows += [
            (f"left over: {reason}", count)
            for reason, count in sorted(collections.Counter(self.left.values()).items())
        ]
        logging.info("%d variables of %s:", sum(count for _, count in rows), what)
        for name, count in rows:
            if count:
                logging.info("  %5d  %s", count, name)


def match(
    weights: Mapping[str, tuple[int, ...]],
    variables: Mapping[str, tuple[int, ...]],
    scope: str,
    what: str,
    head: Collection[str] = (),
) -> WeightMapping:
    """Matches both sides.

    Args:
        weights: shapes of the model's weights by name.
        variables: shapes of the checkpoint's variables by name.
        scope: the model's TF1 scope.
        what: the checkpoint, for messages.
        head: weights of the head, where the model is built without it.

    Raises:
        UserError: a weight without a variable, a shape that differs, an unexplained variable.
    """
    raw, averages = {}, {}
    for weight, shape in weights.items():
        name = tf1_name(scope, weight)
        if name not in variables:
            raise UserError(f"{what} has no variable {name}, which the model needs")
        raw[weight] = name
        if name + AVERAGE in variables:
            averages[weight] = name + AVERAGE
        for source in (raw[weight], averages.get(weight, name)):
            if tuple(variables[source]) != tuple(shape):
                raise UserError(
                    f"{what} has {source} of shape {_shown(variables[source])}, but the model"
                    f" needs {_shown(shape)}"
                )
    of_head = {tf1_name(scope, weight) for weight in head}
    left = {}
    for name in sorted(set(variables) - set(raw.values()) - set(averages.values())):
        reason = "head" if name.removesuffix(AVERAGE) in of_head else reason_to_leave(name)
        if reason is None:
            raise UserError(f"{what} has a variable {name} that the model has no place for")
        left[name] = reason
    return WeightMapping(raw, averages, left)


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
