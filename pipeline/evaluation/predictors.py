"""Opens whatever can be evaluated: a TF1 or TF2 checkpoint, a SavedModel, `.keras`, LiteRT."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from common import files
from common.errors import UsageError, UserError
from common.labels import LabelNumbering
from loaders.open import ModelRequest, OpenCheckpoint, check_classes, is_tf2, open_checkpoint
from pipeline.evaluation.keras_files import load_keras_file
from pipeline.evaluation.litert import load_litert
from pipeline.evaluation.loaded import SAVED_MODEL_FILE, Loaded, Predict
from pipeline.evaluation.saved_models import load_saved_model
from training.evaluation import Reading
from training.models import ModelRecord
from training.models.record import FILE_NAME as RECORD
from training.models.record import SLIM_INPUT_RANGE

TF1, TF2, SAVED_MODEL, KERAS, LITERT = "tf1", "checkpoint", "saved_model", "keras", "litert"

_KERAS_SUFFIX, _LITERT_SUFFIX = ".keras", ".tflite"
# Files that people hand over, and what makes something of them that can be evaluated.
_OTHER_SUFFIXES = {
    ".h5": "save the model as .keras, or export it as a SavedModel",
    ".hdf5": "save the model as .keras, or export it as a SavedModel",
    ".onnx": "evaluate what it was made from",
    ".pb": "name the directory of a SavedModel; frozen graphs are not read",
    ".pth": "PyTorch's files are not read",
    ".pt": "PyTorch's files are not read",
}


@dataclasses.dataclass(frozen=True)
class PredictorRequest:
    """What the user says about a model; None is left to the file, its record, or what is usual.

    Attributes:
        model: architecture and resolution.
        weights: 'averages' or 'raw'.
        input_range: the value of a black and of a white pixel.
        preprocessing: name of the function from JPEG bytes to pixels.
    """

    model: ModelRequest = dataclasses.field(default_factory=ModelRequest)
    weights: str | None = None
    input_range: tuple[float, float] | None = None
    preprocessing: str | None = None


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A model, however it is stored, ready for photos.

    Attributes:
        path: where it was read from.
        format: TF1, TF2, SAVED_MODEL, KERAS or LITERT.
        predict: from (batch, height, width, 3) float32 images to (batch, outputs) logits.
        reading: how photos become such images, and classes outputs.
        num_outputs: how many logits it gives.
        weights: which set they are: 'averages' or 'raw'; 'unknown' where nothing tells.
        model: configuration of the architecture; None where nothing tells.
        in_graph: whether `predict` can be part of a TensorFlow function.
        is_quantized: whether it computes with 8 bits.
        notes: what was assumed, for people.
        open_other_weights: makes the same model with the other set of weights, 'raw' instead of
            'averages' or the other way about; None where there is one set only.
    """

    path: str
    format: str
    predict: Predict
    reading: Reading
    num_outputs: int
    weights: str = "unknown"
    model: dict[str, Any] | None = None
    in_graph: bool = True
    is_quantized: bool = False
    notes: tuple[str, ...] = ()
    open_other_weights: Callable[[], Predict] | None = None


def open_predictor(path: str, request: PredictorRequest, classes: Sequence[str]) -> Predictor:
    """Opens `path`; variables are made in the current strategy's scope.

    Args:
        path: a SavedModel's directory, a `.keras` or `.tflite` file, or what
            `loaders.open.open_checkpoint` takes.
        request: what the user says about the model.
        classes: class list of the data.

    Raises:
        UserError: it cannot be read, is not safe to open, or does not fit the request or the
            classes.
    """
    kind = find_format(path)
    if kind == SAVED_MODEL:
        return _from_file(path, kind, load_saved_model(path), request, classes)
    if kind == KERAS:
        return _from_file(path, kind, load_keras_file(path), request, classes)
    if kind == LITERT:
        return _from_file(path, kind, load_litert(path), request, classes)
    return _from_checkpoint(path, request, classes)


def find_format(path: str) -> str | None:
    """SAVED_MODEL, KERAS or LITERT by name and first bytes; None for all else: checkpoints.

    Raises:
        UserError: it is a file of a kind that is not read.
    """
    if files.exists(files.join(path, SAVED_MODEL_FILE)):
        return SAVED_MODEL
    suffix = os.path.splitext(path)[1].lower()
    by_suffix = {_KERAS_SUFFIX: KERAS, _LITERT_SUFFIX: LITERT}.get(suffix)
    if files.is_directory(path) or not files.exists(path):
        if by_suffix and not files.is_directory(path):
            raise UserError(f"{path} does not exist")
        return None
    if by_suffix:
        return by_suffix
    if suffix in _OTHER_SUFFIXES:
        raise UserError(f"{path} cannot be evaluated: {_OTHER_SUFFIXES[suffix]}")
    head = files.read_range(path, 0, min(8, files.file_size(path)))
    if head[4:8] == b"TFL3":
        return LITERT
    return KERAS if head[:4] == b"PK\x03\x04" else None


