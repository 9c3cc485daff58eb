"""Fake quantisation against TensorFlow's own, and what training does to ranges and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.models import build_model, make_config
from training.models.mobilenet import weights_of
from training.models.quantized import FakeQuant, FoldedConv, fake_quant

RANGES = [(-1.0, 1.0), (0.0, 6.0), (-0.37, 2.9), (-3.0, 0.0), (-0.01, 0.013), (-7.3, 0.2)]


@pytest.mark.parametrize("narrow_range", [False, True])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_rounding_is_tensorflows_but_for_ties(low, high, narrow_range):
    rng = np.random.default_rng(0)
    spread = 1.5 * max(high, -low)
    values = np.float32(rng.uniform(-spread, spread, 20_000))
    ours = fake_quant(values, tf.constant(low), tf.constant(high), narrow_range).numpy()
    theirs = tf.quantization.fake_quant_with_min_max_vars(
        values, low, high, num_bits=8, narrow_range=narrow_range
    ).numpy()
    step = (high - low) / (254 if narrow_range else 255)
    difference = np.abs(ours - theirs)
    assert np.max(difference) <= step * 1.001
    assert np.mean(difference > step * 1e-3) < 1e-3
    assert 200 < len(np.unique(np.round(ours / step))) <= (255 if narrow_range else 256)
    assert np.min(np.abs(ours)) == 0.0  # 0 is one of the values


def test_the_gradient_passes_inside_the_range_alone():
    values = tf.constant([-9.0, -1.01, -0.99, 0.0, 0.3, 1.99, 2.01, 50.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        loss = tf.reduce_sum(fake_quant(values, tf.constant(-1.0), tf.constant(2.0)) * 3.0)
    gradient = tape.gradient(loss, values).numpy()
    assert gradient.tolist() == [0.0, 0.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0]


def test_ranges_of_activations_follow_the_batches_in_training_alone():
    layer = FakeQuant()
    inputs = tf.constant([[-2.0, 0.5, 10.0]])
    layer(inputs)
    assert (float(layer.min), float(layer.max)) == (-6.0, 6.0)
    for batch in range(1, 4):
        layer(inputs, training=True)
        share = 0.999**batch
        assert float(layer.min) == pytest.approx(-2.0 + share * (-6.0 + 2.0), rel=1e-5)
        assert float(layer.max) == pytest.approx(10.0 + share * (6.0 - 10.0), rel=1e-5)
    layer.min.assign(-1e-3)
    layer(tf.constant([[3.0, 4.0]]), training=True)
    assert float(layer.min) == pytest.approx(-1e-3 * 0.999)  # towards 0, which a range must hold


def folded(filters) -> tuple[FoldedConv, tf.Tensor]:
    rng = np.random.default_rng(1)
    layer = FoldedConv(filters, 3, 2, (0.9, 0.001), keras.initializers.TruncatedNormal(stddev=0.3))
    layer.build((None, 9, 9, 4))
    out = (filters or 4,)
    layer.gamma.assign(rng.uniform(0.5, 1.5, out))
    layer.beta.assign(rng.normal(0, 0.3, out))
    layer.moving_mean.assign(rng.normal(0, 0.3, out))
    layer.moving_variance.assign(rng.uniform(0.5, 2, out))
    return layer, tf.constant(rng.normal(size=(8, 9, 9, 4)), tf.float32)


@pytest.mark.parametrize("filters", [6, None])
def test_a_folded_convolution_is_a_convolution_with_batch_norm_but_for_rounding(filters):
    """In inference with the moving statistics, in training with those of the batch."""
    layer, images = folded(filters)
    assert layer.compute_output_shape((8, 9, 9, 4)) == (8, 5, 5, filters or 4)
    operation = tf.nn.conv2d if filters else tf.nn.depthwise_conv2d
    plain = operation(images, layer.kernel.value, (1, 2, 2, 1), "SAME")
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    mean, variance = (moment.numpy() for moment in tf.nn.moments(plain, [0, 1, 2]))
    after = [0.9 * old + 0.1 * batch for old, batch in zip(before, (mean, variance), strict=True)]
    for training, moments in ((True, (mean, variance)), (False, after)):
        outputs = layer(images, training=training)
        for moving, value in zip((layer.moving_mean, layer.moving_variance), after, strict=True):
            np.testing.assert_allclose(moving, value, rtol=1e-4, atol=1e-6)
        expected = tf.nn.batch_normalization(
            plain, *moments, layer.beta.value, layer.gamma.value, 0.001
        )
        error = np.abs(outputs - expected)
        assert 0 < np.mean(error) < 0.02 * np.std(expected)
    folded_kernel = layer.kernel.numpy()
    scale = layer.gamma.numpy() / np.sqrt(before[1] + 0.001)
    folded_kernel *= scale if filters else scale[:, np.newaxis]
    assert float(layer.min) == pytest.approx(folded_kernel.min(), rel=1e-5)
    assert float(layer.max) == pytest.approx(folded_kernel.max(), rel=1e-5)


def quantized_model(name: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    config = make_config(
        name,
        num_classes=3,
        width_multiplier=0.25,
        input_shape=(32, 32, 3),
        dropout_rate=0.0,
        stddev=0.09,
        quantization_aware=True,
    )
    return build_model(config.replace(classifier_activation=None))


def coloured_images() -> tuple[np.ndarray, np.ndarray]:
    """Noise whose strongest colour tells the class."""
    labels = np.arange(12) % 3
    images = np.float32(np.random.default_rng(0).uniform(-1, 0, (12, 32, 32, 3)))
    images[np.arange(12), :, :, labels] += 1.0
    return images, labels


def train_step(model: keras.Model, optimizer: keras.optimizers.Optimizer, images, labels):
    """One step; returns the loss, and the largest gradient of each variable."""
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    optimizer.apply(gradients, variables)
    return loss, [tf.reduce_max(tf.abs(gradient)) for gradient in gradients]


def test_a_few_steps_of_training_lower_the_loss():
    model = quantized_model("mobilenet_v1")
    images, labels = coloured_images()
    step = tf.function(train_step)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    losses = [float(step(model, optimizer, images, labels)[0]) for _ in range(15)]
    assert np.all(np.isfinite(losses))
    assert min(losses[-3:]) < 0.7 * losses[0]
    assert np.all(np.isfinite(model(images, training=False)))


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_edgetpu"])
def test_a_step_of_training_moves_every_range_and_reaches_every_weight(name):
    model = quantized_model(name)
    ranges = {k: v for k, v in weights_of(model).items() if k.endswith((".min", ".max"))}
    before = {name: float(value) for name, value in ranges.items()}
    assert not any(variable.trainable for variable in ranges.values())
    loss, gradients = train_step(model, keras.optimizers.SGD(0.05), *coloured_images())
    assert np.isfinite(loss)
    assert np.all(np.isfinite(gradients)) and np.min(gradients) > 0
    unmoved = {name for name, value in ranges.items() if float(value) == before[name]}
    # Where relu6 reaches 6, that is the end which the range began with.
    assert all(before[name] == 6.0 and name.endswith(".max") for name in unmoved)
    assert len(unmoved) < 0.05 * len(ranges)
