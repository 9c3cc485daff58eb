"""The input of our training: random crops in the exact, deterministic order, uint8 batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.rivals.serve import BATCH, SIZE, THREADS, serve
from training import runtime


def with_threads(batches) -> Iterable[Any]:
    """A tf.data pipeline that has threads of its own."""
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = THREADS
    return batches.with_options(options)


def _batches(data_dir: str) -> Iterable[Any]:
    runtime.start()
    from training.input_pipeline import TrainingInput, training_batches
    from training.shards import Shards

    options = TrainingInput(batch_size=BATCH, size=(SIZE, SIZE), seed=1)
    return with_threads(training_batches(Shards.open(data_dir, "train"), options, position=0))


if __name__ == "__main__":
    serve(_batches, __doc__)
