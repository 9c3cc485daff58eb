"""Whatever is wrong with a checkpoint is one clear error, and nothing is loaded by halves."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UsageError, UserError
from loaders import load_mobilenet_v1
from loaders.loaders import fill, read_weights
from loaders.open import ModelRequest, open_checkpoint
from loaders.tf1_checkpoint import Tf1Checkpoint, find_prefix
from tests.loaders.conftest import TF1_CHECKPOINT
from training.models import MobileNetV1Config, build_model

CONFIG = MobileNetV1Config(
    width_multiplier=0.25, input_shape=(128, 128, 3), num_classes=17, classifier_activation=None
)
REQUEST = ModelRequest("mobilenet_v1", None, 128)
BIASES, BIAS = "MobilenetV1/Logits/Conv2d_1c_1x1/biases", "Logits.Conv2d_1c_1x1.bias"


def error_of(path, config=CONFIG, **options) -> str:
    """The message of the one error that loading gives, from both ways to load."""
    with pytest.raises(UserError) as one:
        load_mobilenet_v1(str(path), config, **options)
    assert "\n" not in str(one.value)
    return str(one.value)


def read_all(prefix) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def write_tf1(prefix, values) -> str:
    """Writes variables as TF1's Saver does."""
    names = sorted(values)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(values[name]) for name in names],
    )
    return str(prefix)


@pytest.fixture(scope="module")
def variables():
    return read_all(TF1_CHECKPOINT)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nothing.ckpt"
    assert f"there is no checkpoint {path}" in error_of(path)
    assert f"{tmp_path} holds no checkpoint" in error_of(tmp_path)
    with pytest.raises(UserError, match="there is no checkpoint"):
        open_checkpoint(str(path), REQUEST)


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_may_be_named_by_any_of_its_files(tf1_copy, suffix):
    assert find_prefix(f"{tf1_copy}{suffix}") == str(tf1_copy)
    assert find_prefix(str(tf1_copy.parent)) == str(tf1_copy)


def test_a_directory_of_several_checkpoints_is_not_guessed_at(tf1_copy):
    for name in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{tf1_copy}{name}", f"{tf1_copy.parent}/model.ckpt-9{name}")
    text = error_of(tf1_copy.parent)
    assert f"{tf1_copy.parent} holds 2 checkpoints" in text
    with pytest.raises(UserError, match="holds 2 checkpoints"):
        open_checkpoint(str(tf1_copy.parent), REQUEST)
    load_mobilenet_v1(str(tf1_copy), CONFIG)


def test_a_data_file_that_was_cut_is_damage(tf1_copy):
    data = tf1_copy.with_name(tf1_copy.name + ".data-00000-of-00001")
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    text = error_of(tf1_copy)
    assert f"{tf1_copy} is damaged" in text and "cannot be read" in text
    data.unlink()
    assert str(tf1_copy) in error_of(tf1_copy)


