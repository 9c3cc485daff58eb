"""What happens to a batch on the device: flip, colour, scale.

The random numbers of example i in epoch e come from (seed, e, i) and are drawn on the host, a few
scalars an example; here they are only applied.
"""

from __future__ import annotations

import tensorflow as tf

from training.image_ops import BRIGHTNESS_DELTA, SATURATION_RANGE, scale_pixels

NUM_DRAWS = 3  # flip, brightness, saturation


def distort(images: tf.Tensor, draws: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Flips and distorts the colours of a batch as slim's fast mode does.

    Args:
        images: (batch, height, width, 3) uint8.
        draws: (batch, NUM_DRAWS) float32, uniform in [0, 1).
        input_range: the value of a black and of a white pixel.

    Returns:
        (batch, height, width, 3) float32 in `input_range`.
    """
    flip, brightness, saturation = tf.unstack(draws[:, :, None, None, None], axis=1)
    images = tf.where(flip < 0.5, images[:, :, ::-1], images)
    pixels = scale_pixels(images, (0.0, 1.0))
    pixels += (2.0 * brightness - 1.0) * BRIGHTNESS_DELTA
    low, high = SATURATION_RANGE
    pixels = adjust_saturation(pixels, low + saturation * (high - low))
    pixels = tf.clip_by_value(pixels, 0.0, 1.0)
    black, white = input_range
    return pixels * (white - black) + black


def adjust_saturation(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the saturation (of hue, saturation, value) by a factor of each image's own.

    Hue and value stay, so a channel's distance to the brightest channel is what is multiplied, as
    far as the darkest channel stays at 0 or above.

    Args:
        pixels: (batch, height, width, 3) float.
        factor: (batch, 1, 1, 1) float, 0 for grey.
    """
    value = tf.reduce_max(pixels, axis=-1, keepdims=True)
    spread = value - tf.reduce_min(pixels, axis=-1, keepdims=True)
    largest = tf.math.divide_no_nan(value, spread)
    return value - (value - pixels) * tf.minimum(factor, tf.maximum(largest, 0.0))
