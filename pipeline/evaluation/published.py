"""The published figure of a model, where it is one of the released ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from loaders.zoo import ZooRow, load_zoo
from preprocessing.class_list import imagenet_synsets

SOURCE = "tables of the release, ImageNet validation set"

_SUFFIXES = (".tflite", ".keras", ".ckpt")


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are ImageNet's 1,000 classes in their order."""
    return tuple(classes) == imagenet_synsets()


def find_published(path: str, model: Mapping[str, Any] | None, is_quantized: bool) -> ZooRow | None:
    """The released model that has an accuracy and is this one by its name or its architecture.

    Args:
        path: of the file or directory that the model was read from.
        model: its configuration, where that is known.
        is_quantized: whether it computes with 8 bits.
    """
    rows = [row for row in load_zoo() if row.top_1 is not None]
    parts = os.path.normpath(path).split(os.sep)[-2:]
    names = {part.removesuffix(suffix) for part in parts for suffix in ("", *_SUFFIXES)}
    named = [row for row in rows if row.name in names]
    if model is None:
        return named[-1] if named else None
    alike = [
        row
        for row in rows
        if row.model_name == model["name"]
        and row.width_multiplier == model["width_multiplier"]
        and [row.resolution] * 2 == list(model["input_shape"][:2])
        and row.quantized == is_quantized
    ]
    return next((row for row in alike if row in named), alike[0] if alike else None)


def to_json(row: ZooRow) -> dict[str, Any]:
    """Its figures as fractions."""
    return {
        "name": row.name,
        "top_1": round(row.top_1 / 100, 6),
        "top_5": None if row.top_5 is None else round(row.top_5 / 100, 6),
        "source": SOURCE,
    }
