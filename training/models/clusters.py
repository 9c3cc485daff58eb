"""Batch norm and the activation behind it as one cluster, for training on a CPU.

Each op reads and writes the whole feature map, and on a CPU memory is what limits them. Here the
map is read once for its moments, and read and written once to be normalised and activated. Backward
map and gradient are read once for the two sums that batch norm needs, and once more to write the
gradient at the input; the activation's mask is computed again instead of keeping the normalised
map. XLA compiles each direction.
"""

from __future__ import annotations

import math

import tensorflow as tf

from training.models import cpu, row_sums
from training.models.hard_swish import hard_swish, hard_swish_gradient

_ACTIVATIONS = frozenset({"hard_swish", "relu", "relu6"})


def pays(inputs: tf.Tensor, activation: str) -> bool:
    """Whether the cluster is the quicker way for this map, which is known as a graph is traced.

    Without an activation there is less to win, and oneDNN's batch norm is the quicker.
    """
    return (
        cpu.suits(inputs)
        and activation in _ACTIVATIONS
        and cpu.outgrows_cache(math.prod(inputs.shape))
        and row_sums.rows_per_block(math.prod(inputs.shape[:-1])) is not None
    )


def norm_activation(
    inputs: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, activation: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises by the moments of the batch and activates.

    Args:
        inputs: (batch, height, width, channels) float32 of static shape.
        gamma: (channels,) scale.
        beta: (channels,) offset.
        epsilon: added to the variance.
        activation: 'relu', 'relu6' or 'hard_swish'.

    Returns:
        Outputs like `inputs`; mean and biased variance, (channels,), which have no gradient.
    """

    @tf.custom_gradient
    def compute(inputs, gamma, beta):
        outputs, mean, variance, _ = _forward(inputs, gamma, beta, epsilon, activation)

        def gradient(outer, _mean, _variance):
            *gradients, _ = _backward(
                inputs, mean, variance, gamma, beta, epsilon, activation, outer
            )
            return gradients

        return (outputs, mean, variance), gradient

    return compute(inputs, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


@tf.function(jit_compile=True)
def _forward(inputs, gamma, beta, epsilon, activation):
    mean, variance, sums = moments(inputs)
    normalised = normalise(inputs, mean, variance, gamma, beta, epsilon)
    return activate(normalised, activation), mean, variance, sums


@tf.function(jit_compile=True)
def _backward(inputs, mean, variance, gamma, beta, epsilon, activation, outer):
    normalised = normalise(inputs, mean, variance, gamma, beta, epsilon)
    outer = activation_gradient(normalised, outer, activation)
    return norm_gradients(inputs, mean, variance, gamma, epsilon, outer)


# What follows is to be called in functions that XLA compiles.


def moments(inputs):
    """Mean and biased variance of each channel, (channels,); and sums that are to be returned."""
    rows = math.prod(inputs.shape[:-1])
    # Squares are of the distance from one of the values: those of values far from zero would lose
    # the variance among their digits.
    pivot = inputs[0, 0, 0]
    distances = inputs - pivot
    sums = row_sums.sums_and_products(distances, distances, rows)
    distance, square = row_sums.means(sums, rows)
    return pivot + distance, tf.maximum(square - tf.square(distance), 0.0), sums


def normalise(inputs, mean, variance, gamma, beta, epsilon):
    """Scales and shifts each channel."""
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    return inputs * scale + (beta - mean * scale)


def norm_gradients(inputs, mean, variance, gamma, epsilon, outer):
    """Gradients at inputs, scale and offset from that at the normalised map; and those sums."""
    rows = math.prod(inputs.shape[:-1])
    inverse = tf.math.rsqrt(variance + epsilon)
    sums = row_sums.sums_and_products(outer, inputs - mean, rows)
    outer_mean, product_mean = row_sums.means(sums, rows)
    scale, gamma_mean = gamma * inverse, product_mean * inverse
    slope = -scale * inverse * gamma_mean
    offset = -scale * outer_mean - slope * mean
    return outer * scale + (inputs * slope + offset), rows * gamma_mean, rows * outer_mean, sums


def activate(normalised, activation):
    """Applies the activation of that name."""
    if activation == "relu":
        return tf.nn.relu(normalised)
    if activation == "relu6":
        return tf.nn.relu6(normalised)
    return hard_swish(normalised)


def activation_gradient(normalised, outer, activation):
    """The gradient at the normalised map, from that at the activation's output."""
    if activation == "relu":
        return tf.where(normalised > 0.0, outer, 0.0)
    if activation == "relu6":
        return tf.where((normalised > 0.0) & (normalised < 6.0), outer, 0.0)
    return hard_swish_gradient(normalised, outer)
