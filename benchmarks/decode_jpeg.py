"""TensorFlow's decoding of photos that are in memory: `python -m benchmarks.decode_jpeg`."""

from __future__ import annotations

import dataclasses
import time

from common.command import flag, run


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Flags of the command."""

    file: str = flag(help="text file with the path of a JPEG per line")
    num_threads: int = flag(2, help="threads that decode")


def measure_decoding(config: DecodeConfig) -> None:
    """Prints how many photos a second `tf.io.decode_jpeg` decodes."""
    import tensorflow as tf

    with open(config.file, encoding="utf-8") as file:
        paths = file.read().splitlines()
    contents = {}
    for path in set(paths):
        with open(path, "rb") as file:
            contents[path] = file.read()
    photos = tf.data.Dataset.from_tensor_slices([contents[path] for path in paths])

    def sizes(jpeg: tf.Tensor) -> tf.Tensor:
        return tf.size(tf.io.decode_jpeg(jpeg, channels=3))

    decoded = photos.map(sizes, num_parallel_calls=config.num_threads, deterministic=False)
    options = tf.data.Options()
    options.threading.private_threadpool_size = config.num_threads
    decoded = decoded.with_options(options)
    for _ in decoded.take(50):
        pass
    start = time.perf_counter()
    for _ in decoded:
        pass
    print(len(paths) / (time.perf_counter() - start))


if __name__ == "__main__":
    run(measure_decoding, DecodeConfig)
