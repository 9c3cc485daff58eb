"""Optimizers with TensorFlow 1's rules, and the moving averages of the weights.

Keras' optimizers differ where it matters for recipes of the TF1 era (its RMSprop starts the mean of
squares at 0, TF1's at 1) and store their slots by position. These keep plain variables by the
weights' names. Where TF1 has a rule, the kernel that TF1 itself runs applies it: one operation a
weight, and the same bits.

A step reduces the gradients over the replicas once, clips them, and updates; every replica applies
the same update to its own copy of the weights:

    gradients = optimizer.reduce(gradients)
    gradients, norm = clip(gradients, max_norm)
    optimizer.update(gradients, learning_rate, step)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import keras
import tensorflow as tf

from training.config import OptimizationFlags


def clip(
    gradients: Mapping[str, tf.Tensor], max_norm: float
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Scales gradients down together, so that their global norm is `max_norm` at most.

    They are those of the loss alone: weight decay is added afterwards, by `Optimizer.update`, and
    is not clipped.

    Args:
        gradients: by weight name.
        max_norm: the longest allowed; 0 for no limit.

    Returns:
        The gradients, and their global norm before clipping. Where there is a limit and the norm is
        not finite, all gradients are NaN: a broken step must not pass for a small one.
    """
    norm = tf.linalg.global_norm(list(gradients.values()))
    if not max_norm:
        return dict(gradients), norm
    scale = max_norm / tf.maximum(norm, max_norm)
    scale = tf.where(tf.math.is_finite(norm), scale, math.nan)
    return {name: gradient * scale for name, gradient in gradients.items()}, norm


class Optimizer(tf.Module):
    """Applies one update rule to named weights.

    Two kinds of weight decay may be had. The L2 loss of the model belongs to its gradient, whatever
    the rule, as in slim. That of adamw and lamb (`--op_weight_decay`) is decoupled: it is
    subtracted from all kernels, times the learning rate, and never enters the moments.

    Args:
        options: which rule, and its constants.
        weights: the trainable weights by name.
        decayed: names of the weights that L2 weight decay applies to.
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

    @staticmethod
    def reduce(gradients: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Sums gradients over all replicas; in replica context.

        All of them cross in one tensor: over a network a step waits for one collective, not for a
        hundred small ones. A single replica's are returned as they are.

        Args:
            gradients: float32 gradients by weight name, the same names and shapes on every replica.
        """
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync == 1:
            return dict(gradients)
        shapes = [gradient.shape for gradient in gradients.values()]
        packed = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients.values()], axis=0)
        summed = tf.split(context.all_reduce("SUM", packed), [s.num_elements() for s in shapes])
        return {
            name: tf.reshape(part, shape)
            for name, part, shape in zip(gradients, summed, shapes, strict=True)
        }

    def update(
        self, gradients: Mapping[str, tf.Tensor], learning_rate: tf.Tensor, step: tf.Tensor
    ) -> None:
        """Updates the weights; in replica context.

        Args:
            gradients: the loss' gradients by weight name, already summed over the replicas.
            learning_rate: float32.
            step: int64, updates done before this one.
        """
        number = tf.cast(step + 1, tf.float32)
        for name, gradient in gradients.items():
            weight = self._weights[name].value
            decays = self._weight_decay and name in self._decayed
            self._rule(
                _Update(
                    options=self._options,
                    weight=weight,
                    gradient=gradient + self._weight_decay * weight if decays else gradient,
                    learning_rate=learning_rate,
                    number=number,
                    slots={slot: variables[name] for slot, variables in self.slots.items()},
                    is_kernel=name.endswith("kernel"),
                )
            )


@dataclasses.dataclass(frozen=True)
class _Update:
    """What a rule needs to update one weight.

    Attributes:
        weight: the variable.
        gradient: of its shape, L2 weight decay included.
        number: float32, of this update; the first is 1.
        slots: the weight's slots by name.
        is_kernel: whether it is a kernel, not a bias or a scale or offset of batch norm.
    """

    options: OptimizationFlags
    weight: tf.Variable
    gradient: tf.Tensor
    learning_rate: tf.Tensor
    number: tf.Tensor
    slots: dict[str, tf.Variable]
    is_kernel: bool


