"""Squeeze-and-excite with one gradient for the whole block, for training on a CPU.

The features reach the output twice, as themselves and through their average. Taken one by one, the
gradients of product, average and sum go ten times over the map; here they go over it five times.
"""

from __future__ import annotations

import tensorflow as tf


def hard_sigmoid(values):
    """The gate, relu6(x + 3) * 0.16667.

    The five digits are slim's; with 1/6 the logits of its checkpoints move by up to 1e-3.
    """
    return tf.nn.relu6(values + 3.0) * 0.16667


def squeeze_excite(
    features: tf.Tensor,
    squeeze_kernel: tf.Tensor,
    squeeze_bias: tf.Tensor,
    excite_kernel: tf.Tensor,
    excite_bias: tf.Tensor,
) -> tf.Tensor:
    """Scales each channel of an image by a gate that is computed from all channels' averages.

    Args:
        features: (batch, height, width, channels) float32 of static shape.
        squeeze_kernel: (1, 1, channels, inner).
        squeeze_bias: (inner,).
        excite_kernel: (1, 1, inner, channels).
        excite_bias: (channels,).
    """
    height, width = features.shape[1:3]

    @tf.custom_gradient
    def compute(features, *weights):
        average = tf.reduce_mean(features, [1, 2])
        with tf.GradientTape() as tape:
            tape.watch([average, weights])
            gate = _gate(average, *weights)

        def gradient(outer):
            gate_gradient = tf.reduce_sum(features * outer, [1, 2])
            average_gradient, *rest = tape.gradient(gate, [average, *weights], gate_gradient)
            by_average = average_gradient / (height * width)
            return _scaled_and_shifted(outer, gate, by_average), *rest

        return _scaled(features, gate), gradient

    weights = squeeze_kernel, squeeze_bias, excite_kernel, excite_bias
    return compute(features, *(tf.convert_to_tensor(weight) for weight in weights))


def _gate(average, squeeze_kernel, squeeze_bias, excite_kernel, excite_bias):
    inner = tf.matmul(average, tf.reshape(squeeze_kernel, squeeze_kernel.shape[2:]))
    inner = tf.nn.relu(tf.nn.bias_add(inner, squeeze_bias))
    gate = tf.matmul(inner, tf.reshape(excite_kernel, excite_kernel.shape[2:]))
    return hard_sigmoid(tf.nn.bias_add(gate, excite_bias))


@tf.function(jit_compile=True)
def _scaled(features, scale):
    return features * scale[:, None, None]


@tf.function(jit_compile=True)
def _scaled_and_shifted(features, scale, shift):
    return features * scale[:, None, None] + shift[:, None, None]
