"""Trains a model on shards: `python -m training.train`.

Run again with the same flags, the command goes on from the newest checkpoint in --model_dir. The
directory holds `config.json` (all settings), `model.json` (architecture, labels, input range),
`history.json` (a row an epoch), `checkpoints/`, `best/` and TensorBoard's `logs/`. Exit code 75
says that the run was asked to end before it was done, and that the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Sequence

from common import files
from common.command import run
from common.errors import UsageError, UserError
from common.locks import alone_in
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
)
from training.settings import FILE_NAME as CONFIG
from training.settings import judge_alike, read_settings, require_unchanged, settings_of


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
    from training.strategies import choose_devices, share_batch

    devices = choose_devices(recipe.distribution, os.environ)
    stop.take_handlers()
    from training.input_pipeline import TrainingInput
    from training.readers import open_split
    from training.shard_errors import named_shard_errors
    from training.trainer import Trainer

    data, run_flags, optimization = recipe.data, recipe.run, recipe.optimization
    shards = open_split(data, data.train_split)
    validation = open_split(data, data.eval_split) if data.eval_split else None
    if validation:
        require_same_classes(data, shards.classes, validation.classes)
    record, initial = make_record(recipe, shards.classes)
    # All that can be wrong with flags and data is found before anything is written.
    training_input = TrainingInput(
        batch_size=optimization.batch_size,
        size=record.config.resolution,
        seed=run_flags.seed,
        augmentation=recipe.augmentation,
        num_streams=data.num_streams,
        shuffle_window=data.shuffle_window,
    )
    share_batch(recipe, devices)
    require_stoppable(recipe)
    if run_flags.dry_run:
        from training.dry_run import describe

        print(describe(recipe, record, shards, devices))
        return
    runtime.set_precision(recipe.distribution.precision)
    runtime.set_seed(run_flags.seed)
    if devices.is_evaluator:
        _evaluate(recipe, record, shards, validation, devices)
        return
    _require_agreement(recipe, shards, devices)
    state, validator, teacher = _make_models(recipe, record, validation, devices)
    settings = settings_of(
        recipe,
        model=record.config.to_json(),
        data_fingerprint=shards.fingerprint,
        teacher_fingerprint=teacher.fingerprint if teacher else None,
        num_parameters=state.model.count_params(),
    )
    written = read_settings(run_flags.model_dir)
    if written and not run_flags.allow_changes:
        require_unchanged(run_flags, settings, written)
    start_from = "random initial weights"
    if initial:
        start_from = initial.load(state)
    _log_start(recipe, record, shards, devices, settings["num_parameters"])
    with _alone(run_flags.model_dir, devices):
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
        restored = trainer.restore(judged_alike=not written or judge_alike(settings, written))
        # Only now is it certain that these settings go with what is there.
        if devices.is_chief:
            files.write_json(files.join(run_flags.model_dir, CONFIG), settings)
            record.write(run_flags.model_dir)
        with named_shard_errors(validation):
            trainer.run(restored)


def make_record(recipe: Recipe, classes: Sequence[str]):
    """What is trained, and the weights to start from, if any are named and not started from yet."""
    from training.checkpoints import DIRECTORY, list_checkpoints
    from training.initial import choose_labels, open_initial
    from training.models import ModelRecord

    model, run_flags = recipe.model, recipe.run
    initial = None
    if run_flags.init_checkpoint and list_checkpoints(files.join(run_flags.model_dir, DIRECTORY)):
        # What the run has started from may be gone; all that it decided is written down.
        num_outputs = ModelRecord.read(run_flags.model_dir).config.num_classes
        model = dataclasses.replace(model, num_classes=model.num_classes or num_outputs)
    else:
        initial = open_initial(model, recipe.augmentation, run_flags, classes)
    num_outputs, labels = choose_labels(model, classes, initial)
    record = ModelRecord(
        config=model.config(num_outputs),
        labels=labels,
        classes=classes,
        input_range=recipe.augmentation.input_range,
        evaluation_preprocessing=recipe.augmentation.eval_preprocessing,
        weights="both" if recipe.optimization.ma_decay_rate else "raw",
    )
    return record, initial


def _alone(model_dir: str, devices) -> contextlib.AbstractContextManager[None]:
    """Keeps a second run out of the directory; of several workers the chief, which writes."""
    if not devices.is_chief:
        return contextlib.nullcontext()
    return alone_in(
        model_dir,
        f"another process is training in {model_dir}: wait for its end, or use another --model_dir",
    )


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


def require_same_classes(data: DataFlags, train, validation) -> None:
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


def require_stoppable(recipe: Recipe) -> None:
    """Makes sure that the metric by which a run is to end early is ever known.

    Raises:
        UsageError: it is of an evaluation, and there is none.
    """
    run_flags = recipe.run
    if run_flags.early_stop_epochs and not recipe.data.eval_split:
        raise UsageError(
            f"--early_stop_epochs={run_flags.early_stop_epochs} looks at"
            f" {run_flags.early_stop_metric}: name an --eval_split"
        )


def _require_agreement(recipe: Recipe, shards, devices) -> None:
    """Makes sure that the workers are to train the same model on the same data.

    Raises:
        UserError: they are not; all workers raise it.
    """
    if not devices.agree(recipe.crc32):
        raise UserError("the workers do not agree: start all of them with the same flags")
    if not devices.agree(shards.fingerprint):
        raise UserError(
            f"the workers do not agree: their copies of split {recipe.data.train_split!r} differ"
            f" (this one's, in {recipe.data.data_dir}, is {shards.fingerprint[:12]})"
        )


if __name__ == "__main__":
    run(train, *FLAG_GROUPS)
