"""8-bit checkpoints in the quantisation-aware models, against the graphs of the TF1 rewriter."""

import re

import keras
import numpy as np
import pytest

from loaders.loaders import read_weights
from loaders.open import ModelRequest, open_checkpoint
from loaders.tf1_checkpoint import Tf1Checkpoint
from tests.loaders.references import (
    QUANTIZED,
    config_of,
    directory_of,
    load_reference,
    num_outputs_of,
    reference_of,
)
from training.models import build_model
from training.models.mobilenet import weights_of


@pytest.fixture(scope="module", params=QUANTIZED)
def quantized(request, reference_data):
    """The model with a checkpoint's raw weights and ranges, and what TF1 gives."""
    reference = reference_of(reference_data, request.param)
    config = config_of(request.param, num_outputs_of(reference), quantization_aware=True)
    model = load_reference(directory_of(reference_data, request.param), config, "raw")
    return model, reference


def layer_name(scope: str) -> str:
    """Our name of a scope of the TF1 graph, whose V1 doubles the model's."""
    return re.sub(r"^(Mobilenet\w+/)+", "", scope).replace("/", ".")


def test_logits_are_those_of_the_rewritten_graph(quantized):
    """Rounding amplifies noise of float arithmetic: one step more or less changes the logits."""
    model, reference = quantized
    logits = model(reference["images"], training=False).numpy()
    expected, plain = reference["logits_quant"], reference["logits_float"]
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] >= 0.99
    assert np.mean(np.abs(logits - expected)) <= np.mean(np.abs(expected - plain)) / 4


def test_ranges_are_those_of_the_rewriter(quantized):
    model, reference = quantized
    weights = weights_of(model)
    ours = {name.rpartition(".")[0] for name in weights if name.endswith(".min")}
    assert len(ours) == len(reference["range_names"])
    assert ours == {layer_name(str(name)) for name in reference["range_names"]}
    for name, low, high in zip(
        reference["range_names"], reference["range_min"], reference["range_max"], strict=True
    ):
        ends = [weights[f"{layer_name(str(name))}.{end}"].numpy() for end in ("min", "max")]
        np.testing.assert_array_equal(ends, [low, high], err_msg=str(name))


def test_early_layers_are_those_of_the_rewritten_graph(quantized):
    """Before a flipped step has been amplified: each of the first layers behind its range."""
    model, reference = quantized
    layers, expected = [], []
    rows = zip(
        reference["endpoint_taken"],
        reference["endpoint_mean"],
        reference["endpoint_std"],
        strict=True,
    )
    for taken, mean, std in rows:
        how, _, scope = str(taken).rpartition(" ")
        if how in ("after", "quantised by") and len(layers) < 5:
            layers.append(model.get_layer(layer_name(scope)).output)
            expected.append((mean, std))
    assert len(layers) >= 3
    outputs = keras.Model(model.input, layers)(reference["images"], training=False)
    statistics = [(np.mean(output), np.std(output)) for output in outputs]
    np.testing.assert_allclose(statistics[:1], expected[:1], atol=1e-5)
    np.testing.assert_allclose(statistics, expected, atol=1e-3)


def test_every_variable_of_a_training_checkpoint_is_accounted_for(reference_data):
    name = "random_v2_0.35_96_quant"
    checkpoint = Tf1Checkpoint(str(directory_of(reference_data, name)))
    assert len(checkpoint.shapes) == 1009
    config = config_of(name, 11, quantization_aware=True)
    mapping = read_weights(checkpoint, build_model(config), config).mapping
    used = [*mapping.raw.values(), *mapping.averages.values(), *mapping.left]
    assert sorted(used) == sorted(checkpoint.shapes)
    assert len(mapping.raw) == 262 + 2 * 116
    assert len(mapping.averages) == 262  # ranges have none
    reasons = list(mapping.left.values())
    assert reasons.count("counter of the trainer") == 1
    helpers = [scope for scope, reason in mapping.left.items() if reason == "quantisation range"]
    assert len(helpers) == 4 * (116 - 53) == len(reasons) - 1
    assert all(scope.endswith(("/biased", "/local_step")) for scope in helpers)


def test_averages_go_with_the_ranges_too(reference_data):
    name = "random_v2_0.35_96_quant"
    reference = reference_of(reference_data, name)
    path = str(directory_of(reference_data, name))
    request = ModelRequest(resolution=96, quantization_aware=True)
    model = open_checkpoint(path, request, "averages").build()
    logits = model(reference["images"], training=False).numpy()
    expected, plain = reference["logits_quant_averages"], reference["logits_float_averages"]
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] >= 0.99
    assert np.mean(np.abs(logits - expected)) <= np.mean(np.abs(expected - plain)) / 4
