"""What a named experiment is: a recipe, what it costs, what it reaches, and who says so."""

from __future__ import annotations

import dataclasses
from typing import Any

from training.config import (
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    Recipe,
    RunFlags,
)

SCRATCH, TF1 = "scratch", "tf1"  # random weights; the TF1 checkpoint of the demo
CHECKPOINT = ""  # one that --init must name

NOT_KNOWN = "not known"
_IMAGENET_TRAIN_EXAMPLES = 1_281_167

# What is chosen while training (the best checkpoint, when to end) is chosen on photos held out of
# `train`; the stage `evaluate` counts `validation` once, at the end.
IMAGENET = DataFlags(data_dir="", train_split="train[:99%]", eval_split="train[99%:]")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One recipe for the whole line.

    Attributes:
        name: what --experiment and --recipe call it.
        command: what to type.
        hardware: what time and accuracy are told for.
        time: how long it takes there.
        accuracy: top-1 of all validation images.
        source: where time and accuracy are known from (published, own run, derived, not known),
            and where this recipe departs from the published one.
        recipe: all flags of training; the directories are filled in by the run.
        num_shards: files that the training split is written to.
        num_validation_shards: files that the validation split is written to.
        init: where it starts by default, as --init of pipeline.run.
    """

    name: str
    command: str
    hardware: str
    time: str
    accuracy: str
    source: str
    recipe: Recipe
    num_shards: int = 8
    num_validation_shards: int = 8
    init: str = SCRATCH

    @property
    def expectation(self) -> str:
        """Cost and accuracy in a line."""
        return f"{self.hardware}: {self.time}; top-1 {self.accuracy} ({self.source})"


def make_recipe(
    model: ModelFlags,
    optimization: OptimizationFlags,
    *,
    data: DataFlags | None = None,
    augmentation: AugmentationFlags | None = None,
    run: RunFlags | None = None,
) -> Recipe:
    """A recipe for any devices; groups that are not given have their defaults."""
    return Recipe(
        model=model,
        data=data or DataFlags(data_dir=""),
        augmentation=augmentation or AugmentationFlags(),
        optimization=optimization,
        distribution=DistributionFlags(),
        run=run or RunFlags(model_dir=""),
    )


def on_imagenet(name: str, recipe: Recipe, **told: Any) -> Experiment:
    """An experiment on ImageNet, with a part of `train` held out for choices."""
    return Experiment(
        name=name,
        command="python -m pipeline.run --dataset=IMAGENET --work_dir=runs/imagenet"
        f" --experiment={name}",
        recipe=dataclasses.replace(recipe, data=IMAGENET),
        num_shards=1024,
        num_validation_shards=128,
        **told,
    )


def hours_at(images_per_second: float, epochs: int) -> str:
    """How long ImageNet's training takes at a step rate, in hours."""
    seconds = epochs * _IMAGENET_TRAIN_EXAMPLES / images_per_second
    return f"{seconds / 3600:.0f} h"
