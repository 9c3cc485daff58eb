import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.command import run_to_exit_code
from common.errors import UsageError, UserError
from common.labels import LabelNumbering
from loaders.convert import ConvertConfig, convert
from loaders.open import ModelRequest, open_checkpoint
from tests.loaders.conftest import TF1_CHECKPOINT
from training.models import MobileNetV1Config, ModelRecord

V1 = ModelRequest("mobilenet_v1")


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> str:
    output_dir = str(tmp_path_factory.mktemp("converted") / "tf2")
    convert(ConvertConfig(output_dir, str(TF1_CHECKPOINT), resolution=128))
    return output_dir


def test_the_converted_checkpoint_gives_the_logits_of_the_tf1_graph(converted, tf1_reference):
    checkpoint = open_checkpoint(converted, ModelRequest())
    logits = checkpoint.build()(tf1_reference["images"], training=False).numpy()
    expected = tf1_reference["logits_float"]
    assert np.max(np.abs(logits - expected)) <= 1e-4 * np.max(np.abs(expected))


def test_the_converted_checkpoint_holds_the_bits_of_the_tf1_one(converted):
    tf1 = tf.train.load_checkpoint(str(TF1_CHECKPOINT))
    prefix = tf.train.latest_checkpoint(converted)
    tf2 = tf.train.load_checkpoint(prefix)
    mapping = json.loads(pathlib.Path(converted, "mapping.json").read_text())
    sources = mapping["raw"]
    assert len(sources) == 137 and not mapping["averages"] and len(mapping["left"]) == 113
    for weight, variable in sources.items():
        key = f"model/{weight.replace('.', '..')}/.ATTRIBUTES/VARIABLE_VALUE"
        assert np.array_equal(tf2.get_tensor(key), tf1.get_tensor(variable))


def test_the_record_says_what_was_converted(converted):
    record = ModelRecord.read(converted)
    assert record.config == MobileNetV1Config(
        num_classes=17,
        width_multiplier=0.25,
        input_shape=(128, 128, 3),
        classifier_activation=None,
    )
    assert record.labels == LabelNumbering(17, 0)
    assert record.weights == "raw"  # there are no averages in this one
    assert record.input_range == (-1.0, 1.0)


def test_the_averages_are_converted_where_there_are_any(reference_data, tmp_path):
    directory = reference_data / "tf1_checkpoints" / "random_v1_0.25_128"
    reference = np.load(directory / "reference.npz")
    for which in ("averages", "raw"):
        output_dir = str(tmp_path / which)
        convert(ConvertConfig(output_dir, str(directory), resolution=128, weights=which))
        checkpoint = open_checkpoint(output_dir, ModelRequest())
        assert checkpoint.record.weights == which
        assert checkpoint.record.labels == LabelNumbering(1000, 1)
        logits = checkpoint.build()(reference["images"], training=False).numpy()
        expected = reference[f"logits_{which}"]
        assert np.max(np.abs(logits - expected)) <= 1e-4 * np.max(np.abs(expected))


def test_a_conversion_can_be_repeated_but_never_replaces_other_files(converted, tmp_path):
    convert(ConvertConfig(converted, str(TF1_CHECKPOINT), resolution=128))
    assert sorted(os.listdir(converted))[-2:] == ["mapping.json", "model.json"]

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=f"--output_dir={tmp_path} .*holds files"):
        convert(ConvertConfig(str(tmp_path), str(TF1_CHECKPOINT)))
    assert os.listdir(tmp_path) == ["thesis.txt"]

    with pytest.raises(UserError, match=r"--output_dir=.*thesis\.txt"):
        convert(ConvertConfig(str(tmp_path / "thesis.txt"), str(TF1_CHECKPOINT)))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["config.json", "export.json", "checkpoints/ckpt-9.index"])
def test_a_conversion_never_takes_the_place_of_a_run_or_an_export(converted, tmp_path, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(parents=True)
    path.write_text("much work")
    shutil.copy(os.path.join(converted, "model.json"), tmp_path / "run")
    with pytest.raises(UserError, match="give another directory"):
        convert(ConvertConfig(str(tmp_path / "run"), converted, to="tf1"))
    assert path.read_text() == "much work"


def test_the_command_refuses_in_one_line_and_leaves_nothing(tmp_path, converted, capsys):
    output = tmp_path / "out"
    for flags, told in (
        (["--checkpoint_path=/nowhere"], "there is no checkpoint /nowhere"),
        ([f"--checkpoint_path={TF1_CHECKPOINT}", "--width_multiplier=0.5"], "0.25"),
        ([f"--checkpoint_path={converted}"], "is a TF2 checkpoint already"),
    ):
        words = ["convert", f"--output_dir={output}", *flags]
        assert run_to_exit_code(convert, ConvertConfig, argv=words) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and told in error
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [None, "auto", "mobilenet_v1"])
def test_a_tf1_checkpoint_needs_no_name_of_its_architecture(name):
    config = open_checkpoint(str(TF1_CHECKPOINT), ModelRequest(name)).record.config
    assert (config.name, config.num_classes) == ("mobilenet_v1", 17)
    with pytest.raises(UserError, match=r"--model_name=mobilenet_v2, but .* mobilenet_v1 at"):
        open_checkpoint(str(TF1_CHECKPOINT), ModelRequest("mobilenet_v2"))


