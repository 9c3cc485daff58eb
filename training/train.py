"""Trains a model on shards: `python -m training.train`.

Run again with the same flags, the command goes on from the newest checkpoint in --model_dir. The
directory holds `config.json` (all settings), `model.json` (architecture, labels, input range),
`history.json` (a row an epoch), `checkpoints/`, `best/` and TensorBoard's `logs/`. Exit code 75
says that the run was asked to end before it was done, and that the same command goes on.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from typing import Any

from common import files
from common.command import run
from common.errors import UsageError, UserError
from training import stopping
from training.config import (
    FLAG_GROUPS,
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    Recipe,
    RunFlags,
    settings_that_matter,
)

CONFIG = "config.json"

# By their modules: TensorFlow's wheel has another name on a TPU.
_VERSIONED = ("tensorflow", "keras", "numpy")


def train(
    model: ModelFlags,
    data: DataFlags,
    augmentation: AugmentationFlags,
    optimization: OptimizationFlags,
    distribution: DistributionFlags,
    run_flags: RunFlags,
) -> None:
    """Trains a model on shards, or goes on with a run that was stopped."""
    recipe = Recipe(model, data, augmentation, optimization, distribution, run_flags)
    if not run_flags.dry_run:
        files.require_writable(run_flags.model_dir, "model_dir")
    with stopping.listening() as stop:
        _train(recipe, stop)


def _train(recipe: Recipe, stop: stopping.StopRequest) -> None:
    from training import runtime

    runtime.start()
    from training.strategies import choose_devices

    devices = choose_devices(recipe.distribution, os.environ)
    stop.take_handlers()
    from training.initial import choose_labels, open_initial
    from training.input_pipeline import TrainingInput
    from training.models import ModelRecord
    from training.readers import open_split
    from training.shard_errors import named_shard_errors
    from training.trainer import Trainer

    data, run_flags, optimization = recipe.data, recipe.run, recipe.optimization
    shards = open_split(data, data.train_split)
    validation = open_split(data, data.eval_split) if data.eval_split else None
    if validation:
        _require_same_classes(data, shards.classes, validation.classes)
    initial = open_initial(recipe.model, recipe.augmentation, run_flags, shards.classes)
    num_outputs, labels = choose_labels(recipe.model, shards.classes, initial)
    record = ModelRecord(
        config=recipe.model.config(num_outputs),
        labels=labels,
        classes=shards.classes,
        input_range=recipe.augmentation.input_range,
        evaluation_preprocessing=recipe.augmentation.eval_preprocessing,
        weights="both" if optimization.ma_decay_rate else "raw",
    )
    # All that can be wrong with flags and data is found before anything is written.
    training_input = TrainingInput(
        batch_size=optimization.batch_size,
        size=record.config.resolution,
        seed=run_flags.seed,
        augmentation=recipe.augmentation,
        num_streams=data.num_streams,
        shuffle_window=data.shuffle_window,
    )
    parts = optimization.gradient_accumulation
    devices.replica_batch(optimization.batch_size, parts, recipe.augmentation.mixes)
    if parts > 1 and recipe.distribution.sync_batch_norm and devices.num_replicas > 1:
        raise UsageError(
            "--gradient_accumulation and --sync_batch_norm do not go together on several replicas:"
            " batch norm sees one part of a replica at a time"
        )
    if run_flags.dry_run:
        from training.dry_run import describe

        print(describe(recipe, record, shards, devices))
        return
    runtime.set_precision(recipe.distribution.precision)
    runtime.set_seed(run_flags.seed)
    if devices.is_evaluator:
        _evaluate(recipe, record, shards, validation, devices)
        return
    state, validator, teacher = _make_models(recipe, record, validation, devices)
    settings = {
        "model": record.config.to_json(),
        "data": dataclasses.asdict(data),
        "augmentation": dataclasses.asdict(recipe.augmentation),
        "optimization": dataclasses.asdict(optimization),
        "distribution": dataclasses.asdict(recipe.distribution),
        "run": dataclasses.asdict(run_flags),
        "versions": {name: importlib.import_module(name).__version__ for name in _VERSIONED},
        "data_fingerprint": shards.fingerprint,
        "num_parameters": state.model.count_params(),
    }
    _check_unchanged(run_flags, settings)
    start_from = "random initial weights"
    if initial:
        start_from = initial.load(state)
    _log_start(recipe, record, shards, devices, settings["num_parameters"])
    trainer = Trainer(
        state=state,
        record=record,
        recipe=recipe,
        training_input=training_input,
        train=shards,
        validator=validator,
        devices=devices,
        stop=stop,
        start_from=start_from,
        teacher=teacher,
    )
    restored = trainer.restore()
    # Only now is it certain that these settings go with what is there.
    if devices.is_chief:
        files.write_json(files.join(run_flags.model_dir, CONFIG), settings)
        record.write(run_flags.model_dir)
    with named_shard_errors(validation):
        trainer.run(restored)


def _make_models(recipe: Recipe, record, validation, devices):
    """Everything that holds variables, in the strategy's scope: state, validator, teacher."""
    from training.distillation import Teacher
    from training.models.layers import set_batch_norm_synchronized
    from training.state import TrainState
    from training.validation import Validator

    optimization = recipe.optimization
    with devices.strategy.scope():
        state = TrainState(
            record.config,
            optimization,
            recipe.run.steps_per_call,
            optimization.batch_size // devices.num_replicas if recipe.run.log_examples else 0,
            recipe.run.seed,
        )
        if recipe.distribution.sync_batch_norm:
            set_batch_norm_synchronized(state.model, True)
        validator = None
        if validation:
            validator = Validator(validation, record, optimization.batch_size, devices)
        teacher = Teacher(optimization, record) if optimization.teacher_checkpoint else None
    return state, validator, teacher


