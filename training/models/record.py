"""What travels with the weights: the model's configuration, its labels and its input."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from common import files
from common.errors import UserError
from common.labels import LabelNumbering
from training.models.configs import MobileNetConfig, make_config

FILE_NAME = "model.json"

SLIM_INPUT_RANGE = (-1.0, 1.0)

_ENOUGH_IMAGES = 8
_USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


@dataclasses.dataclass(frozen=True)
class ModelRecord:
    """Written beside every checkpoint and export, and read by whoever uses the weights.

    Attributes:
        config: the architecture.
        labels: classes, and the logit of the first of them.
        classes: names in the order of the class indices; empty where they are not known.
        input_range: the value of a black and of a white pixel.
        evaluation_preprocessing: name of the function from JPEG bytes to the input.
        weights: 'averages' or 'raw': which set the file holds, or 'both'.
    """

    config: MobileNetConfig
    labels: LabelNumbering
    classes: tuple[str, ...] = ()
    input_range: tuple[float, float] = SLIM_INPUT_RANGE
    evaluation_preprocessing: str = "inception"
    weights: str = "raw"

    def __post_init__(self):
        if self.labels.num_outputs != self.config.num_classes:
            raise UserError(
                f"the model has {self.config.num_classes} outputs, but its labels need"
                f" {self.labels.num_outputs} ({self.labels.num_classes} classes, the first is"
                f" label {self.labels.offset})"
            )

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "labels": dataclasses.asdict(self.labels),
            "classes": list(self.classes),
            "input_range": list(self.input_range),
            "evaluation_preprocessing": self.evaluation_preprocessing,
            "weights": self.weights,
        }

    def write(self, directory: str) -> None:
        files.write_json(os.path.join(directory, FILE_NAME), self.to_json())

    @classmethod
    def read(cls, directory: str) -> ModelRecord:
        """Reads the record in `directory`.

        Raises:
            UserError: it is missing, or not a record.
        """
        path = os.path.join(directory, FILE_NAME)
        values = files.read_json(path)
        try:
            config = dict(values["config"])
            return cls(
                config=make_config(config.pop("name"), **config).replace(
                    classifier_activation=config["classifier_activation"]
                ),
                labels=LabelNumbering(**values["labels"]),
                classes=tuple(values["classes"]),
                input_range=tuple(values["input_range"]),
                evaluation_preprocessing=values["evaluation_preprocessing"],
                weights=values["weights"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is not a model record: {error!r}") from None


def check_input_range(images: np.ndarray, expected: tuple[float, float]) -> None:
    """Makes sure that a batch of images lies where the model expects it.

    A batch of several photos holds dark and bright pixels, so that a batch in [0, 1] is told from
    one in [-1, 1]; of fewer images than `_ENOUGH_IMAGES` only values outside the range are seen.

    Args:
        images: (batch, height, width, 3).
        expected: the value of a black and of a white pixel.

    Raises:
        UserError: the batch lies in another range; the message says how to scale it.
    """
    low, high = float(np.min(images)), float(np.max(images))
    black, white = expected
    middle = (black + white) / 2.0
    half_unused = len(images) >= _ENOUGH_IMAGES and (low >= middle or high <= middle)
    likely = next((usual for usual in _USUAL_RANGES if _within(low, high, usual)), None)
    if _within(low, high, expected) and (not half_unused or likely in (None, tuple(expected))):
        return
    message = (
        f"the images lie in [{low:.3g}, {high:.3g}], but the model expects [{black:g}, {white:g}]"
    )
    if likely:
        start, end = likely
        factor = (white - black) / (end - start)
        message += f": scale them by x * {factor:g} + {black - start * factor:g}"
    raise UserError(message)


def _within(low: float, high: float, limits: tuple[float, float]) -> bool:
    start, end = limits
    slack = 0.01 * (end - start)  # resizing may overshoot by rounding
    return start - slack <= low and high <= end + slack
