import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.models import (
    MobileNetV1Config,
    MobileNetV3SmallConfig,
    build_model,
    clusters,
    cpu,
    folded,
    named_variables,
    squeeze_excite,
)
from training.models.layers import (
    ExampleDropout,
    FusedBatchNorm,
    NormActivation,
    example_noise,
)
from training.models.mobilenet import decayed_kernels, weights_of
from training.randomness import example_keys

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


def test_dropout_acts_in_training_alone_and_has_no_state():
    model = build_model(tiny(dropout_rate=0.5))
    assert named_variables(model) == weights_of(model)
    images = tf.random.stateless_uniform([2, 32, 32, 3], [0, 1])
    assert np.array_equal(model(images, training=False), model(images, training=False))


def keys_of(*examples) -> tf.Tensor:
    return tf.constant(example_keys(3, 0, np.array(examples)))


def test_an_examples_dropout_depends_on_its_key_alone():
    layer, ones = ExampleDropout(0.25), tf.ones([3, 1, 1, 4000])
    with example_noise(keys_of(5, 6, 7)):
        masks = layer(ones, training=True).numpy()
    with example_noise(keys_of(7, 5)):
        again = layer(ones[:2], training=True).numpy()
    assert np.array_equal(again, masks[[2, 0]])
    assert not np.array_equal(masks[0], masks[1])
    assert set(np.unique(masks)) == {0.0, np.float32(1 / 0.75)}
    assert np.mean(masks == 0, axis=(1, 2, 3)) == pytest.approx(0.25, abs=0.03)
    assert not np.array_equal(layer(ones, training=True), masks)  # without keys: TensorFlow's own


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


ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "hard_swish": lambda x: x * tf.clip_by_value(x + 3.0, 0.0, 6.0) / 6.0,
}


@pytest.fixture
def clustered(monkeypatch):
    monkeypatch.setattr(cpu, "SMALLEST_MAP", 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_cluster_is_batch_norm_and_activation(activation, images, statistics, clustered):
    layer = filled(FusedBatchNorm(0.9, EPSILON), statistics)
    layer.activation = activation
    behind = NormActivation(activation, layer.activates)
    weight = tf.constant(np.random.default_rng(2).normal(size=SHAPE), tf.float32)

    @tf.function
    def gradients_of(images):
        sources = [images, layer.gamma.value, layer.beta.value]
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = behind(layer(images, training=True), training=True)
            loss = tf.reduce_sum(outputs * weight)
        return outputs, tape.gradient(loss, sources)

    outputs, ours = gradients_of(images)
    layer.set_weights(statistics)
    for one, other in zip(ours, gradients_of(images)[1], strict=True):
        assert np.array_equal(one, other)  # to the bit, since runs are resumed to the bit
    gamma, beta = tf.Variable(statistics[0]), tf.Variable(statistics[1])
    with tf.GradientTape() as tape:
        tape.watch(images)
        mean, variance = tf.nn.moments(images, [0, 1, 2])
        normalised = (images - mean) * tf.math.rsqrt(variance + EPSILON) * gamma + beta
        expected = ACTIVATIONS[activation](normalised)
        loss = tf.reduce_sum(expected * weight)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    for one, other in zip(ours, tape.gradient(loss, [images, gamma, beta]), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    pixels = images.numpy().reshape(-1, SHAPE[-1]).astype(np.float64)
    unbiased = 0.9 * statistics[3] + 0.1 * pixels.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance, unbiased, rtol=1e-5)


@pytest.mark.parametrize("in_mean", [0.0, 1000.0])
def test_a_clusters_variance_keeps_its_digits_far_from_zero(in_mean):
    values = np.random.default_rng(3).normal(in_mean, 1.0, (4, 6, 5, 3)).astype(np.float32)
    ones, zeros = tf.ones([3]), tf.zeros([3])
    _, mean, variance = clusters.norm_activation(values, ones, zeros, EPSILON, "relu")
    pixels = values.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, pixels.var(0), rtol=1e-5)


def test_a_map_that_no_block_of_rows_divides_is_normalised_by_plain_ops(clustered):
    layer = FusedBatchNorm(0.9, EPSILON)
    layer.activation = "relu"
    assert layer.activates(tf.zeros([2, 5, 4, 3]))
    assert not layer.activates(tf.zeros([1, 11, 11, 3]))


def test_a_clustered_model_trains_as_one_of_plain_ops(monkeypatch):
    """The activation is applied once, and at inference by its own layer."""
    config = tiny(dropout_rate=0.0).replace(input_shape=(64, 64, 3))
    model = build_model(config)
    pixels = tf.random.stateless_normal([4, 64, 64, 3], [0, 1])
    plain = model(pixels, training=True).numpy()
    monkeypatch.setattr(cpu, "SMALLEST_MAP", 10_000)
    calls = []
    cluster = clusters.norm_activation
    monkeypatch.setattr(clusters, "norm_activation", lambda *a: calls.append(a) or cluster(*a))
    np.testing.assert_allclose(model(pixels, training=True), plain, atol=1e-4)
    assert 0 < len(calls) < 27


