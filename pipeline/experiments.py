"""Named experiments: recipes with what they cost, what they reach, and where that is known from."""

from __future__ import annotations

import dataclasses

from common.errors import UsageError
from training.config import DataFlags, ModelFlags, OptimizationFlags, RunFlags

SCRATCH, TF1 = "scratch", "tf1"  # random weights; the TF1 checkpoint of the demo


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One recipe for the whole line.

    Attributes:
        name: what --experiment calls it.
        expectation: hardware, time and accuracy, and how these are known.
        model: which model.
        data: augmentation; the directory is filled in by the run.
        optimization: how it is trained.
        run: how often it saves and evaluates; the directory is filled in by the run.
        num_shards: files that a split is written to.
        init: where it starts by default, as --init of pipeline.run.
    """

    name: str
    expectation: str
    model: ModelFlags
    data: DataFlags
    optimization: OptimizationFlags
    run: RunFlags
    num_shards: int = 8
    init: str = SCRATCH


# Trains from scratch on 2,000 drawn photos in about two minutes. Short runs need quick averages:
# with some 1,500 steps in all, the decays of the published recipes would still remember the start.
# The small epsilon makes RMSProp's steps as large for rarely used weights as for the others.
DEMO_SCRATCH = Experiment(
    name="demo-scratch",
    expectation="2 cores: 3 minutes in all; validation top-1 about 0.97 (own runs, several seeds)",
    model=ModelFlags(
        model_name="mobilenet_v1", width_multiplier=0.25, resolution=96, batch_norm_decay=0.9
    ),
    data=DataFlags(data_dir="", dataset_name="demo", min_crop_area=0.3),
    optimization=OptimizationFlags(
        batch_size=32,
        epochs=24,
        op_epsilon=1e-4,
        lr=0.001,
        lr_decay_rate=0.88,
        lr_decay_epochs=1.0,
        warmup_epochs=1.0,
        ma_decay_rate=0.98,
    ),
    run=RunFlags(model_dir="", eval_every_epochs=2),
)

# The same from TF1 weights, which know other drawn things: it takes fewer epochs, in which the rate
# falls faster.
DEMO = dataclasses.replace(
    DEMO_SCRATCH,
    name="demo",
    expectation="2 cores: 2 minutes in all; validation top-1 about 0.97 (own runs, several seeds)",
    optimization=dataclasses.replace(DEMO_SCRATCH.optimization, epochs=14, lr_decay_rate=0.82),
    run=RunFlags(model_dir=""),
    init=TF1,
)

# How those weights are made, by `make demo-weights`. It is run once, and may take its time.
PRETRAINING = dataclasses.replace(
    DEMO_SCRATCH,
    name="pretraining",
    expectation="2 cores: 4 minutes in all; validation top-1 about 0.96 (own run)",
    data=dataclasses.replace(DEMO_SCRATCH.data, dataset_name="pretraining"),
    optimization=dataclasses.replace(DEMO_SCRATCH.optimization, epochs=40, lr_decay_rate=0.93),
)

# For any folder of class folders, and Imagenette: the recipe of slim's V1 trainer at demonstration
# length (30 epochs), with label smoothing, and averages that suit some thousand steps.
SMALL = Experiment(
    name="small",
    expectation="a few thousand photos, 2 cores: an hour or two; no accuracy published",
    model=ModelFlags(
        model_name="mobilenet_v1", width_multiplier=0.5, resolution=128, batch_norm_decay=0.99
    ),
    data=DataFlags(data_dir="", dataset_name="folders", min_crop_area=0.2),
    optimization=OptimizationFlags(
        batch_size=64,
        epochs=30,
        lr=0.045,
        lr_decay_rate=0.94,
        lr_decay_epochs=1.0,
        warmup_epochs=1.0,
        label_smoothing=0.1,
        ma_decay_rate=0.999,
    ),
    run=RunFlags(model_dir=""),
)

EXPERIMENTS = {
    experiment.name: experiment for experiment in (DEMO, DEMO_SCRATCH, PRETRAINING, SMALL)
}


def find_experiment(name: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UsageError(f"unknown --experiment={name}: there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
