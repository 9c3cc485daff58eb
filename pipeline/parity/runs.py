"""What the model and its artifacts give for the images."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator

import keras
import numpy as np

from common.errors import UserError
from loaders.open import ModelRequest, open_checkpoint
from pipeline import formats
from pipeline.parity.causes import changed_images
from pipeline.parity.fresh import outputs_of
from pipeline.parity.images import ParityImages
from pipeline.parity.measures import logit_difference
from training.models import ModelRecord
from training.models.mobilenet import weights_of

SERVING_JPEG = "serving_jpeg"

_BATCH = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """What one way to run an artifact gives: (n, outputs) logits and probabilities."""

    signature: str
    logits: np.ndarray
    probabilities: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The model that all artifacts must agree with, and what it gives for the images.

    Attributes:
        noise: how far its probabilities move when all weights and the input are rounded otherwise.
        logit_noise: the same of its logits, in parts of their spread over the images.
    """

    model: keras.Model
    record: ModelRecord
    images: ParityImages
    logits: np.ndarray
    probabilities: np.ndarray
    noise: float
    logit_noise: float
    _on_changed: dict[bool, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, model: keras.Model, record: ModelRecord, images: ParityImages) -> Reference:
        logits = predict(model, images.images)
        if not np.all(np.isfinite(logits)):
            raise UserError(
                "the model gives outputs that are no numbers (nan or inf) for real photos: it has"
                " diverged in training, and there is nothing to export"
            )
        probabilities = softmax(logits)
        with _rounded_otherwise(model) as rounded:
            moved = predict(model, rounded(images.images))
        noise = float(np.max(np.abs(softmax(moved) - probabilities)))
        logit_noise = logit_difference(moved, logits)
        return cls(model, record, images, logits, probabilities, noise, logit_noise)

    def on_changed(self, from_jpeg: bool) -> dict[str, np.ndarray]:
        """Its logits for photos that are read otherwise, see `changed_images`; computed once."""
        if from_jpeg not in self._on_changed:
            self._on_changed[from_jpeg] = {
                words: predict(self.model, changed)
                for words, changed in changed_images(self.images, self.record, from_jpeg)
            }
        return self._on_changed[from_jpeg]


def run_artifact(
    directory: str, artifact: formats.Artifact, images: ParityImages
) -> Iterator[Found]:
    """The artifact's outputs, for each way to run it."""
    if artifact.format == formats.CHECKPOINT:
        logits = predict(restored(directory, artifact), images.images)
        yield Found("restored", logits, softmax(logits))
        return
    outputs = outputs_of(directory, artifact, images)
    if artifact.format == formats.SAVED_MODEL:
        for signature in ("serving_default", SERVING_JPEG):
            parts = (outputs[f"{signature}/{name}"] for name in ("logits", "probabilities"))
            yield Found(signature, *parts)
    else:
        yield Found("", outputs["logits"], softmax(outputs["logits"]))


@contextlib.contextmanager
def _rounded_otherwise(model: keras.Model) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Moves each weight of `model` by its last bit, for as long as the block takes.

    Gives the function that does the same to other arrays.
    """
    random = np.random.default_rng(0)

    def rounded(values: np.ndarray) -> np.ndarray:
        signs = random.choice(np.float32([-1, 1]), values.shape)
        return values * (1 + signs * np.finfo(np.float32).eps)

    variables = list(weights_of(model).values())
    exact = [variable.numpy() for variable in variables]
    try:
        for variable, value in zip(variables, exact, strict=True):
            variable.assign(rounded(value))
        yield rounded
    finally:
        for variable, value in zip(variables, exact, strict=True):
            variable.assign(value)


def restored(directory: str, artifact: formats.Artifact) -> keras.Model:
    """The model of a checkpoint, read anew."""
    path = os.path.join(directory, artifact.path)
    return open_checkpoint(path, ModelRequest()).build()


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Logits, (n, outputs) float32."""
    starts = range(0, len(images), _BATCH)
    return np.concatenate(
        [np.asarray(model(images[i : i + _BATCH], training=False), np.float32) for i in starts]
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, (n, outputs) float32."""
    logits = logits.astype(np.float64)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
