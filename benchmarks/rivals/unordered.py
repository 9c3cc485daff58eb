"""The same decoding of records in whatever order they come: TensorFlow reads the shards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.rivals.ours import with_threads
from benchmarks.rivals.serve import BATCH, MIN_AREA, SIZE, serve
from training import runtime


def _batches(data_dir: str) -> Iterable[Any]:
    runtime.start()
    import tensorflow as tf

    from training.image_ops import decode_for_training
    from training.shards import Shards

    shards = Shards.open(data_dir, "train")

    def decode(number, record):
        example = shards.parse(record)
        key = tf.stack([number, tf.constant(1, tf.int64)])
        image = decode_for_training(example["jpeg"], (SIZE, SIZE), key, MIN_AREA)
        return {"images": image, "class_index": example["class_index"]}

    records = tf.data.TFRecordDataset(list(shards.paths), num_parallel_reads=tf.data.AUTOTUNE)
    batches = (
        records.repeat()
        .enumerate()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    return with_threads(batches)


if __name__ == "__main__":
    serve(_batches, __doc__)
