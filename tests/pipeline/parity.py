"""Exports of a tiny model that are right, or wrong on purpose, for the tests of the gate."""

import dataclasses
import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from pipeline import formats

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "tf2onnx"))
FORMATS = tuple(name for name in formats.PATHS if name != formats.ONNX or HAS_ONNX)
LITERT = formats.LITERT
LOGITS = "Logits.Conv2d_1c_1x1"


@dataclasses.dataclass(frozen=True)
class Trained:
    """The model that exports are held against."""

    model: object
    record: object
    values: dict
    images: object


@pytest.fixture(scope="module")
def trained(model_dir, data_dir) -> Trained:
    return _opened(model_dir, data_dir)


@pytest.fixture(scope="module")
def learnt(learnt_model_dir, data_dir) -> Trained:
    return _opened(learnt_model_dir, data_dir)


def _opened(model_dir, data_dir) -> Trained:
    from loaders.open import ModelRequest, open_checkpoint
    from pipeline.parity import ParityImages
    from training.shards import Shards

    shards = Shards.open(str(data_dir), "validation")
    checkpoint = open_checkpoint(str(model_dir), ModelRequest(), None, shards.classes)
    record = dataclasses.replace(
        checkpoint.record, classes=shards.classes, weights=checkpoint.weights
    )
    images = ParityImages.read(shards, record, 24)
    model = checkpoint.build()
    found = Trained(model, record, checkpoint.values, images)
    # So short a training ends in one answer to all photos; with centred logits answers differ.
    mean = model(images.images, training=False).numpy().mean(axis=0)
    changes = {f"{LOGITS}.bias": lambda bias: bias - mean}
    return spoiled(found, changes)


def spoiled(trained: Trained, changes) -> Trained:
    """A model with other weights: `changes` maps names to functions of the right value."""
    from training.models import build_model
    from training.models.mobilenet import weights_of

    values = {
        name: changes[name](value) if name in changes else value
        for name, value in trained.values.items()
    }
    model = build_model(trained.record.config.replace(classifier_activation=None))
    for name, variable in weights_of(model).items():
        variable.assign(values[name])
    return dataclasses.replace(trained, model=model, values=values)


def write(trained: Trained, directory: pathlib.Path, names=FORMATS) -> list[formats.Artifact]:
    """Writes the model in these formats; quantised ones by TensorFlow's converter as it is."""
    from pipeline.formats.deployment import build_deployment_model
    from pipeline.formats.keras_file import write_keras
    from pipeline.formats.litert import attach_record
    from pipeline.formats.onnx import write_onnx
    from pipeline.formats.saved_model import write_saved_model
    from training.checkpoints import write_weights

    deployed = build_deployment_model(trained.model, trained.record.config)
    (directory / "litert").mkdir(parents=True, exist_ok=True)
    artifacts = [formats.Artifact(name, formats.PATHS[name], 0, "") for name in names]
    for artifact in artifacts:
        path = directory / artifact.path
        if artifact.format == formats.CHECKPOINT:
            write_weights(str(path), trained.values)
            trained.record.write(str(path))
        elif artifact.format == formats.SAVED_MODEL:
            write_saved_model(deployed, trained.record, str(path))
        elif artifact.format == formats.KERAS:
            write_keras(deployed, str(path))
        elif artifact.format == formats.ONNX:
            write_onnx(deployed, str(path))
        elif artifact.format in LITERT:
            path.write_bytes(convert(deployed, artifact.format, trained.images.images))
            attach_record(str(path), trained.record)
    write_beside(trained, directory)
    return artifacts


def write_beside(trained: Trained, directory: pathlib.Path) -> None:
    from pipeline.formats.labels import label_text

    (directory / formats.LABELS).write_text(label_text(trained.record))
    trained.record.write(str(directory))


def convert(model, name: str, images: np.ndarray) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if name != formats.LITERT_FLOAT32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == formats.LITERT_FLOAT16:
        converter.target_spec.supported_types = [tf.float16]
    if name == formats.LITERT_INT8:
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
    return converter.convert()


@pytest.fixture
def in_process(monkeypatch):
    """Runs the probe here, since each fresh process imports TensorFlow anew."""
    from pipeline.parity import fresh, probe

    def run(command, *_):
        finders = list(sys.meta_path)
        try:
            probe.main(command[-1])
        finally:
            sys.meta_path[:] = finders

    monkeypatch.setattr(fresh, "_run", run)


def gate(trained: Trained, directory: pathlib.Path, artifacts, **limits) -> dict:
    """The gate's rows by what was run."""
    from pipeline.parity import ParityFlags, run_gate

    flags = ParityFlags(**limits)
    rows = run_gate(str(directory), artifacts, trained.model, trained.record, trained.images, flags)
    return {row.artifact: row for row in rows}
