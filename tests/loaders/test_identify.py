"""What a checkpoint is of is told from its variables, and a wrong guess is answered with it."""

import dataclasses

import numpy as np
import pytest

import loaders
from common.errors import UsageError, UserError
from loaders.identify import identify
from loaders.open import ModelRequest, open_checkpoint
from loaders.tf1_checkpoint import Tf1Checkpoint
from tests.loaders.conftest import TF1_CHECKPOINT
from tests.loaders.references import (
    ONE_OF_EACH,
    REFERENCES,
    config_of,
    directory_of,
    load_reference,
    num_outputs_of,
    reference_of,
)
from training.models import build_model, make_config, model_names
from training.models.mobilenet import weights_of


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_checkpoint_is_recognised(reference_data, name):
    checkpoint = Tf1Checkpoint(str(directory_of(reference_data, name)))
    identity = checkpoint.identity()
    model, width, _ = REFERENCES[name]
    assert (identity.family.name, identity.width_multiplier) == (model, width)
    assert identity.num_outputs == num_outputs_of(reference_of(reference_data, name))
    told = f"it looks like {model} at width {width:g} with {identity.num_outputs} outputs"
    assert checkpoint.looks_like() == told


@pytest.mark.parametrize("version", [1, 2])
def test_released_checkpoints_are_recognised_by_their_index_alone(reference_data, version):
    path = reference_data / "tf1_index" / f"mobilenet_v{version}_1.0_224.ckpt"
    identity = Tf1Checkpoint(str(path)).identity()
    assert identity.family.name == f"mobilenet_v{version}"
    assert (identity.width_multiplier, identity.num_outputs) == (1.0, 1001)


@pytest.mark.parametrize("model", model_names())
@pytest.mark.parametrize("width", [0.3, 1.0, 1.25])
def test_every_family_is_recognised_at_other_widths_by_its_channels(model, width):
    """The width that is found gives the same shapes: 0.3 and 0.31 can mean the same channels."""

    def shapes(multiplier):
        config = make_config(
            model, width_multiplier=multiplier, input_shape=(32, 32, 3), num_classes=7
        )
        variables = weights_of(build_model(config)).items()
        return config, {name: tuple(variable.shape) for name, variable in variables}

    config, ours = shapes(width)
    from loaders.name_map import tf1_name

    identity = identify({tf1_name(config.family.scope, k): v for k, v in ours.items()})
    assert (identity.family.name, identity.num_outputs) == (model, 7)
    if identity.width_multiplier != width:
        assert shapes(identity.width_multiplier)[1] == ours


def test_channels_that_no_width_gives_are_said_to_be_unknown():
    shapes = dict(Tf1Checkpoint(str(TF1_CHECKPOINT)).shapes)
    shapes["MobilenetV1/Conv2d_5_pointwise/weights"] = (1, 1, 64, 65)
    identity = identify(shapes)
    assert identity.width_multiplier is None
    assert str(identity) == "mobilenet_v1 at an unknown width with 17 outputs"


def test_other_networks_are_no_mobilenet():
    assert identify({"resnet/conv1/weights": (7, 7, 3, 64), "global_step": ()}) is None
    assert identify({}) is None


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_checkpoint_of_another_model_says_what_it_looks_like(reference_data, name):
    """Every loader is given the checkpoint of the next family in the list."""
    other = ONE_OF_EACH[(ONE_OF_EACH.index(name) + 1) % len(ONE_OF_EACH)]
    model, width, _ = REFERENCES[other]
    with pytest.raises(UserError) as error:
        load_reference(directory_of(reference_data, other), config_of(name, 11))
    assert f"it looks like {model} at width {width:g} with " in str(error.value)
    assert f"{REFERENCES[name][0]} at width" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_checkpoint_of_another_width_says_what_it_looks_like(reference_data, name):
    num_outputs = num_outputs_of(reference_of(reference_data, name))
    config = config_of(name, num_outputs, width_multiplier=1.4)
    with pytest.raises(UserError) as error:
        load_reference(directory_of(reference_data, name), config)
    model, width, _ = REFERENCES[name]
    assert f"({model} at width 1.4 with {num_outputs} outputs)" in str(error.value)
    told = f"it looks like {model} at width {width:g} with {num_outputs} outputs"
    assert str(error.value).endswith(told)


def test_minimalistic_variants_are_loaded_by_their_config_alone(reference_data):
    for full, minimalistic in (
        ("random_v3_small_0.75_128", "random_v3_small_minimalistic_0.5_96"),
        ("random_v3_large_0.5_128", "random_v3_large_minimalistic_0.35_96"),
    ):
        for name, wrong in ((full, minimalistic), (minimalistic, full)):
            fields = {"width_multiplier": REFERENCES[name][1], "num_classes": 11}
            with pytest.raises(UserError, match=f"it looks like {REFERENCES[name][0]} at"):
                load_reference(
                    directory_of(reference_data, name), config_of(wrong, 11).replace(**fields)
                )


LOADERS = {
    "load_mobilenet_v1": {"mobilenet_v1"},
    "load_mobilenet_v2": {"mobilenet_v2"},
    "load_mobilenet_v3_small": {"mobilenet_v3_small", "mobilenet_v3_small_minimalistic"},
    "load_mobilenet_v3_large": {"mobilenet_v3_large", "mobilenet_v3_large_minimalistic"},
    "load_mobilenet_edgetpu": {"mobilenet_edgetpu"},
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_loader_takes_the_configs_of_its_family_alone(loader, tmp_path):
    assert set(LOADERS) == set(loaders.__all__)
    for model in model_names():
        config = make_config(model)
        with pytest.raises(UserError) as error:
            getattr(loaders, loader)(str(tmp_path), config)
        if model in LOADERS[loader]:
            assert "holds no checkpoint" in str(error.value)
        else:
            assert isinstance(error.value, UsageError)
            assert f"not {type(config).__name__}" in str(error.value)


def test_a_loader_without_config_is_at_width_1_with_1001_outputs(reference_data):
    with pytest.raises(UserError, match=r"\(mobilenet_v2 at width 1 with 1001 outputs\)"):
        loaders.load_mobilenet_v2(str(directory_of(reference_data, "random_v2_0.35_96")))
    directory = directory_of(reference_data, "dq_mobilenet_v2_1.0_224")
    model = loaders.load_mobilenet_v2(checkpoint_path=str(directory))
    reference = reference_of(reference_data, directory.name)
    logits = reference["logits_averages"].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(reference["images"]), expected, atol=1e-4)


def test_what_the_user_says_about_the_model_must_be_so(reference_data):
    path = str(directory_of(reference_data, "random_v3_small_0.75_128"))
    assert open_checkpoint(path, ModelRequest()).record.config.name == "mobilenet_v3_small"
    usual = ModelRequest("mobilenet_v3_small", 0.75, 128)
    assert open_checkpoint(path, usual).record.config.resolution == (128, 128)
    for wrong in ({"model_name": "mobilenet_v3_large"}, {"width_multiplier": 1.0}):
        with pytest.raises(UserError, match=r"it looks like mobilenet_v3_small at width 0\.75"):
            open_checkpoint(path, dataclasses.replace(usual, **wrong))