def plain_layers(monkeypatch):
    """Has all models from now on trained by plain ops, as on accelerators."""
    monkeypatch.setattr(cpu, "computes_alone", lambda: False)


# All kinds of blocks and activations between them.
CONFIGS = [MobileNetV1Config, MobileNetV3SmallConfig]


def away(ones, others) -> float:
    """How far some gradients are from others, relative to their lengths: the median over all."""
    pairs = zip(ones, others, strict=True)
    return float(np.median([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs]))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_a_model_trains_on_a_cpu_as_by_plain_ops(config, monkeypatch):
    """Up to rounding, which models at their start magnify: so do pixels with other last digits."""
    monkeypatch.setattr(cpu, "SMALLEST_MAP", 50_000)
    model = build_model(config(4, (64, 64, 3), classifier_activation=None, dropout_rate=0.0))
    pixels = tf.random.stateless_normal([16, 64, 64, 3], [0, 1])
    labels = tf.range(16) % 4
    start = model.get_weights()

    def trained(pixels):
        model.set_weights(start)

        @tf.function
        def run():
            with tf.GradientTape() as tape:
                logits = model(pixels, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(losses)
            return tape.gradient(loss, [v.value for v in model.trainable_variables])

        gradients = [gradient.numpy() for gradient in run()]
        return gradients, [variable.numpy() for variable in model.non_trainable_variables]

    calls = []

    def watch(module, name):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a: calls.append(name) or real(*a))

    watch(folded, "conv_norm_activation")
    watch(clusters, "norm_activation")
    watch(squeeze_excite, "norm_activation_gate")
    gradients, statistics = trained(pixels)
    has_gates = config is MobileNetV3SmallConfig
    assert len(set(calls)) == 2 + has_gates
    for one, other in zip(gradients, trained(pixels)[0], strict=True):
        assert np.array_equal(one, other)  # to the bit, since runs are resumed to the bit
    calls.clear()
    monkeypatch.setattr(cpu, "computes_alone", lambda: False)
    plain, plain_statistics = trained(pixels)
    noise = 1e-6 * tf.random.stateless_normal(pixels.shape, [2, 3])
    disturbed, _ = trained(pixels * (1.0 + noise))
    assert not calls
    assert away(gradients, plain) <= 2 * away(disturbed, plain)
    for ours, theirs in zip(statistics, plain_statistics, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


POLICIES = {"mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("quantized", [False, True])
def test_mixed_precision_has_float32_weights_and_logits_and_about_the_same_loss(policy, quantized):
    config = tiny(dropout_rate=0.0, quantization_aware=quantized)
    pixels = tf.random.stateless_normal([8, 32, 32, 3], [0, 1])
    labels = tf.range(8) % 5

    def loss_and_gradients(policy):
        keras.mixed_precision.set_global_policy(policy)
        keras.utils.set_random_seed(0)
        try:
            model = build_model(config)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        with tf.GradientTape() as tape:
            logits = model(pixels, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        assert logits.dtype == tf.float32
        assert all(variable.dtype == "float32" for variable in model.variables)
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return loss, gradients, model.get_layer("Conv2d_3_pointwise").compute_dtype

    exact, _, _ = loss_and_gradients("float32")
    loss, gradients, dtype = loss_and_gradients(policy)
    assert dtype == ("float32" if quantized else POLICIES[policy])
    assert float(loss) == pytest.approx(float(exact), rel=0.05)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


TWO_REPLICAS = """
import numpy as np, tensorflow as tf
from training.models.layers import FusedBatchNorm, set_batch_norm_synchronized
import keras

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
pixels = np.random.default_rng(0).normal(1, 2, (8, 3, 3, 4)).astype(np.float32)
weight = np.random.default_rng(1).normal(size=pixels.shape).astype(np.float32)

def step(strategy, parts):
    with strategy.scope():
        norm = FusedBatchNorm(0.9, 1e-3)
        model = keras.Sequential([keras.Input((3, 3, 4)), norm])
    set_batch_norm_synchronized(model, True)
    share = lambda values: strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(
            np.split(values, parts)[context.replica_id_in_sync_group]))

    @tf.function
    def run(images, weight):
        def replica(images, weight):
            with tf.GradientTape() as tape:
                tape.watch(images)
                loss = tf.reduce_sum(weight * model(images, training=True) ** 2)
            return tape.gradient(loss, [images, norm.gamma.value, norm.beta.value])
        return strategy.run(replica, (images, weight))

    images, gamma, beta = run(share(pixels), share(weight))
    local = strategy.experimental_local_results
    return [np.concatenate(local(images)), sum(local(gamma)), sum(local(beta)),
            norm.moving_mean.numpy(), norm.moving_variance.numpy()]

one = step(tf.distribute.MirroredStrategy(["CPU:0"]), 1)
two = step(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), 2)
for mine, other in zip(one, two):
    np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
"""


def test_synchronised_batch_norm_of_two_replicas_is_that_of_one():
    # A process of its own: devices cannot be divided once TensorFlow has started.
    command = [sys.executable, "-c", TWO_REPLICAS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
