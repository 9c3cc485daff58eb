"""Hard-swish, x * relu6(x + 3) / 6, and its gradient in a form that is one pass when compiled."""

from __future__ import annotations

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("mobilenet_pipeline")
def hard_swish(inputs):
    """Computes x * relu6(x + 3) / 6 from left to right, as slim does."""
    return inputs * tf.nn.relu6(inputs + 3.0) * (1.0 / 6.0)


def hard_swish_gradient(inputs, outer):
    """The gradient at `inputs`, from that at the output."""
    slope = tf.where(inputs < 3.0, inputs / 3.0 + 0.5, 1.0)
    return outer * tf.where(inputs > -3.0, slope, 0.0)