def _sgd(one: _Update) -> None:
    """tf.compat.v1.train.GradientDescentOptimizer."""
    tf.raw_ops.ResourceApplyGradientDescent(
        var=one.weight.handle, alpha=one.learning_rate, delta=one.gradient
    )


def _momentum(one: _Update) -> None:
    """tf.compat.v1.train.MomentumOptimizer: the rate outside the momentum."""
    tf.raw_ops.ResourceApplyMomentum(
        var=one.weight.handle,
        accum=one.slots["momentum"].handle,
        lr=one.learning_rate,
        grad=one.gradient,
        momentum=one.options.op_momentum,
    )


def _rmsprop(one: _Update) -> None:
    """tf.compat.v1.train.RMSPropOptimizer: epsilon in the root, the rate in the momentum."""
    tf.raw_ops.ResourceApplyRMSProp(
        var=one.weight.handle,
        ms=one.slots["rms"].handle,
        mom=one.slots["momentum"].handle,
        lr=one.learning_rate,
        rho=one.options.decay_rate,
        momentum=one.options.op_momentum,
        epsilon=one.options.epsilon,
        grad=one.gradient,
    )


def _adam(one: _Update) -> None:
    """tf.compat.v1.train.AdamOptimizer.

    Epsilon is added to the root of the mean of squares before its bias is corrected ('epsilon hat'
    of the paper, arXiv:1412.6980).
    """
    first, second = one.options.op_momentum, one.options.decay_rate
    tf.raw_ops.ResourceApplyAdam(
        var=one.weight.handle,
        m=one.slots["mean"].handle,
        v=one.slots["square"].handle,
        beta1_power=tf.pow(first, one.number),
        beta2_power=tf.pow(second, one.number),
        lr=one.learning_rate,
        beta1=first,
        beta2=second,
        epsilon=one.options.epsilon,
        grad=one.gradient,
    )


def _adamw(one: _Update) -> None:
    """keras.optimizers.AdamW (arXiv:1711.05101): kernels shrink first, then comes Adam's step."""
    if one.is_kernel and one.options.op_weight_decay:
        shrunk = one.learning_rate * one.options.op_weight_decay
        one.weight.assign_sub(one.weight * shrunk)
    _adam(one)


def _lamb(one: _Update) -> None:
    """LAMB, arXiv:1904.00962, algorithm 2.

    A kernel's step is made as long as the kernel, times the learning rate. Biases and batch norm's
    scales and offsets take Adam's step as it is, without decay, as in the authors' code: an offset
    starts at 0, and a step in proportion to its length would never get it anywhere.
    """
    options, weight = one.options, one.weight
    mean, square = one.slots["mean"], one.slots["square"]
    mean.assign_add((one.gradient - mean) * (1.0 - options.op_momentum))
    square.assign_add((tf.square(one.gradient) - square) * (1.0 - options.decay_rate))
    unbiased_mean = mean / (1.0 - tf.pow(options.op_momentum, one.number))
    unbiased_square = square / (1.0 - tf.pow(options.decay_rate, one.number))
    step = unbiased_mean / (tf.sqrt(unbiased_square) + options.epsilon)
    if one.is_kernel:
        step += options.op_weight_decay * weight
        # A kernel of zeros, or a step of zeros, has no direction to keep: the ratio is 1.
        lengths = tf.norm(weight), tf.norm(step)
        ratio = tf.math.divide_no_nan(*lengths)
        step *= tf.where(ratio > 0.0, ratio, 1.0)
    weight.assign_sub(one.learning_rate * step)


# Name: the rule, and the starting value of each of its slots.
_RULES: dict[str, tuple[Callable[[_Update], None], dict[str, float]]] = {
    "rmsprop": (_rmsprop, {"rms": 1.0, "momentum": 0.0}),
    "momentum": (_momentum, {"momentum": 0.0}),
    "sgd": (_sgd, {}),
    "adam": (_adam, {"mean": 0.0, "square": 0.0}),
    "adamw": (_adamw, {"mean": 0.0, "square": 0.0}),
    "lamb": (_lamb, {"mean": 0.0, "square": 0.0}),
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
