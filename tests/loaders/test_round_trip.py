"""TF1 to TF2 and back: every tensor's bytes, under names that TF1's own Saver restores."""

import os

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UsageError, UserError
from loaders.convert import ConvertConfig, convert
from tests.loaders.conftest import TF1_CHECKPOINT
from tests.loaders.references import ONE_OF_EACH, directory_of

AVERAGE = "/ExponentialMovingAverage"


def read_all(path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def is_weight(name: str) -> bool:
    words = ("weights", "depthwise_weights", "biases", "gamma", "beta")
    last = name.removesuffix(AVERAGE).rsplit("/", 1)[-1]
    return last in (*words, "moving_mean", "moving_variance")


@pytest.mark.parametrize("name", [*ONE_OF_EACH, "random_v1_0.25_128_quant"])
def test_there_and_back_again_is_the_identity(reference_data, tmp_path, name):
    quantized = name.endswith("_quant")
    original = read_all(directory_of(reference_data, name))
    there, back = str(tmp_path / "tf2"), str(tmp_path / "tf1")
    path = str(directory_of(reference_data, name))
    convert(ConvertConfig(there, path, quantization_aware=quantized))
    convert(ConvertConfig(back, there, to="tf1"))

    written = read_all(back)
    expected = {k for k in original if is_weight(k) or (quantized and k.endswith(("/min", "/max")))}
    assert len(expected) > 130
    assert set(written) == expected | {"global_step"}
    assert written["global_step"].dtype == np.int64
    assert written["global_step"] == original.get("global_step", 0)
    for variable in expected:
        assert written[variable].dtype == original[variable].dtype == np.float32
        assert written[variable].shape == original[variable].shape
        assert written[variable].tobytes() == original[variable].tobytes(), variable


def test_tf1s_saver_restores_what_was_written(tmp_path):
    there, back = str(tmp_path / "tf2"), str(tmp_path / "tf1")
    convert(ConvertConfig(there, str(TF1_CHECKPOINT), quantization_aware=True))
    convert(ConvertConfig(back, there, to="tf1"))
    expected = read_all(TF1_CHECKPOINT)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, value.shape, tf.as_dtype(value.dtype))
            for name, value in expected.items()
        }
        prefix = tf.compat.v1.train.latest_checkpoint(back)
        assert os.path.basename(prefix) == f"model.ckpt-{expected['global_step']}"
        tf.compat.v1.train.Saver().restore(session, prefix)
        restored = session.run(variables)
    for name, value in expected.items():
        assert np.array_equal(restored[name], value), name


def test_a_checkpoint_is_not_converted_into_what_it_is(tmp_path):
    there = str(tmp_path / "tf2")
    convert(ConvertConfig(there, str(TF1_CHECKPOINT)))
    with pytest.raises(UserError, match="is a TF1 checkpoint already"):
        convert(ConvertConfig(str(tmp_path / "x"), str(TF1_CHECKPOINT), to="tf1"))
    with pytest.raises(UserError, match="is a TF2 checkpoint already"):
        convert(ConvertConfig(str(tmp_path / "x"), there))
    assert os.listdir(tmp_path) == ["tf2"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"checkpoint_path": "x", "checkpoint": "mobilenet_v1_0.25_128"},
        {"checkpoint_path": "x", "to": "tf1", "drop_background": True},
        {"checkpoint": "mobilenet_v1_0.25_128", "to": "tf1"},
    ],
    ids=str,
)
def test_flags_that_do_not_go_together_are_refused(fields):
    with pytest.raises(UsageError, match="--checkpoint"):
        ConvertConfig("out", **fields)