@pytest.mark.parametrize("place", [0, 123_456, 700_001])
def test_a_flipped_bit_in_the_data_is_damage(tf1_copy, place):
    data = tf1_copy.with_name(tf1_copy.name + ".data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[place] ^= 1
    data.write_bytes(content)
    assert f"{tf1_copy} is damaged: MobilenetV1/" in error_of(tf1_copy)


def test_a_flipped_bit_in_the_index_never_changes_what_is_loaded(tf1_copy, variables):
    """Beginning, end, and places all through the file; the format leaves some bytes unused."""
    index = tf1_copy.with_name(tf1_copy.name + ".index")
    whole = index.read_bytes()
    places = {*range(0, len(whole), 211), *range(len(whole) - 48, len(whole), 5)}
    names = [name for name in variables if not name.endswith(("min", "max", "global_step"))]
    refused = 0
    for place in sorted(places):
        content = bytearray(whole)
        content[place] ^= 0x10
        index.write_bytes(content)
        try:
            checkpoint = Tf1Checkpoint(str(tf1_copy))
            values = {name: checkpoint.read(name) for name in names}
        except UserError as error:
            refused += 1
            assert str(tf1_copy) in str(error) and "\n" not in str(error)
        else:
            assert all(np.array_equal(values[name], variables[name]) for name in names)
    assert refused > len(places) // 2


def test_another_width_is_told_from_the_shapes():
    text = error_of(TF1_CHECKPOINT, CONFIG.replace(width_multiplier=0.5))
    for part in (
        "has MobilenetV1/Conv2d_0/weights of shape 3x3x3x8, but the model needs 3x3x3x16",
        "mobilenet_v1 at width 0.5 with 17 outputs",
        "it looks like mobilenet_v1 at width 0.25 with 17 outputs",
    ):
        assert part in text


def test_another_number_of_classes_is_told_from_the_shapes():
    text = error_of(TF1_CHECKPOINT, CONFIG.replace(num_classes=1001))
    assert "17" in text and "1001" in text and "Logits" in text


def test_a_missing_variable_is_named(tmp_path, variables):
    missing = "MobilenetV1/Conv2d_7_depthwise/BatchNorm/moving_variance"
    path = write_tf1(tmp_path / "x", {k: v for k, v in variables.items() if k != missing})
    assert f"has no variable {missing}, which the model needs" in error_of(path)


def test_a_checkpoint_without_logits_is_described_as_far_as_it_goes(tmp_path, variables):
    path = write_tf1(
        tmp_path / "x", {k: v for k, v in variables.items() if "MobilenetV1/Logits" not in k}
    )
    text = error_of(path)
    assert "MobilenetV1/Logits/Conv2d_1c_1x1" in text and "width 0.25" in text
    with pytest.raises(UserError, match=r"is no classifier .* width 0\.25 with no logits"):
        open_checkpoint(path, REQUEST)


@pytest.mark.parametrize("suffix", ["", "/ExponentialMovingAverage"])
def test_a_variable_without_a_place_is_named(tmp_path, variables, suffix):
    name = f"MobilenetV1/Extra/weights{suffix}"
    path = write_tf1(tmp_path / "x", variables | {name: np.zeros(3)})
    assert f"has a variable {name} that the model has no place for" in error_of(path)


def test_variables_of_a_trainer_are_no_mistake(tmp_path, variables):
    name = "MobilenetV1/Conv2d_0/weights"
    slots = {
        f"{name}/{slot}": variables[name]
        for slot in ("RMSProp", "RMSProp_1", "Momentum", "Adagrad", "Ftrl_1")
    }
    path = write_tf1(tmp_path / "x", variables | slots)
    checkpoint = Tf1Checkpoint(path)
    mapping = read_weights(checkpoint, build_model(CONFIG), CONFIG).mapping
    assert {mapping.left[slot] for slot in slots} == {"slot of the optimizer"}


def test_averages_of_some_weights_stand_in_for_these_alone(tmp_path, variables):
    average = variables[BIASES] + 1.0
    path = write_tf1(tmp_path / "x", variables | {f"{BIASES}/ExponentialMovingAverage": average})
    model = build_model(CONFIG)
    for which, expected in (("averages", average), ("raw", variables[BIASES])):
        stored = read_weights(Tf1Checkpoint(path), model, CONFIG)
        values = stored.choose(which)
        assert list(stored.averages) == list(stored.mapping.averages) == [BIAS]
        assert stored.chosen(which) == which
        assert np.array_equal(values[BIAS], expected)
        assert np.array_equal(values["Conv2d_0.kernel"], variables["MobilenetV1/Conv2d_0/weights"])


def test_weights_that_are_no_numbers_are_damage(tmp_path, variables):
    name = "MobilenetV1/Conv2d_3_pointwise/BatchNorm/beta"
    for bad in (np.nan, np.inf):
        value = variables[name].copy()
        value[5] = bad
        path = write_tf1(tmp_path / "x", variables | {name: value})
        assert f"{name} holds NaN or infinite values" in error_of(path)


def test_another_model_is_described_by_its_variables(tmp_path):
    path = write_tf1(tmp_path / "x", {"resnet/conv1/weights": np.zeros([3], np.float32)})
    assert "its variables begin with resnet" in error_of(path)
    with pytest.raises(UserError, match=r"is no classifier that is known.*resnet"):
        open_checkpoint(path, REQUEST)


def test_an_unknown_set_of_weights_is_a_usage_error():
    with pytest.raises(UsageError, match="one of averages, raw, not 'ema'"):
        load_mobilenet_v1(str(TF1_CHECKPOINT), CONFIG, weights="ema")


def test_a_config_of_another_kind_is_a_usage_error():
    with pytest.raises(UsageError, match="needs a MobileNetV1Config, not dict"):
        load_mobilenet_v1(str(TF1_CHECKPOINT), {"width_multiplier": 0.25})


@pytest.mark.parametrize("wrong", ["missing", "shape"])
def test_filling_a_model_assigns_all_weights_or_none(wrong):
    model = build_model(CONFIG)
    before = [value.copy() for value in model.get_weights()]
    values = open_checkpoint(str(TF1_CHECKPOINT), REQUEST).values
    last = "Logits.Conv2d_1c_1x1.bias"
    values = {k: v for k, v in values.items() if k != last}
    if wrong == "shape":
        values[last] = np.zeros(3, np.float32)
    with pytest.raises(UserError, match=last):
        fill(model, values, "it")
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.array_equal(old, new)
