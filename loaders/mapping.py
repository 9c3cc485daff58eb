"""The bijection between a TF1 checkpoint's variables and a model's weights.

Every variable and every weight is matched, or left over for a reason that is written down. Nothing
is loaded by halves: whatever stays unexplained on either side is an error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
from loaders.name_map import AVERAGE, reason_to_leave, tf1_name


@dataclasses.dataclass(frozen=True)
class WeightMapping:
    """Which variable fills which weight.

    Attributes:
        sources: checkpoint variable by weight name.
        left: reason by name, for the variables that fill no weight.
    """

    sources: dict[str, str]
    left: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"sources": self.sources, "left": self.left}


def match(
    weights: Mapping[str, tuple[int, ...]],
    variables: Mapping[str, tuple[int, ...]],
    scope: str,
    which: str,
    what: str,
) -> WeightMapping:
    """Matches both sides.

    Args:
        weights: shapes of the model's weights by name.
        variables: shapes of the checkpoint's variables by name.
        scope: the model's TF1 scope.
        which: 'averages' (an average where there is one, else the variable itself) or 'raw'.
        what: the checkpoint, for messages.

    Raises:
        UserError: a weight without a variable, a shape that differs, an unexplained variable.
    """
    sources, left = {}, {}
    for weight, shape in weights.items():
        raw = tf1_name(scope, weight)
        average = raw + AVERAGE
        source = average if which == "averages" and average in variables else raw
        if source not in variables:
            raise UserError(f"{what} has no variable {raw}, which the model needs")
        if tuple(variables[source]) != tuple(shape):
            raise UserError(
                f"{what} has {source} of shape {_shown(variables[source])}, but the model needs"
                f" {_shown(shape)}"
            )
        sources[weight] = source
        if (other := average if source == raw else raw) in variables:
            left[other] = f"not asked for: weights are {which}"
    for name in sorted(set(variables) - set(sources.values()) - set(left)):
        reason = reason_to_leave(name)
        if reason is None:
            raise UserError(f"{what} has a variable {name} that the model has no place for")
        left[name] = reason
    return WeightMapping(sources, left)


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
