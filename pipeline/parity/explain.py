"""Where an artifact that disagrees departs from the model, and why."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from common.errors import UserError
from pipeline import formats
from pipeline.parity.causes import likely_cause
from pipeline.parity.divergence import (
    INPUT,
    TOLERANCES,
    Divergence,
    first_divergence,
    reference_points,
)
from pipeline.parity.fresh import tensors_of
from pipeline.parity.rows import ParityRow
from pipeline.parity.runs import SERVING_JPEG, Found, Reference, restored
from training.models.mobilenet import weights_of

_LAYER_IMAGES = 4  # that layers are compared on: those that are furthest off


def explained(
    row: ParityRow,
    directory: str,
    artifact: formats.Artifact,
    found: Found,
    reference: Reference,
    by_image: np.ndarray,
) -> ParityRow:
    """The row, with the layer where the artifact departs, and the cause, if it has none yet."""
    cause = row.cause or likely_cause(
        found.logits,
        reference.logits,
        reference.on_changed(from_jpeg=found.signature == SERVING_JPEG),
        artifact.format,
    )
    worst = np.argsort(-np.nan_to_num(by_image, nan=np.inf), kind="stable")[:_LAYER_IMAGES]
    try:
        divergence = _divergence(directory, artifact, found.signature, reference, worst)
    except UserError as error:  # what runs may still not let its layers be seen
        return dataclasses.replace(row, first_divergence=f"unknown, for {error}", cause=cause)
    if not cause and artifact.format == formats.CHECKPOINT:
        cause = _other_weights(reference.model, restored(directory, artifact))
    return dataclasses.replace(
        row,
        first_divergence=_words(divergence),
        cause=cause or _default_cause(divergence, found.signature),
    )


def _divergence(
    directory: str,
    artifact: formats.Artifact,
    signature: str,
    reference: Reference,
    places: np.ndarray,
) -> Divergence:
    """Where the artifact departs, seen on the images at `places`."""
    images = reference.images.take(places)
    points = reference_points(reference.model, images.images)
    if artifact.format == formats.CHECKPOINT:
        others = reference_points(restored(directory, artifact), images.images)
        tensors = {point.name: point.values for point in others}
    else:
        sizes = {point.values[0].size for point in points}
        tensors = tensors_of(directory, artifact, images, sizes, signature)
    return first_divergence(points, tensors, TOLERANCES[artifact.format])


def _words(divergence: Divergence) -> str:
    if not divergence.layer:
        return (
            f"none by itself ({divergence.worst} is furthest off, by {divergence.error:.1%} of its"
            " scale)"
        )
    off = (
        "nothing like it is computed"
        if np.isinf(divergence.error)
        else (f"off by {divergence.error:.2g} of its scale")
    )
    return f"{divergence.layer} ({off}; {divergence.agreeing} before it agree)"


def _default_cause(divergence: Divergence, signature: str) -> str:
    if divergence.layer == INPUT and signature == SERVING_JPEG:
        return "its preprocessing is not that of the model's record"
    if divergence.layer and divergence.layer != INPUT:
        return f"weights of {divergence.layer} that are not the model's (stale?), or another op"
    return ""


def _other_weights(model: keras.Model, other: keras.Model) -> str:
    """The first weight of `other`, a restored checkpoint, that is not the model's, in words."""
    theirs = weights_of(other)
    for name, variable in weights_of(model).items():
        difference = np.max(np.abs(np.asarray(theirs[name]) - np.asarray(variable)))
        if difference:
            return f"stale weights: {name} is off by {difference:.2g}"
    return ""
