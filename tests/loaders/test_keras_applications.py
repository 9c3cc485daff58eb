"""The same weights in keras.applications give the same logits, where its models are slim's.

Its MobileNet pads as slim does while all maps are even; its V3 has slim's channels at widths 0.75
and 1 alone, and 1/6 where slim's gate has 0.16667, which is put in here.
"""

import keras
import numpy as np
import pytest

from tests.loaders.conftest import TF1_CHECKPOINT
from tests.loaders.references import config_of, directory_of, load_reference, reference_of
from training.models import build_model, make_config
from training.models.mobilenet import weights_of

_STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")


def with_random_weights(name: str, width: float, shape: tuple[int, int, int]) -> keras.Model:
    """A model of ours whose every weight matters."""
    config = make_config(name, width_multiplier=width, input_shape=shape, num_classes=11)
    model = build_model(config.replace(classifier_activation=None))
    rng = np.random.default_rng(0)
    for weight_name, variable in weights_of(model).items():
        shape, kind = tuple(variable.shape), weight_name.rpartition(".")[-1]
        if kind == "kernel":
            fan_in = np.prod(shape[:2]) * (1 if shape[-1] == 1 else shape[2])
            value = rng.normal(0, np.sqrt(2 / fan_in), shape)
        elif kind in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.3, shape)
        variable.assign(value)
    return model


def layers_of(model: keras.Model) -> list[list[np.ndarray]]:
    """Values of each layer with weights, in the order of the graph."""
    return [layer.get_weights() for layer in model.layers if layer.count_params()]


def transplant(ours: keras.Model, theirs: keras.Model) -> None:
    """Fills `theirs` layer by layer: both stand in the order of the computation."""
    values = layers_of(ours)
    targets = [layer for layer in theirs.layers if layer.count_params()]
    assert len(values) == len(targets)
    for layer, weights in zip(targets, values, strict=True):
        shapes = [tuple(variable.shape) for variable in layer.weights]
        layer.set_weights([w.reshape(shape) for w, shape in zip(weights, shapes, strict=True)])


def assert_same_logits(ours: keras.Model, theirs: keras.Model, images: np.ndarray) -> None:
    expected = theirs(images, training=False).numpy()
    assert np.min(np.std(expected, axis=0)) > 0.01  # the images matter
    difference = np.max(np.abs(ours(images, training=False).numpy() - expected))
    assert difference <= 1e-4 * max(1.0, np.max(np.abs(expected)))


def images_of(shape: tuple[int, int, int]) -> np.ndarray:
    """Blobs of colour, so that their logits differ."""
    coarse = np.random.default_rng(1).uniform(-1, 1, (4, 4, 4, 3))
    rows, columns = (np.arange(side) * 4 // side for side in shape[:2])
    return np.float32(coarse[:, rows][:, :, columns])


def applications(name: str, width: float, shape: tuple[int, int, int], **options) -> keras.Model:
    return getattr(keras.applications, name)(
        input_shape=shape,
        alpha=width,
        weights=None,
        classes=11,
        classifier_activation=None,
        **options,
    )


def same_epsilon(model: keras.Model) -> bool:
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    return bool(norms) and {norm.epsilon for norm in norms} == {0.001}


@pytest.fixture
def slims_gate(monkeypatch):
    """Replaces Keras' hard sigmoid by slim's constant."""
    from keras.src.applications import mobilenet_v3

    def gate(x):
        return keras.layers.Rescaling(0.16667)(keras.layers.ReLU(6.0)(x + 3.0))

    monkeypatch.setattr(mobilenet_v3, "hard_sigmoid", gate)


@pytest.mark.parametrize("width, size", [(0.25, 128), (0.5, 96)])
def test_mobilenet_v1(width, size):
    shape = (size, size, 3)
    ours = with_random_weights("mobilenet_v1", width, shape)
    theirs = applications("MobileNet", width, shape)
    assert same_epsilon(theirs)
    transplant(ours, theirs)
    assert_same_logits(ours, theirs, images_of(shape))


def test_mobilenet_v1_with_the_weights_of_tf1(tf1_reference):
    ours = load_reference(TF1_CHECKPOINT, config_of("random_v1_0.25_128", 17))
    theirs = keras.applications.MobileNet(
        input_shape=(128, 128, 3), alpha=0.25, weights=None, classes=17, classifier_activation=None
    )
    transplant(ours, theirs)
    images = np.random.default_rng(0).uniform(-1, 1, (4, 128, 128, 3)).astype(np.float32)
    for batch in (images, tf1_reference["images"]):
        expected = theirs(batch, training=False).numpy()
        assert np.std(expected) > 0.1
        np.testing.assert_allclose(ours(batch, training=False), expected, atol=1e-4)


@pytest.mark.parametrize(
    "width, shape", [(0.35, (96, 96, 3)), (0.5, (97, 97, 3)), (1.4, (64, 96, 3))]
)
def test_mobilenet_v2(width, shape):
    ours = with_random_weights("mobilenet_v2", width, shape)
    theirs = applications("MobileNetV2", width, shape)
    assert same_epsilon(theirs)
    transplant(ours, theirs)
    assert_same_logits(ours, theirs, images_of(shape))


@pytest.mark.parametrize(
    "size, width, side, minimalistic",
    [
        ("Small", 0.75, 97, True),
        ("Large", 0.75, 96, True),
        ("Small", 1.0, 96, False),
        ("Small", 0.75, 128, False),
        ("Large", 0.75, 96, False),
    ],
)
def test_mobilenet_v3(slims_gate, size, width, side, minimalistic):
    shape = (side, side, 3)
    name = f"mobilenet_v3_{size.lower()}" + ("_minimalistic" if minimalistic else "")
    ours = with_random_weights(name, width, shape)
    theirs = applications(
        f"MobileNetV3{size}",
        width,
        shape,
        minimalistic=minimalistic,
        include_preprocessing=False,
        dropout_rate=0.0,
    )
    assert same_epsilon(theirs)
    transplant(ours, theirs)
    assert_same_logits(ours, theirs, images_of(shape))


def test_mobilenet_v3_with_the_weights_of_tf1(slims_gate, reference_data):
    name = "random_v3_small_0.75_128"
    ours = load_reference(directory_of(reference_data, name), config_of(name, 11))
    theirs = applications(
        "MobileNetV3Small", 0.75, (128, 128, 3), include_preprocessing=False, dropout_rate=0.0
    )
    transplant(ours, theirs)
    reference = reference_of(reference_data, name)
    for model in (ours, theirs):
        logits = model(reference["images"], training=False)
        np.testing.assert_allclose(logits, reference["logits_raw"], atol=1e-4)
