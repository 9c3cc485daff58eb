"""Everything that a training run changes: what a checkpoint holds, no more and no less."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.config import OptimizationFlags
from training.models import build_model, named_variables
from training.models.configs import MobileNetConfig
from training.models.mobilenet import decayed_kernels, weights_of
from training.optimizers import MovingAverages, Optimizer

_FIRST_LOSS_SCALE = 2.0**15
_STATISTICS = ("moving_mean", "moving_variance")


class TrainState:
    """Model, optimizer, moving averages and how far the run is; made in a strategy's scope.

    Only plain variables that all replicas hold alike: so the chief can save them alone. Batch
    norm's statistics, which each replica gathers for itself, are averaged at the end of each call
    of the training function (see `local_statistics`).

    Attributes:
        model: the Keras model, with logits as output.
        variables: all its variables by name.
        trainable: those that the optimizer changes.
        averages: moving averages of the weights, or None.
        step: updates done.
        position: examples seen, over all epochs; it fixes which example comes next.
        sums: of the epoch so far (loss, correct, seen), so that a resumed epoch reports all of it.
        seed: of the run: with the position it fixes all examples that come.
        rate_scale: factor of the learning rate; it falls with each rollback.
        loss_scale: float16: what the loss is multiplied by so that small gradients do not vanish.
        scaled_steps: float16: updates since the loss scale last changed.
        losses: of the steps of one call, mean over the global batch; not saved.
        broken_step: the step of this call at which the run broke, -1 for none; not saved.
        examples: numbers of the replica's examples in the steps of one call, or None; not saved.

    Args:
        config: of the model, with logits as output.
        optimization: which optimizer and averages.
        steps_per_call: most steps of a call.
        logged_examples: examples of a step and replica whose numbers are kept; 0 for none.
        seed: of the run.
    """

    def __init__(
        self,
        config: MobileNetConfig,
        optimization: OptimizationFlags,
        steps_per_call: int = 1,
        logged_examples: int = 0,
        seed: int = 0,
    ):
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
        self.step = _variable(0, tf.int64)
        self.position = _variable(0, tf.int64)
        self.sums = {
            "loss": _variable(0, tf.float64),
            "correct": _variable(0, tf.int64),
            "seen": _variable(0, tf.int64),
        }
        self.seed = _variable(seed, tf.int64)
        self.rate_scale = _variable(1, tf.float32)
        half = keras.mixed_precision.global_policy().compute_dtype == "float16"
        self.loss_scale = _variable(_FIRST_LOSS_SCALE if half else 1, tf.float32)
        self.scaled_steps = _variable(0, tf.int64)
        self.losses = _variable(np.zeros([steps_per_call]), tf.float32)
        self.broken_step = _variable(-1, tf.int64)
        self.examples = (
            _variable(np.zeros([steps_per_call, logged_examples]), tf.int64)
            if logged_examples
            else None
        )

    def checkpoint_items(self) -> dict[str, Any]:
        """What `training.checkpoints.CheckpointStore` saves, by name."""
        progress = {
            "step": self.step,
            "position": self.position,
            "rate_scale": self.rate_scale,
            "loss_scale": self.loss_scale,
            "scaled_steps": self.scaled_steps,
            "seed": self.seed,
            **self.sums,
        }
        return {
            "model": {name: variable.value for name, variable in self.variables.items()},
            "optimizer": self.optimizer.slots,
            "progress": progress,
        } | ({"averages": self.averages.values} if self.averages else {})

    def local_statistics(self) -> list[tf.Variable]:
        """Batch norm's moving statistics, and their averages: what replicas gather for themselves.

        Both are linear in what goes into them, so that averaging them over the replicas now and
        then gives what averaging them at each step would give.
        """
        names = [name for name in self.variables if name.endswith(_STATISTICS)]
        found = [self.variables[name].value for name in names]
        return found + ([self.averages.values[name] for name in names] if self.averages else [])

    def load_weights(self, values: Mapping[str, np.ndarray]) -> None:
        """Starts from weights by name; the averages start from them too."""
        for name, value in values.items():
            self.variables[name].assign(value)
        if self.averages:
            self.averages.reset()

    def weights(self, which: str) -> dict[str, np.ndarray]:
        """The 'averages' (raw where there are none) or the 'raw' weights by name."""
        return {name: value.numpy() for name, value in self.weight_variables(which).items()}

    def weight_variables(self, which: str) -> dict[str, tf.Variable]:
        """The variables of the 'averages' (raw where there are none) or of the 'raw' weights."""
        if which == "averages" and self.averages:
            return dict(self.averages.values)
        return {name: variable.value for name, variable in weights_of(self.model).items()}


def _variable(value: Any, dtype: tf.DType) -> tf.Variable:
    return tf.Variable(tf.cast(value, dtype), trainable=False)
