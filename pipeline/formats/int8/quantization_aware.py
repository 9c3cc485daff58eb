"""Quantisation-aware models: the ranges that were trained, handed to the converter.

The model is built once more from what the converter knows: batch norm folded into plain
convolutions, every range a `fake_quant_with_min_max_args` of constants, hard-swish as one op
between the ranges in front of it and behind it, as Google's converter of TF1 models had it. The
input image and what a pooling gives have no range of their own: the one has the ends of the input
range, the other what real photos give.

Kernels are not rounded here. The converter rounds each output channel to 255 values around 0, which
is at least as fine as the checkpoint's single range, whose asymmetric 8-bit kernels the
interpreter's default delegate refuses.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from training.models import ModelRecord
from training.models.configs import MobileNetConfig
from training.models.quantized import FakeQuant, FoldedConv, QuantizedBuilder, fake_quant

_IMAGES = "images"
_BATCH_SIZE = 32
_POOLS = (keras.layers.GlobalAveragePooling2D, keras.layers.AveragePooling2D)


def with_constant_ranges(
    model: keras.Model, record: ModelRecord, photos: np.ndarray
) -> keras.Model:
    """The model that the converter makes an 8-bit file of without calibration.

    Args:
        model: quantisation-aware, with its weights; it gives logits.
        record: its record.
        photos: (n, height, width, 3) float32, preprocessed; the poolings get their ranges on them.

    Returns:
        A model from images to logits, (batch, outputs), of stock layers and constant ranges.
    """
    ranges = _trained_ranges(model) | _pooled_ranges(model, photos)
    ranges[_IMAGES] = tuple(map(float, record.input_range))
    builder = _ConstantRangesBuilder(record.config, ranges)
    images = keras.Input(record.config.input_shape, name=_IMAGES)
    features = builder.quantize(images, _IMAGES)
    for name, block in record.config.family.named_blocks():
        features = builder.block(features, name, block)
    logits = keras.layers.Flatten(name="logits")(builder.logits(features))
    converted = keras.Model(images, logits, name=record.config.family.scope)
    for layer in model.layers:
        if isinstance(layer, FoldedConv):
            converted.get_layer(layer.name).set_weights(
                _folded(layer, record.config.batch_norm_epsilon)
            )
    return converted


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class ConstantRange(keras.layers.Layer):
    """Rounds to 256 values between two constants; the op that converters look for."""

    def __init__(self, low: float, high: float, **kwargs):
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def call(self, inputs):
        return tf.quantization.fake_quant_with_min_max_args(inputs, self.low, self.high)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}


class _ConstantRangesBuilder(QuantizedBuilder):
    """The quantisation-aware blocks, of plain convolutions and constant ranges."""

    def __init__(self, config: MobileNetConfig, ranges: Mapping[str, tuple[float, float]]):
        super().__init__(config)
        self._ranges = ranges

    def quantize(self, inputs, name: str):
        low, high = self._ranges[name]
        return ConstantRange(low, high, name=f"{name}.range")(inputs)

    def activate(self, inputs, name, activation):
        if activation != "hard_swish":
            return super().activate(inputs, name, activation)
        inputs = self._quant(inputs, f"{name}.conv_quant")
        outputs = keras.layers.Activation("hard_swish", name=f"{name}.hard_swish")(inputs)
        return self._quant(outputs, f"{name}.hard_swish.mul_1.activation_Mul_quant")

    def conv_bias(self, inputs, name, *, filters):
        if name.endswith(".squeeze_excite.Conv"):
            inputs = self.quantize(inputs, name.removesuffix("Conv") + "pool")
        return super().conv_bias(inputs, name, filters=filters)

    def _pool(self, inputs, name, block):
        pooled = super()._pool(inputs, name, block)
        return self.quantize(pooled, name)

    def _quant(self, inputs, name):
        return self.quantize(inputs, name)

    def _folded(self, inputs, name, filters, kernel, stride, norm):
        del norm
        if filters is None:
            layer = keras.layers.DepthwiseConv2D(kernel, stride, padding="same", name=name)
        else:
            layer = keras.layers.Conv2D(filters, kernel, stride, padding="same", name=name)
        return layer(inputs)


def _trained_ranges(model: keras.Model) -> dict[str, tuple[float, float]]:
    return {
        layer.name: (float(layer.min.value), float(layer.max.value))
        for layer in model.layers
        if isinstance(layer, FakeQuant)
    }


def _pooled_ranges(model: keras.Model, photos: np.ndarray) -> dict[str, tuple[float, float]]:
    """Smallest and largest value behind each pooling, over all photos."""
    pools = {layer.name: layer.output for layer in model.layers if isinstance(layer, _POOLS)}
    pooled = keras.Model(model.inputs, pools)
    outputs = pooled.predict(photos, batch_size=_BATCH_SIZE, verbose=0)
    return {
        name: (min(0.0, float(values.min())), max(0.0, float(values.max())))
        for name, values in outputs.items()
    }


def _folded(layer: FoldedConv, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias, float32, computed in float64."""
    kernel = np.asarray(layer.kernel, np.float64)
    if not hasattr(layer, "gamma"):
        return _rounded(kernel, layer), np.asarray(layer.bias)
    gamma, beta, mean, variance = (
        np.asarray(weight, np.float64)
        for weight in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    scale = gamma / np.sqrt(variance + epsilon)
    depthwise = kernel.shape[-1] == 1 and kernel.shape[-2] == len(scale) > 1
    kernel *= scale[:, np.newaxis] if depthwise else scale
    return _rounded(kernel, layer), (beta - mean * scale).astype(np.float32)


def _rounded(kernel: np.ndarray, layer: FoldedConv) -> np.ndarray:
    """A folded kernel on the grid that it was trained on, float32."""
    low, high = layer.min.value, layer.max.value
    return fake_quant(kernel.astype(np.float32), low, high, narrow_range=True).numpy()
