"""The quantisation-aware variant of every model: 8-bit fake quantisation, batch norm folded.

Ranges stand where TF1's quantisation rewriter (tf.contrib.quantize) put them, and carry its names,
so that 8-bit checkpoints load into them and full-integer export can use them. All are per tensor.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from training.models.builder import LOGITS, Builder

_RANGE_DECAY = 0.999  # of the moving ranges of activations in training
_INITIAL_RANGE = 6.0
_GATE_FACTOR = 0.16667  # slim's constant, see layers.HardSigmoid


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class FakeQuant(keras.layers.Layer):
    """Rounds activations to 256 values between two ends.

    In training the ends follow the batches' smallest and largest values as moving averages, and the
    gradient is let through between them.
    """

    def build(self, input_shape):
        del input_shape
        self.min, self.max = _add_range(self)

    def call(self, inputs, training=False):
        if training:
            low = tf.minimum(tf.reduce_min(inputs), 0.0)  # a range must hold 0
            high = tf.maximum(tf.reduce_max(inputs), 0.0)
            for end, seen in ((self.min, low), (self.max, high)):
                end.assign_add((seen - end.value) * (1.0 - _RANGE_DECAY))
        return fake_quant(inputs, self.min.value, self.max.value)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("mobilenet_pipeline")
class FoldedConv(keras.layers.Layer):
    """A convolution whose kernel is quantised after batch norm was folded into it.

    At inference the kernel is kernel * gamma / sigma, rounded to 255 values (the narrow range, so
    that 0 is one of them), and the bias beta - mean * gamma / sigma, not rounded. In training the
    same moving sigma scales the kernel, so that its range does not jump with the batch, and the
    output is corrected to the batch's own moments behind the convolution.

    Args:
        filters: output channels; None for a depthwise convolution.
        kernel_size: side of the kernel.
        stride: in both directions.
        norm: (decay, epsilon) of the batch norm, or None for a bias.
        kernel_initializer: of the kernel.
    """

    def __init__(self, filters, kernel_size, stride, norm, kernel_initializer, **kwargs):
        super().__init__(**kwargs)
        self._filters, self._kernel_size, self._stride = filters, kernel_size, stride
        self._norm, self._initializer = norm, kernel_initializer
        self.decayed = filters is not None  # weight decay spares depthwise kernels

    def build(self, input_shape):
        channels = input_shape[-1]
        size = self._kernel_size
        last = (channels, self._filters) if self._filters else (channels, 1)
        out = (self._filters or channels,)
        self.kernel = self.add_weight(
            name="kernel", shape=(size, size, *last), initializer=self._initializer
        )
        if self._norm is None:
            self.bias = self.add_weight(name="bias", shape=out, initializer="zeros")
        else:
            for name, start, trainable in (
                ("gamma", "ones", True),
                ("beta", "zeros", True),
                ("moving_mean", "zeros", False),
                ("moving_variance", "ones", False),
            ):
                weight = self.add_weight(
                    name=f"BatchNorm.{name}", shape=out, initializer=start, trainable=trainable
                )
                setattr(self, name, weight)
        self.min, self.max = _add_range(self, "weights_quant.")

    def call(self, inputs, training=False):
        if self._norm is None:
            return self._convolve(inputs, self._quantize(self.kernel.value, training)) + (
                self.bias.value
            )
        decay, epsilon = self._norm
        scale = self.gamma.value * tf.math.rsqrt(self.moving_variance.value + epsilon)
        folded = self._quantize(self.kernel.value * self._by_channel(scale), training)
        outputs = self._convolve(inputs, folded)
        if not training:
            return outputs + (self.beta.value - self.moving_mean.value * scale)
        mean, variance = tf.nn.moments(self._convolve(inputs, self.kernel.value), axes=[0, 1, 2])
        batch_scale = tf.math.rsqrt(variance + epsilon)
        correction = batch_scale * tf.sqrt(self.moving_variance.value + epsilon)
        outputs = outputs * correction + (self.beta.value - mean * self.gamma.value * batch_scale)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_add((batch - moving.value) * (1.0 - decay))
        return outputs

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        sides = (-(-side // self._stride) for side in (height, width))  # padding is SAME
        return (batch, *sides, self._filters or channels)

    def _convolve(self, inputs, kernel):
        strides = (1, self._stride, self._stride, 1)
        if self._filters:
            return tf.nn.conv2d(inputs, kernel, strides, "SAME")
        return tf.nn.depthwise_conv2d(inputs, kernel, strides, "SAME")

    def _by_channel(self, values):
        """Shapes per-channel values like the kernel's output channels."""
        return values if self._filters else values[:, tf.newaxis]

    def _quantize(self, kernel, training):
        if training:
            self.min.assign(tf.reduce_min(kernel))
            self.max.assign(tf.reduce_max(kernel))
        return fake_quant(kernel, self.min.value, self.max.value, narrow_range=True)


