"""An exported SavedModel that names what is on a photo."""

from __future__ import annotations

import dataclasses
import io
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from common import files
from common.errors import UserError, first_line
from pipeline.evaluation.saved_models import require_harmless
from pipeline.formats import LABELS
from pipeline.reporting.inputs import ClassNames
from pipeline.reporting.settings import input_size, model_title
from pipeline.serving.export import FoundExport
from pipeline.serving.photo import BadPhotoError, to_jpeg
from preprocessing.class_list import imagenet_texts
from training.models.record import FILE_NAME as RECORD

SIGNATURE, INPUT, OUTPUT = "serving_jpeg", "jpeg", "probabilities"
NUM_BEST = 5

_EXPORT_AGAIN = "export it again with pipeline.export"


@dataclasses.dataclass(frozen=True)
class Answer:
    """A class that the model sees.

    Attributes:
        label: what the model calls it.
        name: what people call it.
        probability: of it.
    """

    label: str
    name: str
    probability: float


class Classifier:
    """Classifies one photo at a time, from any thread.

    Attributes:
        title: what the model is called.
        labels: of the outputs, a background class included.
        facts: what is known about it: `input_size` in pixels, `top_1` and `num_examples` of its
            evaluation; None for what is not known.
    """

    def __init__(
        self,
        predict: Callable[[bytes], np.ndarray],
        labels: Sequence[str],
        names: Callable[[str], str],
        title: str,
        facts: dict[str, Any],
    ):
        self.title, self.labels, self.facts = title, tuple(labels), facts
        self._predict, self._names = predict, names
        # One decoded photo in memory at a time, however many are sent.
        self._turn = threading.Lock()

    @classmethod
    def open(cls, directory: str, found: FoundExport, class_names: str) -> Classifier:
        """Loads a SavedModel and tries it on a grey picture.

        Args:
            directory: local copy of `found.saved_model`.
            found: the export.
            class_names: file of lines `class<TAB>human name`, or empty.

        Raises:
            UserError: it cannot be loaded, has no signature for JPEG files, gives something else
                than probabilities, or has another number of labels than outputs.
        """
        record = _record(directory)
        predict = _load(directory, found.saved_model)
        try:
            num_outputs = len(predict(_grey_jpeg()))
        except Exception as error:  # a foreign model may stumble over anything
            raise UserError(
                f"{found.saved_model} cannot classify a plain picture ({first_line(error)}):"
                f" {_EXPORT_AGAIN}"
            ) from None
        labels = _labels(directory, record, num_outputs)
        if len(labels) != num_outputs:
            raise UserError(
                f"{found.saved_model} has {num_outputs} outputs, but {len(labels)} labels:"
                f" {_EXPORT_AGAIN}"
            )
        config = record.get("config")
        config = config if isinstance(config, dict) else {}
        metrics = found.summary.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        return cls(
            predict,
            labels,
            ClassNames.read(class_names, _known_names(found, record)),
            model_title(config) if config else os.path.basename(found.path.rstrip("/")),
            {
                "input_size": input_size(config),
                "top_1": metrics.get("top_1"),
                "num_examples": metrics.get("num_examples"),
            },
        )

    def best(self, content: bytes, count: int = NUM_BEST) -> list[Answer]:
        """The classes with the largest probabilities, largest first.

        Args:
            content: bytes of a photo of any format of `photo.FORMATS`.
            count: of classes; a model of fewer gives all.

        Raises:
            BadPhotoError: it is no such photo.
        """
        with self._turn:
            try:
                probabilities = self._predict(to_jpeg(content))
            except tf.errors.InvalidArgumentError:
                raise BadPhotoError("the model cannot decode this picture: send another") from None
        if not np.all(np.isfinite(probabilities)):
            raise BadPhotoError("the model's answer to this picture is no number")
        # Of equal ones the first, as everywhere.
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [
            Answer(self.labels[i], self._names(self.labels[i]), float(probabilities[i]))
            for i in order
        ]


def _load(directory: str, shown_as: str) -> Callable[[bytes], np.ndarray]:
    """From a JPEG file to probabilities.

    Raises:
        UserError: the SavedModel is damaged, does what a model has no business with, or has no
            signature for JPEG files.
    """
    require_harmless(directory, shown_as)
    try:
        model = tf.saved_model.load(directory)
    except Exception as error:  # TensorFlow raises many kinds for a damaged file
        raise UserError(f"{shown_as} cannot be loaded: {first_line(error)}") from None
    signature = getattr(model, "signatures", {}).get(SIGNATURE)
    outputs = signature.structured_outputs if signature else ()
    inputs = signature.structured_input_signature[1] if signature else ()
    if INPUT not in inputs or OUTPUT not in outputs:
        raise UserError(
            f"{shown_as} has no signature {SIGNATURE}({INPUT}) that gives {OUTPUT}: {_EXPORT_AGAIN}"
        )

    def predict(jpeg: bytes) -> np.ndarray:
        # The function holds `model`, which owns the variables of the signature.
        return model.signatures[SIGNATURE](**{INPUT: tf.constant([jpeg])})[OUTPUT].numpy()[0]

    return predict


def _record(directory: str) -> dict[str, Any]:
    """The model's record as it is; a foreign SavedModel has none."""
    path = os.path.join(directory, RECORD)
    record = files.read_json(path) if os.path.exists(path) else {}
    return record if isinstance(record, dict) else {}


def _labels(directory: str, record: dict[str, Any], num_outputs: int) -> list[str]:
    """Names of the outputs: from the assets, else from the record, else their numbers."""
    path = os.path.join(directory, "assets", LABELS)
    if os.path.exists(path):
        text = files.read_bytes(path).decode("utf-8", "replace")
        lines = text.removesuffix("\n").split("\n")
        return [line or f"class {i}" for i, line in enumerate(lines)]
    classes = record.get("classes")
    classes = [str(name) for name in classes] if isinstance(classes, list) else []
    background = ["background"] * (num_outputs - len(classes) == 1)
    return background + classes if classes else [f"class {i}" for i in range(num_outputs)]


def _known_names(found: FoundExport, record: dict[str, Any]) -> dict[str, str]:
    """Human names: ImageNet's own, and those that the export tells."""
    classes, texts = record.get("classes"), found.summary.get("class_texts")
    told = isinstance(classes, list) and isinstance(texts, list) and len(classes) == len(texts)
    pairs = zip(classes, texts, strict=True) if told else ()
    return imagenet_texts() | {str(name): str(text) for name, text in pairs}


def _grey_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
    return buffer.getvalue()
