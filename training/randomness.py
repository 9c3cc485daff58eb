"""Random numbers that belong to an example: pure functions of (seed, epoch, example).

A key is two 32-bit words, hashed from seed, epoch and example. On the host it is made with NumPy, a
window of records at a time; on the device all numbers that the example needs (crop, flip, colour,
mixing, dropout) are hashed from it. So they depend neither on threads, workers and replicas nor on
what else is in the batch. Words are hashed in one after the other, never added up: keys made by
adding numbers to the seed would be shared by neighbouring seeds.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# The finaliser of MurmurHash3 (Appleby, 2011): every bit of its input changes half of the output's.
_SHIFTS = (16, 13, 16)
_FACTORS = (0x85EBCA6B, 0xC2B2AE35, 1)
_MASK = 0xFFFFFFFF
_STEP = 0x9E3779B9  # 2**32 / golden ratio: spreads successive words over the whole range


def example_keys(seed: int, epoch: int, examples: np.ndarray) -> np.ndarray:
    """Keys of some examples in an epoch.

    Args:
        seed: seed of the run, below 2**32.
        epoch: number of the epoch, from 0.
        examples: (n,) int64 numbers of the examples.

    Returns:
        (n, 2) uint32.
    """
    examples = np.asarray(examples, np.uint64)
    # What is the same for all examples is hashed once, in plain numbers: windows are short, and
    # NumPy takes longer to begin than to compute.
    starts = [_mixed(_mixed(word, seed), epoch) for word in (0, 1)]
    keys = np.array(starts, np.uint32)[np.newaxis]
    for part in (examples >> np.uint64(32), examples & np.uint64(_MASK)):
        keys = keys ^ part.astype(np.uint32)[:, np.newaxis]
        keys += np.uint32(_STEP)
        for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
            keys ^= keys >> np.uint32(shift)
            keys *= np.uint32(factor)
    return keys


def _mixed(state: int, word: int) -> int:
    state = ((state ^ word) + _STEP) & _MASK
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
        state = (state ^ (state >> shift)) * factor & _MASK
    return state


def uniform(keys: tf.Tensor, purpose: int, count: int) -> tf.Tensor:
    """Numbers in [0, 1) for each key, on the device.

    Args:
        keys: (batch, 2) uint32.
        purpose: what they are for: other purposes give other numbers.
        count: how many for each key.

    Returns:
        (batch, count) float32.
    """
    counter = tf.range(count, dtype=tf.int32)[tf.newaxis]
    state = _mixed_on_device(keys[:, :1], tf.constant(purpose, tf.uint32))
    state = _mixed_on_device(state, tf.cast(counter, tf.uint32))
    state = _mixed_on_device(state, keys[:, 1:])
    # 24 bits: as many as a float32 below 1 holds exactly.
    return tf.cast(tf.bitwise.right_shift(state, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _mixed_on_device(state: tf.Tensor, word: tf.Tensor) -> tf.Tensor:
    state = tf.bitwise.bitwise_xor(state, word) + tf.constant(_STEP, tf.uint32)
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=True):
        shifted = tf.bitwise.right_shift(state, tf.constant(shift, tf.uint32))
        state = tf.bitwise.bitwise_xor(state, shifted) * tf.constant(factor, tf.uint32)
    return state