def fake_quant(
    values: tf.Tensor, low: tf.Tensor, high: tf.Tensor, narrow_range: bool = False
) -> tf.Tensor:
    """Rounds to 8 bits as TF1's FakeQuantWithMinMaxVars does.

    TensorFlow 2's kernel of that name rounds some values to the other neighbour. One such step is
    amplified from layer to layer: with its arithmetic the logits of 8-bit TF1 checkpoints are up to
    three times as far off. The gradient is let through between the ends.

    Args:
        values: any shape.
        low: end of the range, at most 0.
        high: end of the range, at least 0.
        narrow_range: 255 values, symmetric around 0, instead of 256.
    """
    first, last = (1.0 if narrow_range else 0.0), 255.0
    scale = (high - low) / (last - first)
    # The ends are moved so that 0 is one of the values.
    zero = tf.clip_by_value(tf.floor(first - low / scale + 0.5), first, last)
    lowest, highest = (first - zero) * scale, (last - zero) * scale

    @tf.custom_gradient
    def quantize(values):
        shifted = tf.clip_by_value(values, lowest, highest) - lowest
        rounded = tf.floor(shifted / scale + 0.5) * scale + lowest
        inside = (values >= lowest) & (values <= highest)
        return rounded, lambda gradient: tf.where(inside, gradient, 0.0)

    return quantize(values)


class QuantizedBuilder(Builder):
    """Builds the same blocks from quantised parts."""

    def logits(self, inputs):
        return self._quant(super().logits(inputs), f"{LOGITS}.act_quant")

    def conv_norm(self, inputs, name, *, filters, kernel=1, stride=1):
        return self._folded(inputs, name, filters, kernel, stride, self._norm_constants)

    def depthwise_norm(self, inputs, name, *, kernel, stride):
        return self._folded(inputs, name, None, kernel, stride, self._norm_constants)

    def conv_bias(self, inputs, name, *, filters):
        return self._folded(inputs, name, filters, 1, 1, None)

    def activate(self, inputs, name, activation):
        if activation != "hard_swish":
            return self._quant(super().activate(inputs, name, activation), f"{name}.act_quant")
        inputs = self._quant(inputs, f"{name}.conv_quant")
        clipped = self._clipped(inputs, name)
        product = keras.layers.Multiply(name=f"{name}.hard_swish.mul")([inputs, clipped])
        product = self._quant(product, f"{name}.hard_swish.mul.activation_Mul_quant")
        sixth = keras.layers.Rescaling(1.0 / 6.0, name=f"{name}.hard_swish.mul_1")(product)
        return self._quant(sixth, f"{name}.hard_swish.mul_1.activation_Mul_quant")

    def linear(self, inputs, name):
        return self._quant(inputs, f"{name}.act_quant")

    def add(self, shortcut, outputs, name):
        total = super().add(shortcut, outputs, name)
        return self._quant(total, f"{name}.post_activation_bypass_quant")

    def gate(self, inputs, gate, name):
        excite = f"{name}.Conv_1"
        clipped = self._clipped(self._quant(gate, f"{excite}.conv_quant"), excite)
        gate = keras.layers.Rescaling(_GATE_FACTOR, name=f"{excite}.mul")(clipped)
        gate = self._quant(gate, f"{excite}.mul.activation_Mul_quant")
        product = keras.layers.Multiply(name=f"{name}.mul")([inputs, gate])
        return self._quant(product, f"{name}.mul.activation_Mul_quant")

    def _clipped(self, inputs, name: str):
        """relu6(x + 3); its ranges are numbered within the scope around the layer `name`."""
        shifted = keras.layers.Rescaling(1.0, offset=3.0, name=f"{name}.shift")(inputs)
        clipped = keras.layers.Activation("relu6", name=f"{name}.shift.relu6")(shifted)
        scope = name.rpartition(".")[0]
        number = self._clips_in.get(scope, 0)
        self._clips_in[scope] = number + 1
        word = f"act_quant_{number}" if number else "act_quant"
        return self._quant(clipped, f"{scope}.{word}" if scope else word)

    def _folded(self, inputs, name, filters, kernel, stride, norm):
        return FoldedConv(filters, kernel, stride, norm, self.initializer(), name=name)(inputs)

    def _quant(self, inputs, name: str):
        return FakeQuant(name=name)(inputs)

    def __init__(self, config):
        super().__init__(config)
        self._norm_constants = (config.batch_norm_decay, config.batch_norm_epsilon)
        self._clips_in: dict[str, int] = {}


def _add_range(layer: keras.layers.Layer, prefix: str = ""):
    return tuple(
        layer.add_weight(
            name=f"{prefix}{end}",
            shape=(),
            initializer=keras.initializers.Constant(value),
            trainable=False,
        )
        for end, value in (("min", -_INITIAL_RANGE), ("max", _INITIAL_RANGE))
    )
