"""Opens any checkpoint: one of TF1's, or a TF2 one of this project with its record beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from common import files
from common.errors import UsageError, UserError, first_line
from common.labels import LabelNumbering
from loaders.loaders import WEIGHT_SETS, StoredWeights, fill
from loaders.loaders import read_weights as read_tf1_weights
from loaders.tf1_checkpoint import Tf1Checkpoint, find_prefix
from training.checkpoints import DIRECTORY, list_checkpoints
from training.checkpoints import read_weights as read_tf2_weights
from training.models import ModelRecord, build_model, make_config
from training.models.configs import MobileNetConfig
from training.models.record import FILE_NAME as RECORD

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # only checkpoints of TF2 hold it
AUTO = "auto"  # as a model's name: find out

_USUAL_RESOLUTION = 224  # what most released models were trained at; variables do not tell
_BACKGROUND_OUTPUTS = 1001  # TF1 ImageNet models: 1000 classes behind a background class


@dataclasses.dataclass(frozen=True)
class ModelRequest:
    """What the user says about the model; a None is left to the checkpoint or its record."""

    model_name: str | None = None
    width_multiplier: float | None = None
    resolution: int | None = None
    quantization_aware: bool = False

    def __post_init__(self):
        for name in ("width_multiplier", "resolution"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise UsageError(f"--{name} must be above 0, not {value}")


@dataclasses.dataclass(frozen=True)
class OpenCheckpoint:
    """A checkpoint's weights, and what they belong to.

    Attributes:
        path: the checkpoint's prefix.
        record: architecture, labels and input range.
        stored: the weights, and their moving averages.
        weights: which of the two are used: 'averages' or 'raw'.
    """

    path: str
    record: ModelRecord
    stored: StoredWeights
    weights: str

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The weights that are used, by name."""
        return self.stored.choose(self.weights)

    def build(self, classifier_activation: str | None = None) -> keras.Model:
        """The Keras model with these weights; logits by default."""
        config = self.record.config.replace(classifier_activation=classifier_activation)
        model = build_model(config)
        fill(model, self.values, self.path)
        return model


def open_checkpoint(
    path: str,
    request: ModelRequest,
    weights: str | None = None,
    classes: Sequence[str] | None = None,
) -> OpenCheckpoint:
    """Reads a checkpoint's weights.

    Args:
        path: prefix of a TF1 or TF2 checkpoint, or a directory: a run's, an export's, or one that
            holds a single checkpoint.
        request: what the user says about the model.
        weights: 'averages' or 'raw'; by default what the record says, else averages.
        classes: class list of the data that the model is for, or None.

    Raises:
        UserError: it cannot be read, or does not fit the request or the classes.
    """
    prefix = _find_newest(path)
    if is_tf2(prefix):
        return _open_tf2(prefix, request, weights, classes)
    return _open_tf1(prefix, request, weights, classes)


def _find_newest(path: str) -> str:
    """The prefix that `path` names; of a run's checkpoints the newest."""
    for directory in (path, files.join(path, DIRECTORY), files.join(path, "checkpoint")):
        if prefixes := list_checkpoints(directory):
            return prefixes[-1] if is_tf2(prefixes[-1]) else find_prefix(directory)
    return find_prefix(path)


def is_tf2(prefix: str) -> bool:
    """Whether a checkpoint is one of TF2's objects, not of TF1's names.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return _OBJECT_GRAPH in dict(tf.train.list_variables(prefix))
    except Exception as error:  # TensorFlow raises many kinds for a damaged file
        raise UserError(f"{prefix} cannot be read as a checkpoint: {first_line(error)}") from None


def _open_tf2(prefix, request, weights, classes) -> OpenCheckpoint:
    directory = files.parent(prefix)
    # A run keeps its record beside the directory of its checkpoints.
    if not files.exists(files.join(directory, RECORD)):
        directory = files.parent(directory)
    if not files.exists(files.join(directory, RECORD)):
        raise UserError(
            f"{prefix} has no {RECORD} beside it, so that its architecture and labels are not"
            " known: keep the two together, as training and conversion write them"
        )
    record = ModelRecord.read(directory)
    for flag, asked, is_ in (
        ("model_name", request.model_name, record.config.name),
        ("width_multiplier", request.width_multiplier, record.config.width_multiplier),
    ):
        if asked not in (None, AUTO, is_):
            raise UsageError(f"--{flag}={asked}, but {prefix} is of {flag} {is_}")
    if request.resolution:
        size = (request.resolution, request.resolution, 3)
        record = dataclasses.replace(record, config=record.config.replace(input_shape=size))
    if classes is not None:
        check_classes(record, classes, prefix)
    stored = StoredWeights(*read_tf2_weights(prefix))
    weights = weights or (record.weights if record.weights in WEIGHT_SETS else "averages")
    return OpenCheckpoint(prefix, record, stored, stored.chosen(weights))


def _open_tf1(prefix, request, weights, classes) -> OpenCheckpoint:
    checkpoint = Tf1Checkpoint(prefix)
    config = tf1_config(checkpoint, request)
    if classes is not None:
        labels = LabelNumbering.of_outputs(config.num_classes, len(classes), "the data set")
    else:
        background = int(config.num_classes == _BACKGROUND_OUTPUTS)
        labels = LabelNumbering(config.num_classes - background, background)
    stored = read_tf1_weights(checkpoint, build_model(config), config)
    chosen = stored.chosen(weights or "averages")
    record = ModelRecord(config, labels, tuple(classes or ()), weights=chosen)
    return OpenCheckpoint(prefix, record, stored, chosen)


def tf1_config(checkpoint: Tf1Checkpoint, request: ModelRequest) -> MobileNetConfig:
    """The configuration of a TF1 checkpoint: what was asked for, the rest by its variables.

    Raises:
        UserError: it is of no model that is known, or of another than was asked for.
    """
    identity = checkpoint.identity()
    if identity is None or identity.num_outputs is None:
        raise UserError(
            f"{checkpoint.path} is no classifier that is known: {checkpoint.looks_like()}"
        )
    if request.model_name not in (None, AUTO, identity.family.name):
        raise UserError(
            f"--model_name={request.model_name}, but {checkpoint.path} is another model:"
            f" {checkpoint.looks_like()}"
        )
    width = request.width_multiplier or identity.width_multiplier
    if width is None:
        raise UserError(
            f"the width of {checkpoint.path} is not known: {checkpoint.looks_like()}; name it by"
            " --width_multiplier"
        )
    size = request.resolution or _USUAL_RESOLUTION
    return make_config(
        identity.family.name,
        num_classes=identity.num_outputs,
        width_multiplier=width,
        input_shape=(size, size, 3),
        quantization_aware=request.quantization_aware,
    ).replace(classifier_activation=None)


def check_classes(record: ModelRecord, classes: Sequence[str], what: str) -> None:
    """Makes sure that a model and data speak of the same classes in the same order.

    Raises:
        UserError: they do not; the message names the first difference.
    """
    LabelNumbering.of_outputs(record.config.num_classes, len(classes), "the data set")
    if record.labels.num_classes != len(classes):
        raise UserError(
            f"the data set has {len(classes)} classes, but {what} was made for"
            f" {record.labels.num_classes} (label offset {record.labels.offset})"
        )
    for index, (ours, theirs) in enumerate(zip(record.classes, classes, strict=False)):
        if ours != theirs:
            raise UserError(
                f"class {index} is {ours!r} for {what}, but {theirs!r} in the data set: build the"
                " data set with --classes=FILE in the model's order"
            )
