"""Trains a model on shards: `python -m training.train`.

Run again with the same flags, the command goes on from the newest checkpoint in --model_dir. The
directory holds `config.json` (all settings), `model.json` (architecture, labels, input range),
`history.json` (a row an epoch), `checkpoints/` and TensorBoard's `logs/`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
from typing import Any

from common import files
from common.command import run
from common.errors import UserError
from common.labels import LabelNumbering
from training.config import (
    DataFlags,
    ModelFlags,
    OptimizationFlags,
    RunFlags,
    settings_that_matter,
)

CONFIG = "config.json"

_VERSIONED = ("tensorflow", "keras", "numpy")


def train(
    model_flags: ModelFlags, data: DataFlags, optimization: OptimizationFlags, run_flags: RunFlags
) -> None:
    """Trains a model on shards, or goes on with a run that was stopped."""
    from preprocessing.manifest import load_manifest

    files.require_writable(run_flags.model_dir, "model_dir")
    manifest = load_manifest(data.data_dir, data.train_split)
    from training import runtime

    runtime.start()
    from training.input_pipeline import TrainingInput
    from training.models import ModelRecord
    from training.shard_errors import named_shard_errors
    from training.shards import Shards
    from training.state import TrainState
    from training.trainer import Trainer

    initial = _open_initial(model_flags, data, run_flags, manifest.classes)
    num_outputs, labels = _choose_labels(model_flags, manifest.classes, initial)
    record = ModelRecord(
        config=model_flags.config(num_outputs),
        labels=labels,
        classes=manifest.classes,
        input_range=data.input_range,
        weights="both" if optimization.ma_decay_rate else "raw",
    )
    # All that can be wrong with flags and data is found before anything is written.
    training_input = TrainingInput(
        batch_size=optimization.batch_size,
        size=record.config.resolution,
        seed=run_flags.seed,
        augmentation=data.augmentation,
        min_crop_area=data.min_crop_area,
    )
    train_shards = Shards.open(data.data_dir, data.train_split)
    validation = Shards.open(data.data_dir, data.eval_split) if data.eval_split else None
    if validation:
        _require_same_classes(data, manifest.classes, validation.manifest.classes)
    runtime.set_seed(run_flags.seed)
    state = TrainState(record.config, optimization)
    settings = {
        "model": record.config.to_json(),
        "data": dataclasses.asdict(data),
        "optimization": dataclasses.asdict(optimization),
        "run": dataclasses.asdict(run_flags),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "data_manifest_sha256": manifest.sha256,
        "num_parameters": state.model.count_params(),
    }
    _check_unchanged(run_flags, settings)
    start_from = "random initial weights"
    if initial:
        start_from = _load_initial(state, initial)
    files.write_json(os.path.join(run_flags.model_dir, CONFIG), settings)
    record.write(run_flags.model_dir)
    logging.info(
        "%s at width %g, %dx%d, %d outputs: %s parameters",
        record.config.name,
        record.config.width_multiplier,
        *record.config.resolution,
        num_outputs,
        f"{settings['num_parameters']:,}",
    )
    trainer = Trainer(
        state=state,
        record=record,
        optimization=optimization,
        run=run_flags,
        training_input=training_input,
        train=train_shards,
        validation=validation,
        start_from=start_from,
    )
    with named_shard_errors(validation):
        trainer.run()


def _open_initial(model_flags: ModelFlags, data: DataFlags, run_flags: RunFlags, classes):
    """The checkpoint to start from, or None."""
    if not run_flags.init_checkpoint:
        return None
    # The one import upward: training may start from a TF1 checkpoint directly.
    from loaders.open import ModelRequest, open_checkpoint

    request = ModelRequest(model_flags.model_name, model_flags.width_multiplier)
    initial = open_checkpoint(run_flags.init_checkpoint, request, run_flags.init_weights)
    if initial.record.input_range != data.input_range:
        raise UserError(
            f"{initial.path} expects pixels in {_range(initial.record.input_range)}, but they would"
            f" be fed in {_range(data.input_range)}: pass"
            f" --input_range={','.join(f'{v:g}' for v in initial.record.input_range)}"
        )
    return initial


def _require_same_classes(data: DataFlags, train, validation) -> None:
    """Makes sure that a class index means the same in both splits.

    Raises:
        UserError: it names a class that is in one of them only, or stands elsewhere.
    """
    if train == validation:
        return
    different = sorted(set(train) ^ set(validation)) or [
        name for name, other in zip(train, validation, strict=True) if name != other
    ]
    raise UserError(
        f"splits {data.train_split!r} and {data.eval_split!r} of {data.data_dir} have different"
        f" class lists ({len(train)} and {len(validation)} classes; {different[0]!r} is not in"
        " both, or at another place): build both with the same --classes=FILE"
    )


def _choose_labels(model_flags: ModelFlags, classes, initial) -> tuple[int, LabelNumbering]:
    """Logits of the model and their numbering.

    Asked for by --num_classes; else those of the initial weights if they fit the data, with or
    without a background class; else one for each class of the data.
    """
    num_outputs = model_flags.num_classes
    if num_outputs is None:
        num_outputs = len(classes)
        if initial and initial.record.config.num_classes - len(classes) in (0, 1):
            num_outputs = initial.record.config.num_classes
    return num_outputs, LabelNumbering.of_outputs(num_outputs, len(classes), "the data set")


def _load_initial(state, initial) -> str:
    """Loads the initial weights, all but logits of another number; says what was done."""
    from training.models.mobilenet import LOGITS

    ours = {name: tuple(variable.shape) for name, variable in state.variables.items()}
    values = initial.values
    different = sorted(name for name in values if values[name].shape != ours.get(name))
    if any(not name.startswith(LOGITS) for name in different):
        raise UserError(
            f"{initial.path} has {different[0]} of shape {values[different[0]].shape}, but the"
            f" model needs {ours.get(different[0])}: the architectures differ"
        )
    state.load_weights({name: value for name, value in values.items() if name not in different})
    text = f"{initial.path} ({initial.weights} weights)"
    if different:
        text += (
            f", all but the logits: it has {initial.record.config.num_classes} outputs, the model"
            f" {ours[f'{LOGITS}.bias'][0]}"
        )
    return text


def _check_unchanged(run_flags: RunFlags, settings: dict[str, Any]) -> None:
    """Refuses to go on with a run under other settings.

    Raises:
        UserError: it lists what has changed.
    """
    path = os.path.join(run_flags.model_dir, CONFIG)
    if run_flags.allow_changes or not os.path.exists(path):
        return
    now = settings_that_matter(settings)
    before = settings_that_matter(files.read_json(path))
    # Through JSON, so that tuples and lists compare equal.
    changed = [
        f"{name} {before.get(name)} -> {value}"
        for name, value in now.items()
        if before.get(name) != (list(value) if isinstance(value, tuple) else value)
    ]
    if changed:
        raise UserError(
            f"{run_flags.model_dir} holds a run with other settings ({'; '.join(changed)}): give"
            " another --model_dir, or pass --allow_changes"
        )


def _range(values: tuple[float, ...]) -> str:
    return f"[{values[0]:g}, {values[1]:g}]"


if __name__ == "__main__":
    run(train, ModelFlags, DataFlags, OptimizationFlags, RunFlags)
