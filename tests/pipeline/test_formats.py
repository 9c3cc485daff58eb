"""Formats: they compute what was trained, need nothing of this project, and repeat themselves."""

import dataclasses
import io
import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from common import files
from common.errors import UsageError, UserError
from common.labels import LabelNumbering
from loaders.open import ModelRequest, open_checkpoint
from pipeline import formats
from pipeline.formats import onnx, writing
from pipeline.formats.deployment import build_deployment_model
from pipeline.formats.int8 import Int8Flags
from pipeline.formats.labels import label_lines, one_line
from training.models import ModelRecord, build_model, make_config, model_names
from training.models.mobilenet import weights_of

# None of these may break the list of labels, or anything that shows it.
NAMES = ("<b>cat</b>", "two\nlines", "tab\tand\u2028separator")
FLOATS = tuple(n for n in formats.PATHS if n not in (formats.CHECKPOINT, formats.LITERT_INT8))


def random_model(name: str, size=(32, 32), num_classes: int = 3, **fields):
    """A model with weights that leave no part of it without effect, and its record."""
    config = make_config(
        name, num_classes=num_classes, width_multiplier=0.25, input_shape=(*size, 3), **fields
    ).replace(classifier_activation=None)
    model = build_model(config)
    generator = np.random.default_rng(7)
    for path, variable in weights_of(model).items():
        shape = variable.shape
        if path.endswith("kernel"):
            fan_in = np.prod(shape[:2]) * (1 if shape[-1] == 1 else shape[-2])
            value = generator.normal(0, np.sqrt(2 / fan_in), shape)
        elif path.endswith(("gamma", "variance")):
            value = generator.uniform(0.7, 1.3, shape)
        elif path.endswith(("beta", "mean", "bias")):
            value = generator.normal(0, 0.3, shape)
        else:  # ends of ranges
            continue
        variable.assign(value.astype(np.float32))
    labels = LabelNumbering(num_classes)
    return model, ModelRecord(config, labels, (NAMES * num_classes)[:num_classes])


def random_images(size, count: int = 4) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (count, *size, 3)).astype(np.float32)


@pytest.mark.parametrize("size", [(32, 32), (41, 57)], ids=["even", "odd"])
@pytest.mark.parametrize("name", model_names())
def test_the_deployment_model_computes_what_was_trained(name, size):
    model, record = random_model(name, size)
    deployed = build_deployment_model(model, record.config)
    images = random_images(size)
    expected = model(images, training=False).numpy()
    assert np.ptp(expected, axis=0).min() > 1e-3  # the images differ, so that agreement says much
    scale = np.abs(expected).max()
    np.testing.assert_allclose(deployed(images).numpy(), expected, atol=2e-5 * scale)
    foreign = [type(x) for x in deployed.layers if not type(x).__module__.startswith("keras.")]
    assert not foreign
    assert not [x for x in deployed.layers if "Normalization" in type(x).__name__]


@pytest.mark.parametrize("side", [226, 256])
def test_the_pooling_of_v1_on_large_maps(side):
    # The window of 7x7 leaves out the last row and column of a map of 8x8.
    model, record = random_model("mobilenet_v1", (side, 224))
    images = random_images((side, 224), count=1)
    deployed = build_deployment_model(model, record.config)
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(deployed(images).numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25_128", "random_v2_0.35_96", "random_v3_small_0.75_128"]
)
def test_the_deployment_model_gives_the_logits_of_the_tf1_graph(reference_data, name):
    directory = reference_data / "tf1_checkpoints" / name
    with np.load(directory / "reference.npz") as reference:
        images = reference["images"]
        averages = "logits_averages" in reference.files
        expected = reference["logits_averages" if averages else "logits_raw"]
    checkpoint = open_checkpoint(str(directory), ModelRequest(resolution=images.shape[1]))
    deployed = build_deployment_model(checkpoint.build(), checkpoint.record.config)
    np.testing.assert_allclose(deployed(images).numpy(), expected, atol=1e-4)


