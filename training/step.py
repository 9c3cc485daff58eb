"""One training step, and the function that runs many of them without a return to Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from training.augmentation import distort
from training.config import OptimizationFlags
from training.image_ops import scale_pixels
from training.input_pipeline import TrainingInput
from training.models import ModelRecord
from training.schedules import Schedule
from training.state import TrainState


def make_run_steps(
    state: TrainState,
    record: ModelRecord,
    optimization: OptimizationFlags,
    training_input: TrainingInput,
    schedule: Schedule,
    strategy: tf.distribute.Strategy,
) -> Callable[[Iterator, tf.Tensor], None]:
    """A function of (iterator of batches, number of steps) that trains `state`."""
    global_batch = optimization.batch_size

    def step(batch: dict[str, tf.Tensor]) -> None:
        images = prepare_images(batch, training_input.augmentation, record.input_range)
        labels = batch["class_index"] + record.labels.offset
        with tf.GradientTape() as tape:
            logits = state.model(images, training=True)
            losses = cross_entropy(logits, labels, optimization.label_smoothing)
            # The sum over the global batch, not the mean over a replica's part of it: summed over
            # replicas, the gradients are those of one device.
            loss = tf.reduce_sum(losses) / global_batch
        names = list(state.trainable)
        gradients = tape.gradient(loss, [state.trainable[name].value for name in names])
        state.optimizer.apply(dict(zip(names, gradients, strict=True)), schedule(state.position))
        state.step.assign_add(1)
        state.position.assign_add(global_batch)
        if state.averages:
            state.averages.update(state.step)
        correct = tf.math.count_nonzero(tf.argmax(logits, axis=1) == labels)
        state.sums["loss"].assign_add(tf.reduce_sum(tf.cast(losses, tf.float64)))
        state.sums["correct"].assign_add(correct)
        state.sums["seen"].assign_add(tf.shape(labels, out_type=tf.int64)[0])

    @tf.function
    def run_steps(batches: Iterator[Any], count: tf.Tensor) -> None:
        for _ in tf.range(count):
            strategy.run(step, (next(batches),))

    return run_steps


def prepare_images(
    batch: dict[str, tf.Tensor], augmentation: str, input_range: tuple[float, float]
) -> tf.Tensor:
    """What happens to a batch on the device: uint8 images in, the model's float32 input out."""
    if augmentation == "none":
        return scale_pixels(batch["images"], input_range)
    return distort(batch["images"], batch["draws"], input_range)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tf.Tensor:
    """Cross-entropy of each example, in nats, against targets smoothed over all outputs.

    A smoothing of s gives the label 1 - s, and every output s / outputs on top, as in slim.
    """
    num_outputs = logits.shape[-1]
    targets = tf.one_hot(
        labels, num_outputs, 1.0 - smoothing + smoothing / num_outputs, smoothing / num_outputs
    )
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
