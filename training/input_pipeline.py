"""Shards to batches: which record comes next, and how it is decoded."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from common.errors import UsageError
from preprocessing.examples import parse_example
from training.augmentation import NUM_DRAWS
from training.image_ops import decode_for_evaluation, decode_for_training, decode_whole
from training.order import Window, stream_windows, window_permutation
from training.shards import Shards


@dataclasses.dataclass(frozen=True)
class TrainingInput:
    """How training batches are made.

    Attributes:
        batch_size: examples in a batch.
        size: height and width in pixels.
        seed: seed of order and augmentation.
        augmentation: 'inception' (random crop, flip, colour) or 'none'.
        min_crop_area: smallest part of a photo that a crop may have.
        num_streams: streams that an epoch is dealt to.
        shuffle_window: records that are permuted among each other within a stream.
    """

    batch_size: int
    size: tuple[int, int]
    seed: int
    augmentation: str = "inception"
    min_crop_area: float = 0.05
    num_streams: int = 64
    shuffle_window: int = 16

    def __post_init__(self):
        if self.batch_size < 1:
            raise UsageError(f"--batch_size must be at least 1, not {self.batch_size}")
        if not 0 < self.min_crop_area <= 1:
            raise UsageError(f"--min_crop_area must be in (0, 1], not {self.min_crop_area}")


def training_batches(shards: Shards, options: TrainingInput, position: int) -> tf.data.Dataset:
    """Endless batches from global position `position` on; every epoch holds each example once.

    A batch may span the end of an epoch. Elements are dictionaries of

        images: (batch, height, width, 3) uint8,
        class_index: (batch,) int64, 0 is the first class of the class list,
        draws: (batch, NUM_DRAWS) float32, random numbers for the augmentation on the device,
        example: (batch,) int64, number of the example in the order of the shards.
    """
    first_epoch, in_first_epoch = divmod(position, shards.num_examples)

    def epoch_records(epoch):
        in_epoch = tf.where(epoch == first_epoch, tf.constant(in_first_epoch, tf.int64), 0)
        return _epoch_records(shards, options, epoch, in_epoch)

    records = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max).flat_map(epoch_records)
    return (
        records.map(
            lambda epoch, example, record: _training_example(epoch, example, record, options),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .batch(options.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(
    shards: Shards, batch_size: int, size: tuple[int, int], input_range: tuple[float, float]
) -> tf.data.Dataset:
    """Every example once, in the order of the shards; the last batch may be smaller.

    Elements are dictionaries of

        images: (batch, height, width, 3) float32 in `input_range`,
        class_index: (batch,) int64,
        file_name: (batch,) string.
    """

    def decode(record):
        example = parse_example(record)
        return {
            "images": decode_for_evaluation(example["jpeg"], size, input_range),
            "class_index": example["class_index"],
            "file_name": example["file_name"],
        }

    return (
        tf.data.TFRecordDataset(list(shards.paths))
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def _training_example(epoch, example, record, options: TrainingInput):
    parsed = parse_example(record)
    if options.augmentation == "none":
        image = decode_whole(parsed["jpeg"], options.size)
    else:
        crop_key = _key(options.seed, 0, epoch, example)
        image = decode_for_training(parsed["jpeg"], options.size, crop_key, options.min_crop_area)
    return {
        "images": image,
        "class_index": parsed["class_index"],
        "draws": tf.random.stateless_uniform([NUM_DRAWS], _key(options.seed, 1, epoch, example)),
        "example": example,
    }


def _epoch_records(shards: Shards, options: TrainingInput, epoch: tf.Tensor, in_epoch: tf.Tensor):
    """(epoch, example, record) of one epoch from position `in_epoch` on, not yet decoded."""
    streams = options.num_streams
    # At multiples of the number of streams all streams have advanced equally: start at the last
    # one, and drop the few records too much before anything is decoded.
    in_stream = in_epoch // streams
    table = tf.numpy_function(
        lambda e, start: _window_table(shards, options, int(e), int(start)),
        [epoch, in_stream],
        tf.int64,
    )
    table = tf.ensure_shape(table, [streams, None, len(dataclasses.fields(Window))])

    def read_window(row):
        examples, records = tf.numpy_function(
            lambda e, window: _read_window(shards, options, int(e), Window(*map(int, window))),
            [epoch, row],
            [tf.int64, tf.string],
        )
        examples, records = tf.ensure_shape(examples, [None]), tf.ensure_shape(records, [None])
        return tf.data.Dataset.from_tensor_slices((examples, records))

    def read_stream(stream):
        rows = tf.data.Dataset.from_tensor_slices(table[stream])
        return rows.filter(lambda row: row[2] > 0).flat_map(read_window)

    return (
        tf.data.Dataset.range(streams)
        .interleave(read_stream, cycle_length=streams, block_length=1)
        .skip(in_epoch - in_stream * streams)
        .map(lambda example, record: (epoch, example, record))
    )


def _window_table(shards: Shards, options: TrainingInput, epoch: int, start: int) -> np.ndarray:
    """Windows of every stream as (streams, windows, fields) int64, padded with empty ones."""
    streams = stream_windows(
        shards.sizes, options.num_streams, options.shuffle_window, options.seed, epoch, start
    )
    most = max(len(windows) for windows in streams)
    table = np.zeros([len(streams), most, len(dataclasses.fields(Window))], np.int64)
    for row, windows in zip(table, streams, strict=True):
        for cells, window in zip(row, windows, strict=False):
            cells[:] = dataclasses.astuple(window)
    return table


def _read_window(
    shards: Shards, options: TrainingInput, epoch: int, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the examples, and their records, in the order of the window's permutation."""
    order = window_permutation(options.seed, epoch, window)[window.skip :]
    payloads = shards.read(window.shard, window.first, window.count)
    records = np.empty(len(order), dtype=object)
    records[:] = [payloads[i] for i in order]
    return order + shards.first_examples[window.shard] + window.first, records


def _key(seed: int, purpose: int, *words: tf.Tensor) -> tf.Tensor:
    """A (2,) key for stateless random ops.

    The words are hashed in one by one: keys made by adding numbers to the seed would be shared by
    neighbouring seeds, epochs and examples.
    """
    key = tf.constant([seed, purpose], tf.int64)
    for word in words:
        key = tf.random.experimental.stateless_fold_in(key, word)
    return key
