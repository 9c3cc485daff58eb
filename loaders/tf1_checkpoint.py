"""Reads a TF1 checkpoint: which variables it has, what they hold, what model it looks like."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf

from common import files
from common.errors import UserError, first_line
from loaders.identify import Identity, identify

_GLOBAL_STEP = "global_step"


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
            raise UserError(
                f"{self.path} cannot be read as a checkpoint: {first_line(error)}"
            ) from None
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def read(self, name: str) -> np.ndarray:
        """The value of a weight.

        Raises:
            UserError: it cannot be read, or holds anything but finite float32 values.
        """
        value = self._read(name)
        if value.dtype != np.float32:
            raise UserError(f"{self.path} holds {name} as {value.dtype}, not as float32")
        if not np.all(np.isfinite(value)):
            raise UserError(f"{self.path} is damaged: {name} holds NaN or infinite values")
        return value

    def _read(self, name: str) -> np.ndarray:
        try:
            return np.asarray(self._reader.get_tensor(name))
        except Exception as error:
            raise UserError(
                f"{self.path} is damaged: {name} cannot be read: {first_line(error)}"
            ) from None

    def step(self) -> int:
        """The training step that it was written at; 0 if it does not say.

        Raises:
            UserError: it says so by something that is no step.
        """
        if _GLOBAL_STEP not in self.shapes:
            return 0
        value = self._read(_GLOBAL_STEP)
        if value.shape or value.dtype.kind != "i" or value < 0:
            raise UserError(f"{self.path} is damaged: its {_GLOBAL_STEP} is no training step")
        return int(value)

    def identity(self) -> Identity | None:
        """The model that the variables are of, or None if it is none of the families."""
        return identify(self.shapes)

    def looks_like(self) -> str:
        """What model the checkpoint seems to be of, as a clause."""
        identity = self.identity()
        if identity:
            return f"it looks like {identity}"
        scopes = sorted({name.split("/", 1)[0] for name in self.shapes})
        return f"it is of no MobileNet: its variables begin with {', '.join(scopes[:3])}"


def find_prefix(path: str) -> str:
    """The prefix of the checkpoint that `path` names.

    Raises:
        UserError: there is no checkpoint, or there are several.
    """
    path = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path)
    if files.is_file(path + ".index"):
        return path
    if files.is_directory(path):
        names = files.find(path, "*.index")
        prefixes = [files.join(path, name.removesuffix(".index")) for name in names]
        if len(prefixes) == 1:
            return prefixes[0]
        found = f"{len(prefixes)} checkpoints" if prefixes else "no checkpoint"
        raise UserError(f"{path} holds {found}: name one by its path without '.index'")
    raise UserError(f"there is no checkpoint {path}: {path}.index does not exist")
