"""What a training step can count on when it runs on a CPU."""

from __future__ import annotations

import functools

import tensorflow as tf

# Below this many numbers a feature map lies in the cache, where there is little to win, and less
# than compiling for its shape costs.
SMALLEST_MAP = 2**18


def suits(inputs: tf.Tensor) -> bool:
    """Whether ways of computing that are for one CPU may be taken with `inputs`.

    They are for float32 of a shape that is known as a graph is traced.
    """
    return computes_alone() and inputs.dtype == tf.float32 and inputs.shape.is_fully_defined()


@functools.cache
def computes_alone() -> bool:
    """Whether one CPU is all the devices there are.

    The same on every start, since a resumed run must compute the same bits.
    """
    accelerators = tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")
    return not accelerators and len(tf.config.list_logical_devices("CPU")) == 1


def outgrows_cache(numbers: int) -> bool:
    """Whether a map of so many numbers is worth going over less often."""
    return numbers >= SMALLEST_MAP
