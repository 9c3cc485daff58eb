"""Short runs: their flags, and what they left."""

import dataclasses
import json
import logging
import pathlib

import numpy as np
import tensorflow as tf

from training.config import (
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    RunFlags,
)
from training.train import train

MODEL = ModelFlags(width_multiplier=0.25, resolution=32, dropout_rate=0.1)
OPTIMIZATION = OptimizationFlags(
    batch_size=12, epochs=5, optimizer_name="momentum", lr=0.02, ma_decay_rate=0.9
)
NUM_STEPS = 17  # 5 epochs of 40 examples in batches of 12


def flags_of(data_dir, model_dir, **changes):
    """The six groups of flags of a short run; `changes` by group, as dictionaries."""
    groups = {
        "model": MODEL,
        "data": DataFlags(str(data_dir), eval_split="train"),
        "augmentation": AugmentationFlags(),
        "optimization": OPTIMIZATION,
        "distribution": DistributionFlags(),
        "run": RunFlags(str(model_dir), checkpoint_every_steps=2, steps_per_call=3),
    }
    unknown = changes.keys() - groups.keys()
    assert not unknown, unknown
    return tuple(
        dataclasses.replace(group, **changes.get(name, {})) for name, group in groups.items()
    )


def log_of(caplog, flags) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        train(*flags)
    return "\n".join(record.getMessage() for record in caplog.records)


def history_of(model_dir) -> dict:
    return json.loads(pathlib.Path(model_dir, "history.json").read_text())


def variables_of(prefix: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(prefix)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.endswith("VARIABLE_VALUE") and name.split("/", 1)[0] != "save_counter"
    }
