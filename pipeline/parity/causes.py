"""Why outputs differ, found by trying.

An artifact that reads photos otherwise, with red and blue swapped for example, gives what the model
gives for photos that are changed in that way. So the model is run on changed photos, and the change
that brings its outputs close to the artifact's is the cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from pipeline import formats
from pipeline.parity.images import ParityImages, preprocess
from training.models import ModelRecord

# A change explains outputs whose distance it brings down to this part. What 8-bit formats are off
# by anyway stays.
_CLOSER = 0.2
_CLOSER_8_BIT = 0.5
_CLOSER_WITHIN_LIMITS = 0.8  # real models in 8 bits, reading photos rightly: 1.16 and more
_8_BIT = (formats.LITERT_DYNAMIC, formats.LITERT_INT8)
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_PREPROCESSINGS = ("inception", "bicubic")


def likely_cause(
    found: np.ndarray,
    expected: np.ndarray,
    on_changed: Mapping[str, np.ndarray],
    format_name: str,
) -> str:
    """What explains an artifact's logits, in words; '' if nothing that is known does.

    Args:
        found: (n, outputs) logits of the artifact.
        expected: those of the model.
        on_changed: those of the model for photos that are read otherwise.
        format_name: of the artifact.
    """
    others = {**on_changed, **dict(_reordered(expected, found))}
    return _closest(found, expected, others, _CLOSER_8_BIT if format_name in _8_BIT else _CLOSER)


def other_reading(
    found: np.ndarray, expected: np.ndarray, on_changed: Mapping[str, np.ndarray]
) -> str:
    """How an artifact within coarse limits reads photos, if not as the model does; as above.

    What rounding adds is no closer to the model on changed photos than to the model.
    """
    return _closest(found, expected, on_changed, _CLOSER_WITHIN_LIMITS)


def _closest(
    found: np.ndarray, expected: np.ndarray, others: Mapping[str, np.ndarray], closer: float
) -> str:
    """The words of the closest logits, if their distance is `closer` times the model's or less."""
    distances = {words: _distance(logits, found) for words, logits in others.items()}
    best = min(distances, key=distances.__getitem__)
    limit = closer * _distance(expected, found)
    return best if distances[best] <= limit and limit > 0.0 else ""


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean(np.abs(one - other)))


def changed_images(
    images: ParityImages, record: ModelRecord, from_jpeg: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Ways to read the photos that are not the record's, and what the model would see."""
    pixels = images.images
    yield "it takes the colour channels in swapped order (BGR for RGB)", pixels[..., ::-1]
    yield "it sees mirrored images", pixels[:, :, ::-1]
    yield "it sees images upside down", pixels[:, ::-1]
    if pixels.shape[1] == pixels.shape[2]:
        yield "it sees rows and columns exchanged", pixels.swapaxes(1, 2)
    black, white = record.input_range
    unit = (pixels - black) / (white - black)
    for low, high in _RANGES:
        if (low, high) == tuple(record.input_range):
            continue
        if from_jpeg:
            words = f"its preprocessing scales to [{low:g}, {high:g}], not [{black:g}, {white:g}]"
            yield words, unit * (high - low) + low
        else:
            words = f"it expects images in [{low:g}, {high:g}], not [{black:g}, {white:g}]"
            yield words, (pixels - low) / (high - low) * (white - black) + black
    if not from_jpeg:
        return
    for name in _PREPROCESSINGS:
        if name == record.evaluation_preprocessing:
            continue
        other = preprocess(images.jpeg, dataclasses.replace(record, evaluation_preprocessing=name))
        yield (
            f"its preprocessing is {name!r}, the model's {record.evaluation_preprocessing!r}",
            other,
        )


def _reordered(expected: np.ndarray, found: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The expected outputs in other orders."""
    for shift in (1, -1):
        yield f"its outputs are shifted by {shift:+d}", np.roll(expected, shift, axis=1)
    # Each output of the artifact may be any of the model's: the one that it follows most closely.
    order = np.argmin(np.square(expected).sum(axis=0) - 2.0 * np.matmul(found.T, expected), axis=1)
    if sorted(order.tolist()) == list(range(len(order))):
        yield "its outputs stand in another order", expected[:, order]