def test_layers_keep_their_names_and_values():
    model, record = random_model("mobilenet_v3_small")
    deployed = build_deployment_model(model, record.config)
    images = random_images((32, 32))
    pairs = {
        "Conv.hard_swish": "Conv.hard_swish",
        "expanded_conv.depthwise": "expanded_conv.depthwise.BatchNorm",
        "expanded_conv.squeeze_excite.Conv.relu": "expanded_conv.squeeze_excite.Conv.relu",
        "expanded_conv.project": "expanded_conv.project.BatchNorm",
        "expanded_conv_2.add": "expanded_conv_2.add",
    }

    def outputs(of: keras.Model, names):
        return keras.Model(of.input, [of.get_layer(name).output for name in names])(images)

    ours, theirs = outputs(deployed, pairs), outputs(model, pairs.values())
    for name, found, expected in zip(pairs, ours, theirs, strict=True):
        atol = 1e-4 * float(np.abs(expected).max())
        np.testing.assert_allclose(found, expected, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A V3 in all float formats, written twice in one process, and the model."""
    model, record = random_model("mobilenet_v3_small")
    directories = []
    for name in ("first", "second"):
        directory = tmp_path_factory.mktemp(name)
        source = writing.Source(model, record, values_of(model), no_photos, Int8Flags())
        names = [n for n in FLOATS if n != formats.ONNX or not onnx.missing_packages()]
        artifacts = writing.write_artifacts(source, [formats.CHECKPOINT, *names], str(directory))
        directories.append(directory)
    return model, record, directories, artifacts


def values_of(model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in weights_of(model).items()}


def no_photos():
    raise AssertionError("no format here needs photos")


def test_the_same_model_gives_the_same_bytes(made):
    _, _, (first, second), artifacts = made
    names = {name for name, _ in files.list_tree(str(first))}
    assert {"saved_model/saved_model.pb", "model.keras", "litert/dynamic.tflite"} <= names
    assert names == {name for name, _ in files.list_tree(str(second))}
    different = {n for n in names if (first / n).read_bytes() != (second / n).read_bytes()}
    assert different <= {formats.PATHS[name] for name in formats.VARYING}
    for artifact in artifacts:
        if artifact.format in formats.VARYING:
            continue
        assert files.fingerprint(str(second / artifact.path)) == artifact.sha256


ALONE = """
import json, sys
import keras
import numpy as np

images = np.load(sys.argv[2])
outputs = keras.models.load_model(sys.argv[1]).predict(images, verbose=0)
np.save(sys.argv[3], outputs)
ours = ("common", "loaders", "pipeline", "preprocessing", "training")
print(json.dumps([name for name in sys.modules if name.split(".")[0] in ours]))
"""


def test_a_keras_file_opens_without_this_project(made, tmp_path):
    model, _, (directory, _), _ = made
    images = random_images((32, 32))
    np.save(tmp_path / "in.npy", images)
    paths = [directory / "model.keras", tmp_path / "in.npy", tmp_path / "out.npy"]
    process = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *paths],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert json.loads(process.stdout.splitlines()[-1]) == []
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("litert_float32", 1e-4), ("litert_float16", 0.05), ("litert_dynamic", 0.5)],
)
def test_a_litert_file_needs_builtin_operators_and_takes_any_batch(made, name, tolerance):
    model, _, (directory, _), _ = made
    images = random_images((32, 32))
    expected = model(images, training=False).numpy()
    path = str(directory / formats.PATHS[name])
    one_by_one = Interpreter(path).get_signature_runner("serving_default")
    found = np.concatenate([one_by_one(images=image[np.newaxis])["logits"] for image in images])
    interpreter = Interpreter(path)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, images)
    interpreter.invoke()
    together = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    for logits in (found, together):
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, atol=tolerance * np.abs(expected).max())
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert "HARD_SWISH" in operators
    assert not {"SHAPE", "BATCH_MATMUL", "READ_VARIABLE"} & operators
    assert not [word for word in operators if word.startswith(("Flex", "CUSTOM"))]


def test_litert_sizes_say_what_was_rounded(made):
    _, _, (directory, _), _ = made
    size = {n: (directory / formats.PATHS[n]).stat().st_size for n in formats.LITERT[:3]}
    assert size["litert_float16"] < 0.6 * size["litert_float32"]
    assert size["litert_dynamic"] < 0.4 * size["litert_float32"]


def test_onnx_agrees(made):
    runtime = pytest.importorskip("onnxruntime")
    model, _, (directory, _), _ = made
    images = random_images((32, 32))
    session = runtime.InferenceSession(str(directory / "model.onnx"))
    (logits,) = session.run(["logits"], {"images": images})
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_a_line_names_an_output_whatever_the_name_holds(made):
    _, record, (directory, _), _ = made
    content = (directory / "labels.txt").read_bytes()
    lines = content.decode().splitlines()
    assert lines == ["<b>cat</b>", "two\\nlines", "tab\\tand\\u2028separator"]
    assert [line.encode().decode("unicode_escape") for line in lines] == list(NAMES)
    assert (directory / "saved_model" / "assets" / "labels.txt").read_bytes() == content
    with zipfile.ZipFile(directory / "litert" / "float16.tflite") as attached:
        assert attached.read("labels.txt") == content
        assert json.loads(attached.read("model.json")) == json.loads(json.dumps(record.to_json()))
    background = dataclasses.replace(
        record, classes=NAMES[:2], labels=LabelNumbering(num_classes=2, offset=1)
    )
    assert label_lines(background) == ["background", *map(one_line, NAMES[:2])]


def test_a_quantization_aware_model_keeps_its_rounding(tmp_path):
    model, record = random_model("mobilenet_v1", quantization_aware=True)
    source = writing.Source(model, record, values_of(model), no_photos, Int8Flags())
    assert source.shipped is model
    writing.write_artifacts(source, [formats.SAVED_MODEL], str(tmp_path))
    images = random_images((32, 32))
    served = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    found = served(images=tf.constant(images))["logits"].numpy()
    expected = model(images, training=False).numpy()
    step = np.diff(np.unique(expected)).min()  # the logits are rounded themselves
    np.testing.assert_allclose(found, expected, atol=1.01 * step)
    with pytest.raises(ValueError, match="float"):
        build_deployment_model(model, record.config)


def test_formats_are_chosen_by_what_can_hold_the_model(monkeypatch, caplog):
    everything = tuple(formats.PATHS)
    monkeypatch.setattr(writing, "missing_packages", list)
    assert writing.choose_formats(["all"], False) == everything
    assert writing.choose_formats(["onnx", "keras"], False) == ("keras", "onnx")
    aware = ("checkpoint", "saved_model", "litert_int8")
    assert writing.choose_formats(["all"], True) == aware
    assert writing.choose_formats(None, True) == aware
    assert writing.choose_formats(None, False) == formats.DEFAULT
    # The usual formats, typed out, are asked for as any others are.
    with pytest.raises(UsageError, match="--formats=litert_float32 cannot hold"):
        writing.choose_formats(formats.DEFAULT, True)
    with pytest.raises(UsageError, match="--formats=keras cannot hold the 8-bit rounding"):
        writing.choose_formats(["checkpoint", "keras"], True)
    monkeypatch.setattr(writing, "missing_packages", lambda: ["tf2onnx"])
    assert writing.choose_formats(["all"], False) == everything[:-1]
    with pytest.raises(UserError, match="--formats=onnx needs tf2onnx: pip install tf2onnx"):
        writing.choose_formats(["onnx"], False)


@pytest.mark.parametrize("name", ["tf2onnx", "onnx", "onnxruntime"])
def test_onnx_is_not_written_without_what_writes_and_runs_it(monkeypatch, name):
    monkeypatch.setattr(onnx.importlib.util, "find_spec", lambda n: None if n == name else object())
    assert onnx.missing_packages() == [name]


def test_the_keras_file_is_a_plain_zip_without_a_date(made):
    _, _, (directory, _), _ = made
    with zipfile.ZipFile(io.BytesIO((directory / "model.keras").read_bytes())) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert json.loads(archive.read("metadata.json")) == {"keras_version": keras.__version__}
