"""A model as its file gives it, and what is asked of all files alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from common.errors import UserError

SAVED_MODEL_FILE = "saved_model.pb"

Predict = Callable[[tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model as its file gives it, before anything is known of photos and classes.

    Attributes:
        predict: from (batch, height, width, 3) float32 images to (batch, outputs) logits.
        num_outputs: how many logits it gives.
        resolution: height and width that the file is made for; None where any will do.
        input_range: what the file tells of the value of a black and of a white pixel.
        in_graph: whether `predict` can be part of a TensorFlow function.
        is_quantized: whether it computes with 8 bits.
    """

    predict: Predict
    num_outputs: int
    resolution: tuple[int, int] | None = None
    input_range: tuple[float, float] | None = None
    in_graph: bool = True
    is_quantized: bool = False


def as_logits(outputs: tf.Tensor) -> tf.Tensor:
    """Logits of outputs that may be probabilities: their logarithms then.

    Rows that lie in [0, 1] and sum to 1 are taken for probabilities.
    """
    outputs = tf.cast(outputs, tf.float32)
    sums = tf.reduce_sum(outputs, axis=-1, keepdims=True)
    of_probabilities = tf.reduce_all(outputs >= 0.0, axis=-1, keepdims=True) & (
        tf.abs(sums - 1.0) < 0.01
    )
    return tf.where(of_probabilities, log_of_probabilities(outputs), outputs)


def log_of_probabilities(probabilities: tf.Tensor, smallest: float = 1e-30) -> tf.Tensor:
    """Their logarithms; those below `smallest` count as that."""
    return tf.math.log(tf.maximum(probabilities, smallest))


def require_image_input(path: str, shape: Sequence[int | None]) -> tuple[int, int] | None:
    """Height and width of an input (batch, height, width, 3); None where both are free.

    Raises:
        UserError: it takes no RGB images.
    """
    if len(shape) != 4 or shape[3] not in (3, None) or (shape[1] is None) != (shape[2] is None):
        raise UserError(
            f"{path} takes input of shape {list(shape)}, but RGB images are"
            " [batch, height, width, 3]"
        )
    return None if shape[1] is None else (int(shape[1]), int(shape[2]))


def require_one_row(path: str, shape: Sequence[int | None]) -> int:
    """How many outputs a model of outputs (batch, outputs) has.

    Raises:
        UserError: it gives something else.
    """
    if len(shape) != 2 or not shape[1] or shape[1] < 2:
        raise UserError(
            f"{path} gives output of shape {list(shape)}, but a classifier's is [batch, classes]"
        )
    return int(shape[1])


def in_chunks(predict: Predict, size: int) -> Predict:
    """`predict` for batches of any size, of one that takes exactly `size` images."""

    def chunked(images: tf.Tensor) -> tf.Tensor:
        count = int(images.shape[0])
        images = tf.pad(images, [[0, -count % size], [0, 0], [0, 0], [0, 0]])
        parts = [predict(images[i : i + size]) for i in range(0, count, size)]
        return tf.concat(parts, axis=0)[:count]

    return chunked