def _evaluate(recipe: Recipe, record, shards, validation, devices) -> None:
    """What the evaluator of a cluster does instead of training."""
    from training.evaluator import LARGEST_BATCH, evaluate_checkpoints
    from training.state import TrainState
    from training.validation import Validator

    if validation is None:
        raise UsageError("this process is an evaluator: it needs an --eval_split")
    batch = min(recipe.optimization.batch_size, LARGEST_BATCH * devices.num_replicas)
    with devices.strategy.scope():
        state = TrainState(record.config, recipe.optimization)
        validator = Validator(validation, record, batch, devices)
    evaluate_checkpoints(state, validator, recipe, shards.num_examples, devices)


def _log_start(recipe: Recipe, record, shards, devices, num_parameters: int) -> None:
    """What is trained, on what, with how much memory, and what had better be different."""
    from training import runtime
    from training.diagnosis.checks import WARNING, check_decays
    from training.readers.memory import memory_note

    height, width = record.config.resolution
    batch = recipe.optimization.batch_size
    logging.info(
        "%s at width %g, %dx%d, %d outputs: %s parameters, %s",
        record.config.name,
        record.config.width_multiplier,
        height,
        width,
        record.config.num_classes,
        f"{num_parameters:,}",
        recipe.distribution.precision,
    )
    logging.info(
        "on %s: %d of each global batch of %d",
        devices.description,
        batch // devices.num_replicas,
        batch,
    )
    for line in runtime.describe():
        logging.info("%s", line)
    note = memory_note(
        recipe.data.num_streams,
        recipe.data.shuffle_window,
        shards.mean_record_bytes,
        batch // devices.num_workers,
        record.config.resolution,
    )
    logging.info("%s", note)
    if not recipe.run.init_checkpoint:  # whose statistics would be a good start
        for finding in check_decays(record.config, recipe.optimization, shards.num_examples):
            if finding.level == WARNING:
                logging.warning("%s: %s", finding.check, finding.text)


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
    path = files.join(run_flags.model_dir, CONFIG)
    if run_flags.allow_changes or not files.exists(path):
        return
    written = files.read_json(path)
    if "data_fingerprint" not in written:
        raise UserError(
            f"{path} was written by an earlier version: give another --model_dir, or pass"
            " --allow_changes"
        )
    now, before = settings_that_matter(settings), settings_that_matter(written)
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
    run(train, *FLAG_GROUPS)
