"""The README's examples on TF1 checkpoints, run as they are written."""

import pathlib
import re
import shlex

import numpy as np
import pytest
import tensorflow as tf

from common.command import run_to_exit_code
from loaders.convert import ConvertConfig, convert
from loaders.loaders import StoredWeights
from loaders.tf1_writer import tf1_variables, write_tf1_checkpoint
from training.models import MobileNetV1Config, build_model
from training.models.mobilenet import weights_of

README = pathlib.Path(__file__).parents[1] / "README.md"
CHECKPOINT = "mobilenet_v1_0.25_128.ckpt"


def code_blocks(language: str) -> list[str]:
    section = README.read_text().partition("### Use TF1 checkpoints")[2].partition("\n### ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def here_with_a_checkpoint(tmp_path, monkeypatch):
    """A working directory with a checkpoint of the name that the README uses."""
    monkeypatch.chdir(tmp_path)
    model = build_model(MobileNetV1Config(width_multiplier=0.25, input_shape=(128, 128, 3)))
    weights = {name: value.numpy() for name, value in weights_of(model).items()}
    stored = StoredWeights(raw=weights, averages={}, step=7)
    written = write_tf1_checkpoint(str(tmp_path), tf1_variables("MobilenetV1", stored), 7)
    for ending in (".index", ".data-00000-of-00001"):
        pathlib.Path(written + ending).rename(CHECKPOINT + ending)
    pathlib.Path("checkpoint").unlink()
    return model


def test_the_python_examples_run_one_after_the_other(here_with_a_checkpoint, tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, [2, 128, 128, 3]).astype(np.float32)
    names = {
        "eval_dataset": tf.data.Dataset.from_tensors((images, np.array([3, 5]))),
    }
    blocks = code_blocks("python")
    assert len(blocks) == 4
    for number, block in enumerate(blocks):
        names["save_path"] = str(tmp_path / f"saved-{number}")
        exec(compile(block, f"README block {number}", "exec"), names)

    expected = here_with_a_checkpoint(images).numpy()
    np.testing.assert_allclose(names["keras_model"](images).numpy(), expected, atol=1e-6)
    loss, _ = names["eval_result"]
    assert loss == pytest.approx(-np.mean(np.log(expected[[0, 1], [3, 5]])), rel=1e-4)
    restored = tf.train.latest_checkpoint(str(tmp_path / "saved-2"))
    assert restored and len(tf.train.list_variables(restored)) > 137
    served = tf.saved_model.load(str(tmp_path / "saved-3")).signatures["serving_default"]
    (probabilities,) = served(tf.constant(images)).values()
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-6)


def test_the_convert_examples_go_to_tf2_and_back(here_with_a_checkpoint):
    (block,) = (b for b in code_blocks("shell") if "loaders.convert" in b)
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[:3] == ["python", "-m", "loaders.convert"]
        assert run_to_exit_code(convert, ConvertConfig, argv=words[2:]) == 0
    before, after = (tf.train.load_checkpoint(p) for p in (CHECKPOINT, "slim/model.ckpt-7"))
    assert before.get_variable_to_shape_map() == after.get_variable_to_shape_map()
    for name in before.get_variable_to_shape_map():
        assert before.get_tensor(name).tobytes() == after.get_tensor(name).tobytes()
