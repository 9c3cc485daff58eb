"""One training step, and the function that runs many of them without a return to Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from training.augmentation import prepare
from training.config import AugmentationFlags, OptimizationFlags
from training.distillation import Teacher
from training.models import ModelRecord
from training.models.layers import example_noise
from training.optimizers import clip
from training.schedules import Schedule
from training.state import TrainState
from training.strategies import Devices, mean_over_replicas

# A loss of so many times that of a blind guess is no spike any more.
_BLOWN_UP = 100.0

# float16: the loss scale doubles after so many sound updates in a row, and halves at each overflow.
_STEPS_TO_DOUBLE = 2000


def make_run_steps(
    state: TrainState,
    record: ModelRecord,
    optimization: OptimizationFlags,
    augmentation: AugmentationFlags,
    schedule: Schedule,
    devices: Devices,
    teacher: Teacher | None = None,
) -> Callable[[Iterator, tf.Tensor], tf.Tensor]:
    """A function of (iterator of batches, number of steps) that trains `state`.

    It returns the seconds that its steps waited for input. Steps after one that broke (`state.
    broken_step`) update nothing, so that the weights are those that broke; only batch norm's moving
    statistics, which training does not use, have taken up what went forward.
    """
    step = Step(state, record, optimization, augmentation, schedule, teacher)
    strategy = devices.strategy
    statistics = state.local_statistics()

    @tf.function
    def run_steps(batches: Iterator[Any], count: tf.Tensor) -> tf.Tensor:
        waited = tf.constant(0.0, tf.float64)
        # One at a time: a step that waits for its batch is seen to wait.
        for number in tf.range(count):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            start = tf.timestamp()
            with tf.control_dependencies([start]):
                batch = next(batches)
            arrived = tf.nest.flatten(strategy.experimental_local_results(batch))
            with tf.control_dependencies(arrived):
                waited += tf.timestamp() - start
            strategy.run(step, (batch, number))
        strategy.run(mean_over_replicas, (statistics,))
        return waited

    return run_steps


# The place of loss and correct answers among the gradients; no weight has this name.
_COUNTS = "counts"


class Step:
    """What one replica does with its part of a global batch."""

    def __init__(
        self,
        state: TrainState,
        record: ModelRecord,
        optimization: OptimizationFlags,
        augmentation: AugmentationFlags,
        schedule: Schedule,
        teacher: Teacher | None,
    ):
        self._state, self._record, self._schedule = state, record, schedule
        self._optimization, self._augmentation, self._teacher = optimization, augmentation, teacher
        blind_guess = math.log(max(2, record.config.num_classes))
        self._largest_loss = _BLOWN_UP * blind_guess * optimization.batch_size
        self._scales_the_loss = keras.mixed_precision.global_policy().compute_dtype == "float16"

    def __call__(self, batch: dict[str, tf.Tensor], number: tf.Tensor) -> None:
        """Trains on `batch`, the replica's part of the global batch of step `number` of a call."""
        state, options = self._state, self._optimization
        scale = tf.identity(state.loss_scale)
        gradients, counts = self._accumulated(batch, scale)
        # Metrics go with the gradients: one collective operation a step.
        totals = state.optimizer.reduce({**gradients, _COUNTS: counts})
        loss, correct = tf.unstack(totals.pop(_COUNTS))
        gradients = totals
        if self._scales_the_loss:
            gradients = {name: gradient / scale for name, gradient in totals.items()}
        gradients, norm = clip(gradients, options.clip_gradient_norm)
        whole = state.broken_step < 0
        sound = whole & tf.math.is_finite(norm) & (loss <= self._largest_loss)
        # Gradients of a scaled loss that overflow are a matter of the scale: the batch is let go.
        overflow = whole & ~tf.math.is_finite(norm) & tf.math.is_finite(loss) & (scale > 1.0)

        def update() -> None:
            rate = self._schedule(state.position) * state.rate_scale
            state.optimizer.update(gradients, rate, state.step)
            if state.averages:
                state.averages.update(state.step + 1)

        tf.cond(sound, _without_value(update), _without_value(lambda: None))
        state.losses.assign(
            tf.tensor_scatter_nd_update(state.losses, [[number]], [loss / options.batch_size])
        )
        if state.examples is not None:
            state.examples.assign(
                tf.tensor_scatter_nd_update(state.examples, [[number]], [batch["example"]])
            )
        done = sound | overflow
        state.broken_step.assign(tf.where(whole & ~done, state.step, state.broken_step))
        if self._scales_the_loss:
            self._adapt_loss_scale(sound, overflow)
        done = tf.cast(done, tf.int64)
        state.step.assign_add(done)
        state.position.assign_add(done * options.batch_size)
        state.sums["seen"].assign_add(done * options.batch_size)
        state.sums["loss"].assign_add(tf.cast(tf.where(done > 0, loss, 0.0), tf.float64))
        state.sums["correct"].assign_add(done * tf.cast(correct, tf.int64))

    def _accumulated(self, batch: dict[str, tf.Tensor], scale: tf.Tensor):
        """Gradients, and the sums of loss and correct answers, over the parts of a batch."""
        parts = self._optimization.gradient_accumulation
        if parts == 1:
            return self._gradients(batch, scale)
        split = {
            name: tf.reshape(values, [parts, values.shape[0] // parts, *values.shape[1:]])
            for name, values in batch.items()
        }

        def add_part(number, sums):
            part = {name: values[number] for name, values in split.items()}
            return number + 1, tf.nest.map_structure(tf.add, sums, self._gradients(part, scale))

        nothing = {name: tf.zeros(v.shape) for name, v in self._state.trainable.items()}
        _, sums = tf.while_loop(
            lambda number, sums: number < parts,
            add_part,
            (tf.constant(0), (nothing, tf.zeros([2]))),
            parallel_iterations=1,  # to need the memory of one part only
        )
        return sums

    def _gradients(self, batch: dict[str, tf.Tensor], scale: tf.Tensor):
        options, record = self._optimization, self._record
        pixels, targets = prepare(
            batch["images"],
            batch["class_index"] + record.labels.offset,
            batch["key"],
            self._augmentation,
            record.config.num_classes,
            options.label_smoothing,
        )
        names = list(self._state.trainable)
        with example_noise(batch["key"]), tf.GradientTape() as tape:
            logits = self._state.model(pixels, training=True)
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            if self._teacher:
                losses = self._teacher.mixed(losses, logits, pixels)
            # The sum over the global batch, not the mean over a replica's part of it: summed over
            # replicas, the gradients are those of one device.
            loss = tf.reduce_sum(losses) / options.batch_size * scale
        gradients = tape.gradient(loss, [self._state.trainable[name].value for name in names])
        correct = tf.math.count_nonzero(
            tf.argmax(logits, axis=1) == tf.argmax(targets, axis=1), dtype=tf.float32
        )
        counts = tf.stack([tf.reduce_sum(losses), correct])
        return dict(zip(names, gradients, strict=True)), counts

    def _adapt_loss_scale(self, sound: tf.Tensor, overflow: tf.Tensor) -> None:
        state = self._state
        steps = tf.where(sound, state.scaled_steps + 1, 0)
        doubles = steps >= _STEPS_TO_DOUBLE
        factor = tf.where(overflow, 0.5, tf.where(doubles, 2.0, 1.0))
        state.loss_scale.assign(state.loss_scale * factor)
        state.scaled_steps.assign(tf.where(doubles, tf.zeros_like(steps), steps))


def _without_value(action: Callable[[], None]) -> Callable[[], tf.Tensor]:
    """A branch of `tf.cond` that is run for what it does."""

    def branch() -> tf.Tensor:
        action()
        return tf.constant(0)

    return branch
