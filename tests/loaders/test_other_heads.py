"""A model without its background class, and feature extractors from full checkpoints."""

import keras
import numpy as np
import pytest

from common.errors import UserError
from common.labels import LabelNumbering
from loaders.convert import ConvertConfig, convert
from loaders.loaders import read_weights
from loaders.open import ModelRequest, open_checkpoint
from loaders.tf1_checkpoint import Tf1Checkpoint
from tests.loaders.conftest import TF1_CHECKPOINT
from tests.loaders.references import (
    ONE_OF_EACH,
    config_of,
    directory_of,
    load_reference,
    num_outputs_of,
    reference_of,
)
from training.models import build_model
from training.models.mobilenet import weights_of

BOTH_SETS = "random_v1_0.25_128"  # raw weights and averages


@pytest.mark.parametrize("weights", ["averages", "raw"])
def test_without_background_the_classes_keep_their_logits(reference_data, tmp_path, weights):
    directory = directory_of(reference_data, BOTH_SETS)
    output = str(tmp_path / "out")
    convert(
        ConvertConfig(output, str(directory), resolution=128, weights=weights, drop_background=True)
    )
    checkpoint = open_checkpoint(output, ModelRequest())
    assert checkpoint.record.labels == LabelNumbering(1000, 0)
    assert checkpoint.record.config.num_classes == 1000
    reference = reference_of(reference_data, BOTH_SETS)
    logits = checkpoint.build()(reference["images"], training=False).numpy()
    expected = reference[f"logits_{weights}"][:, 1:]
    assert logits.shape == (4, 1000)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.max(np.abs(expected)))
    assert np.array_equal(np.argmax(logits, axis=1), np.argmax(expected, axis=1))


def test_a_model_without_background_has_none_to_drop(tmp_path):
    config = ConvertConfig(str(tmp_path / "x"), str(TF1_CHECKPOINT), drop_background=True)
    with pytest.raises(UserError, match="no background class to drop: the model has 17 outputs"):
        convert(config)
    assert not list(tmp_path.iterdir())


# The full model's layer that gives the last features before pooling.
LAST_FEATURES = {
    "mobilenet_v1": "Conv2d_13_pointwise.relu6",
    "mobilenet_v2": "Conv_1.relu6",
    "mobilenet_v3_small": "Conv_1.hard_swish",
    "mobilenet_v3_large": "Conv_1.hard_swish",
    "mobilenet_v3_small_minimalistic": "Conv_1.relu",
    "mobilenet_v3_large_minimalistic": "Conv_1.relu",
    "mobilenet_edgetpu": "Conv_1.relu",
}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_feature_extractor_has_the_features_of_the_full_model(reference_data, name):
    reference = reference_of(reference_data, name)
    full_config = config_of(name, num_outputs_of(reference))
    config = full_config.replace(include_top=False)
    path = directory_of(reference_data, name)
    model, full = load_reference(path, config), load_reference(path, full_config)
    size = config.resolution[0]
    features = model(reference["images"], training=False)
    assert list(features) == ["C2", "C3", "C4", "C5"]
    for stride, level in ((4, "C2"), (8, "C3"), (16, "C4"), (32, "C5")):
        assert features[level].shape[:3] == (4, size // stride, size // stride)
    inner = keras.Model(full.input, full.get_layer(LAST_FEATURES[config.name]).output)
    assert np.array_equal(features["C5"], inner(reference["images"], training=False))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_head_of_a_full_checkpoint_is_left_over_by_name(reference_data, name):
    config = config_of(name, 11, include_top=False)
    model = build_model(config)
    checkpoint = Tf1Checkpoint(str(directory_of(reference_data, name)))
    mapping = read_weights(checkpoint, model, config).mapping
    assert mapping.raw.keys() == weights_of(model).keys()
    head = {
        variable.removesuffix("/ExponentialMovingAverage").split("/", 1)[1]
        for variable, reason in mapping.left.items()
        if reason == "head"
    }
    logits = {f"Logits/Conv2d_1c_1x1/{word}" for word in ("weights", "biases")}
    wide = {f"Conv_2/{word}" for word in ("weights", "biases")} if "_v3_" in config.name else set()
    assert head == logits | wide


def test_a_feature_extractor_takes_no_stranger_for_a_head(reference_data):
    """Only the head of the same model is left over; other variables are still an error."""
    config = config_of("random_v3_small_0.75_128", 11, include_top=False)
    path = directory_of(reference_data, "random_v3_small_minimalistic_0.5_96")
    with pytest.raises(UserError, match="it looks like mobilenet_v3_small_minimalistic"):
        load_reference(path, config)
