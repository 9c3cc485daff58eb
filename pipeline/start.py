"""Where training starts: from scratch, from the demo's TF1 checkpoint, or from another one."""

from __future__ import annotations

import dataclasses
import glob
import os

from common import files
from common.errors import UsageError, UserError
from loaders.convert import ConvertConfig
from pipeline.experiments import CHECKPOINT, SCRATCH, TF1, Experiment
from pipeline.stage import Stage

# `make demo-weights` writes it.
DEMO_WEIGHTS = os.path.join(os.path.dirname(__file__), "demo_weights", "mobilenet_v1_0.25_96")
_DEMO_WEIGHTS_MODEL = ("mobilenet_v1", 0.25)


@dataclasses.dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        stages: what is done before it: nothing, or the conversion of a TF1 checkpoint.
        checkpoint: its --init_checkpoint.
        inputs: the checkpoint's files.
    """

    stages: tuple[Stage, ...] = ()
    checkpoint: str = ""
    inputs: tuple[str, ...] = ()


def choose_start(init: str, experiment: Experiment, work_dir: str) -> Start:
    """What --init means: 'scratch', 'tf1' (the checkpoint of the demo), or a checkpoint's path.

    Raises:
        UserError: it is none of these.
        UsageError: the demo's checkpoint is of another model than the experiment's, or one must
            be named.
    """
    if init == CHECKPOINT:
        raise UsageError(
            f"experiment {experiment.name} starts from a checkpoint: give the path of a TF1 or TF2"
            " one as --init"
        )
    if init == SCRATCH:
        return Start()
    if init == TF1:
        model = experiment.recipe.model
        if (model.model_name, model.width_multiplier) != _DEMO_WEIGHTS_MODEL:
            raise UsageError(
                f"--init={TF1} holds {_DEMO_WEIGHTS_MODEL[0]} at width"
                f" {_DEMO_WEIGHTS_MODEL[1]:g}, but {model.model_name} at width"
                f" {model.width_multiplier:g} is trained: give the path of a checkpoint, or"
                f" --init={SCRATCH}"
            )
        converted = files.join(work_dir, "converted")
        stage = Stage(
            name="convert",
            command="loaders.convert:convert",
            configs=(
                ConvertConfig(
                    output_dir=converted,
                    checkpoint_path=DEMO_WEIGHTS,
                    model_name=model.model_name,
                    width_multiplier=model.width_multiplier,
                    resolution=model.resolution,
                ),
            ),
            inputs=(DEMO_WEIGHTS,),
            outputs=(files.join(converted, "model.json"),),
            owns=("converted",),
        )
        return Start((stage,), converted, (converted,))
    inputs = (init,) if files.is_directory(init) else _files_of(init)
    if not inputs:
        raise UserError(
            f"--init={init} is no checkpoint: give {SCRATCH}, {TF1}, or the path of a TF1 or TF2"
            " checkpoint without '.index', or of its directory"
        )
    return Start((), init, inputs)


def _files_of(prefix: str) -> tuple[str, ...]:
    """The files of a checkpoint."""
    directory, name = files.parent(prefix), os.path.basename(prefix)
    return tuple(
        files.join(directory, found) for found in files.find(directory, f"{glob.escape(name)}.*")
    )
