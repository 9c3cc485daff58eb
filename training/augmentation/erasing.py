"""Random erasing (arXiv:1708.04896): a box of the image is filled with noise, pixel by pixel."""

from __future__ import annotations

import math
import statistics

import tensorflow as tf

from training.augmentation.boxes import inside
from training.augmentation.colour import Planes
from training.augmentation.purposes import ERASE, ERASE_NOISE
from training.randomness import uniform

AREA_RANGE = (0.02, 0.33)  # part of the image
ASPECT_RATIO_RANGE = (0.3, 3.3)  # height / width

# ImageNet's channels: standard normal noise in normalised pixels, as a value of 0 to 1.
_MEANS = (0.485, 0.456, 0.406)
_DEVIATIONS = (0.229, 0.224, 0.225)


def erase(planes: Planes, keys: tf.Tensor, probability: float) -> Planes:
    """Fills a box of some of the images with noise.

    Args:
        planes: three times (batch, height, width) float32 in [0, 1].
        keys: (batch, 2) uint32.
        probability: of an image to get such a box.
    """
    batch, *shape = planes[0].shape
    chosen, area, aspect, *corner = tf.unstack(uniform(keys, ERASE, 5)[:, :, tf.newaxis], axis=1)
    mask = inside(shape, *_box(shape, area, aspect, tf.concat(corner, axis=1)))
    mask &= chosen[:, tf.newaxis] < probability
    # One draw of 24 bits a pixel: eight for each channel, as many as an image has.
    draws = uniform(keys, ERASE_NOISE, shape[0] * shape[1]) * 2.0**24
    bits = tf.reshape(tf.cast(draws, tf.int32), [batch, *shape])
    erased = []
    for channel, plane in enumerate(planes):
        byte = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 8 * channel), 255)
        erased.append(tf.where(mask, tf.gather(_noise_table(channel), byte), plane))
    return erased


def _box(
    shape: list[int], area: tf.Tensor, aspect: tf.Tensor, corner: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """First and last row and column, (batch, 2) each; the aspect ratio is even on a log scale."""
    sides = tf.constant(shape, tf.float32)
    low, high = AREA_RANGE
    area = (low + area * (high - low)) * (shape[0] * shape[1])
    low, high = (math.log(ratio) for ratio in ASPECT_RATIO_RANGE)
    aspect = tf.exp(low + aspect * (high - low))
    extent = tf.concat([tf.sqrt(area * aspect), tf.sqrt(area / aspect)], axis=1)
    # The largest boxes of the most extreme shapes are a few per cent longer than the image.
    extent = tf.clip_by_value(tf.round(extent), 1.0, sides)
    start = tf.floor(corner * (sides - extent + 1.0))
    return start, start + extent


def _noise_table(channel: int) -> tf.Tensor:
    """256 equally frequent values of the noise, those beyond black and white cut off."""
    noise = statistics.NormalDist(_MEANS[channel], _DEVIATIONS[channel])
    values = [noise.inv_cdf((step + 0.5) / 256) for step in range(256)]
    return tf.constant([min(max(value, 0.0), 1.0) for value in values], tf.float32)
