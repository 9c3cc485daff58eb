"""Trains by a named recipe: `python -m pipeline.train_recipe --recipe=NAME`.

All flags of `training.train` change the recipe.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from common import command
from common.command import flag
from common.errors import UsageError
from pipeline.experiments import EXPERIMENTS, SCRATCH, find_experiment, training_flags
from training.config import FLAG_GROUPS, Recipe


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """Which recipe."""

    recipe: str = flag(help=f"its name: {', '.join(EXPERIMENTS)}")


def train_by_recipe(config: RecipeConfig, *groups: Any) -> int | None:
    """Trains on shards by a named recipe, which the flags of training.train change.

    Defaults below are those of training.train; the recipe's own settings take their place.
    """
    experiment = find_experiment(config.recipe)
    if experiment.init != SCRATCH and not Recipe(*groups).run.init_checkpoint:
        raise UsageError(
            f"--recipe={config.recipe} starts from a TF1 or TF2 checkpoint: name it by"
            " --init_checkpoint"
        )
    from training.train import train

    return train(*groups)


def with_recipe(argv: Sequence[str]) -> list[str]:
    """The command line with the recipe's flags in front, so that those that are given win."""
    name = ""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        flag_name, equals, value = word.partition("=")
        if flag_name in ("--recipe", "-recipe"):  # the last one counts, as for all flags
            name = value if equals else following
    if name not in EXPERIMENTS:
        return list(argv)  # that there is none, or an unknown one, is told when it is parsed
    return [argv[0], *training_flags(EXPERIMENTS[name]), *argv[1:]]


if __name__ == "__main__":
    command.run(train_by_recipe, RecipeConfig, *FLAG_GROUPS, argv=with_recipe(sys.argv))
