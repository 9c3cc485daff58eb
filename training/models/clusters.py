"""Batch norm and the activation behind it as one cluster, for training on a CPU.

Each op reads and writes the whole feature map, and on a CPU memory is what limits them. Here scale,
shift and activation are one small XLA-compiled function, and its gradient computes the activation's
mask again instead of keeping the normalised map. The moments come from kernels that are quick at
summing over rows: the mean from a matrix product with ones, the mean of squares from the filter
gradient of a 1x1 depthwise convolution (XLA's own reductions over rows are several times slower).

It pays where oneDNN's batch norm does not use AVX-512. Where it does, hard-swish alone gains: its
gradient is many ops otherwise.
"""

from __future__ import annotations

import math

import tensorflow as tf

from training.models import cpu
from training.models.hard_swish import hard_swish, hard_swish_gradient

# Below this many numbers a feature map lies in the cache, and compiling for its shape costs more
# than is won.
SMALLEST_MAP = 2**18

_HARD_SWISH, _ALL = frozenset({"hard_swish"}), frozenset({"hard_swish", "relu", "relu6", "linear"})


def pays(inputs: tf.Tensor, activation: str) -> bool:
    """Whether the cluster is the quicker way for this map, which is known as a graph is traced."""
    return (
        cpu.suits(inputs)
        and activation in clustered_activations()
        and math.prod(inputs.shape) >= SMALLEST_MAP
    )


def clustered_activations() -> frozenset[str]:
    """The activations that go into a cluster with their batch norm on this machine."""
    if not cpu.computes_alone():
        return frozenset()
    return _HARD_SWISH if cpu.uses_avx512() else _ALL


def norm_activation(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, activation: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises by the moments of the batch and activates.

    Args:
        inputs: (batch, height, width, channels) float32 of static shape.
        gamma: (channels,) scale.
        beta: (channels,) offset.
        epsilon: added to the variance.
        activation: 'relu', 'relu6', 'hard_swish' or 'linear'.

    Returns:
        Outputs like `inputs`; mean and biased variance, (channels,), which have no gradient.
    """

    @tf.custom_gradient
    def compute(inputs, gamma, beta):
        mean, variance = moments(inputs)
        scale = gamma * tf.math.rsqrt(variance + epsilon)
        shift = beta - mean * scale

        def gradient(outer, _mean, _variance):
            if activation != "linear":
                outer = _activation_gradient(inputs, scale, shift, outer, activation)
            return tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=outer,
                x=inputs,
                scale=gamma,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=tf.zeros([0]),
                epsilon=epsilon,
                is_training=True,
            )[:3]

        return (_activated(inputs, scale, shift, activation), mean, variance), gradient

    return compute(inputs, gamma, beta)


def moments(inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance of each channel, (channels,), of (batch, h, w, channels)."""
    channels = inputs.shape[-1]
    rows = tf.reshape(inputs, [-1, channels])
    mean = tf.matmul(tf.ones([1, rows.shape[0]]), rows)[0] / rows.shape[0]
    squares = tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=inputs,
        filter_sizes=[1, 1, channels, 1],
        out_backprop=inputs,
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    mean_square = tf.reshape(squares, [channels]) / rows.shape[0]
    return mean, tf.maximum(mean_square - tf.square(mean), 0.0)


@tf.function(jit_compile=True)
def _activated(inputs, scale, shift, activation):
    normalised = inputs * scale + shift
    if activation == "relu":
        return tf.nn.relu(normalised)
    if activation == "relu6":
        return tf.nn.relu6(normalised)
    if activation == "hard_swish":
        return hard_swish(normalised)
    return normalised


@tf.function(jit_compile=True)
def _activation_gradient(inputs, scale, shift, outer, activation):
    """The gradient at the normalised map, from that at the activation's output."""
    normalised = inputs * scale + shift
    if activation == "relu":
        return tf.where(normalised > 0.0, outer, 0.0)
    if activation == "relu6":
        return tf.where((normalised > 0.0) & (normalised < 6.0), outer, 0.0)
    return hard_swish_gradient(normalised, outer)
