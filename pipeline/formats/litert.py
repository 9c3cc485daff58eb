"""LiteRT files in floating point: float32, float16 weights, 8-bit weights ("dynamic range").

Each has one signature, `serving_default`, from `images`, (batch, height, width, 3) float32, to
`logits`, (batch, outputs) float32. The batch is 1 until the interpreter's tensor is resized. Labels
and the model's record lie in a zip behind the model, where LiteRT's metadata keep files too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

from pipeline.formats import LABELS, LITERT_DYNAMIC, LITERT_FLOAT16, LITERT_FLOAT32
from pipeline.formats.labels import label_text
from pipeline.formats.reproducible import add_to_zip
from training.models import ModelRecord
from training.models.mobilenet import weights_of
from training.models.record import FILE_NAME as RECORD

FLOAT_FORMATS = (LITERT_FLOAT32, LITERT_FLOAT16, LITERT_DYNAMIC)


def write_litert(deployed: keras.Model, record: ModelRecord, paths: Mapping[str, str]) -> None:
    """Writes LiteRT files of a deployment model; they need builtin operators alone.

    Args:
        deployed: made of Keras' own layers, gives logits.
        record: its record.
        paths: of the file by format, one of `FLOAT_FORMATS`.
    """
    with tempfile.TemporaryDirectory() as scratch, _quiet():
        module = _Logits(deployed)
        tf.saved_model.save(module, scratch, signatures={"serving_default": module.logits})
        for format_name, path in paths.items():
            converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
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


class _Logits(tf.Module):
    def __init__(self, model: keras.Model):
        super().__init__()
        self._weights = [variable.value for variable in weights_of(model).values()]
        spec = tf.TensorSpec([None, *model.input.shape[1:]], name="images")

        @tf.function(input_signature=[spec])
        def logits(images):
            return {"logits": model(images, training=False)}

        self.logits = logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back the converter's notes on its inner life."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
