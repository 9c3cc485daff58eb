"""A pointwise convolution with its batch norm and activation in one, for training on a CPU.

Memory is what limits a training step on a CPU, and batch norm with its activation is what uses it
most: it goes five times over the wide map of an expansion forward, and five times backward. A
pointwise convolution y = xW is linear, so the moments of its output follow from those of its input,
which has few channels:

    mean(y) = mean(x) W,   var(y_j) = w_j' Cov(x) w_j

With them known beforehand, batch norm folds into the weights, and the convolution writes the
activated map at once. Backward, with g the gradient at the normalised map, the sums that batch norm
needs are in the product x'g that the kernel's gradient is made of anyway:

    sum(g_j y_j) = w_j' (x'g)_j

and the gradient at y, which is a g + b (y - mean(y)) + c for each channel, is never written either:
its two products are those of g, of Cov(x) and of W diag(b) W'.

The covariance costs the square of the input's channels, so this is for convolutions that widen.
"""

from __future__ import annotations

import math

import tensorflow as tf

from training.models import cpu
from training.models.hard_swish import hard_swish, hard_swish_gradient
from training.models.pointwise import input_gradient

# The two products of the square of the input's channels take as long as the saved passes over the
# output's channels where the first is so many times the second (measured: 0.02 ns a row for each of
# the first, 0.55 ns for each of the second, which is four passes of what `clusters` needs).
_EVEN = 27


def pays(inputs: tf.Tensor, in_channels: int, channels: int, activation: str | None) -> bool:
    """Whether this is the quicker way, which is known as a graph is traced.

    Args:
        inputs: the convolution's input or output; their rows are the same.
        in_channels: channels of the input.
        channels: of the output.
        activation: behind the batch norm; None if that is not known.
    """
    return (
        cpu.suits(inputs)
        and activation in _ACTIVATIONS
        and in_channels**2 <= _EVEN * channels
        and cpu.outgrows_cache(math.prod(inputs.shape[:-1]) * channels)
    )


def conv_norm_activation(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
    activation: str,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Convolves, normalises by the moments of the batch, and activates.

    Args:
        inputs: (batch, height, width, in_channels) float32 of static shape.
        kernel: (1, 1, in_channels, channels).
        gamma: (channels,) scale.
        beta: (channels,) offset.
        epsilon: added to the variance.
        activation: 'relu', 'relu6', 'hard_swish' or 'linear'.

    Returns:
        Outputs, (batch, height, width, channels); mean and biased variance of the convolution's
        output, (channels,), which have no gradient.
    """
    in_channels, channels = kernel.shape[-2:]
    count = math.prod(inputs.shape[:-1])
    averaging = tf.fill([1, count], 1.0 / count)  # a product with it is the mean over rows

    @tf.custom_gradient
    def compute(rows, weights, gamma, beta):
        in_mean = tf.matmul(averaging, rows)
        mean_products = tf.matmul(rows, rows, transpose_a=True) / count
        covariance = mean_products - tf.transpose(in_mean) * in_mean
        # One product for both, as small ones cost little but their number.
        both = tf.matmul(tf.concat([covariance, in_mean], 0), weights)
        spread, mean = both[:-1], both[-1]  # spread: of the input with the output
        variance = tf.maximum(tf.reduce_sum(weights * spread, 0), 0.0)
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = gamma * inverse
        folded = weights * scale
        normalised = tf.nn.bias_add(tf.matmul(rows, folded), beta - mean * scale)
        outputs, activation_gradient = _ACTIVATIONS[activation](normalised)

        def gradient(outer, _mean, _variance):
            outer = activation_gradient(outer)
            outer_mean = tf.matmul(averaging, outer)
            products = tf.matmul(rows, outer, transpose_a=True) / count
            centred = products - tf.transpose(in_mean) * outer_mean
            gamma_mean = tf.reduce_sum(weights * centred, 0) * inverse
            # At the convolution's output y the gradient is
            # scale * (outer - outer_mean) + slope * (y - mean).
            slope = -scale * inverse * gamma_mean
            kernel_gradient = count * (centred * scale + spread * slope)
            offset = -scale * outer_mean - slope * mean
            both = tf.matmul(tf.concat([weights * slope, offset], 0), weights, transpose_b=True)
            through_moments = tf.nn.bias_add(tf.matmul(rows, both[:-1]), both[-1])
            shape = [*inputs.shape[:-1], channels]
            direct = input_gradient(tf.reshape(outer, shape), tf.reshape(folded, kernel.shape))
            rows_gradient = tf.reshape(direct, [count, in_channels]) + through_moments
            return rows_gradient, kernel_gradient, count * gamma_mean, count * outer_mean[0]

        return (outputs, mean, variance), gradient

    outputs, mean, variance = compute(
        tf.reshape(inputs, [count, in_channels]),
        tf.reshape(kernel, [in_channels, channels]),
        tf.convert_to_tensor(gamma),
        tf.convert_to_tensor(beta),
    )
    return tf.reshape(outputs, [*inputs.shape[:-1], channels]), mean, variance


_compiled_hard_swish = tf.function(hard_swish, jit_compile=True)
_compiled_gradient = tf.function(hard_swish_gradient, jit_compile=True)


def _linear(values):
    return values, lambda outer: outer


def _relu(values):
    outputs = tf.nn.relu(values)
    return outputs, lambda outer: tf.raw_ops.ReluGrad(gradients=outer, features=outputs)


def _relu6(values):
    outputs = tf.nn.relu6(values)
    return outputs, lambda outer: tf.raw_ops.Relu6Grad(gradients=outer, features=outputs)


def _hard_swish(values):
    return _compiled_hard_swish(values), lambda outer: _compiled_gradient(values, outer)


# By name: what makes of the normalised values the outputs, and the function that takes a gradient
# back. Those of ReLU keep the outputs alone.
_ACTIVATIONS = {"linear": _linear, "relu": _relu, "relu6": _relu6, "hard_swish": _hard_swish}
