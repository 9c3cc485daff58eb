"""TensorFlow reads the records, parses them and decodes the photos: no order, crop or resizing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.rivals.ours import with_threads
from benchmarks.rivals.serve import BATCH, serve
from training import runtime


def decoded(photos, jpeg_of) -> Iterable[Any]:
    """Decodes the elements of a data set; photos differ in size, and of each a pixel is kept."""
    import tensorflow as tf

    batches = (
        photos.repeat()
        .map(
            lambda element: tf.io.decode_jpeg(jpeg_of(element), channels=3)[0, 0],
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=False,
        )
        .batch(BATCH)
        .prefetch(2)
    )
    return with_threads(batches)


def _batches(data_dir: str) -> Iterable[Any]:
    runtime.start()
    import tensorflow as tf

    from training.shards import Shards

    shards = Shards.open(data_dir, "train")
    records = tf.data.TFRecordDataset(list(shards.paths), num_parallel_reads=tf.data.AUTOTUNE)
    return decoded(records, lambda record: shards.parse(record)["jpeg"])


if __name__ == "__main__":
    serve(_batches, __doc__)
