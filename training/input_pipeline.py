"""Shards to batches: which record comes next, and how it is decoded."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from common.errors import UsageError, UserError
from training.augmentation import augment
from training.config import AugmentationFlags
from training.image_ops import decode_for_evaluation, decode_for_training, decode_whole
from training.order import (
    COUNT,
    FIRST,
    PLACE,
    SHARD,
    Share,
    not_seen,
    stream_windows,
    window_permutation,
)
from training.randomness import example_keys
from training.shards import Shards

_STREAM = PLACE + 1  # a column more: the number of the stream
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
    share = Share(position, worker, num_workers)
    first_epoch = position // shards.num_examples
    records = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(
        lambda epoch: _epoch_records(shards, options, share, epoch)
    )
    return (
        records.map(
            lambda example, key, _, record: training_example(shards, options, example, key, record),
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


def training_example(shards: Shards, options: TrainingInput, example, key, record):
    """An element of `training_batches` before batching, from a serialized record."""
    parsed = shards.parse(record)
    flags = options.augmentation
    if flags.augmentation == "none":
        image = decode_whole(parsed["jpeg"], options.size)
    else:
        image = decode_for_training(
            parsed["jpeg"],
            options.size,
            tf.cast(key, tf.int64),
            flags.min_crop_area,
            shards.fused,
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


def _epoch_records(shards: Shards, options: TrainingInput, share: Share, epoch: tf.Tensor):
    """(example, key, whether it is the worker's, record) of its share of one epoch, in order."""
    most = len(share.streams(0, options.num_streams))
    table, seen = tf.numpy_function(
        lambda e: _window_table(shards, options, share, int(e)), [epoch], [tf.int64, tf.int64]
    )
    table = tf.ensure_shape(table, [None, None, 5])
    seen = tf.ensure_shape(seen, [])

    def read_window(row):
        found = tf.numpy_function(
            lambda e, window: _read_window(shards, options, share, int(e), window),
            [epoch, row],
            [tf.int64, tf.uint32, tf.bool, tf.string],
        )
        shapes = ([None], [None, 2], [None], [None])
        return tf.data.Dataset.from_tensor_slices(
            tuple(tf.ensure_shape(t, s) for t, s in zip(found, shapes, strict=True))
        )

    def read_stream(rows):
        windows = tf.data.Dataset.from_tensor_slices(rows)
        return windows.filter(lambda row: row[COUNT] > 0).flat_map(read_window)

    records = (
        tf.data.Dataset.from_tensor_slices(table)
        .interleave(read_stream, cycle_length=most, block_length=1)
        .skip(seen)
    )
    if not share.takes_whole_streams(options.num_streams):
        records = records.filter(lambda example, key, takes, record: takes)
    return records


def _window_table(
    shards: Shards, options: TrainingInput, share: Share, epoch: int
) -> tuple[np.ndarray, np.int64]:
    """Windows of the streams that the worker reads, and how many records to drop at their front.

    Returns:
        (streams, windows, 5) int64, padded with empty windows: the columns of `stream_windows`, and
        the number of the stream; and how many records, taken from the streams in turn, lie before
        the worker's start.
    """
    first_position = epoch * shards.num_examples
    # At multiples of the number of streams all streams have advanced equally: start at the last
    # one, and drop the few records too much before anything is decoded.
    in_stream, too_many = divmod(max(0, share.start - first_position), options.num_streams)
    numbers = share.streams(first_position, options.num_streams)
    streams = stream_windows(
        shards.sizes, options.num_streams, options.shuffle_window, options.seed, epoch
    )
    rows = [not_seen(streams[number], in_stream) for number in numbers]
    table = np.zeros([len(rows), max(map(len, rows)), 5], np.int64)
    for cells, number, windows in zip(table, numbers, rows, strict=True):
        cells[: len(windows), :_STREAM] = windows
        cells[:, _STREAM] = number
    return table, np.int64(np.count_nonzero(numbers < too_many))


def _read_window(
    shards: Shards, options: TrainingInput, share: Share, epoch: int, window: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A window's examples in the order of its permutation: numbers, keys, whose they are, records.

    What the window holds of a stream's records before the worker's start is left out, as far as all
    streams have passed it.
    """
    first_position = epoch * shards.num_examples
    in_stream = max(0, share.start - first_position) // options.num_streams
    skip = max(0, in_stream - int(window[PLACE]))
    shard, first, count = (int(window[column]) for column in (SHARD, FIRST, COUNT))
    order = window_permutation(options.seed, epoch, window)
    indices = [
        _whole(index, shards, shard, options.passed_over) for index in range(first, first + count)
    ]
    payloads = shards.read(shard, first, count, set(range(first, first + count)) - set(indices))
    for place, index in enumerate(indices):
        if index != first + place:
            payloads[place] = shards.read(shard, index, 1)[0]
    order = order[skip:]
    records = np.empty(len(order), dtype=object)
    records[:] = [payloads[i] for i in order.tolist()]
    numbers = np.array(indices, np.int64) + shards.first_examples[shard]
    examples = numbers[order]
    if share.takes_whole_streams(options.num_streams):
        takes = np.ones(len(order), bool)
    else:
        places = int(window[PLACE]) + skip + np.arange(len(order))
        takes = share.takes(first_position + places * options.num_streams + window[_STREAM])
    return examples, example_keys(options.seed, epoch, examples), takes, records


def _whole(index: int, shards: Shards, shard: int, passed_over: frozenset[int]) -> int:
    """The record itself, or the next in its shard that is not passed over."""
    if not passed_over:
        return index
    size, first = shards.sizes[shard], shards.first_examples[shard]
    found = (i % size for i in range(index, index + size) if first + i % size not in passed_over)
    if (whole := next(found, None)) is None:
        raise UserError(f"all records of shard {shards.paths[shard]} are damaged")
    return whole


def _records_in_order(shards: Shards, windows: np.ndarray) -> tf.data.Dataset:
    """The records of some windows, one after the other."""

    def read(row):
        records = tf.numpy_function(
            lambda window: np.array(
                shards.read(int(window[SHARD]), int(window[FIRST]), int(window[COUNT])), object
            ),
            [row],
            tf.string,
        )
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(records, [None]))

    return tf.data.Dataset.from_tensor_slices(windows).flat_map(read)
