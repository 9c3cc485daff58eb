"""Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of neighbours.

Examples 2k and 2k + 1 of a batch are mixed with each other, and what happens to them comes from the
key of the first. Pairs stay together on one replica, so it does not depend on how many there are.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from training.augmentation.beta import symmetric_beta
from training.augmentation.boxes import inside

NUM_DRAWS = 4  # which of the two, lambda, row and column of the box


class Mix(NamedTuple):
    """How much of its partner an example gets.

    Attributes:
        pixels: (batch, height or 1, width or 1) float32, part of the partner in each pixel.
        targets: (batch, 1) float32, part of the partner's target: the mean of `pixels`.
    """

    pixels: tf.Tensor
    targets: tf.Tensor


def draw_mix(
    draws: tf.Tensor, shape: tuple[int, int], mixup_alpha: float, cutmix_alpha: float
) -> Mix:
    """What is mixed; where both alphas are above 0, half of the pairs get each.

    Args:
        draws: (batch, NUM_DRAWS) float32, uniform in [0, 1); those of each pair's first are used.
        shape: height and width in pixels.
        mixup_alpha: lambda of mixup is from Beta(mixup_alpha, mixup_alpha); 0 for no mixup.
        cutmix_alpha: likewise of CutMix.
    """
    draws = tf.repeat(draws[::2], 2, axis=0)
    if not cutmix_alpha:
        return _mixup(draws, mixup_alpha)
    if not mixup_alpha:
        return _cutmix(draws, shape, cutmix_alpha)
    chosen = draws[:, :1] < 0.5
    mixup, cutmix = _mixup(draws, mixup_alpha), _cutmix(draws, shape, cutmix_alpha)
    return Mix(
        tf.where(chosen[:, :, tf.newaxis], mixup.pixels, cutmix.pixels),
        tf.where(chosen, mixup.targets, cutmix.targets),
    )


def mix_with_partner(values: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
    """Replaces a part of every example by the same part of its neighbour.

    Args:
        values: (batch, ...) float32; batch is even.
        part: how much of the neighbour, in [0, 1]; broadcasts to `values`.
    """
    pairs = tf.reshape(values, [values.shape[0] // 2, 2, *values.shape[1:]])
    partners = tf.reshape(tf.reverse(pairs, axis=[1]), values.shape)
    return values + (partners - values) * part


def _mixup(draws: tf.Tensor, alpha: float) -> Mix:
    part = 1.0 - symmetric_beta(draws[:, 1:2], alpha)
    return Mix(part[:, :, tf.newaxis], part)


def _cutmix(draws: tf.Tensor, shape: tuple[int, int], alpha: float) -> Mix:
    sides = tf.constant(shape, tf.float32)
    part = 1.0 - symmetric_beta(draws[:, 1:2], alpha)
    # A box of that part of the area around a point anywhere; what sticks out is cut off, and
    # counted as not there.
    extent = tf.floor(sides * tf.sqrt(part))
    start = tf.floor(draws[:, 2:4] * sides) - tf.floor(extent / 2.0)
    end = tf.minimum(start + extent, sides)
    start = tf.maximum(start, 0.0)
    area = tf.reduce_prod(end - start, axis=1, keepdims=True)
    return Mix(
        tf.cast(inside(shape, start, end), tf.float32),
        area / tf.cast(shape[0] * shape[1], tf.float32),
    )
