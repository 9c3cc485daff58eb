"""The same logits as the TF1 graph, the same variables as the released checkpoints."""

import csv
import pathlib

import keras
import numpy as np
import pytest

from loaders import load_mobilenet_v1
from loaders.mapping import match
from loaders.tf1_checkpoint import Tf1Checkpoint
from tests.loaders.conftest import TF1_CHECKPOINT
from tests.loaders.references import (
    REFERENCES,
    config_of,
    directory_of,
    load_reference,
    num_outputs_of,
    reference_of,
)
from training.image_ops import decode_for_evaluation
from training.models import MobileNetV1Config, build_model
from training.models.mobilenet import weights_of


def v1_config(width: float, size: int, num_classes: int = 1001) -> MobileNetV1Config:
    return MobileNetV1Config(
        width_multiplier=width,
        input_shape=(size, size, 3),
        num_classes=num_classes,
        classifier_activation=None,
    )


def assert_same_logits(model: keras.Model, images: np.ndarray, expected: np.ndarray) -> None:
    logits = model(images, training=False).numpy()
    assert np.max(np.abs(logits - expected)) <= 1e-4 * max(1.0, np.max(np.abs(expected)))


def test_the_quantisation_aware_checkpoint_gives_the_logits_of_the_tf1_graph(tf1_reference):
    model = load_mobilenet_v1(str(TF1_CHECKPOINT), v1_config(0.25, 128, 17))
    assert_same_logits(model, tf1_reference["images"], tf1_reference["logits_float"])


