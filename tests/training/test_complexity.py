import csv
import math

import pytest

from training.models import build_model, make_config
from training.models.complexity import (
    Convolution,
    convolutions,
    count_macs,
    count_parameters,
)
from training.models.mobilenet import weights_of

MODEL_NAMES = {
    "v1": "mobilenet_v1",
    "v2": "mobilenet_v2",
    "v3_large": "mobilenet_v3_large",
    "v3_small": "mobilenet_v3_small",
    "v3_large_minimalistic": "mobilenet_v3_large_minimalistic",
    "v3_small_minimalistic": "mobilenet_v3_small_minimalistic",
    "edgetpu": "mobilenet_edgetpu",
}


def config_of(name, width=1.0, size=224, **fields):
    return make_config(name, width_multiplier=width, input_shape=(size, size, 3), **fields)


@pytest.mark.parametrize(
    "name, width, size, macs, trainable, total, without_batch_norm",
    [
        ("mobilenet_v1", 1.0, 224, 568_741_376, 4_233_001, 4_254_889, 4_211_113),
        ("mobilenet_v1", 0.25, 192, 30_212_864, 470_329, 475_801, 464_857),
        ("mobilenet_v2", 1.0, 224, 300_775_552, 3_506_153, 3_540_265, 3_472_041),
        ("mobilenet_v2", 1.4, 224, 582_197_616, 6_110_569, 6_158_505, 6_062_633),
        ("mobilenet_v2", 0.35, 96, 11_935_408, 1_678_409, 1_692_489, 1_664_329),
        ("mobilenet_v3_large", 0.75, 224, 154_561_904, 3_994_809, 4_013_897, 3_975_721),
        ("mobilenet_v3_small", 1.0, 224, 56_511_424, 2_543_881, 2_555_993, 2_531_769),
        ("mobilenet_edgetpu", 1.0, 224, 990_670_464, 4_092_713, 4_131_593, 4_053_833),
    ],
)
def test_figures_of_released_models(name, width, size, macs, trainable, total, without_batch_norm):
    config = config_of(name, width, size)
    parameters = count_parameters(config)
    assert count_macs(config) == macs
    assert parameters.trainable == trainable
    assert parameters.total == total
    assert parameters.without_batch_norm == without_batch_norm
    assert parameters.three_of_four_batch_norm == (trainable + total) // 2


def test_figures_of_all_released_models_agree_with_the_reference_to_the_unit(reference_data):
    table = reference_data.parent / "seed" / "zoo.csv"
    if not table.exists():
        pytest.skip(f"no {table}")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 87
    for row in rows:
        config = config_of(MODEL_NAMES[row["family"]], float(row["width"]), int(row["resolution"]))
        parameters = count_parameters(config)
        assert count_macs(config) == int(row["macs_computed"]), row["name"]
        assert parameters.trainable == int(row["params_trainable_computed"]), row["name"]
        assert parameters.total == int(row["params_total_computed"]), row["name"]
        assert parameters.without_batch_norm == int(row["params_without_bn_computed"]), row["name"]


def test_layers_of_the_reference_have_these_multiply_adds(reference_data):
    table = reference_data.parent / "reference" / "layers.csv"
    if not table.exists():
        pytest.skip(f"no {table}")
    totals = {}
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        key = row["family"], float(row["width"])
        totals[key] = totals.get(key, 0) + int(row["macs_at_224"])
    for (family, width), macs in totals.items():
        assert count_macs(config_of(MODEL_NAMES[family], width)) == macs, (family, width)


def test_layers_and_shapes_are_those_of_the_reference_at_every_released_width(reference_data):
    """Of every convolution: kernel, channels, positions, and what follows it."""
    table = reference_data.parent / "reference" / "layers.csv"
    if not table.exists():
        pytest.skip(f"no {table}")
    expected = {}
    for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines()):
        expected.setdefault((row["family"], float(row["width"])), []).append(row)
    assert len(expected) >= 14
    for (family, width), rows in expected.items():
        ours = list(convolutions(config_of(MODEL_NAMES[family], width)))
        assert len(ours) == len(rows), (family, width)
        for convolution, row in zip(ours, rows, strict=True):
            sides = math.prod(map(int, row["kernel"].split("x")))
            inputs = 1 if row["op"] == "depthwise" else int(row["in_channels"])
            assert convolution == Convolution(
                kernel=sides * inputs * int(row["out_channels"]),
                channels=int(row["out_channels"]),
                positions=int(row["out_size_at_224"]) ** 2,
                norm=row["batch_norm"] == "1",
            ), row


@pytest.mark.parametrize("family", MODEL_NAMES)
def test_scopes_activations_and_shortcuts_are_those_of_the_reference(reference_data, family):
    """Of the Keras model at the smallest released width, where rounding adds shortcuts."""
    table = reference_data.parent / "reference" / "layers.csv"
    if not table.exists():
        pytest.skip(f"no {table}")
    rows = [
        row
        for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())
        if row["family"] == family
    ]
    width = min((row["width"] for row in rows), key=float)
    rows = [row for row in rows if row["width"] == width]
    model = build_model(config_of(MODEL_NAMES[family], float(width)))
    names = [layer.name for layer in model.layers]
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for layer, row in zip(kernels, rows, strict=True):
        assert layer.name == row["scope"].split("/", 1)[1].replace("/", ".")
        assert "x".join(map(str, layer.kernel_size)) == row["kernel"]
        assert layer.strides[0] == int(row["stride"])
        assert (f"{layer.name}.BatchNorm" in names) == (row["batch_norm"] == "1")
        assert layer.use_bias == (row["bias"] == "1")
        activation = row["activation"]
        if activation in ("relu", "relu6", "hard_swish"):
            assert f"{layer.name}.{activation}" in names
        block = layer.name.rpartition(".")[0]
        if layer.name.endswith(".project"):
            assert (f"{block}.add" in names) == (row["shortcut_after"] not in ("", "0"))


@pytest.mark.parametrize(
    "name, width, shape, fields",
    [
        ("mobilenet_v1", 0.4, (97, 130, 3), {}),  # odd sides, widths off the usual grid
        ("mobilenet_v1", 0.25, (256, 256, 3), {}),
        ("mobilenet_v2", 0.25, (96, 96, 3), {"num_classes": 5}),
        ("mobilenet_v3_large", 0.35, (65, 64, 3), {"num_classes": 11}),
        ("mobilenet_v3_small", 0.5, (100, 100, 3), {"quantization_aware": True}),
        ("mobilenet_v3_small_minimalistic", 0.75, (64, 64, 3), {}),
        ("mobilenet_edgetpu", 1.3, (33, 47, 3), {}),
    ],
)
def test_arithmetic_on_the_table_agrees_with_the_layers_of_the_keras_model(
    name, width, shape, fields
):
    config = make_config(name, width_multiplier=width, input_shape=shape, **fields)
    model = build_model(config)
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert count_macs(config) == sum(
        math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape) for layer in layers
    )
    sizes = {"total": 0, "trainable": 0, "without_batch_norm": 0}
    for weight_name, variable in weights_of(model).items():
        if weight_name.endswith((".min", ".max")):
            continue
        size = math.prod(variable.shape)
        sizes["total"] += size
        sizes["trainable"] += size * variable.trainable
        sizes["without_batch_norm"] += size * ("BatchNorm" not in weight_name)
    parameters = count_parameters(config)
    assert {kind: getattr(parameters, kind) for kind in sizes} == sizes