def _from_checkpoint(path: str, request: PredictorRequest, classes: Sequence[str]) -> Predictor:
    checkpoint = open_checkpoint(path, request.model, request.weights, classes)
    record = checkpoint.record

    def open_other_weights() -> Predict:
        return _predict_of(dataclasses.replace(checkpoint, weights=_other(checkpoint.weights)))

    return Predictor(
        path=checkpoint.path,
        format=TF2 if is_tf2(checkpoint.path) else TF1,
        predict=_predict_of(checkpoint),
        reading=_reading(record, record.config.resolution, request),
        num_outputs=record.config.num_classes,
        weights=checkpoint.weights,
        model=record.config.to_json(),
        is_quantized=record.config.quantization_aware,
        open_other_weights=open_other_weights if checkpoint.stored.averages else None,
    )


def _predict_of(checkpoint: OpenCheckpoint) -> Predict:
    model = checkpoint.build()
    return lambda images: model(images, training=False)


def _other(weights: str) -> str:
    return "raw" if weights == "averages" else "averages"


def _from_file(
    path: str, kind: str, loaded: Loaded, request: PredictorRequest, classes: Sequence[str]
) -> Predictor:
    """A predictor of a file that holds a whole graph, with its record or without."""
    _require_no_architecture(path, request.model)
    if (directory := _find_record(path, kind)) is not None:
        record, notes = ModelRecord.read(directory), ()
        _check_record(path, directory, record, loaded)
        check_classes(record, classes, path)
        reading = _reading(record, record.config.resolution, request)
    else:
        record = None
        reading, notes = _inferred_reading(path, loaded, request, classes)
    if request.model.resolution and reading.resolution != (request.model.resolution,) * 2:
        raise UsageError(
            f"--resolution={request.model.resolution}, but {path} takes images of"
            f" {reading.resolution[0]} pixels"
        )
    return Predictor(
        path=path,
        format=kind,
        predict=loaded.predict,
        reading=reading,
        num_outputs=loaded.num_outputs,
        weights=record.weights if record else "unknown",
        model=record.config.to_json() if record else None,
        in_graph=loaded.in_graph,
        is_quantized=loaded.is_quantized or bool(record and record.config.quantization_aware),
        notes=notes,
    )


def _require_no_architecture(path: str, request: ModelRequest) -> None:
    for flag in ("model_name", "width_multiplier"):
        if getattr(request, flag) not in (None, "auto"):
            raise UsageError(
                f"--{flag}={getattr(request, flag)}, but {path} holds a whole model: leave it out"
            )


def _find_record(path: str, kind: str) -> str | None:
    """The directory of the record of a file: beside it or above; of a SavedModel also in it."""
    above = os.path.dirname(path.rstrip("/"))
    places = [path, above] if kind == SAVED_MODEL else [above, os.path.dirname(above)]
    return next((p for p in places if files.exists(files.join(p or ".", RECORD))), None)


def _check_record(path: str, directory: str, record: ModelRecord, loaded: Loaded) -> None:
    said = files.join(directory or ".", RECORD)
    if loaded.num_outputs != record.config.num_classes:
        raise UserError(
            f"{path} gives {loaded.num_outputs} outputs, but {said} says"
            f" {record.config.num_classes}: keep each model with its own record"
        )
    if loaded.resolution not in (None, record.config.resolution):
        raise UserError(
            f"{path} takes images of {_shown(loaded.resolution)} pixels, but {said} says"
            f" {_shown(record.config.resolution)}: keep each model with its own record"
        )


def _shown(resolution: tuple[int, int]) -> str:
    return f"{resolution[0]} x {resolution[1]}"


def _reading(record: ModelRecord, resolution, request: PredictorRequest) -> Reading:
    return Reading(
        tuple(resolution),
        request.input_range or record.input_range,
        request.preprocessing or record.evaluation_preprocessing,
        record.labels.offset,
    )


def _inferred_reading(
    path: str, loaded: Loaded, request: PredictorRequest, classes: Sequence[str]
) -> tuple[Reading, tuple[str, ...]]:
    """What a model without a record expects, as far as the file tells, and what was assumed."""
    resolution = loaded.resolution
    if resolution is None:
        if not request.model.resolution:
            raise UsageError(
                f"{path} takes images of any size and has no {RECORD} that says which: name it by"
                " --resolution"
            )
        resolution = (request.model.resolution,) * 2
    labels = LabelNumbering.of_outputs(loaded.num_outputs, len(classes), "the data set")
    notes = [f"no {RECORD} beside {path}: its classes are taken to be those of the data, in order"]
    if request.input_range is None:
        low, high = loaded.input_range or SLIM_INPUT_RANGE
        why = "as the file says" if loaded.input_range else "as usual; --input_range says otherwise"
        notes.append(f"pixels from {low:g} to {high:g}, {why}")
    input_range = request.input_range or loaded.input_range or SLIM_INPUT_RANGE
    preprocessing = request.preprocessing or "inception"
    return Reading(resolution, input_range, preprocessing, labels.offset), tuple(notes)