def test_every_layer_of_the_random_checkpoint_gives_the_statistics_of_the_tf1_graph(reference_data):
    """`reference.npz` says mean and spread of each layer's output in the TF1 graph."""
    directory = reference_data / "tf1_checkpoints" / "random_v1_0.25_128"
    reference = np.load(directory / "reference.npz")
    model = load_mobilenet_v1(str(directory), v1_config(0.25, 128), weights="raw")
    names = [str(name).rsplit("/", 1)[-1] for name in reference["endpoint_names"]]
    layers = {name: f"{name}.relu6" for name in names if name.startswith("Conv2d")}
    assert len(layers) == 27
    outputs = keras.Model(model.input, [model.get_layer(x).output for x in layers.values()])
    statistics = zip(reference["endpoint_mean"], reference["endpoint_std"], strict=True)
    rows = dict(zip(names, statistics, strict=True))
    for name, values in zip(layers, outputs(reference["images"], training=False), strict=True):
        np.testing.assert_allclose(
            (np.mean(values), np.std(values)), rows[name], rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_every_reference_checkpoint_is_compared(reference_data):
    directories = (reference_data / "tf1_checkpoints").glob("*/reference.npz")
    assert sorted(path.parent.name for path in directories) == sorted(REFERENCES)


# Which logits of `reference.npz` each set of weights must give; the float graph's for 8-bit ones.
LOGITS_OF = {
    "raw": ("logits_raw", "logits_float"),
    "averages": ("logits_averages", "logits_float_averages", "logits_raw", "logits_float"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_checkpoints_give_the_logits_of_the_tf1_graph(reference_data, name):
    reference = reference_of(reference_data, name)
    model, images, compared = None, reference["images"], set()
    for weights, keys in LOGITS_OF.items():
        key = next((key for key in keys if key in reference), None)
        if key in compared or key is None:  # without averages, the weights themselves
            continue
        compared.add(key)
        config = config_of(name, num_outputs_of(reference))
        model = load_reference(directory_of(reference_data, name), config, weights)
        assert_same_logits(model, images, reference[key])
    stored = {key for key in reference if key.startswith("logits_") and "quant" not in key}
    assert compared == stored


def test_averages_and_raw_weights_are_told_apart(reference_data):
    both = 0
    for name in REFERENCES:
        reference = reference_of(reference_data, name)
        if {"logits_raw", "logits_averages"} <= set(reference):
            both += 1
            assert np.max(np.abs(reference["logits_raw"] - reference["logits_averages"])) > 0.5
    assert both >= 4


def test_without_averages_the_weights_themselves_are_loaded(reference_data):
    name = "mobilenet_v1_0.25_128"
    reference = reference_of(reference_data, name)
    config = config_of(name, 1001)
    model = load_reference(directory_of(reference_data, name), config, "averages")
    assert_same_logits(model, reference["images"], reference["logits_raw"])


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128", "mobilenet_v1_0.75_224"])
def test_evaluation_preprocessing_makes_the_images_of_the_tf1_graph(reference_data, name):
    reference = np.load(reference_data / "tf1_checkpoints" / name / "reference.npz")
    for file, expected in zip(reference["files"], reference["images"], strict=True):
        path = next((reference_data / "imagenet_sample").rglob(pathlib.Path(str(file)).name))
        images = decode_for_evaluation(path.read_bytes(), expected.shape[:2], (-1.0, 1.0))
        assert np.max(np.abs(images - expected)) <= 1e-5


# Of the released checkpoints: all variables of the model, and those that are trained.
PARAMETERS = {
    1.0: (4254889, 4233001),
    0.75: (2602745, 2586329),
    0.5: (1343049, 1332105),
    0.25: (475801, 470329),
}


@pytest.mark.parametrize("width", PARAMETERS)
@pytest.mark.parametrize("size", [224, 192, 160, 128])
def test_every_released_variant_has_the_published_number_of_parameters(width, size):
    model = build_model(v1_config(width, size))
    total = sum(np.prod(v.shape) for v in weights_of(model).values())
    trainable = sum(np.prod(v.shape) for v in model.trainable_variables)
    assert (total, trainable) == PARAMETERS[width]
    assert len(weights_of(model)) == 137
    assert model.output_shape == (None, 1001)


def test_the_model_has_the_variables_of_the_released_checkpoint(reference_data):
    released = Tf1Checkpoint(str(reference_data / "tf1_index" / "mobilenet_v1_1.0_224.ckpt"))
    with open(reference_data / "tf1_index" / "mobilenet_v1_1.0_224.variables.csv") as file:
        listed = {
            row["name"]: tuple(int(side) for side in row["shape"].split("x") if side)
            for row in csv.DictReader(file)
        }
    assert released.shapes == listed
    weights = {k: tuple(v.shape) for k, v in weights_of(build_model(v1_config(1.0, 224))).items()}
    mapping = match(weights, released.shapes, "MobilenetV1", "it")
    assert mapping.raw.keys() == mapping.averages.keys() == weights.keys()
    used = [*mapping.raw.values(), *mapping.averages.values()]
    assert len(set(used)) == len(used)
    assert set(used) | set(mapping.left) == set(listed)
    assert not set(used) & set(mapping.left)
    assert mapping.left["total_loss/ExponentialMovingAverage"] == "average of a loss"


def test_what_is_left_of_a_quantisation_aware_checkpoint_has_its_reason():
    checkpoint = Tf1Checkpoint(str(TF1_CHECKPOINT))
    weights = {
        name: tuple(variable.shape)
        for name, variable in weights_of(build_model(v1_config(0.25, 128, 17))).items()
    }
    mapping = match(weights, checkpoint.shapes, "MobilenetV1", "it")
    assert len(mapping.raw) == 137 and not mapping.averages
    reasons = list(mapping.left.values())
    assert reasons.count("quantisation range") == 2 * 56
    assert reasons.count("counter of the trainer") == 1
    assert len(reasons) == 250 - 137


def test_probabilities_are_the_softmax_of_the_logits(tf1_reference):
    config = v1_config(0.25, 128, 17).replace(classifier_activation="softmax")
    outputs = load_mobilenet_v1(str(TF1_CHECKPOINT), config)(tf1_reference["images"]).numpy()
    exponentials = np.exp(tf1_reference["logits_float"].astype(np.float64))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
