"""What it costs to go on in the middle of a large epoch: `python -m benchmarks.resume_cost`.

The data set has as many records as ImageNet, with a photo of a few pixels in each: what is measured
is finding the place, which does not depend on the size of the photos.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import tempfile
import time

import numpy as np

from common.command import flag, run
from common.errors import UsageError

_BATCH, _SIZE = 64, 32


@dataclasses.dataclass(frozen=True)
class ResumeFlags:
    """How large the data set is, and where in it a run goes on."""

    num_examples: int = flag(1_281_167, help="records of the data set, made for the occasion")
    num_shards: int = flag(1024, help="files that they are in")
    position: int = flag(1_000_000, help="examples that were seen before")
    work_dir: str = flag("", help="where they are written (1 GB); empty for a temporary directory")

    def __post_init__(self):
        if not 0 < self.num_shards <= self.num_examples:
            raise UsageError(f"--num_shards={self.num_shards} must be 1 to --num_examples")


def measure(config: ResumeFlags) -> None:
    """Times the first batch at the start of an epoch and in its middle."""
    from training import runtime

    runtime.start()
    from training.config import DataFlags
    from training.input_pipeline import TrainingInput, training_batches
    from training.readers import open_split

    with tempfile.TemporaryDirectory(dir=config.work_dir or None) as directory:
        os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "cache")
        write_records(os.path.join(directory, "data"), config.num_examples, config.num_shards)
        data = DataFlags(os.path.join(directory, "data"))
        for what in ("opened for the first time", "opened again"):
            start = time.monotonic()
            shards = open_split(data, "train")
            logging.info("%s: %.2f s", what, time.monotonic() - start)
        options = TrainingInput(batch_size=_BATCH, size=(_SIZE, _SIZE), seed=0)
        for position in (0, config.position, 0, config.position):
            start = time.monotonic()
            batch = next(iter(training_batches(shards, options, position)))
            seconds = time.monotonic() - start
            logging.info(
                "first batch at position %s: %.2f s (example %d first)",
                f"{position:,}",
                seconds,
                int(batch["example"][0]),
            )


def write_records(directory: str, num_examples: int, num_shards: int) -> None:
    """Shards in the classic format, all of the same small photo."""
    import tensorflow as tf
    from PIL import Image

    os.makedirs(directory)
    photo = io.BytesIO()
    Image.fromarray(np.zeros([_SIZE, _SIZE, 3], np.uint8)).save(photo, "JPEG")

    def feature(**kind) -> tf.train.Feature:
        return tf.train.Feature(**kind)

    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                "image/encoded": feature(bytes_list=tf.train.BytesList(value=[photo.getvalue()])),
                "image/class/label": feature(int64_list=tf.train.Int64List(value=[1])),
                "image/filename": feature(bytes_list=tf.train.BytesList(value=[b"made-up.JPEG"])),
            }
        )
    ).SerializeToString()
    for shard in range(num_shards):
        first, stop = (n * num_examples // num_shards for n in (shard, shard + 1))
        path = os.path.join(directory, f"train-{shard:05}-of-{num_shards:05}")
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(stop - first):
                writer.write(example)


if __name__ == "__main__":
    run(measure, ResumeFlags)
