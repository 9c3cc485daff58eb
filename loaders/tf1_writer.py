"""Writes weights as a TF1 checkpoint, for toolchains that read slim's names."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from common.files import write_text
from loaders.loaders import StoredWeights
from loaders.name_map import AVERAGE, tf1_name

GLOBAL_STEP = "global_step"


def tf1_variables(scope: str, stored: StoredWeights) -> dict[str, np.ndarray]:
    """Weights by their TF1 names, averages beside them, and the step."""
    variables = {tf1_name(scope, name): value for name, value in stored.raw.items()}
    for name, value in stored.averages.items():
        variables[tf1_name(scope, name) + AVERAGE] = value
    return {**variables, GLOBAL_STEP: np.int64(stored.step)}


def write_tf1_checkpoint(directory: str, variables: Mapping[str, np.ndarray], step: int) -> str:
    """Writes `model.ckpt-STEP` in the format of tf.compat.v1.train.Saver; returns its prefix."""
    prefix = os.path.join(directory, f"model.ckpt-{step}")
    names = sorted(variables)
    # What Saver runs in its graph; here without building one.
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(variables[name]) for name in names],
    )
    name = os.path.basename(prefix)
    write_text(  # what tf.train.latest_checkpoint reads
        os.path.join(directory, "checkpoint"),
        f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n',
    )
    return prefix
