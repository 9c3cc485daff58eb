"""Other class counts: a model without its background class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from common.errors import UserError
from common.labels import LabelNumbering
from loaders.loaders import StoredWeights
from training.models import ModelRecord
from training.models.builder import LOGITS


def without_background(
    record: ModelRecord, stored: StoredWeights
) -> tuple[ModelRecord, StoredWeights]:
    """Drops output 0 from the logits layer: the ranking of the classes stays as it is.

    Raises:
        UserError: the model has no background class.
    """
    if record.labels.offset != 1:
        raise UserError(
            f"there is no background class to drop: the model has {record.config.num_classes}"
            " outputs, and the first is a class"
        )
    num_classes = record.labels.num_classes
    smaller = dataclasses.replace(
        record,
        config=record.config.replace(num_classes=num_classes),
        labels=LabelNumbering(num_classes, 0),
    )
    return smaller, dataclasses.replace(
        stored,
        raw=_without_first_logit(stored.raw),
        averages=_without_first_logit(stored.averages),
    )


def _without_first_logit(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: value[..., 1:] if name in (f"{LOGITS}.kernel", f"{LOGITS}.bias") else value
        for name, value in weights.items()
    }
