"""Sums over the rows of a feature map that XLA compiles to one pass over memory, on a CPU.

XLA compiles a sum over many rows to a loop that runs down one channel at a time, several times as
slow as reading the map. A sum over a handful of rows it unrolls, and the loop that is left runs
along the channels, which lie side by side. So rows are summed by small blocks, along with whatever
is computed of them on the way, and the blocks' sums, an eighth as many, by something else. Two sums
over the same map are asked for as one with an axis of length two, which goes over a block twice but
fetches it from memory once.

A function that is compiled has to return the blocks' sums, used or not: XLA would else fuse the two
stages into the slow loop again.

The order of summation is fixed by the shape alone, whatever the number of threads.
"""

from __future__ import annotations

import tensorflow as tf

# With fewer rows in a block the sums are many, with more the loop is not unrolled.
_BLOCKS = (8, 7, 6, 5, 4)


def rows_per_block(rows: int) -> int | None:
    """How many rows make a block, of so many that follow each other; None where none fits."""
    return next((block for block in _BLOCKS if rows % block == 0), None)


def sums(values: tf.Tensor, rows: int) -> tf.Tensor:
    """Sums of each block of rows.

    Args:
        values: (batch, height, width, channels).
        rows: how many follow each other without the end of a block being in between.

    Returns:
        (batch * height * width / rows, blocks, channels).
    """
    return tf.reduce_sum(_in_blocks(values, rows), 2)


def sums_and_products(values: tf.Tensor, factors: tf.Tensor, rows: int) -> tf.Tensor:
    """Sums of each block of rows of `values`, and of `values * factors`: (blocks, 2, channels)."""
    which = tf.reshape(tf.range(2), [1, 2, 1, 1])
    values, factors = (_in_blocks(it, rows) for it in (values, factors))
    return tf.reduce_sum(values[0][:, None] * tf.where(which == 0, 1.0, factors[0][:, None]), 2)


def _in_blocks(values, rows):
    block, channels = rows_per_block(rows), values.shape[-1]
    return tf.reshape(values, [-1, rows // block, block, channels])


def totals(sums: tf.Tensor) -> tf.Tensor:
    """Sums of (groups, blocks, channels) over the blocks: (groups, channels)."""
    groups, blocks, _ = sums.shape
    # Two rows of ones, since XLA would fuse a product with a single row into what is in front.
    return tf.matmul(tf.ones([groups, 2, blocks]), sums)[:, 0]


def means(sums: tf.Tensor, rows: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The two averages over all rows, (channels,), from `sums_and_products` of that many rows."""
    blocks, two, channels = sums.shape
    total = totals(tf.reshape(sums, [1, blocks, two * channels]))
    return tuple(tf.unstack(tf.reshape(total / rows, [two, channels])))
