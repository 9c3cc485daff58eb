"""Optimizers with TensorFlow 1's rules, and the moving averages of the weights.

Keras' optimizers differ where it matters for recipes of the TF1 era (its RMSprop starts the mean of
squares at 0, TF1's at 1) and store their slots by position. These keep plain variables by the
weights' names and reduce gradients over replicas once, so that every replica applies the same
update locally.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from training.config import OptimizationFlags


class Optimizer(tf.Module):
    """Applies one update rule to named weights.

    Args:
        options: which rule, and its constants.
        weights: the trainable weights by name.
        decayed: names of the weights that weight decay applies to.
        weight_decay: L2 factor w of the loss w / 2 * sum(weight^2).

    Attributes:
        slots: for each slot of the rule its variables by weight name.
    """

    def __init__(
        self,
        options: OptimizationFlags,
        weights: Mapping[str, keras.Variable],
        decayed: set[str],
        weight_decay: float,
    ):
        super().__init__(name="optimizer")
        self._options, self._weights = options, dict(weights)
        self._decayed, self._weight_decay = decayed, weight_decay
        self._rule, slot_starts = _RULES[options.optimizer_name]
        self.slots = {
            slot: {
                name: tf.Variable(tf.fill(weight.shape, start), trainable=False)
                for name, weight in self._weights.items()
            }
            for slot, start in slot_starts.items()
        }

    def apply(self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor) -> None:
        """Sums the gradients over all replicas and updates the weights; in replica context."""
        names = list(gradients)
        summed = tf.distribute.get_replica_context().all_reduce(
            "SUM", [tf.identity(gradients[name]) for name in names]
        )
        for name, gradient in zip(names, summed, strict=True):
            weight = self._weights[name].value
            decay = self._weight_decay * weight if name in self._decayed else 0.0
            slots = {slot: variables[name] for slot, variables in self.slots.items()}
            weight.assign_sub(self._rule(self._options, gradient + decay, learning_rate, slots))


def _rmsprop(options, gradient, learning_rate, slots) -> tf.Tensor:
    """tf.compat.v1.train.RMSPropOptimizer: epsilon in the root, the rate in the momentum."""
    decay = options.op_decay_rate
    squares = slots["rms"].assign_add((tf.square(gradient) - slots["rms"]) * (1.0 - decay))
    step = learning_rate * gradient * tf.math.rsqrt(squares + options.op_epsilon)
    return slots["momentum"].assign(options.op_momentum * slots["momentum"] + step)


def _momentum(options, gradient, learning_rate, slots) -> tf.Tensor:
    """tf.compat.v1.train.MomentumOptimizer: the rate outside the momentum."""
    accumulated = slots["momentum"].assign(options.op_momentum * slots["momentum"] + gradient)
    return learning_rate * accumulated


def _sgd(options, gradient, learning_rate, slots) -> tf.Tensor:
    del options, slots
    return learning_rate * gradient


# Name: the rule, and the starting value of each of its slots.
_RULES: dict[str, tuple[Callable[..., tf.Tensor], dict[str, float]]] = {
    "rmsprop": (_rmsprop, {"rms": 1.0, "momentum": 0.0}),
    "momentum": (_momentum, {"momentum": 0.0}),
    "sgd": (_sgd, {}),
}


class MovingAverages(tf.Module):
    """Exponential moving averages of all weights, batch norm's statistics included, as in slim.

    The decay is min(decay, (1 + step) / (10 + step)): early averages follow quickly.
    """

    def __init__(self, decay: float, weights: Mapping[str, keras.Variable]):
        super().__init__(name="averages")
        self._decay, self._weights = decay, dict(weights)
        self.values = {
            name: tf.Variable(weight.value, trainable=False) for name, weight in weights.items()
        }

    def update(self, step: tf.Tensor) -> None:
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1.0 + step) / (10.0 + step))
        for name, average in self.values.items():
            average.assign_sub((average - self._weights[name].value) * (1.0 - decay))

    def reset(self) -> None:
        """Starts again from the weights as they are now."""
        for name, average in self.values.items():
            average.assign(self._weights[name].value)
