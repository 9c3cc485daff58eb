"""LiteRT files in floating point: float32, float16 weights, 8-bit weights ("dynamic range").

Each has one signature, `serving_default`, from `images`, (batch, height, width, 3) float32, to
`logits`, (batch, outputs) float32. The batch is 1 until the interpreter's tensor is resized. Labels
and the model's record lie in a zip behind the model, where LiteRT's metadata keep files too.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping

import keras
import tensorflow as tf

from pipeline.formats import LABELS, LITERT_DYNAMIC, LITERT_FLOAT16, LITERT_FLOAT32
from pipeline.formats.converter_input import saved_for_converter
from pipeline.formats.labels import label_text
from pipeline.formats.reproducible import add_to_zip
from training.models import ModelRecord
from training.models.record import FILE_NAME as RECORD

FLOAT_FORMATS = (LITERT_FLOAT32, LITERT_FLOAT16, LITERT_DYNAMIC)


def write_litert(deployed: keras.Model, record: ModelRecord, paths: Mapping[str, str]) -> None:
    """Writes LiteRT files of a deployment model; they need builtin operators alone.

    Args:
        deployed: made of Keras' own layers, gives logits.
        record: its record.
        paths: of the file by format, one of `FLOAT_FORMATS`.
    """
    with saved_for_converter(deployed) as saved:
        for format_name, path in paths.items():
            converter = tf.lite.TFLiteConverter.from_saved_model(saved)
            if format_name != LITERT_FLOAT32:
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if format_name == LITERT_FLOAT16:
                converter.target_spec.supported_types = [tf.float16]
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(converter.convert())
            attach_record(path, record)


def attach_record(path: str, record: ModelRecord) -> None:
    """Appends labels and record to a LiteRT file; interpreters pass over what follows the model."""
    content = json.dumps(record.to_json(), indent=2, sort_keys=True).encode("utf-8")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        add_to_zip(archive, [(LABELS, label_text(record).encode("utf-8")), (RECORD, content)])
