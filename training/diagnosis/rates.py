"""Measures what each part of training does in a second, one at a time."""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from training.config import Recipe
from training.distillation import Teacher
from training.input_pipeline import TrainingInput, training_batches
from training.models import ModelRecord
from training.schedules import make_schedule
from training.shards import Shards
from training.state import TrainState
from training.step import make_run_steps
from training.strategies import Devices

_READ_AT_ONCE = 16
_PHOTOS = 256  # that are held in memory for bare decoding
_WARM_UP_BATCHES = 3
# Two calls suffice, however slow: a median of a few is steadier than one long call.
_FEWEST_CALLS = 2


def read_rate(shards: Shards, window: int, seconds: float, seed: int = 0) -> float:
    """Records read a second, in windows at random places, as in training."""
    windows = shards.windows(window)
    windows = windows[np.random.default_rng(seed).permutation(len(windows))].tolist()
    return _rate(
        (len(shards.read(shard, first, count)) for shard, first, count in itertools.cycle(windows)),
        seconds,
    )


def decode_rate(shards: Shards, seconds: float, seed: int = 0) -> float:
    """Photos decoded a second, whole, on all cores, from memory; nothing else is done to them."""
    windows = shards.windows(_READ_AT_ONCE)
    chosen = np.random.default_rng(seed).permutation(len(windows))[: _PHOTOS // _READ_AT_ONCE]
    records = [record for n in chosen for record in shards.read(*windows[n].tolist())]
    jpegs = shards.parse(tf.constant(records))["jpeg"]

    def decode(jpeg: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(jpeg, channels=3, expand_animations=False)
        return tf.reshape(image, [-1])[0]

    pixels = (
        tf.data.Dataset.from_tensor_slices(jpegs)
        .repeat()
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
        .batch(_READ_AT_ONCE)
        .prefetch(tf.data.AUTOTUNE)
    )
    return _rate(_sizes(iter(pixels)), seconds, skip=_WARM_UP_BATCHES)


def input_rate(shards: Shards, options: TrainingInput, seconds: float) -> float:
    """Images that the whole input pipeline of training makes a second, batches of them."""
    batches = iter(training_batches(shards, options, position=0))
    sizes = (int(batch["images"].shape[0]) for batch in batches)
    return _rate(sizes, seconds, skip=_WARM_UP_BATCHES)


def make_teacher(recipe: Recipe, record: ModelRecord, devices: Devices) -> Teacher | None:
    """The model of `--teacher_checkpoint`, as training makes it; None without one.

    Raises:
        UserError: it cannot be read, or does not fit `record`, which is the student's.
    """
    if not recipe.optimization.teacher_checkpoint:
        return None
    with devices.strategy.scope():
        return Teacher(recipe.optimization, record)


class StepRates:
    """Measures steps: one model, compiled once, for batches from anywhere.

    Args:
        recipe: how it is trained.
        record: what is trained.
        devices: on what.
        num_examples: of an epoch.
        teacher: whose outputs are computed in each step, if there is one.
    """

    def __init__(
        self,
        recipe: Recipe,
        record: ModelRecord,
        devices: Devices,
        num_examples: int,
        teacher: Teacher | None = None,
    ):
        self._recipe, self._record, self._devices = recipe, record, devices
        with devices.strategy.scope():
            self._state = TrainState(record.config, recipe.optimization, recipe.run.steps_per_call)
            if recipe.distribution.sync_batch_norm:
                from training.models.layers import set_batch_norm_synchronized

                set_batch_norm_synchronized(self._state.model, True)
        self._run_steps = make_run_steps(
            self._state,
            record,
            recipe.optimization,
            recipe.augmentation,
            make_schedule(recipe.optimization, num_examples),
            devices,
            teacher,
        )

    def of_made_up_batches(self, seconds: float) -> float:
        """Images a second when the batch is there already."""
        batch = made_up_batch(
            self._devices.replica_batch(self._recipe.optimization.batch_size),
            self._record.config.resolution,
            self._record.labels.num_classes,
        )
        return self._rate_on(lambda: tf.data.Dataset.from_tensors(batch).repeat(), seconds)

    def of_training(self, shards: Shards, options: TrainingInput, seconds: float) -> float:
        """Images a second from shards to weights, as the trainer's loop has it."""
        share = self._devices.replica_batch(options.batch_size)
        return self._rate_on(
            lambda: training_batches(shards, options, 0, replica_batch=share), seconds
        )

    def _rate_on(self, make: Callable[[], tf.data.Dataset], seconds: float) -> float:
        batches = iter(self._devices.strategy.distribute_datasets_from_function(lambda _: make()))
        batch_size = self._recipe.optimization.batch_size
        start = time.monotonic()
        self._call(batches, 1)  # compiles
        self._call(batches, 1)
        start = time.monotonic()
        self._call(batches, 1)
        a_step = time.monotonic() - start
        # As long as the trainer's calls are, but several of them in the time there is.
        count = int(min(self._recipe.run.steps_per_call, max(1, seconds / 4 / a_step)))
        rates = (self._call(batches, count) * batch_size for _ in itertools.count())
        return _rate(rates, seconds)

    def _call(self, batches: Iterator, count: int) -> int:
        self._run_steps(batches, tf.constant(count))
        self._state.losses.numpy()  # as the trainer, which shows it
        return count


def made_up_batch(size: int, resolution: tuple[int, int], num_classes: int) -> dict[str, tf.Tensor]:
    """A batch of noise, of the types that `training_batches` makes."""
    rng = np.random.default_rng(0)
    return {
        "images": tf.constant(rng.integers(0, 256, (size, *resolution, 3)), tf.uint8),
        "class_index": tf.constant(rng.integers(0, num_classes, size), tf.int64),
        "key": tf.constant(rng.integers(0, 2**32, (size, 2)), tf.uint32),
        "example": tf.range(size, dtype=tf.int64),
    }


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _sizes(batches: Iterator[tf.Tensor]) -> Iterator[int]:
    return (int(batch.shape[0]) for batch in batches)


def _rate(counts: Iterator[int], seconds: float, skip: int = 0) -> float:
    """What is counted a second, for so long, after the first `skip` counts."""
    for _ in itertools.islice(counts, skip):
        pass
    total, calls, start = 0, 0, time.monotonic()
    for count in counts:
        total, calls = total + count, calls + 1
        elapsed = time.monotonic() - start
        if elapsed >= seconds and calls >= _FEWEST_CALLS:
            break
    return total / elapsed
