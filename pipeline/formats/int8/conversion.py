"""From a Keras model to a full-integer LiteRT file; layers can be kept in float."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator

import keras
import numpy as np
import tensorflow as tf

# What tf.lite.experimental.QuantizationDebugger calls; by itself it also builds and runs a file
# with a check behind each operator for every choice of layers.
from tensorflow.lite.python import convert as lite_convert

from pipeline.formats.converter_input import quiet_converter, saved_for_converter

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
        with quiet_converter():
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


@contextlib.contextmanager
def _converter(model: keras.Model) -> Iterator[tf.lite.TFLiteConverter]:
    with saved_for_converter(model) as saved:
        yield tf.lite.TFLiteConverter.from_saved_model(saved)
