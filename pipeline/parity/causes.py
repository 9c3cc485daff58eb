"""Why outputs differ, found by trying.

An artifact that reads photos otherwise, with red and blue swapped for example, gives what the model
gives for photos that are changed in that way. So the model is run on changed photos, and the change
that brings its outputs close to the artifact's is the cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from pipeline.parity.images import ParityImages, preprocess
from training.models import ModelRecord

Predict = Callable[[np.ndarray], np.ndarray]  # images to logits

# A change explains outputs whose distance it brings down to this part. What 8-bit formats are off
# by anyway stays.
_CLOSER = 0.2
_CLOSER_8_BIT = 0.5
_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_PREPROCESSINGS = ("inception", "bicubic")


def likely_cause(
    found: np.ndarray,
    expected: np.ndarray,
    predict: Predict,
    images: ParityImages,
    record: ModelRecord,
    from_jpeg: bool = False,
    is_8_bit: bool = False,
) -> str:
    """What explains an artifact's logits, in words; '' if nothing that is known does.

    Args:
        found: (n, outputs) logits of the artifact.
        expected: those of the model.
        predict: the model.
        images: what both were given.
        record: of the model.
        from_jpeg: whether the artifact does the preprocessing itself.
        is_8_bit: whether its weights or activations are rounded to 8 bits.
    """
    distances = {}
    for words, changed in _changes(images, record, from_jpeg):
        distances[words] = _distance(predict(changed), found)
    for words, outputs in _reordered(expected, found):
        distances[words] = _distance(outputs, found)
    best = min(distances, key=distances.__getitem__)
    closer = _CLOSER_8_BIT if is_8_bit else _CLOSER
    return best if distances[best] <= closer * _distance(expected, found) else ""


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean(np.abs(one - other)))


def _changes(
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