def test_the_width_of_a_tf1_checkpoint_is_seen_from_its_shapes():
    assert open_checkpoint(str(TF1_CHECKPOINT), V1).record.config.width_multiplier == 0.25
    with pytest.raises(UserError, match=r"looks like mobilenet_v1 at width 0\.25"):
        open_checkpoint(str(TF1_CHECKPOINT), ModelRequest("mobilenet_v1", 1.0))


@pytest.mark.parametrize(
    ("request_", "told"),
    [(ModelRequest(width_multiplier=0.5), r"--width_multiplier=0\.5.*width_multiplier 0\.25")],
)
def test_flags_that_contradict_the_record_are_refused(converted, request_, told):
    with pytest.raises(UsageError, match=told):
        open_checkpoint(converted, request_)


def test_the_resolution_may_be_another_than_the_record_says(converted):
    record = open_checkpoint(converted, ModelRequest(resolution=96)).record
    assert record.config.input_shape == (96, 96, 3)


def test_a_tf2_checkpoint_without_its_record_is_refused(converted, tmp_path):
    for path in pathlib.Path(converted).glob("ckpt-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"has no model\.json beside it"):
        open_checkpoint(str(tmp_path), ModelRequest())


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("labels"),
        lambda record: record["config"].pop("name"),
        lambda record: record["config"].update(name="resnet"),
        lambda record: record["config"].update(wings=2),
        lambda record: record["config"].update(width_multiplier="wide"),
        lambda record: record["config"].update(num_classes="many"),
        lambda record: record["config"].update(input_shape=128),
        lambda record: record["labels"].update(num_classes=3),
        lambda record: record.update(config=None),
        lambda record: record.update(classes=7),
    ],
)
def test_a_record_that_was_edited_wrongly_is_a_user_error(converted, tmp_path, damage):
    record = json.loads(pathlib.Path(converted, "model.json").read_text())
    damage(record)
    (tmp_path / "model.json").write_text(json.dumps(record))
    with pytest.raises(UserError):
        ModelRecord.read(str(tmp_path))


def test_a_damaged_tf2_checkpoint_is_named(converted, tmp_path):
    for path in pathlib.Path(converted).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    data = tmp_path / "ckpt-2345.data-00000-of-00001"
    whole = data.read_bytes()
    for content in (whole[:1000], whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]):
        data.write_bytes(content)
        with pytest.raises(UserError, match=f"checkpoint {tmp_path}/ckpt-2345 cannot be read"):
            open_checkpoint(str(tmp_path), ModelRequest())
    index = tmp_path / "ckpt-2345.index"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{tmp_path}/ckpt-2345 cannot be read"):
        open_checkpoint(str(tmp_path), ModelRequest())


def test_classes_of_the_data_must_be_those_of_the_model(converted, tmp_path):
    names = tuple(f"class {index}" for index in range(17))
    for path in pathlib.Path(converted).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    dataclasses.replace(ModelRecord.read(converted), classes=names).write(str(tmp_path))
    opened = open_checkpoint(str(tmp_path), ModelRequest(), classes=names)
    assert opened.record.classes == names

    swapped = (*names[:3], names[4], names[3], *names[5:])
    with pytest.raises(UserError, match=r"class 3 is 'class 3' .* but 'class 4' in the data set"):
        open_checkpoint(str(tmp_path), ModelRequest(), classes=swapped)
    with pytest.raises(UserError, match="3 classes, but the model has 17 outputs"):
        open_checkpoint(str(tmp_path), ModelRequest(), classes=names[:3])
    with pytest.raises(UserError, match=r"16 classes, but .* was made for 17 \(label offset 0\)"):
        open_checkpoint(str(tmp_path), ModelRequest(), classes=names[:16])


def test_classes_give_a_tf1_checkpoint_its_label_numbering():
    def labels(count):
        names = [str(index) for index in range(count)]
        return open_checkpoint(str(TF1_CHECKPOINT), V1, classes=names).record.labels

    assert labels(17) == LabelNumbering(17, 0)
    assert labels(16) == LabelNumbering(16, 1)
    with pytest.raises(UserError, match="15 classes, but the model has 17 outputs"):
        labels(15)
