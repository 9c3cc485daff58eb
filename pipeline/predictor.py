"""Opens whatever can be evaluated: a TF1 or TF2 checkpoint, or a SavedModel."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from common.errors import UsageError, UserError, first_line
from loaders.open import ModelRequest, check_classes, open_checkpoint
from training.models import ModelRecord
from training.models.record import FILE_NAME as RECORD

SAVED_MODEL_FILE = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A model, however it is stored.

    Attributes:
        path: where it was read from.
        record: architecture, labels and input range.
        weights: which set they are: 'averages' or 'raw'.
        predict: from (batch, height, width, 3) float32 images to (batch, outputs) logits.
    """

    path: str
    record: ModelRecord
    weights: str
    predict: Callable[[tf.Tensor], tf.Tensor]


def open_predictor(
    path: str, request: ModelRequest, weights: str | None, classes: Sequence[str]
) -> Predictor:
    """Opens `path`.

    Args:
        path: a SavedModel's directory, or what `loaders.open.open_checkpoint` takes.
        request: what the user says about the model.
        weights: 'averages', 'raw' or None, as there; a SavedModel holds one set only.
        classes: class list of the data.

    Raises:
        UserError: it cannot be read, or does not fit the request or the classes.
    """
    if os.path.exists(os.path.join(path, SAVED_MODEL_FILE)):
        return _open_saved_model(path, request, classes)
    checkpoint = open_checkpoint(path, request, weights, classes)
    model = checkpoint.build()
    predict = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    return Predictor(checkpoint.path, checkpoint.record, checkpoint.weights, predict)


def _open_saved_model(path: str, request: ModelRequest, classes: Sequence[str]) -> Predictor:
    if not os.path.exists(os.path.join(path, RECORD)):
        raise UserError(
            f"{path} has no {RECORD}, so that its labels and input range are not known: keep it as"
            " `python -m pipeline.export` wrote it"
        )
    record = ModelRecord.read(path)
    if request.resolution and request.resolution != record.config.input_shape[0]:
        raise UsageError(
            f"--resolution={request.resolution}, but {path} takes images of"
            f" {record.config.input_shape[0]} pixels"
        )
    check_classes(record, classes, path)
    try:
        serve = tf.saved_model.load(path).signatures["serving_default"]
    except Exception as error:  # TensorFlow raises many kinds for a damaged file
        raise UserError(f"{path} cannot be loaded: {first_line(error)}") from None

    def predict(images: tf.Tensor) -> tf.Tensor:
        return serve(images=images)["logits"]

    # The function holds `serve`, and `serve` the loaded object that owns the variables.
    return Predictor(path, record, record.weights, predict)
