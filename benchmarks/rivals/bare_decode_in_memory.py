"""TensorFlow decodes photos that are in memory: nothing is read or parsed either."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.rivals.bare_decode import decoded
from benchmarks.rivals.serve import serve
from training import runtime


def _batches(data_dir: str) -> Iterable[Any]:
    runtime.start()
    import tensorflow as tf

    from training.shards import Shards

    shards = Shards.open(data_dir, "train")
    records = [
        record
        for number, size in enumerate(shards.sizes)
        for record in shards.read(number, 0, size)
    ]
    jpegs = shards.parse(tf.constant(records))["jpeg"]
    return decoded(tf.data.Dataset.from_tensor_slices(jpegs), lambda jpeg: jpeg)


if __name__ == "__main__":
    serve(_batches, __doc__)
