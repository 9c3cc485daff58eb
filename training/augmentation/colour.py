"""Colour distortions of a batch, each image with parameters of its own.

Images are three planes, red, green and blue, each (batch, height, width) float32 in [0, 1] before
the first step; parameters are (batch, 1, 1). In this form XLA makes one loop of all of it: with the
channels innermost it does not vectorise them.
"""

from __future__ import annotations

import tensorflow as tf

from training.image_ops import BRIGHTNESS_DELTA, SATURATION_RANGE

HUE_DELTA = 0.2
CONTRAST_RANGE = (0.5, 1.5)

Planes = list[tf.Tensor]


def distort_fast(planes: Planes, draws: tf.Tensor) -> Planes:
    """Brightness, then saturation, then clipping: slim's fast mode.

    Args:
        planes: three times (batch, height, width) float32.
        draws: (batch, 2) float32, uniform in [0, 1).
    """
    brightness, saturation = tf.unstack(draws[:, :, tf.newaxis, tf.newaxis], axis=1)
    planes = adjust_brightness(planes, _between(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA, brightness))
    planes = adjust_saturation(planes, _between(*SATURATION_RANGE, saturation))
    return _clip(planes)


def distort_full(planes: Planes, draws: tf.Tensor) -> Planes:
    """Brightness, saturation, hue and contrast in one of slim's four orders, then clipping.

    With B, S, H and C for them, the orders are

        0: B S H C    1: S B C H    2: C H B S    3: H S C B

    B commutes with C and H, and S with H. So each order is part of the one sequence S C H B S C B,
    and a whole batch goes through that: every image skips what is not in its order.

    Args:
        planes: three times (batch, height, width) float32.
        draws: (batch, 5) float32, uniform in [0, 1): order, brightness, saturation, hue, contrast.
    """
    order, *draws = tf.unstack(draws[:, :, tf.newaxis, tf.newaxis], axis=1)
    order = tf.cast(order * 4.0, tf.int32)
    brightness = _between(-BRIGHTNESS_DELTA, BRIGHTNESS_DELTA, draws[0])
    saturation = _between(*SATURATION_RANGE, draws[1])
    hue = _between(-HUE_DELTA, HUE_DELTA, draws[2])
    contrast = _between(*CONTRAST_RANGE, draws[3])

    planes = _some(order == 1, adjust_saturation(planes, saturation), planes)
    planes = _some((order == 1) | (order == 2), adjust_contrast(planes, contrast), planes)
    planes = adjust_hue(planes, hue)
    planes = _some(order != 3, adjust_brightness(planes, brightness), planes)
    planes = _some(order != 1, adjust_saturation(planes, saturation), planes)
    planes = _some((order == 0) | (order == 3), adjust_contrast(planes, contrast), planes)
    planes = _some(order == 3, adjust_brightness(planes, brightness), planes)
    return _clip(planes)


def adjust_brightness(planes: Planes, delta: tf.Tensor) -> Planes:
    """Adds `delta`."""
    return [plane + delta for plane in planes]


def adjust_contrast(planes: Planes, factor: tf.Tensor) -> Planes:
    """Multiplies the distance to each image's and channel's mean."""
    means = [tf.reduce_mean(plane, axis=(1, 2), keepdims=True) for plane in planes]
    return [mean + (plane - mean) * factor for plane, mean in zip(planes, means, strict=True)]


def adjust_saturation(planes: Planes, factor: tf.Tensor) -> Planes:
    """Multiplies the saturation (of hue, saturation, value); 0 makes grey.

    Hue and value stay, so a channel's distance to the brightest channel is what is multiplied, as
    far as the darkest channel stays at 0 or above.
    """
    darkest, value = _extremes(planes)
    largest = tf.math.divide_no_nan(value, value - darkest)
    factor = tf.minimum(factor, tf.maximum(largest, 0.0))
    return [value - (value - plane) * factor for plane in planes]


def adjust_hue(planes: Planes, delta: tf.Tensor) -> Planes:
    """Turns the hue by `delta`, in parts of the whole circle; darkest and brightest stay."""
    red, green, blue = planes
    darkest, value = _extremes(planes)
    spread = value - darkest
    # Sixths of the circle: 0 is red, 2 green, 4 blue.
    hue = tf.where(
        red == value,
        tf.math.divide_no_nan(green - blue, spread),
        tf.where(
            green == value,
            2.0 + tf.math.divide_no_nan(blue - red, spread),
            4.0 + tf.math.divide_no_nan(red - green, spread),
        ),
    )
    hue += 6.0 * delta
    turned = []
    for centre in (0.0, 2.0, 4.0):
        # Distance to the channel's own hue, 0 to 3: it is brightest within 1 and darkest beyond 2.
        distance = tf.abs(tf.math.floormod(hue - centre + 3.0, 6.0) - 3.0)
        turned.append(darkest + spread * tf.clip_by_value(2.0 - distance, 0.0, 1.0))
    return turned


def _extremes(planes: Planes) -> tuple[tf.Tensor, tf.Tensor]:
    red, green, blue = planes
    darkest = tf.minimum(tf.minimum(red, green), blue)
    return darkest, tf.maximum(tf.maximum(red, green), blue)


def _some(chosen: tf.Tensor, adjusted: Planes, planes: Planes) -> Planes:
    return [tf.where(chosen, new, old) for new, old in zip(adjusted, planes, strict=True)]


def _between(low: float, high: float, draw: tf.Tensor) -> tf.Tensor:
    return low + draw * (high - low)


def _clip(planes: Planes) -> Planes:
    return [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]
