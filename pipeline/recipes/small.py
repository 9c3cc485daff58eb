"""Recipes for a few thousand photos: the drawn ones, Imagenette, any class folders, fine-tuning."""

from __future__ import annotations

import dataclasses

from pipeline.recipes.experiment import CHECKPOINT, NOT_KNOWN, TF1, Experiment, make_recipe
from training.config import (
    AugmentationFlags,
    DataFlags,
    ModelFlags,
    OptimizationFlags,
    RunFlags,
)

# Trains from scratch on 2,000 drawn photos in about two minutes. Short runs need quick averages:
# with some 1,500 steps in all, the decays of the published recipes would still remember the start.
# The small epsilon makes RMSProp's steps as large for rarely used weights as for the others.
DEMO_SCRATCH = Experiment(
    name="demo-scratch",
    command="make run INIT=scratch",
    hardware="2 cores",
    time="3 minutes in all",
    accuracy="about .97",
    source="own runs, several seeds",
    recipe=make_recipe(
        ModelFlags(
            model_name="mobilenet_v1", width_multiplier=0.25, resolution=96, batch_norm_decay=0.9
        ),
        OptimizationFlags(
            batch_size=32,
            epochs=24,
            op_epsilon=1e-4,
            lr=0.001,
            lr_decay_rate=0.88,
            lr_decay_epochs=1.0,
            warmup_epochs=1.0,
            ma_decay_rate=0.98,
        ),
        augmentation=AugmentationFlags(min_crop_area=0.3),
        run=RunFlags(model_dir="", eval_every_epochs=2),
    ),
)

# The same from TF1 weights, which know other drawn things: it takes fewer epochs, in which the rate
# falls faster.
DEMO = dataclasses.replace(
    DEMO_SCRATCH,
    name="demo",
    command="make run",
    time="2 minutes in all",
    recipe=dataclasses.replace(
        DEMO_SCRATCH.recipe,
        optimization=dataclasses.replace(
            DEMO_SCRATCH.recipe.optimization, epochs=14, lr_decay_rate=0.82
        ),
        run=RunFlags(model_dir=""),
    ),
    init=TF1,
)

# How those weights are made. It is run once, and may take its time.
PRETRAINING = dataclasses.replace(
    DEMO_SCRATCH,
    name="pretraining",
    command="make demo-weights",
    time="4 minutes in all",
    accuracy="about .96",
    source="own run",
    recipe=dataclasses.replace(
        DEMO_SCRATCH.recipe,
        optimization=dataclasses.replace(
            DEMO_SCRATCH.recipe.optimization, epochs=40, lr_decay_rate=0.93
        ),
    ),
)

# For any folder of class folders: the recipe of slim's V1 trainer at demonstration length (30
# epochs), with label smoothing, and averages that suit some thousand steps.
SMALL = Experiment(
    name="small",
    command="make run DATASET=/path/to/photos",
    hardware="2 cores",
    time="an hour or two for a few thousand photos",
    accuracy=NOT_KNOWN,
    source="own estimate of the time",
    recipe=make_recipe(
        ModelFlags(
            model_name="mobilenet_v1", width_multiplier=0.5, resolution=128, batch_norm_decay=0.99
        ),
        OptimizationFlags(
            batch_size=64,
            epochs=30,
            lr=0.045,
            lr_decay_rate=0.94,
            lr_decay_epochs=1.0,
            warmup_epochs=1.0,
            label_smoothing=0.1,
            ma_decay_rate=0.999,
        ),
        augmentation=AugmentationFlags(min_crop_area=0.2),
    ),
)

# 9,469 photos in ten classes of ImageNet's, without pretraining: more epochs, a rate that ends at
# zero, and momentum, whose steps do not hang on how rarely a weight is used.
IMAGENETTE = Experiment(
    name="imagenette",
    command="make run DATASET=imagenette",
    hardware="2 cores",
    time="about an hour and a half",
    accuracy="not measured",
    source="time derived from a step of V1 at 128 pixels on 2 cores; never run to its end",
    recipe=make_recipe(
        ModelFlags(
            model_name="mobilenet_v1", width_multiplier=0.5, resolution=128, batch_norm_decay=0.99
        ),
        OptimizationFlags(
            batch_size=64,
            epochs=60,
            optimizer_name="momentum",
            learning_scheduler_name="cosine",
            lr=0.05,
            warmup_epochs=3.0,
            label_smoothing=0.1,
            ma_decay_rate=0.998,
        ),
        data=DataFlags(data_dir="", train_split="train[:95%]", eval_split="train[95%:]"),
        augmentation=AugmentationFlags(min_crop_area=0.25),
    ),
)

# All weights are trained, none is frozen, at a low rate that falls to zero. Batch norm's statistics
# and the averages must forget the old data within some hundred steps.
FINE_TUNE = Experiment(
    name="fine-tune",
    command="make fine-tune DATA=SHARDS INIT=CHECKPOINT FLAGS=--model_name=mobilenet_v2",
    hardware="any",
    time="10 epochs of your photos",
    accuracy="depends on the photos",
    source="own choice of settings; measure it on your own held-out photos",
    recipe=make_recipe(
        ModelFlags(model_name="mobilenet_v1", batch_norm_decay=0.99),
        OptimizationFlags(
            batch_size=32,
            epochs=10,
            optimizer_name="momentum",
            learning_scheduler_name="cosine",
            lr=0.005,
            warmup_epochs=0.5,
            label_smoothing=0.1,
            ma_decay_rate=0.99,
        ),
        augmentation=AugmentationFlags(min_crop_area=0.3),
        run=RunFlags(model_dir="", checkpoint_every_steps=200),
    ),
    init=CHECKPOINT,
)

EXPERIMENTS = (DEMO, DEMO_SCRATCH, PRETRAINING, SMALL, IMAGENETTE, FINE_TUNE)
