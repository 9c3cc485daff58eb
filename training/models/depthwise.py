"""Depthwise convolutions with gradients by the kernels that are quick at them on a CPU.

Two of oneDNN's gradients are slow. That of the filter has no depthwise kernel for windows wider
than three: it falls back to one for ordinary convolutions, which computes sixteen channels against
sixteen where each belongs to itself alone, and takes about twice as long as TensorFlow's own
kernel. That of the input takes up to a quarter longer than the same sum as a forward convolution.
"""

from __future__ import annotations

import tensorflow as tf

_WIDEST = 3  # oneDNN's filter gradient


def depthwise_conv(inputs: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """A depthwise convolution, padded as SAME.

    Args:
        inputs: (batch, height, width, channels) float32 of static shape.
        kernel: (size, size, channels, 1).
        stride: in both directions.
    """

    @tf.custom_gradient
    def compute(inputs, kernel):
        def gradient(outer):
            return (
                _input_gradient(inputs, kernel, stride, outer),
                _kernel_gradient(inputs, kernel, stride, outer),
            )

        return tf.nn.depthwise_conv2d(inputs, kernel, _strides(stride), "SAME"), gradient

    return compute(inputs, tf.convert_to_tensor(kernel))


def _input_gradient(inputs, kernel, stride: int, outer):
    if stride == 1 and kernel.shape[0] % 2:
        # Each input has met all of the window: a mirrored window gathers what it gave to whom.
        return tf.nn.depthwise_conv2d(outer, tf.reverse(kernel, [0, 1]), _strides(1), "SAME")
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=inputs.shape,
        filter=kernel,
        out_backprop=outer,
        strides=_strides(stride),
        padding="SAME",
    )


def _kernel_gradient(inputs, kernel, stride: int, outer):
    size = kernel.shape[0]
    padding = {"padding": "SAME"}
    if size > _WIDEST:
        # The same padding said in numbers: such an op stays with TensorFlow's own kernel.
        vertical, horizontal = (
            _same(before, after, size, stride)
            for before, after in zip(inputs.shape[1:3], outer.shape[1:3], strict=True)
        )
        numbers = [0, 0, *vertical, *horizontal, 0, 0]
        padding = {"padding": "EXPLICIT", "explicit_paddings": numbers}
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=inputs,
        filter_sizes=kernel.shape,
        out_backprop=outer,
        strides=_strides(stride),
        **padding,
    )


def _same(before: int, after: int, size: int, stride: int) -> tuple[int, int]:
    """What SAME pads in front and behind for a window that makes `after` values of `before`."""
    total = max((after - 1) * stride + size - before, 0)
    return total // 2, total - total // 2


def _strides(stride: int) -> list[int]:
    return [1, stride, stride, 1]
