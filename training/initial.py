"""Checkpoints that training opens: the one to start from, and the teacher to learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common import files
from common.errors import UserError
from common.labels import LabelNumbering
from training.config import AugmentationFlags, ModelFlags, RunFlags
from training.models.builder import LOGITS
from training.models.record import FILE_NAME as RECORD
from training.models.record import ModelRecord

if TYPE_CHECKING:
    from loaders.open import OpenCheckpoint
    from training.state import TrainState


@dataclasses.dataclass(frozen=True)
class InitialWeights:
    """A checkpoint to start from.

    Attributes:
        checkpoint: its weights, and what they belong to.
        why_new_logits: why its logits are not used, for people; empty if they are.
    """

    checkpoint: OpenCheckpoint
    why_new_logits: str

    def load(self, state: TrainState) -> str:
        """Loads the weights into `state`; says what was done.

        Raises:
            UserError: the architectures differ.
        """
        path, values = self.checkpoint.path, self.checkpoint.values
        if self.why_new_logits:
            values = {name: v for name, v in values.items() if not name.startswith(LOGITS)}
        ours = {name: tuple(variable.shape) for name, variable in state.variables.items()}
        different = sorted(name for name in values if values[name].shape != ours.get(name))
        if different:
            name = different[0]
            raise UserError(
                f"{path} has {name} of shape {values[name].shape}, but the model needs"
                f" {ours.get(name)}: the architectures differ"
            )
        state.load_weights(values)
        text = f"{path} ({self.checkpoint.weights} weights)"
        if self.why_new_logits:
            return f"{text}, all but the logits: {self.why_new_logits}"
        if not self.checkpoint.record.classes:
            return f"{text}, logits included: it names no classes, their number fits"
        return text


def open_initial(
    model_flags: ModelFlags,
    augmentation: AugmentationFlags,
    run_flags: RunFlags,
    classes: Sequence[str],
) -> InitialWeights | None:
    """The weights that `--init_checkpoint` names, or None.

    Raises:
        UserError: they cannot be read, or expect other pixels, or lack logits that are asked for.
    """
    if not run_flags.init_checkpoint:
        return None
    # The one import upward, here and in `open_teacher`: a TF1 checkpoint is opened directly.
    from loaders.open import ModelRequest, open_checkpoint

    request = ModelRequest(model_flags.model_name, model_flags.width_multiplier)
    initial = open_checkpoint(run_flags.init_checkpoint, request, run_flags.init_weights)
    _check_input_range(initial, augmentation.input_range)
    why = _why_new_logits(initial, classes, model_flags.num_classes, run_flags.init_logits)
    if why and run_flags.init_logits == "keep":
        raise UserError(f"--init_logits=keep, but the logits of {initial.path} do not fit: {why}")
    return InitialWeights(initial, why)


def open_teacher(path: str, student: ModelRecord) -> OpenCheckpoint:
    """The model of `--teacher_checkpoint`, for the images and classes of `student`.

    A TF1 checkpoint does not tell its resolution, so that it is taken to be the student's.

    Raises:
        UserError: it cannot be read, or was made for other classes, sizes or pixels.
    """
    from loaders.open import ModelRequest, open_checkpoint

    ours = student.config.input_shape
    try:
        teacher = open_checkpoint(path, ModelRequest(), classes=student.classes)
        _check_input_range(teacher, student.input_range)
        theirs = teacher.record.config.input_shape
        if theirs != ours and _has_record(teacher.path):
            raise UserError(
                f"{teacher.path} takes images of {_size(theirs)}, but the student is given"
                f" {_size(ours)}: pass --resolution={theirs[0]}, or take another teacher"
            )
    except UserError as error:
        raise UserError(f"--teacher_checkpoint: {error}") from None
    config = teacher.record.config.replace(input_shape=ours)
    return dataclasses.replace(teacher, record=dataclasses.replace(teacher.record, config=config))


def choose_labels(
    model_flags: ModelFlags, classes: Sequence[str], initial: InitialWeights | None
) -> tuple[int, LabelNumbering]:
    """Logits of the model and their numbering.

    Asked for by --num_classes; else those of the initial weights where they are kept, with or
    without a background class; else one for each class of the data.

    Raises:
        UserError: the number asked for does not fit the data.
    """
    num_outputs = model_flags.num_classes
    if num_outputs is None:
        num_outputs = len(classes)
        if initial and not initial.why_new_logits:
            num_outputs = initial.checkpoint.record.config.num_classes
    return num_outputs, LabelNumbering.of_outputs(num_outputs, len(classes), "the data set")


def _why_new_logits(
    initial: OpenCheckpoint, classes: Sequence[str], num_outputs: int | None, init_logits: str
) -> str:
    """Why the checkpoint's logits are of no use for the data; empty if they are.

    TF1 checkpoints name no classes. Their logits are kept if the number fits, since that is how
    training goes on from released weights, and the worst that can come of it is a slow start.
    """
    if init_logits == "drop":
        return "new ones are asked for"
    theirs = initial.record.config.num_classes
    # Whether the first output of a TF1 checkpoint is a background class, the number alone tells.
    offsets = (initial.record.labels.offset,) if initial.record.classes else (0, 1)
    fits = [len(classes) + offset for offset in offsets] if num_outputs is None else [num_outputs]
    if theirs not in fits:
        return f"it has {theirs} outputs, the model {fits[0]}"
    if init_logits == "auto" and initial.record.classes not in ((), tuple(classes)):
        return "it was made for other classes than the data's, or in another order"
    return ""


def _check_input_range(checkpoint: OpenCheckpoint, fed: tuple[float, ...]) -> None:
    expected = tuple(checkpoint.record.input_range)
    if expected != tuple(fed):
        raise UserError(
            f"{checkpoint.path} expects pixels in {_range(expected)}, but they would be fed in"
            f" {_range(fed)}: pass --input_range={','.join(f'{v:g}' for v in expected)}"
        )


def _has_record(prefix: str) -> bool:
    """Whether a checkpoint says what it is of; those of TF1 do not."""
    directory = files.parent(prefix)
    places = (directory, files.parent(directory))
    return any(files.exists(files.join(place, RECORD)) for place in places)


def _range(values: tuple[float, ...]) -> str:
    return f"[{values[0]:g}, {values[1]:g}]"


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} x {shape[1]} pixels"
