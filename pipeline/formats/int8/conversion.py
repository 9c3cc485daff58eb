"""From a Keras model to a full-integer LiteRT file; layers can be kept in float."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
from collections.abc import Collection, Iterator

import keras
import numpy as np
import tensorflow as tf

# What tf.lite.experimental.QuantizationDebugger calls; by itself it also builds and runs a file
# with a check behind each operator for every choice of layers.
from tensorflow.lite.python import convert as lite_convert

_CALIBRATION_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """A float LiteRT model in which every tensor has the range that was seen on photos.

    Attributes:
        content: bytes of a file that is for the converter alone.
    """

    content: bytes

    @classmethod
    def on(cls, model: keras.Model, photos: np.ndarray) -> Calibrated:
        """Runs a model that gives logits on `photos`, (n, height, width, 3) float32."""

        def batches():
            for start in range(0, len(photos), _CALIBRATION_BATCH):
                yield [photos[start : start + _CALIBRATION_BATCH]]

        with _converter(model) as converter:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = batches
            converter._experimental_calibrate_only = True  # as QuantizationDebugger sets it
            return cls(converter.convert())

    def quantize(
        self, wide: Collection[str] = (), wide_kinds: Collection[str] = (), io: str = "float32"
    ) -> bytes:
        """The full-integer file.

        Args:
            wide: output tensors of the operators that stay float.
            wide_kinds: kinds of operators that all stay float, such as 'HARD_SWISH'.
            io: type of input and output, 'float32' or 'uint8'.
        """
        with _silent():
            return lite_convert.mlir_quantize(
                self.content,
                input_data_type=tf.as_dtype(io),
                output_data_type=tf.as_dtype(io),
                denylisted_nodes=sorted(wide),
                denylisted_ops=sorted(wide_kinds),
            )


def quantize_by_own_ranges(model: keras.Model, io: str = "float32") -> bytes:
    """The full-integer file of a model with a `fake_quant` op wherever 8 bits begin."""
    with _converter(model) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
        return converter.convert()


class _Logits(tf.Module):
    def __init__(self, model: keras.Model):
        super().__init__()
        self._weights = [variable.value for variable in model.variables]
        spec = tf.TensorSpec([None, *model.input.shape[1:]], name="images")

        @tf.function(input_signature=[spec])
        def logits(images):
            return {"logits": model(images, training=False)}

        self.logits = logits


@contextlib.contextmanager
def _converter(model: keras.Model) -> Iterator[tf.lite.TFLiteConverter]:
    with tempfile.TemporaryDirectory() as scratch, _silent():
        module = _Logits(model)
        tf.saved_model.save(module, scratch, signatures={"serving_default": module.logits})
        yield tf.lite.TFLiteConverter.from_saved_model(scratch)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keeps back what the converter says of its inner life, on Python's log and on stderr.

    Its errors are exceptions that carry their text.
    """
    logger = logging.getLogger("tensorflow")
    level = logger.level
    sys.stderr.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    logger.setLevel(logging.ERROR)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        logger.setLevel(level)
        os.close(stderr)
        os.close(nowhere)
