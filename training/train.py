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
    from training.initial import choose_labels, open_initial
    from training.input_pipeline import TrainingInput
    from training.models import ModelRecord
    from training.shard_errors import named_shard_errors
    from training.shards import Shards
    from training.state import TrainState
    from training.trainer import Trainer

    initial = open_initial(model_flags, data, run_flags, manifest.classes)
    num_outputs, labels = choose_labels(model_flags, manifest.classes, initial)
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
        start_from = initial.load(state)
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


if __name__ == "__main__":
    run(train, ModelFlags, DataFlags, OptimizationFlags, RunFlags)
