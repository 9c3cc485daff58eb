"""Everything that a training run changes: what a checkpoint holds, no more and no less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from training.config import OptimizationFlags
from training.models import build_model, named_variables
from training.models.configs import MobileNetConfig
from training.models.mobilenet import decayed_kernels, weights_of
from training.optimizers import MovingAverages, Optimizer


class TrainState:
    """Model, optimizer, moving averages and how far the run is.

    Attributes:
        model: the Keras model, with logits as output.
        variables: all its variables by name.
        trainable: those that the optimizer changes.
        averages: moving averages of the weights, or None.
        step: updates done.
        position: examples seen, over all epochs; it fixes which example comes next.
        sums: of the epoch so far (loss, correct, seen), so that a resumed epoch reports all of it.
    """

    def __init__(self, config: MobileNetConfig, optimization: OptimizationFlags):
        self.model = build_model(config)
        self.variables = named_variables(self.model)
        trainable = {id(variable) for variable in self.model.trainable_variables}
        self.trainable = {n: v for n, v in self.variables.items() if id(v) in trainable}
        self.optimizer = Optimizer(
            optimization, self.trainable, decayed_kernels(self.model), config.weight_decay
        )
        self.averages = (
            MovingAverages(optimization.ma_decay_rate, weights_of(self.model))
            if optimization.ma_decay_rate
            else None
        )
        self.step = _counter(tf.int64)
        self.position = _counter(tf.int64)
        self.sums = {
            "loss": _counter(tf.float64),
            "correct": _counter(tf.int64),
            "seen": _counter(tf.int64),
        }

    def checkpoint_items(self) -> dict[str, Any]:
        """What `training.checkpoints.CheckpointStore` saves, by name."""
        return {
            "model": {name: variable.value for name, variable in self.variables.items()},
            "optimizer": self.optimizer.slots,
            "progress": {"step": self.step, "position": self.position, **self.sums},
        } | ({"averages": self.averages.values} if self.averages else {})

    def load_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Starts from weights by name; the averages start from them too."""
        for name, value in values.items():
            self.variables[name].assign(value)
        if self.averages:
            self.averages.reset()

    def weights(self, which: str) -> dict[str, np.ndarray]:
        """The 'averages' (raw where there are none) or the 'raw' weights by name."""
        if which == "averages" and self.averages:
            return {name: value.numpy() for name, value in self.averages.values.items()}
        return {name: variable.numpy() for name, variable in weights_of(self.model).items()}


def _counter(dtype: tf.DType) -> tf.Variable:
    return tf.Variable(0, dtype=dtype, trainable=False)
