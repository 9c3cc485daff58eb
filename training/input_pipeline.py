"""Shards to batches: which record comes next, and how it is decoded."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from common.errors import UsageError
from training.augmentation import augment
from training.config import AugmentationFlags
from training.image_ops import decode_for_evaluation, decode_for_training, decode_whole
from training.order import COUNT, FIRST, SHARD, STRETCH, Share
from training.record_feed import RecordFeed
from training.shards import Shards

_EVALUATION_WINDOW = 32  # records read at once


@dataclasses.dataclass(frozen=True)
class TrainingInput:
    """How training batches are made.

    Attributes:
        batch_size: examples in a global batch.
        size: height and width in pixels.
        seed: seed of order and augmentation.
        augmentation: what happens to a photo.
        num_streams: streams that an epoch is dealt to.
        shuffle_window: records that are permuted among each other within a stream.
        passed_over: numbers of examples whose place a neighbour takes, since they are damaged.
    """

    batch_size: int
    size: tuple[int, int]
    seed: int
    augmentation: AugmentationFlags = dataclasses.field(default_factory=AugmentationFlags)
    num_streams: int = 64
    shuffle_window: int = 16
    passed_over: frozenset[int] = frozenset()

    def __post_init__(self):
        if self.batch_size < 1:
            raise UsageError(f"--batch_size must be at least 1, not {self.batch_size}")


def training_batches(
    shards: Shards,
    options: TrainingInput,
    position: int,
    worker: int = 0,
    num_workers: int = 1,
    replica_batch: int | None = None,
) -> tf.data.Dataset:
    """Endless batches from global position `position` on; every epoch holds each example once.

    A batch may span the end of an epoch. Elements are dictionaries of

        images: (batch, height, width, 3) uint8,
        class_index: (batch,) int64, 0 is the first class of the class list,
        key: (batch, 2) uint32, from which all random numbers of the example come,
        example: (batch,) int64, number of the example in the order of the shards.

    Args:
        shards: what is read.
        options: order and augmentation.
        position: examples that were seen already, over all epochs.
        worker: number of this worker.
        num_workers: how many share each global batch.
        replica_batch: examples of an element; by default the worker's share of a global batch. A
            worker with several replicas gets an element for each of them in turn.
    """
    feed = RecordFeed(
        shards,
        Share(position, worker, num_workers),
        options.num_streams,
        options.shuffle_window,
        options.seed,
        options.passed_over,
    )
    return (
        _records_by_position(feed, position, STRETCH * num_workers)
        .map(
            lambda example, key, class_index, stored: training_example(
                shards.example(stored, class_index), options, shards.fused, example, key
            ),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(replica_batch or options.batch_size // num_workers, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
        # Where TensorFlow cannot know that it never ends, workers ask each other at every step.
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    )


def evaluation_batches(
    shards: Shards,
    batch_size: int,
    size: tuple[int, int],
    input_range: tuple[float, float],
    preprocessing: str = "inception",
) -> tf.data.Dataset:
    """Every example once, in the order of the shards; the last batch may be smaller.

    Elements are dictionaries of

        images: (batch, height, width, 3) float32 in `input_range`,
        class_index: (batch,) int64,
        file_name: (batch,) string.
    """
    records = _records_in_order(shards, shards.windows(_EVALUATION_WINDOW))
    return (
        records.map(
            lambda record: evaluation_example(shards, record, size, input_range, preprocessing),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def padded_evaluation_batches(
    shards: Shards,
    replica_batch: int,
    replicas: int,
    size: tuple[int, int],
    input_range: tuple[float, float],
    preprocessing: str = "inception",
    worker: int = 0,
    num_workers: int = 1,
) -> tuple[tf.data.Dataset, int]:
    """One worker's part of an evaluation, in as many equal batches on every worker.

    Args:
        shards: what is read; workers take windows of records in turn.
        replica_batch: examples of an element.
        replicas: elements that make one step of this worker.
        size: height and width in pixels.
        input_range: the value of a black and of a white pixel.
        preprocessing: name of the function from JPEG bytes to the input.
        worker: number of this worker.
        num_workers: how many there are.

    Returns:
        An endless data set of dictionaries of images (float32) and class_index, where an index of
        -1 marks a place that holds no example; and after how many steps all examples were there.
    """
    windows = shards.windows(_EVALUATION_WINDOW)
    parts = [windows[number::num_workers] for number in range(num_workers)]
    most = max(int(part[:, COUNT].sum()) for part in parts)
    num_steps = -(-most // (replica_batch * replicas))

    def decode(record):
        example = evaluation_example(shards, record, size, input_range, preprocessing)
        return {name: example[name] for name in ("images", "class_index")}

    nothing = {
        "images": tf.fill([*size, 3], float(input_range[0])),
        "class_index": tf.constant(-1, tf.int64),
    }
    batches = (
        _records_in_order(shards, parts[worker])
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .concatenate(tf.data.Dataset.from_tensors(nothing).repeat())
        .batch(replica_batch, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    return batches, num_steps


def training_example(
    parsed: dict[str, tf.Tensor],
    options: TrainingInput,
    fused: bool,
    example: tf.Tensor,
    key: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """An element of `training_batches` before batching.

    Args:
        parsed: `jpeg` and `class_index` of a record.
        options: size and augmentation.
        fused: whether it is a JPEG for sure.
        example: its number.
        key: (2,) uint32, from which all of its random numbers come.
    """
    flags = options.augmentation
    if flags.augmentation == "none":
        image = decode_whole(parsed["jpeg"], options.size)
    else:
        image = decode_for_training(
            parsed["jpeg"], options.size, tf.cast(key, tf.int64), flags.min_crop_area, fused
        )
    return {
        "images": augment(image, key, flags),
        "class_index": parsed["class_index"],
        "key": key,
        "example": example,
    }


def evaluation_example(shards: Shards, record, size, input_range, preprocessing):
    """An element of `evaluation_batches` before batching, from a serialized record."""
    parsed = shards.parse(record)
    return {
        "images": decode_for_evaluation(parsed["jpeg"], size, input_range, preprocessing),
        "class_index": parsed["class_index"],
        "file_name": parsed["file_name"],
    }


def _records_by_position(feed: RecordFeed, position: int, stretch: int) -> tf.data.Dataset:
    """Endless (example, key, class index, what is stored) from a global position on, in order.

    Python is called once for a stretch, and its records are moved on from there, not copied:
    calling TensorFlow's functions for each record would take a tenth as long as decoding it.
    """

    def read(first: tf.Tensor):
        found = tf.numpy_function(
            lambda p: tuple(feed.read(int(p), stretch)),
            [first],
            [tf.int64, tf.uint32, tf.int64, tf.string],
        )
        shapes = ([None], [None, 2], [None], [None])
        return tuple(tf.ensure_shape(t, s) for t, s in zip(found, shapes, strict=True))

    # One stretch is read while the one before is decoded.
    last = np.iinfo(np.int64).max
    return tf.data.Dataset.range(position, last, stretch).map(read).prefetch(1).unbatch()


def _records_in_order(shards: Shards, windows: np.ndarray) -> tf.data.Dataset:
    """The records of some windows, one after the other."""

    def read(row: tf.Tensor) -> tf.Tensor:
        records = tf.numpy_function(
            lambda window: np.array(
                shards.read(int(window[SHARD]), int(window[FIRST]), int(window[COUNT])), object
            ),
            [row],
            tf.string,
        )
        return tf.ensure_shape(records, [None])

    return tf.data.Dataset.from_tensor_slices(windows).map(read).prefetch(1).unbatch()
