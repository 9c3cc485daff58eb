"""Models in every format, of ours and of others, are read the same way."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from common.labels import LabelNumbering
from pipeline.evaluation.predictors import PredictorRequest, open_predictor
from training.models import MobileNetV1Config, ModelRecord

from .colour_model import RESOLUTION, colour_model, images_by_hand, to_litert
from .conftest import CLASSES

RNG = np.random.default_rng(3)
KERNEL = (2.0 * np.eye(3) + RNG.normal(size=(3, 3))).astype(np.float32)
BIAS = RNG.normal(size=3).astype(np.float32) / 3


@pytest.fixture(scope="module")
def photos_by_hand(data_dir):
    return images_by_hand(data_dir)


@pytest.fixture(scope="module")
def models(tmp_path_factory, photos_by_hand):
    """The same classifier in every format, as others would hand it over: without a record."""
    root, images = tmp_path_factory.mktemp("models"), photos_by_hand[0]
    model = colour_model(KERNEL, BIAS)
    probable = colour_model(KERNEL, BIAS, softmax=True)
    model.save(root / "logits.keras")
    probable.save(root / "probabilities.keras")
    model.export(root / "saved_model", verbose=False)
    files = {
        "float32": to_litert(model),
        "probabilities": to_litert(probable),
        "int8": to_litert(model, images),
        "int8_uint8": to_litert(model, images, tf.uint8),
        "int8_int8": to_litert(probable, images, tf.int8),
    }
    for name, content in files.items():
        (root / f"{name}.tflite").write_bytes(content)

    @tf.function(input_signature=[tf.TensorSpec([5, RESOLUTION, RESOLUTION, 3], tf.float32)])
    def of_five(pixels):
        return {"scores": model(pixels)}

    module = tf.Module()
    module.weights, module.call = [v.value for v in model.weights], of_five
    tf.saved_model.save(module, str(root / "of_five"), signatures={"classify": of_five})
    return root


@pytest.fixture
def evaluated(command, data_dir, tmp_path):
    def call(path, **flags) -> dict:
        output = tmp_path / "evaluation.json"
        outcome = command(
            "evaluate", checkpoint_path=path, data_dir=data_dir, output=output, **flags
        )
        assert outcome.code == 0, outcome.err
        return json.loads(output.read_text())

    return call


FORMATS = {
    "logits.keras": ("keras", 1e-4),
    "probabilities.keras": ("keras", 1e-4),
    "saved_model": ("saved_model", 1e-4),
    "of_five": ("saved_model", 1e-4),
    "float32.tflite": ("litert", 1e-4),
    "probabilities.tflite": ("litert", 1e-4),
    "int8.tflite": ("litert", 0.05),
    "int8_uint8.tflite": ("litert", 0.05),
    "int8_int8.tflite": ("litert", 0.05),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_without_a_record_is_evaluated_as_numpy_computes_it(
    models, evaluated, photos_by_hand, name
):
    images, labels, _ = photos_by_hand
    kind, tolerance = FORMATS[name]
    logits = images.mean(axis=(1, 2)) @ KERNEL + BIAS
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    clear = np.sort(logits)[:, -1] - np.sort(logits)[:, -2] > 3 * tolerance
    value = evaluated(models / name, batch_size=7, diagnose="never")
    assert (value["format"], value["num_examples"], value["label_offset"]) == (kind, 24, 0)
    assert value["loss"] == pytest.approx(losses.mean(), abs=tolerance)
    right = logits.argmax(axis=1) == labels
    assert abs(value["num_correct_top_1"] - right.sum()) <= (~clear).sum()
    assert 8 < right.sum() < 24  # or it would tell little
    assert value["model"] is None and value["published"] is None
    assert "model.json" in value["notes"][0]


def test_integers_of_the_input_tell_its_range(models):
    request = PredictorRequest()
    reading = open_predictor(str(models / "int8_uint8.tflite"), request, CLASSES).reading
    low, high = reading.input_range
    assert -1.05 < low < -0.9 and 0.9 < high < 1.05


def test_a_first_layer_that_scales_bytes_tells_the_range(tmp_path, evaluated):
    images = keras.Input((RESOLUTION, RESOLUTION, 3))
    pixels = keras.layers.Rescaling(1 / 127.5, -1.0)(images)
    model = keras.Model(images, colour_model(KERNEL, BIAS)(pixels))
    model.save(tmp_path / "bytes.keras")
    colour_model(KERNEL, BIAS).save(tmp_path / "usual.keras")
    by_bytes, usual = evaluated(tmp_path / "bytes.keras"), evaluated(tmp_path / "usual.keras")
    assert (by_bytes["input_range"], usual["input_range"]) == ([0, 255], [-1, 1])
    assert by_bytes["loss"] == pytest.approx(usual["loss"], abs=1e-4)


def test_flags_say_what_a_file_does_not(tmp_path, evaluated, command, data_dir):
    path = tmp_path / "any_size.keras"
    colour_model(KERNEL / 127.5, BIAS - KERNEL.sum(axis=0), size=None).save(path)
    outcome = command("evaluate", checkpoint_path=path, data_dir=data_dir)
    assert outcome.code == 2 and "--resolution" in outcome.err
    value = evaluated(path, resolution=24, input_range="0,255", preprocessing="bicubic")
    assert (value["resolution"], value["input_range"]) == ([24, 24], [0, 255])
    assert value["preprocessing"] == "bicubic"


def test_a_model_of_one_output_more_has_a_background_class(tmp_path, evaluated):
    colour_model(KERNEL, BIAS).save(tmp_path / "three.keras")
    kernel, bias = np.pad(KERNEL, [(0, 0), (1, 0)]), np.concatenate([[-50], BIAS])
    colour_model(kernel, bias).save(tmp_path / "four.keras")
    three, four = evaluated(tmp_path / "three.keras"), evaluated(tmp_path / "four.keras")
    assert (three["label_offset"], four["label_offset"]) == (0, 1)
    assert three["confusion"] == four["confusion"]
    assert three["loss"] == pytest.approx(four["loss"], abs=1e-4)


def write_record(directory, resolution=RESOLUTION, num_classes=3, **changes) -> None:
    config = MobileNetV1Config(num_classes, (resolution, resolution, 3), 0.25)
    record = ModelRecord(
        config.replace(classifier_activation=None), LabelNumbering(num_classes), **changes
    )
    record.write(str(directory))


@pytest.mark.parametrize(
    ("name", "kept_in"),
    [
        ("saved_model", "."),
        ("logits.keras", "."),
        ("float32.tflite", "."),
        ("float32.tflite", "litert"),
    ],
)
def test_the_record_beside_or_above_a_file_is_heeded(models, tmp_path, evaluated, name, kept_in):
    kept = tmp_path / "export" / kept_in
    kept.mkdir(parents=True)
    copy = shutil.copytree if (models / name).is_dir() else shutil.copy
    copy(models / name, kept / name)
    write_record(tmp_path / "export", input_range=(0.0, 1.0), evaluation_preprocessing="bicubic")
    value = evaluated(kept / name)
    assert (value["input_range"], value["preprocessing"]) == ([0, 1], "bicubic")
    assert value["model"]["name"] == "mobilenet_v1" and value["notes"] == []


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"resolution": 64}, "takes images of 32 x 32 pixels, but"),
        ({"num_classes": 4}, "gives 3 outputs, but"),
        ({"classes": ("dog", "cat", "fox")}, "class 0 is 'dog'"),
    ],
)
@pytest.mark.parametrize("name", ["saved_model", "logits.keras", "float32.tflite"])
def test_a_file_that_is_not_the_records_is_refused(
    models, data_dir, command, tmp_path, name, record, words
):
    copy = shutil.copytree if (models / name).is_dir() else shutil.copy
    copy(models / name, tmp_path / name)
    write_record(tmp_path, **record)
    outcome = command("evaluate", checkpoint_path=tmp_path / name, data_dir=data_dir)
    (line,) = outcome.err.splitlines()
    assert outcome.code == 1 and "error: " in line and words in line
