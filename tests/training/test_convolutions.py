"""The convolutions that a CPU trains in ways of its own, against TensorFlow's ops in float64."""

import numpy as np
import pytest
import tensorflow as tf

from training.models.depthwise import depthwise_conv
from training.models.folded import conv_norm_activation, pays
from training.models.pointwise import pointwise_conv
from training.models.squeeze_excite import norm_activation_gate

EPSILON = 1e-3
ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "hard_swish": lambda x: x * tf.clip_by_value(x + 3.0, 0.0, 6.0) / 6.0,
}


def drawn(*shape, loc=0.0, scale=1.0):
    return np.random.default_rng(len(shape) + sum(shape)).normal(loc, scale, shape)


def largest_difference(ours, theirs) -> float:
    """Relative to the largest value."""
    return float(np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs)))


def with_gradients(function, sources, weight, dtype):
    """What `function` makes of `sources`, and the gradients of its sum weighted by `weight`."""
    sources = [tf.constant(source, dtype) for source in sources]

    @tf.function
    def run(*sources):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = function(*sources)
            first = outputs[0] if isinstance(outputs, tuple) else outputs
            loss = tf.reduce_sum(first * tf.constant(weight, dtype))
        return [outputs, tape.gradient(loss, sources)]

    return [value.numpy() for value in tf.nest.flatten(run(*sources))]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("in_mean", [0.0, 3.0])
def test_a_folded_convolution_is_convolution_batch_norm_and_activation(activation, in_mean):
    def in_float64(inputs, kernel, gamma, beta):
        outputs = tf.nn.conv2d(inputs, kernel, 1, "VALID")
        mean, variance = tf.nn.moments(outputs, [0, 1, 2])
        normalised = (outputs - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta
        return ACTIVATIONS[activation](normalised), mean, variance

    def ours(*sources):
        return conv_norm_activation(*sources, EPSILON, activation)

    sources = [
        drawn(4, 9, 7, 6, loc=in_mean),
        drawn(1, 1, 6, 20),
        drawn(20, loc=1.0, scale=0.2),
        drawn(20, scale=0.5) + 0.1,
    ]
    weight = drawn(4, 9, 7, 20)
    expected = with_gradients(in_float64, sources, weight, tf.float64)
    got = with_gradients(ours, sources, weight, tf.float32)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert largest_difference(mine, theirs) < 1e-4
    for mine, again in zip(got, with_gradients(ours, sources, weight, tf.float32), strict=True):
        assert np.array_equal(mine, again)


def test_a_channel_that_is_constant_has_no_variance_and_no_nan():
    inputs = np.ones((2, 4, 4, 3))
    sources = [inputs, drawn(1, 1, 3, 8), np.ones(8), np.zeros(8)]
    outputs, mean, variance, *gradients = with_gradients(
        lambda *s: conv_norm_activation(*s, EPSILON, "relu6"),
        sources,
        drawn(2, 4, 4, 8),
        tf.float32,
    )
    np.testing.assert_allclose(mean, sources[1].sum((0, 1, 2)), rtol=1e-5)
    assert np.all(np.abs(variance) < 1e-5)
    assert all(np.all(np.isfinite(values)) for values in (outputs, *gradients))


def test_folding_is_for_large_maps_of_convolutions_that_widen():
    large, small = tf.zeros([32, 56, 56, 24]), tf.zeros([2, 7, 7, 24])
    assert pays(large, 24, 144, "relu6")
    assert not pays(small, 24, 144, "relu6")
    assert not pays(tf.zeros([32, 56, 56, 144]), 144, 24, "linear")
    assert not pays(large, 24, 144, "tanh")
    assert not pays(large, 24, 144, None)
    assert not pays(tf.cast(large, tf.bfloat16), 24, 144, "relu6")


@pytest.mark.parametrize(("in_channels", "channels"), [(12, 40), (40, 7), (6, 600)])
def test_a_pointwise_convolution_has_the_gradients_of_tensorflows_op(in_channels, channels):
    def plain(inputs, kernel):
        return tf.nn.conv2d(inputs, kernel, 1, "VALID")

    sources = [drawn(3, 6, 5, in_channels), drawn(1, 1, in_channels, channels)]
    weight = drawn(3, 6, 5, channels)
    expected = with_gradients(plain, sources, weight, tf.float64)
    got = with_gradients(pointwise_conv, sources, weight, tf.float32)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert largest_difference(mine, theirs) < 1e-5


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [7, 8])
@pytest.mark.parametrize("width", [5, 14])
def test_a_depthwise_convolution_has_the_gradients_of_tensorflows_op(size, stride, height, width):
    def plain(inputs, kernel):
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, stride, stride, 1], "SAME")

    sources = [drawn(3, height, width, 10), drawn(size, size, 10, 1)]
    weight = drawn(3, -(-height // stride), -(-width // stride), 10)
    expected = with_gradients(plain, sources, weight, tf.float64)
    got = with_gradients(lambda *s: depthwise_conv(*s, stride), sources, weight, tf.float32)
    for mine, theirs in zip(got, expected, strict=True):
        assert largest_difference(mine, theirs) < 1e-5


def test_a_depthwise_map_may_be_smaller_than_the_window():
    sources = [drawn(2, 2, 1, 4), drawn(5, 5, 4, 1)]
    weight = drawn(2, 2, 1, 4)

    def plain(inputs, kernel):
        return tf.nn.depthwise_conv2d(inputs, kernel, [1, 1, 1, 1], "SAME")

    expected = with_gradients(plain, sources, weight, tf.float64)
    got = with_gradients(lambda *s: depthwise_conv(*s, 1), sources, weight, tf.float32)
    for mine, theirs in zip(got, expected, strict=True):
        assert largest_difference(mine, theirs) < 1e-5


@pytest.mark.parametrize("activation", ["relu", "relu6", "hard_swish"])
@pytest.mark.parametrize("in_mean", [0.0, 30.0])
def test_squeeze_and_excite_is_one_with_batch_norm_and_activation(activation, in_mean):
    def in_float64(inputs, gamma, beta, squeeze, squeeze_bias, excite, excite_bias):
        mean, variance = tf.nn.moments(inputs, [0, 1, 2])
        normalised = (inputs - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta
        features = ACTIVATIONS[activation](normalised)
        inner = tf.reduce_mean(features, [1, 2], keepdims=True)
        inner = tf.nn.relu(tf.nn.conv2d(inner, squeeze, 1, "SAME") + squeeze_bias)
        gate = tf.nn.conv2d(inner, excite, 1, "SAME") + excite_bias
        return features * tf.clip_by_value(gate + 3.0, 0.0, 6.0) * 0.16667, mean, variance

    def ours(inputs, gamma, beta, *gate_weights):
        return norm_activation_gate(inputs, gamma, beta, EPSILON, activation, gate_weights)

    sources = [
        drawn(3, 6, 5, 12, loc=in_mean),
        drawn(12, loc=2.0),
        drawn(12, loc=0.5),
        drawn(1, 1, 12, 8),
        drawn(8),
        2.0 * drawn(1, 1, 8, 12),
        drawn(12),
    ]
    weight = drawn(3, 6, 5, 12)
    expected = with_gradients(in_float64, sources, weight, tf.float64)
    got = with_gradients(ours, sources, weight, tf.float32)
    assert len(got) == 10
    for mine, theirs in zip(got, expected, strict=True):
        assert largest_difference(mine, theirs) < 1e-5
    for one, other in zip(got, with_gradients(ours, sources, weight, tf.float32), strict=True):
        assert np.array_equal(one, other)  # to the bit, since runs are resumed to the bit
