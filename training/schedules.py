"""Learning rates as functions of the epochs done."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from training.config import OptimizationFlags

Schedule = Callable[[tf.Tensor], tf.Tensor]


def make_schedule(options: OptimizationFlags, num_examples: int) -> Schedule:
    """The learning rate as a float32 function of the global position (examples seen, int64).

    The decay goes in equal stairs (exponential), as in slim, in stairs at given epochs (stepwise),
    or along half a cosine to 0, counted from the beginning of the run. The warm-up multiplies it by
    a straight line from 0 to 1.
    """

    def learning_rate(position: tf.Tensor) -> tf.Tensor:
        # Double precision: the stairs' edges must not move with the size of the data set.
        epochs = tf.cast(position, tf.float64) / num_examples
        rate = options.lr * _DECAYS[options.learning_scheduler_name](epochs, options)
        if options.warmup_epochs > 0:
            rate *= tf.minimum((epochs + 1.0 / num_examples) / options.warmup_epochs, 1.0)
        return tf.cast(rate, tf.float32)

    return learning_rate


def _exponential(epochs: tf.Tensor, options: OptimizationFlags) -> tf.Tensor:
    return _fallen(options, tf.floor(epochs / options.lr_decay_epochs))


def _stepwise(epochs: tf.Tensor, options: OptimizationFlags) -> tf.Tensor:
    """The example at which a boundary is reached is the first with the lower rate."""
    boundaries = tf.constant(options.lr_boundaries, tf.float64)
    return _fallen(options, tf.reduce_sum(tf.cast(epochs >= boundaries, tf.float64)))


def _cosine(epochs: tf.Tensor, options: OptimizationFlags) -> tf.Tensor:
    done = tf.minimum(epochs / options.epochs, 1.0)
    return 0.5 * (1.0 + tf.cos(tf.constant(math.pi, tf.float64) * done))


def _constant(epochs: tf.Tensor, options: OptimizationFlags) -> tf.Tensor:
    del options
    return tf.ones_like(epochs)


def _fallen(options: OptimizationFlags, times: tf.Tensor) -> tf.Tensor:
    """What is left of the rate after so many decays."""
    return tf.pow(tf.constant(options.lr_decay_rate, tf.float64), times)


_DECAYS = {
    "exponential": _exponential,
    "cosine": _cosine,
    "stepwise": _stepwise,
    "constant": _constant,
}
