"""The first layer where an artifact departs from the model.

Formats name, fuse and fold layers each in its own way, so that tensors are not paired by name. A
value is looked for among all that the artifact computes: where the layer is still right, some
tensor holds just what the model's layer gives. What is compared are ends of chains (convolution,
batch norm and activation count as one layer), which survive folding and fusing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from pipeline import formats

# Root mean square of the difference, in parts of that of the layer's values, that the last layer
# may have: several times what healthy exports of real checkpoints have, for 8-bit formats half as
# much again. Errors grow with depth, so that earlier layers may have less, down to a fifth.
TOLERANCES = {
    formats.CHECKPOINT: 1e-4,
    formats.SAVED_MODEL: 1e-3,
    formats.KERAS: 1e-3,
    formats.ONNX: 1e-3,
    formats.LITERT_FLOAT32: 1e-3,
    formats.LITERT_FLOAT16: 0.05,
    formats.LITERT_DYNAMIC: 0.6,
    formats.LITERT_INT8: 0.8,
}
_FIRST = 0.2
INPUT = "images"

# Layers that begin a chain; all others go on with that of their only input.
_HEADS = (
    keras.layers.InputLayer,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Dense,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Add,
    keras.layers.Multiply,
)
_GATE_SCALE = 1.0 / 0.16667  # of squeeze-and-excite's gate, which exports fold into what follows


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """What a chain of layers gives.

    Attributes:
        name: of the chain's first layer.
        values: (n, ...) float32.
        scales: the artifact may hold any of these multiples of the values.
    """

    name: str
    values: np.ndarray
    scales: tuple[float, ...] = (1.0,)


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where an artifact departs.

    Attributes:
        layer: the first that differs; '' where none does by more than its tolerance.
        error: how far it is off, in parts of the layer's scale; without a layer, the largest.
        agreeing: layers in front of it that agree.
        worst: the layer that is furthest off.
    """

    layer: str
    error: float
    agreeing: int
    worst: str


def reference_points(model: keras.Model, images: np.ndarray) -> list[Point]:
    """What the chains of `model` give for `images`, in the order of its layers."""
    chains = _chains(model)
    extractor = keras.Model(model.input, [last.output for _, last in chains])
    found = keras.tree.flatten(extractor(images, training=False))
    return [
        Point(first.name, np.asarray(value, np.float32), _scales(first, last))
        for (first, last), value in zip(chains, found, strict=True)
    ]


def first_divergence(
    points: Sequence[Point], tensors: Mapping[str, np.ndarray], tolerance: float
) -> Divergence:
    """The first of `points` from which on the artifact goes its own way.

    A single layer that is nowhere found is passed over if the next one is: it was fused away.

    Args:
        points: of the model.
        tensors: of the artifact, for the same images, (n, ...) each.
        tolerance: of the last layer, see `TOLERANCES`.
    """
    by_size: dict[int, list[np.ndarray]] = {}
    for tensor in tensors.values():
        by_size.setdefault(tensor[0].size, []).append(tensor.reshape(len(tensor), -1))
    errors = [_error(point, by_size.get(point.values[0].size, ())) for point in points]
    growing = tolerance * np.linspace(_FIRST, 1.0, len(points))
    is_off = [not error <= allowed for error, allowed in zip(errors, growing, strict=True)]
    for i, point in enumerate(points):
        if is_off[i] and all(is_off[i : i + 2]):
            return Divergence(point.name, errors[i], i - sum(is_off[:i]), point.name)
    held = [i for i in range(len(points)) if not is_off[i]]
    worst = max(held, key=lambda i: errors[i])
    return Divergence("", errors[worst], len(held), points[worst].name)


def _error(point: Point, candidates: Iterable[np.ndarray]) -> float:
    """Distance to the closest candidate, (n, size) each, in parts of the values' scale."""
    values = point.values.reshape(len(point.values), -1)
    distances = [
        np.sqrt(np.mean(np.square(candidate - scale * values))) / scale
        for candidate in candidates
        for scale in point.scales
    ]
    scale = np.sqrt(np.mean(np.square(values)))
    return float(min(distances, default=np.inf) / max(scale, np.finfo(np.float32).tiny))


def _chains(model: keras.Model) -> list[tuple[keras.Layer, keras.Layer]]:
    """First and last layer of each chain."""
    consumers: dict[int, list[keras.Layer]] = {}
    for layer in model.layers[1:]:
        for tensor in keras.tree.flatten(layer.input):
            consumers.setdefault(id(tensor), []).append(layer)
    chains, inside = [], set()
    for layer in model.layers:
        if layer in inside:
            continue
        last = layer
        while len(following := consumers.get(id(last.output), ())) == 1 and _goes_on(following[0]):
            (last,) = following
            inside.add(last)
        chains.append((layer, last))
    return chains


def _goes_on(layer: keras.Layer) -> bool:
    # The quantisation-aware convolution of `training.models.quantized` is no Conv2D of Keras.
    return not isinstance(layer, _HEADS) and not hasattr(layer, "kernel")


def _scales(first: keras.Layer, last: keras.Layer) -> tuple[float, ...]:
    is_gated = last.name.endswith(".gate") or (
        isinstance(first, keras.layers.Multiply) and first.name.endswith("squeeze_excite.mul")
    )
    return (1.0, _GATE_SCALE) if is_gated else (1.0,)
