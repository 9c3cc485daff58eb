"""Where a run broke: the layer in which it shows first.

The steps after the one that broke change nothing, and which batch comes at a position is a pure
function; so the step can be looked at again, layer by layer.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from training.augmentation import prepare
from training.config import Recipe
from training.models import ModelRecord
from training.models.layers import example_noise
from training.state import TrainState


def find_cause(
    state: TrainState,
    batch: dict[str, tf.Tensor],
    record: ModelRecord,
    recipe: Recipe,
    parts: int = 1,
) -> str:
    """What is infinite or NaN first, from the weights and the input to the logits and back.

    Args:
        state: with the weights before the step that broke.
        batch: the batch of that step, as `training.input_pipeline.training_batches` makes it.
        record: of the model.
        recipe: how it is trained.
        parts: in how many the step computed the batch, over all replicas: each is looked at alone,
            since the whole may need more memory than one device has.
    """
    for name, variable in state.trainable.items():
        if not np.all(np.isfinite(variable.numpy())):
            return f"an update has broken the weights {name}"
    size = batch["images"].shape[0] // parts
    peaks: dict[str, float] = {}
    try:
        for first in range(0, size * parts, size):
            part = {name: values[first : first + size] for name, values in batch.items()}
            if cause := _broken_in(part, state, record, recipe, peaks):
                return cause
    except tf.errors.ResourceExhaustedError:  # nothing is shared out or fused here
        return "there is not memory enough to look where"
    largest = max(peaks, key=peaks.get)
    return f"the largest output, {peaks[largest]:.3g}, is that of layer {largest}"


def _broken_in(
    batch: dict[str, tf.Tensor],
    state: TrainState,
    record: ModelRecord,
    recipe: Recipe,
    peaks: dict[str, float],
) -> str:
    """The first output or gradient that is not finite, in words; notes outputs' `peaks`."""
    pixels, targets = prepare(
        batch["images"],
        batch["class_index"] + record.labels.offset,
        batch["key"],
        recipe.augmentation,
        record.config.num_classes,
        recipe.optimization.label_smoothing,
    )
    model = state.model
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    probe = keras.Model(model.inputs, [layer.output for layer in layers])
    with example_noise(batch["key"]), tf.GradientTape() as tape:
        outputs = probe(pixels, training=True)
        logits = tf.cast(outputs[-1], tf.float32)
        losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        loss = tf.reduce_mean(losses)
    for layer, output in zip(layers, outputs, strict=True):
        if not np.all(np.isfinite(output.numpy())):
            return f"the first layer with a broken output is {layer.name}"
        peak = float(tf.reduce_max(tf.abs(output)))
        peaks[layer.name] = max(peak, peaks.get(layer.name, 0.0))
    names = list(state.trainable)
    gradients = tape.gradient(loss, [state.trainable[name].value for name in names])
    # Gradients flow backwards: the last layer's is computed first.
    for name, gradient in reversed(list(zip(names, gradients, strict=True))):
        if not np.all(np.isfinite(gradient.numpy())):
            return f"all outputs are finite, the first broken gradient is that of {name}"
    return ""
