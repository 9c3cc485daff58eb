"""Writes an export's artifacts, one after the other, from one model."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from common import files
from common.errors import UsageError, UserError
from pipeline import formats
from pipeline.formats import keras_file, litert, saved_model
from pipeline.formats.deployment import build_deployment_model
from pipeline.formats.int8 import Int8Flags, write_int8
from pipeline.formats.labels import label_text
from pipeline.formats.onnx import missing_packages, write_onnx
from pipeline.formats.reproducible import rewrite_checkpoint_state
from training.checkpoints import write_weights
from training.models import ModelRecord

# A quantisation-aware model rounds in its own way: no float format but TensorFlow's can say so.
_QUANTIZATION_AWARE = (formats.CHECKPOINT, formats.SAVED_MODEL, formats.LITERT_INT8)

_NOTES = {
    formats.CHECKPOINT: "as trained, batch norm not folded",
    formats.SAVED_MODEL: "batch norm folded",
    formats.KERAS: "batch norm folded",
    formats.LITERT_FLOAT32: "batch norm folded",
    formats.LITERT_FLOAT16: "batch norm folded, weights rounded to float16",
    formats.LITERT_DYNAMIC: "batch norm folded, 8-bit weights, activations rounded as they come",
    formats.ONNX: "batch norm folded",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What is exported.

    Attributes:
        model: the training model with its weights; it gives logits.
        record: its record, with the names of the classes.
        values: its weights by name.
        read_photos: gives real photos for calibration, (n, height, width, 3) float32.
        int8: how the full-integer file is made.
    """

    model: keras.Model
    record: ModelRecord
    values: Mapping[str, np.ndarray]
    read_photos: Callable[[], np.ndarray]
    int8: Int8Flags

    @functools.cached_property
    def shipped(self) -> keras.Model:
        """The deployment model; a quantisation-aware model is its own."""
        config = self.record.config
        return (
            self.model if config.quantization_aware else build_deployment_model(self.model, config)
        )


def choose_formats(asked: Sequence[str] | None, quantization_aware: bool) -> tuple[str, ...]:
    """The formats to write, in the order of `pipeline.formats.PATHS`.

    Args:
        asked: names of formats, or 'all' for what can be written here; None for the usual ones, of
            a quantisation-aware model all that can hold it.
        quantization_aware: of the model.

    Raises:
        UsageError: the model cannot be written in one of them.
        UserError: a package is missing that one of them needs.
    """
    if asked is None:
        return _QUANTIZATION_AWARE if quantization_aware else formats.DEFAULT
    possible = _QUANTIZATION_AWARE if quantization_aware else tuple(formats.PATHS)
    missing = missing_packages()
    install = f"pip install {' '.join(missing)}"
    if formats.ALL in asked:
        if missing and formats.ONNX in possible:
            logging.info("no ONNX is written; for that: %s", install)
        return tuple(n for n in possible if not (missing and n == formats.ONNX))
    if impossible := [name for name in asked if name not in possible]:
        raise UsageError(
            f"--formats={impossible[0]} cannot hold the 8-bit rounding of a quantisation-aware"
            f" model: there are {', '.join(possible)}"
        )
    if missing and formats.ONNX in asked:
        raise UserError(f"--formats=onnx needs {' and '.join(missing)}: {install}")
    return tuple(name for name in formats.PATHS if name in asked)


def write_artifacts(source: Source, names: Sequence[str], directory: str) -> list[formats.Artifact]:
    """Writes the formats `names` below `directory`, and labels and record beside them."""
    record = source.record
    record.write(directory)
    files.write_text(os.path.join(directory, formats.LABELS), label_text(record))
    paths = {name: os.path.join(directory, formats.PATHS[name]) for name in names}
    notes = dict(_NOTES if not record.config.quantization_aware else {})
    if path := paths.get(formats.CHECKPOINT):
        write_weights(path, source.values)
        rewrite_checkpoint_state(path)
        record.write(path)
    if path := paths.get(formats.SAVED_MODEL):
        saved_model.write_saved_model(source.shipped, record, path)
    if path := paths.get(formats.KERAS):
        keras_file.write_keras(source.shipped, path)
    if floats := {name: path for name, path in paths.items() if name in litert.FLOAT_FORMATS}:
        litert.write_litert(source.shipped, record, floats)
    if path := paths.get(formats.LITERT_INT8):
        notes[formats.LITERT_INT8] = _write_int8(source, path)
    if path := paths.get(formats.ONNX):
        write_onnx(source.shipped, path)
    return [
        formats.Artifact(
            format=name,
            path=formats.PATHS[name],
            bytes=files.size_of(path),
            sha256=files.fingerprint(path),
            notes=notes.get(name, ""),
        )
        for name, path in paths.items()
    ]


def _write_int8(source: Source, path: str) -> str:
    """Writes the full-integer file; returns what it cost."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    photos = source.read_photos()
    return write_int8(source.shipped, source.record, photos, path, source.int8).notes
