"""Samples of the symmetric beta distribution as a pure function of uniform numbers."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

_NODES = 1 << 16  # of the integral
_CELLS = 1024  # of the table that goes to the device


def symmetric_beta(uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """The quantiles of Beta(alpha, alpha): uniform numbers in, beta-distributed ones out.

    Args:
        uniform: float32 in [0, 1), any shape.
        alpha: both parameters, above 0.

    Returns:
        float32 in [0, 1], the same shape.
    """
    table = tf.constant(_lower_half(alpha), tf.float32)
    upper = uniform >= 0.5
    place = tf.where(upper, 1.0 - uniform, uniform) * (2.0 * _CELLS)
    cell = tf.minimum(tf.cast(place, tf.int32), _CELLS - 1)
    start, end = tf.gather(table, cell), tf.gather(table, cell + 1)
    power = start + (end - start) * (place - tf.cast(cell, tf.float32))
    lower_half = 0.5 * power ** (1.0 / alpha)
    return tf.where(upper, 1.0 - lower_half, lower_half)


@functools.lru_cache(maxsize=8)
def _lower_half(alpha: float) -> np.ndarray:
    """(2 x)**alpha at probabilities 0 to 1/2 in equal steps, (_CELLS + 1,) float64.

    The density x**(alpha - 1) * (1 - x)**(alpha - 1) is infinite at 0 for alpha < 1. In the
    variable (2 x)**alpha it is (1 - x)**(alpha - 1), up to a factor, which is smooth: simple to
    integrate and to interpolate.
    """
    power = np.linspace(0.0, 1.0, _NODES)
    density = (1.0 - 0.5 * power ** (1.0 / alpha)) ** (alpha - 1.0)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return np.interp(np.linspace(0.0, 1.0, _CELLS + 1), below / below[-1], power)
