"""Reads a TF1 checkpoint: which variables it has, what they hold, what model it looks like."""

from __future__ import annotations

import glob
import os
import re

import numpy as np
import tensorflow as tf

from common.errors import UserError
from loaders.name_map import AVERAGE
from training.models.archs import CONFIGS, Family

_LOGITS_BIASES = "Logits/Conv2d_1c_1x1/biases"


class Tf1Checkpoint:
    """A checkpoint in TF1's bundle format.

    Args:
        path: its prefix; the name of one of its files or of the directory it is alone in will do.

    Attributes:
        path: the prefix.
        shapes: shape of each variable by name.

    Raises:
        UserError: there is none, or it cannot be read.
    """

    def __init__(self, path: str):
        self.path = find_prefix(path)
        try:
            self._reader = tf.train.load_checkpoint(self.path)
            shapes = self._reader.get_variable_to_shape_map()
        except Exception as error:  # TensorFlow raises many kinds for a damaged file
            raise UserError(f"{self.path} cannot be read as a checkpoint: {_line(error)}") from None
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def read(self, name: str) -> np.ndarray:
        """The value of a variable.

        Raises:
            UserError: it cannot be read, or holds values that are not finite.
        """
        try:
            value = self._reader.get_tensor(name)
        except Exception as error:
            raise UserError(
                f"{self.path} is damaged: {name} cannot be read: {_line(error)}"
            ) from None
        if not np.all(np.isfinite(value)):
            raise UserError(f"{self.path} is damaged: {name} holds NaN or infinite values")
        return value

    @property
    def has_averages(self) -> bool:
        return any(name.endswith(AVERAGE) for name in self.shapes)

    def num_outputs(self, family: Family) -> int:
        """Logits of the model.

        Raises:
            UserError: it is not a checkpoint of this family.
        """
        name = f"{family.scope}/{_LOGITS_BIASES}"
        if name not in self.shapes:
            raise UserError(
                f"{self.path} is not a checkpoint of {family.name}: it has no variable {name};"
                f" {self.looks_like()}"
            )
        return self.shapes[name][0]

    def width_multiplier(self, family: Family) -> float | None:
        """The multiplier that gives the last block its width, to two decimals; None if unknown."""
        last = family.blocks[-1]
        shape = self.shapes.get(f"{family.scope}/{last.name}_pointwise/weights")
        return round(shape[-1] / last.out, 2) if shape else None

    def looks_like(self) -> str:
        """What model the checkpoint seems to be of, as a clause."""
        scopes = {name.split("/", 1)[0] for name in self.shapes}
        for config in CONFIGS.values():
            family = config.family
            if family.scope in scopes:
                outputs = self.shapes.get(f"{family.scope}/{_LOGITS_BIASES}", ("no",))[0]
                return (
                    f"it looks like {family.name} at width {self.width_multiplier(family)} with"
                    f" {outputs} outputs"
                )
        return f"its variables begin with {', '.join(sorted(scopes)[:3])}"


def find_prefix(path: str) -> str:
    """The prefix of the checkpoint that `path` names.

    Raises:
        UserError: there is no checkpoint, or there are several.
    """
    path = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path)
    if os.path.isfile(path + ".index"):
        return path
    if os.path.isdir(path):
        names = sorted(glob.glob("*.index", root_dir=path))
        prefixes = [os.path.join(path, name.removesuffix(".index")) for name in names]
        if len(prefixes) == 1:
            return prefixes[0]
        found = f"{len(prefixes)} checkpoints" if prefixes else "no checkpoint"
        raise UserError(f"{path} holds {found}: name one by its path without '.index'")
    raise UserError(f"there is no checkpoint {path}: {path}.index does not exist")


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
