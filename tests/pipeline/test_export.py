"""`python -m pipeline.export`: artifacts that work without this project, and a gate that holds."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from common import files
from pipeline.formats import litert, saved_model, writing

from .conftest import CLASSES, contents, draw_photo, start, weights_in

pytest_plugins = ["tests.storage_emulator"]

STRANGER = """
import sys
import numpy as np
import tensorflow as tf

signatures = tf.saved_model.load(sys.argv[1]).signatures
with np.load(sys.argv[2]) as given:
    images = given["images"]
jpeg = [open(path, "rb").read() for path in sys.argv[4:]]
images_in, jpeg_in = signatures["serving_default"], signatures["serving_jpeg"]
few = images_in(images=tf.constant(images[:2]))
ours = ("common", "loaders", "pipeline", "preprocessing", "training")
np.savez(
    sys.argv[3],
    names=sorted(signatures),
    foreign=[name for name in sys.modules if name.split(".")[0] in ours],
    **{f"images_{k}": v for k, v in images_in(images=tf.constant(images)).items()},
    **{f"few_{k}": v for k, v in few.items()},
    **{f"jpeg_{k}": v for k, v in jpeg_in(jpeg=tf.constant(jpeg)).items()},
)
"""


@pytest.fixture(scope="module")
def by_stranger(good_export, tmp_path_factory) -> dict[str, np.ndarray]:
    """What a process with TensorFlow alone gets from the SavedModel, and what went in."""
    import tensorflow as tf

    from training.image_ops import decode_for_evaluation

    scratch = tmp_path_factory.mktemp("stranger")
    paths, images = [], []
    for number in range(5):
        content = draw_photo(number % 3, (9, number))
        paths.append(scratch / f"{number}.jpeg")
        paths[-1].write_bytes(content)
        images.append(decode_for_evaluation(tf.constant(content), (32, 32), (-1.0, 1.0)).numpy())
    np.savez(scratch / "in.npz", images=images)
    saved_model = good_export / "saved_model"
    command = [sys.executable, "-I", "-c", STRANGER, saved_model]
    command += [scratch / "in.npz", scratch / "out.npz", *paths]
    subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=120)
    with np.load(scratch / "out.npz") as outputs:
        return {"images": np.stack(images), **outputs}


def test_the_saved_model_runs_without_this_project(by_stranger):
    assert by_stranger["foreign"].tolist() == []
    assert by_stranger["names"].tolist() == ["serving_default", "serving_jpeg"]
    assert by_stranger["images_logits"].shape == (5, 3)
    assert by_stranger["jpeg_logits"].shape == (5, 3)
    assert by_stranger["few_logits"].shape == (2, 3)  # any batch size
    exponents = np.exp(by_stranger["images_logits"])
    np.testing.assert_allclose(
        by_stranger["images_probabilities"],
        exponents / exponents.sum(axis=1, keepdims=True),
        atol=1e-6,
    )


def test_both_signatures_see_the_same_photo(by_stranger):
    logits = by_stranger["images_logits"]
    assert np.ptp(logits, axis=0).min() > 1e-2  # the photos differ, so that agreement says much
    np.testing.assert_allclose(by_stranger["jpeg_logits"], logits, atol=1e-4)
    np.testing.assert_allclose(by_stranger["few_logits"], logits[:2], atol=1e-4)


def test_the_averages_are_exported(by_stranger, model_dir, good_export):
    from training.models import build_model, make_config
    from training.models.mobilenet import weights_of

    model = build_model(
        make_config(
            "mobilenet_v1", num_classes=3, width_multiplier=0.25, input_shape=(32, 32, 3)
        ).replace(classifier_activation=None)
    )

    def logits(group: str) -> np.ndarray:
        values = weights_in(str(model_dir / "checkpoints" / "ckpt-24"), group)
        for name, variable in weights_of(model).items():
            variable.assign(values[name])
        return model(by_stranger["images"], training=False).numpy()

    np.testing.assert_allclose(by_stranger["images_logits"], logits("averages"), atol=1e-3)
    assert np.abs(by_stranger["images_logits"] - logits("model")).max() > 0.1
    trained = weights_in(str(model_dir / "checkpoints" / "ckpt-24"), "averages")
    exported = weights_in(str(good_export / "checkpoint" / "ckpt-0"), "model")
    assert trained.keys() == exported.keys()
    for name, value in exported.items():
        np.testing.assert_array_equal(value, trained[name])


def test_the_manifest_says_what_is_there(good_export, data_dir):
    manifest = json.loads((good_export / "export.json").read_text())
    assert sorted(os.listdir(good_export)) == [
        "MODEL_CARD.md",
        "checkpoint",
        "export.json",
        "labels.txt",
        "litert",
        "model.json",
        "saved_model",
    ]
    assert manifest["model"]["weights"] == "averages"
    assert manifest["model"]["classes"] == list(CLASSES)
    assert manifest["model"] == json.loads((good_export / "model.json").read_text())
    assert [artifact["format"] for artifact in manifest["artifacts"]] == [
        "checkpoint",
        "saved_model",
        "litert_float32",
    ]
    for artifact in manifest["artifacts"]:
        path = good_export / artifact["path"]
        parts = contents(path).values() if path.is_dir() else [path.read_bytes()]
        assert artifact["bytes"] == sum(map(len, parts)) > 0
        assert artifact["reproducible"] is True
    litert = good_export / "litert" / "float32.tflite"
    assert manifest["artifacts"][2]["sha256"] == hashlib.sha256(litert.read_bytes()).hexdigest()
    for labels in (good_export, good_export / "saved_model" / "assets"):
        assert (labels / "labels.txt").read_text().split() == list(CLASSES)
    hashes = {row["path"]: row["sha256"] for row in manifest["files"]}
    assert hashes == {
        name: hashlib.sha256((good_export / name).read_bytes()).hexdigest()
        for name in ("MODEL_CARD.md", "labels.txt", "model.json")
    }
    digest = hashlib.sha256((data_dir / "validation" / "manifest.json").read_bytes()).hexdigest()
    assert manifest["data_manifest_sha256"] == digest
    assert manifest["training"]["model"]["width_multiplier"] == 0.25
    assert manifest["parity"]["num_images"] == 24
    assert manifest["parity"]["passed"] is True
    rows = {row["artifact"]: row for row in manifest["parity"]["rows"]}
    assert sorted(rows) == [
        "checkpoint, restored",
        "litert_float32",
        "saved_model, serving_default",
        "saved_model, serving_jpeg",
    ]
    assert all(row["largest_probability_difference"] <= 1e-4 for row in rows.values())


def spoil_saved_model(monkeypatch):
    write = saved_model.write_saved_model

    def write_others(model, record, directory):
        kernel = model.trainable_variables[-2]
        before = kernel.numpy()
        kernel.assign(before * 1.5)
        write(model, record, directory)
        kernel.assign(before)

    monkeypatch.setattr(saved_model, "write_saved_model", write_others)


def spoil_jpeg_signature(monkeypatch):
    decode = saved_model.decode_for_evaluation
    monkeypatch.setattr(
        saved_model, "decode_for_evaluation", lambda *arguments: decode(*arguments)[:, ::-1]
    )


def spoil_checkpoint(monkeypatch):
    write = writing.write_weights

    def write_others(directory, raw):
        name = next(name for name in raw if name.endswith("bias"))
        return write(directory, {**raw, name: raw[name] + np.float32([0.1, 0, 0])})

    monkeypatch.setattr(writing, "write_weights", write_others)


def spoil_litert(monkeypatch):
    attach = litert.attach_record

    def attach_to_half(path, record):
        os.truncate(path, os.path.getsize(path) // 2)
        attach(path, record)

    monkeypatch.setattr(litert, "attach_record", attach_to_half)


def spoil_saved_model_file(monkeypatch):
    write = saved_model.write_saved_model

    def write_half(model, record, directory):
        write(model, record, directory)
        path = os.path.join(directory, "saved_model.pb")
        os.truncate(path, os.path.getsize(path) // 2)

    monkeypatch.setattr(saved_model, "write_saved_model", write_half)


@pytest.mark.parametrize(
    ("spoil", "named", "not_named"),
    [
        (spoil_saved_model, "saved_model, serving_default is off by", "checkpoint, restored"),
        (spoil_jpeg_signature, "saved_model, serving_jpeg is off by", "serving_default"),
        (spoil_checkpoint, "checkpoint, restored is off by", "saved_model"),
        (spoil_litert, "litert/float32.tflite does not run in a fresh process", "saved_model"),
        (spoil_saved_model_file, "saved_model does not run in a fresh process", "litert"),
    ],
)
def test_an_export_that_disagrees_is_not_written_and_the_last_good_one_stays(
    command, good_export, model_dir, data_dir, tmp_path, monkeypatch, spoil, named, not_named
):
    export_dir = tmp_path / "out" / "export"
    shutil.copytree(good_export, export_dir)
    spoil(monkeypatch)
    outcome = command("export", checkpoint_path=model_dir, data_dir=data_dir, export_dir=export_dir)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert named in line
    assert not_named not in line
    assert contents(export_dir) == contents(good_export)
    assert os.listdir(export_dir.parent) == ["export"]


def test_a_new_export_takes_the_place_of_the_old_one(
    succeed, good_export, model_dir, data_dir, tmp_path
):
    export_dir, evaluation = tmp_path / "export", tmp_path / "evaluation.json"
    shutil.copytree(good_export, export_dir)
    (export_dir / "saved_model" / "left_over").write_text("of the old export")
    flags = {"checkpoint_path": model_dir, "data_dir": data_dir, "weights": "raw"}
    succeed("evaluate", output=evaluation, **flags)
    succeed("export", export_dir=export_dir, evaluation=evaluation, num_parity_images=7, **flags)
    manifest = json.loads((export_dir / "export.json").read_text())
    assert manifest["model"]["weights"] == "raw"
    assert manifest["parity"]["num_images"] == 7
    assert contents(export_dir).keys() == contents(good_export).keys()
    values = json.loads(evaluation.read_text())
    assert manifest["metrics"]["top_1"] == values["top_1"]
    assert manifest["metrics"]["loss"] == values["loss"]
    assert manifest["metrics"]["split"] == "validation"
    digest = hashlib.sha256((data_dir / "validation" / "manifest.json").read_bytes()).hexdigest()
    assert manifest["metrics"]["data_manifest_sha256"] == digest
    card = (export_dir / "MODEL_CARD.md").read_text()
    assert "| on 24 photos of the split `validation` | |" in card
    trained = weights_in(str(model_dir / "checkpoints" / "ckpt-24"), "model")
    exported = weights_in(str(export_dir / "checkpoint" / "ckpt-0"), "model")
    assert all(np.array_equal(value, trained[name]) for name, value in exported.items())


def test_an_export_does_not_replace_the_checkpoint_that_it_is_made_of(
    command, good_export, data_dir, tmp_path
):
    export_dir = tmp_path / "export"
    shutil.copytree(good_export, export_dir)
    before = contents(export_dir)
    flags = {
        "checkpoint_path": export_dir / "checkpoint",
        "formats": "litert_float32",
        "weights": "raw",
    }
    outcome = command("export", export_dir=export_dir, data_dir=data_dir, **flags)
    assert outcome.code == 2 and "lies in it: give another directory" in outcome.err
    assert contents(export_dir) == before


def test_metrics_of_other_weights_are_refused(command, model_dir, data_dir, tmp_path):
    evaluation = tmp_path / "evaluation.json"
    flags = {"checkpoint_path": model_dir, "data_dir": data_dir}
    assert command("evaluate", output=evaluation, weights="raw", **flags).code == 0
    outcome = command("export", export_dir=tmp_path / "new", evaluation=evaluation, **flags)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert f"{evaluation} is of" in line
    assert "(weights: raw)" in line
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def evaluated(model_dir, data_dir, tmp_path_factory) -> dict:
    """The evaluation of the model that is exported."""
    output = tmp_path_factory.mktemp("evaluated") / "evaluation.json"
    assert start("evaluate", checkpoint_path=model_dir, data_dir=data_dir, output=output) == 0
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": [32, 48]}, "made with resolution [32, 48]"),
        ({"input_range": [0.0, 1.0]}, "made with input_range [0.0, 1.0]"),
        ({"preprocessing": "bicubic"}, "made with preprocessing bicubic"),
        ({"label_offset": 1}, "made with label_offset 1"),
    ],
)
def test_metrics_of_another_reading_are_refused(
    command, evaluated, model_dir, data_dir, tmp_path, changes, words
):
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps({**evaluated, **changes}))
    places = {"checkpoint_path": model_dir, "data_dir": data_dir, "export_dir": tmp_path / "new"}
    outcome = command("export", evaluation=path, **places)
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert words in line
    assert not (tmp_path / "new").exists()


def test_an_old_evaluation_does_not_say_how_it_read_photos(
    succeed, evaluated, model_dir, data_dir, tmp_path
):
    path = tmp_path / "evaluation.json"
    later = ("resolution", "input_range", "preprocessing", "label_offset", "split")
    path.write_text(json.dumps({k: v for k, v in evaluated.items() if k not in later}))
    places = {"checkpoint_path": model_dir, "data_dir": data_dir, "export_dir": tmp_path / "new"}
    succeed("export", evaluation=path, formats="saved_model", num_parity_images=2, **places)
    manifest = json.loads((tmp_path / "new" / "export.json").read_text())
    assert manifest["metrics"]["top_1"] == evaluated["top_1"]
    assert "split" not in manifest["metrics"]


@pytest.mark.parametrize("name", ["saved_model", "litert/float32.tflite"])
def test_an_exported_model_is_no_checkpoint(command, good_export, data_dir, tmp_path, name):
    path = good_export / name
    outcome = command(
        "export", checkpoint_path=path, data_dir=data_dir, export_dir=tmp_path / "new"
    )
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert f"--checkpoint_path={path} is an exported model" in line
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"formats": "keras,tflite"}, "--formats knows checkpoint,"),
        ({"formats": ""}, "--formats names none"),
    ],
)
def test_wrong_formats_are_named(command, model_dir, data_dir, tmp_path, flags, words):
    places = {"checkpoint_path": model_dir, "data_dir": data_dir, "export_dir": tmp_path / "new"}
    outcome = command("export", **places, **flags)
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert words in line


def test_a_bucket_takes_an_export(succeed, model_dir, data_dir, bucket, good_export):
    directory = f"{bucket}/exports/new"
    flags = {"checkpoint_path": model_dir, "data_dir": data_dir, "export_dir": directory}
    succeed("export", **flags)
    assert [name for name, _ in files.list_tree(directory)] == sorted(contents(good_export))
    manifest = files.read_json(f"{directory}/export.json")
    for artifact in manifest["artifacts"]:
        assert files.fingerprint(f"{directory}/{artifact['path']}") == artifact["sha256"]
