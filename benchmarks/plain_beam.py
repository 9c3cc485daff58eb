"""The pipeline that one would write first: `python -m benchmarks.plain_beam`.

Every photo is an element: it is read, made an Example, sent through a Reshuffle, and given to
Beam's own TFRecord writer. `benchmarks.build_dataset` measures the project's build beside it.
"""

from __future__ import annotations

import dataclasses
import glob
import os

from common.command import flag, run


@dataclasses.dataclass(frozen=True)
class PlainConfig:
    """Flags of the command."""

    source: str = flag(help="directory of class folders")
    output: str = flag(help="prefix of the shards")
    num_shards: int = flag(8, help="how many files of records to write")


def build_plainly(config: PlainConfig) -> None:
    """Writes TFRecord shards of Examples the straightforward way."""
    import apache_beam as beam
    from apache_beam.io.tfrecordio import WriteToTFRecord

    paths = sorted(glob.glob(os.path.join(glob.escape(config.source), "*", "*")))
    classes = sorted({os.path.basename(os.path.dirname(path)) for path in paths})
    indices = {name: index for index, name in enumerate(classes)}
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | "Paths" >> beam.Create(paths)
            | "Examples" >> beam.Map(to_example, indices)
            | "Shuffle" >> beam.Reshuffle()
            | "Write" >> WriteToTFRecord(config.output, num_shards=config.num_shards)
        )


def to_example(path: str, indices: dict[str, int]) -> bytes:
    """One photo as a serialized `tf.train.Example`."""
    import tensorflow as tf

    with open(path, "rb") as file:
        jpeg = file.read()
    folder, name = path.split(os.sep)[-2:]
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
        "image/class/label": tf.train.Feature(
            int64_list=tf.train.Int64List(value=[indices[folder] + 1])
        ),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


if __name__ == "__main__":
    run(build_plainly, PlainConfig)
