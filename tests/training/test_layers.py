import keras
import numpy as np
import pytest
import tensorflow as tf

from training.models import MobileNetV1Config, build_model, named_variables
from training.models.layers import FusedBatchNorm
from training.models.mobilenet import decayed_kernels, weights_of

EPSILON = 0.001
SHAPE = (4, 5, 3, 6)


@pytest.fixture
def images():
    return tf.constant(np.random.default_rng(0).normal(1.0, 2.0, SHAPE), tf.float32)


@pytest.fixture
def statistics():
    rng = np.random.default_rng(1)
    return [
        values.astype(np.float32)
        for values in (
            rng.uniform(0.5, 1.5, 6),  # gamma
            rng.normal(0, 1, 6),  # beta
            rng.normal(0, 1, 6),  # mean
            rng.uniform(0.1, 2, 6),  # variance
        )
    ]


def filled(layer, statistics):
    layer.build(SHAPE)
    layer.set_weights(statistics)
    return layer


def test_inference_is_that_of_keras_own_layer(images, statistics):
    ours = filled(FusedBatchNorm(0.9, EPSILON), statistics)
    theirs = filled(keras.layers.BatchNormalization(epsilon=EPSILON), statistics)
    np.testing.assert_allclose(ours(images), theirs(images), atol=1e-5)
    for before, after in zip(statistics, ours.get_weights(), strict=True):
        assert np.array_equal(before, after)


def test_training_normalises_by_the_moments_of_the_batch_with_their_gradient(images, statistics):
    layer = filled(FusedBatchNorm(0.9, EPSILON), statistics)
    gamma, beta = tf.Variable(statistics[0]), tf.Variable(statistics[1])
    weight = tf.constant(np.random.default_rng(2).normal(size=SHAPE), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(outputs * weight)
    ours = tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])
    with tf.GradientTape() as tape:
        tape.watch(images)
        mean, variance = tf.nn.moments(images, [0, 1, 2])
        expected = (images - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta
        loss = tf.reduce_sum(expected * weight)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    for one, other in zip(ours, tape.gradient(loss, [images, gamma, beta]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_moving_statistics_take_up_the_mean_and_the_unbiased_variance(images, statistics):
    layer = filled(FusedBatchNorm(0.9, EPSILON), statistics)
    layer(images, training=True)
    pixels = images.numpy().reshape(-1, SHAPE[-1]).astype(np.float64)
    mean, variance = pixels.mean(0), pixels.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_mean, 0.9 * statistics[2] + 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance, 0.9 * statistics[3] + 0.1 * variance, rtol=1e-5
    )


def test_the_layer_is_rebuilt_from_its_config():
    layer = FusedBatchNorm.from_config(FusedBatchNorm(0.9, 0.01, name="x").get_config())
    assert (layer.decay, layer.epsilon, layer.name) == (0.9, 0.01, "x")


def tiny(**fields) -> MobileNetV1Config:
    return MobileNetV1Config(5, (32, 32, 3), 0.25, classifier_activation=None).replace(**fields)


def test_weight_decay_is_for_ordinary_convolutions_only():
    names = decayed_kernels(build_model(tiny()))
    assert len(names) == 15  # the first, 13 pointwise ones and the logits
    assert {"Conv2d_0.kernel", "Conv2d_13_pointwise.kernel", "Logits.Conv2d_1c_1x1.kernel"} <= names
    assert not any("depthwise" in name or "BatchNorm" in name for name in names)


def test_initial_kernels_are_truncated_normal_and_differ_from_layer_to_layer():
    keras.utils.set_random_seed(0)
    values = {name: value.numpy() for name, value in weights_of(build_model(tiny())).items()}
    kernels = [value for name, value in values.items() if name.endswith("kernel")]
    drawn = np.concatenate([kernel.ravel() for kernel in kernels])
    # A normal distribution cut at two deviations has 0.88 of its deviation.
    assert np.max(np.abs(drawn)) <= 2 * 0.09
    assert 0.075 < np.std(drawn) < 0.0915
    same_shape = [values[f"Conv2d_{i}_pointwise.kernel"] for i in (7, 8, 9)]
    assert not np.array_equal(same_shape[0], same_shape[1])
    assert not np.array_equal(same_shape[1], same_shape[2])


def test_a_seed_fixes_the_initial_weights():
    def initial(seed):
        keras.utils.set_random_seed(seed)
        return build_model(tiny()).get_weights()

    for one, other in zip(initial(1), initial(1), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(initial(1)[0], initial(2)[0])


def test_dropout_acts_in_training_alone_and_its_state_is_a_variable():
    model = build_model(tiny(dropout_rate=0.5))
    assert set(named_variables(model)) - set(weights_of(model)) == {"Dropout.seed_generator_state"}
    images = tf.random.stateless_uniform([2, 32, 32, 3], [0, 1])
    assert np.array_equal(model(images, training=False), model(images, training=False))


def test_the_activation_can_be_replaced_for_the_whole_model():
    model = build_model(tiny(activation_name="relu"))
    kinds = {x.activation.__name__ for x in model.layers if isinstance(x, keras.layers.Activation)}
    assert kinds == {"relu"}


@pytest.mark.parametrize(("size", "pooled"), [(224, 7), (256, 7), (32, 1), (320, 10)])
def test_the_pooling_window_is_slims_up_to_256_pixels_and_the_whole_map_beyond(size, pooled):
    """At 225 to 256 pixels slim averages the 7x7 positions at the top left of 8x8."""
    model = build_model(tiny(input_shape=(size, size, 3)))
    pool = model.get_layer("AvgPool_1a")
    part = keras.Model(pool.input, pool.output)
    side = pool.input.shape[1]
    features = np.random.default_rng(0).normal(size=(2, side, side, pool.input.shape[-1]))
    expected = features[:, :pooled, :pooled].mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(part(features.astype(np.float32)), expected, atol=1e-5)
    assert model.output_shape == (None, 5)
