"""Boxes in images, as masks that XLA can fuse: no slices whose size is only known at run time."""

from __future__ import annotations

import tensorflow as tf


def inside(shape: tuple[int, int], start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Which pixels lie in each image's box.

    Args:
        shape: height and width in pixels.
        start: (batch, 2) float32, first row and column; whole numbers.
        end: (batch, 2) float32, the row and column after the last.

    Returns:
        (batch, height, width) bool.
    """
    within = [
        (tf.range(side, dtype=tf.float32) >= start[:, axis, tf.newaxis])
        & (tf.range(side, dtype=tf.float32) < end[:, axis, tf.newaxis])
        for axis, side in enumerate(shape)
    ]
    return within[0][:, :, tf.newaxis] & within[1][:, tf.newaxis, :]
