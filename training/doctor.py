"""Examines a machine before a long run: `python -m training.doctor`.

Takes all flags of `training.train`, and no --model_dir will do. Measures reading, decoding, the
input pipeline, the step and the trainer's loop one at a time; names which one binds, what this
machine could reach and which setting to change; and checks disk, data, batch, memory and decays.
What training would refuse, it refuses in the same words. Nothing is trained or kept.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from common import files
from common.command import flag, run
from common.errors import UsageError, UserError
from training.config import (
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    Recipe,
    RunFlags,
)

if TYPE_CHECKING:
    from training.diagnosis.checks import Finding
    from training.diagnosis.verdict import Measurements
    from training.distillation import Teacher
    from training.models import ModelRecord
    from training.shards import Shards
    from training.strategies import Devices

_SAMPLED_RECORDS = 64


@dataclasses.dataclass(frozen=True)
class ExaminedRunFlags(RunFlags):
    """Those of a run that may be planned without a place of its own; the others are training's."""

    model_dir: str = flag(
        "",
        help="where the run would live, whose disk is looked at; empty for nowhere yet",
        variable="AIP_CHECKPOINT_DIR",
    )

    @property
    def of_training(self) -> RunFlags:
        """The same flags, as `training.train` has them."""
        return RunFlags(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True)
class DoctorFlags:
    """How thoroughly it looks."""

    seconds: float = flag(5.0, help="how long each of the measurements takes")
    deep: bool = flag(False, help="check every record's checksum; it reads both splits whole")
    try_settings: bool = flag(
        True,
        help="measure the step under other settings too, each in a process of its own: about half"
        " a minute each",
    )
    output: str = flag("", help="JSON file for all that was found")

    def __post_init__(self):
        if self.seconds <= 0:
            raise UsageError(f"--seconds must be above 0, not {self.seconds}")


@dataclasses.dataclass(frozen=True)
class _Planned:
    """What would be trained.

    Attributes:
        recipe: all flags.
        record: the model, and its labels.
        shards: what it would be trained on.
        validation: what it would be evaluated on, if anything.
        devices: on what.
        teacher: whose outputs would be learnt, if there is one.
    """

    recipe: Recipe
    record: ModelRecord
    shards: Shards
    validation: Shards | None
    devices: Devices
    teacher: Teacher | None


def examine(
    model: ModelFlags,
    data: DataFlags,
    augmentation: AugmentationFlags,
    optimization: OptimizationFlags,
    distribution: DistributionFlags,
    run_flags: ExaminedRunFlags,
    flags: DoctorFlags,
) -> int:
    """Measures what binds training on this machine, and checks it before a long run.

    Exit codes: 0 a run can start, 1 or 2 data, machine or flags would stop it.
    """
    if flags.output:
        files.require_writable_file(flags.output, "output")
    if distribution.strategy == "multi_worker":  # one machine is looked at, not its cluster
        distribution = dataclasses.replace(distribution, strategy="auto")
    recipe = Recipe(model, data, augmentation, optimization, distribution, run_flags.of_training)
    from training import runtime

    runtime.start()
    planned = _plan(recipe)
    notes = [*_notes(planned), *runtime.describe()]
    findings = list(_findings(planned, flags.deep))
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        for finding in errors:
            logging.error("%s: %s", finding.check, finding.text)
        _write(flags, notes, findings)
        return 1
    from training.shard_errors import named_shard_errors

    with named_shard_errors(planned.shards):
        measured = _measure(planned, flags)
    from training.diagnosis.rates import peak_memory
    from training.diagnosis.show import show
    from training.diagnosis.verdict import verdict
    from training.words import bytes_in_words

    notes.append(f"this process took {bytes_in_words(peak_memory())} of memory at most")
    judged = verdict(measured)
    show(notes, findings, measured, judged)
    _write(flags, notes, findings, measured, judged)
    return 0


def _plan(recipe: Recipe) -> _Planned:
    """Sets up what training would, by its own rules, but for what it trains and writes.

    Raises:
        UserError: training would refuse flags or data.
    """
    from training import runtime
    from training.strategies import choose_devices, without_cluster

    devices = choose_devices(recipe.distribution, without_cluster(os.environ))
    runtime.set_precision(recipe.distribution.precision)
    from training.diagnosis.rates import make_teacher
    from training.readers import open_split
    from training.train import make_record, require_same_classes, require_stoppable

    data = recipe.data
    shards = open_split(data, data.train_split)
    validation = open_split(data, data.eval_split) if data.eval_split else None
    if validation:
        require_same_classes(data, shards.classes, validation.classes)
    record, _ = make_record(recipe, shards.classes)
    require_stoppable(recipe)
    teacher = make_teacher(recipe, record, devices)
    return _Planned(recipe, record, shards, validation, devices, teacher)


def _notes(planned: _Planned) -> Iterator[str]:
    from training.diagnosis.checks import available_memory
    from training.words import bytes_in_words

    memory, precision = available_memory(), planned.recipe.distribution.precision
    free = f", {bytes_in_words(memory)} of memory free" if memory is not None else ""
    yield f"{_cores()} cores{free}; {planned.devices.description}, {precision}"
    for split in filter(None, (planned.shards, planned.validation)):
        yield (
            f"{split.num_examples:,} examples in {len(split.paths)} shards of {split.name},"
            f" {bytes_in_words(split.mean_record_bytes)} each"
        )
    if planned.teacher:
        config = planned.teacher.record.config
        yield f"each step asks a teacher: {config.name}, width {config.width_multiplier:g}"


def _findings(planned: _Planned, deep: bool) -> Iterator[Finding]:
    from training.diagnosis import checks
    from training.readers.synthetic import SYNTHETIC

    recipe, shards, devices = planned.recipe, planned.shards, planned.devices
    options, config = recipe.optimization, planned.record.config
    yield checks.check_disk(recipe.run.model_dir, recipe, config)
    if recipe.data.dataset_name != SYNTHETIC:
        yield from checks.check_split(shards, _SAMPLED_RECORDS, deep)
        if planned.validation:
            yield from checks.check_split(planned.validation, _SAMPLED_RECORDS, deep, "evaluation")
    batch = checks.check_batch(recipe, devices, shards.num_examples)
    yield batch
    if batch.level != checks.ERROR:
        local = devices.num_replicas // devices.num_workers
        share = devices.replica_batch(options.batch_size)
        teacher = planned.teacher.record.config if planned.teacher else None
        yield checks.check_memory(recipe, config, shards.mean_record_bytes, local, share, teacher)
    if not recipe.run.init_checkpoint:  # whose statistics would be a good start
        yield from checks.check_decays(config, options, shards.num_examples)


def _measure(planned: _Planned, flags: DoctorFlags) -> Measurements:
    """All rates, each of them measured alone."""
    import tensorflow as tf

    from training.diagnosis import other_settings, rates
    from training.diagnosis.verdict import Measurements
    from training.input_pipeline import TrainingInput

    recipe, record, shards = planned.recipe, planned.record, planned.shards
    devices, data, seconds = planned.devices, recipe.data, flags.seconds
    options = TrainingInput(
        batch_size=recipe.optimization.batch_size,
        size=record.config.resolution,
        seed=recipe.run.seed,
        augmentation=recipe.augmentation,
        num_streams=data.num_streams,
        shuffle_window=data.shuffle_window,
    )
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    has_tpu = isinstance(devices.strategy, tf.distribute.TPUStrategy)
    steps = rates.StepRates(recipe, record, devices, shards.num_examples, planned.teacher)
    measured = Measurements(
        read=rates.read_rate(shards, data.shuffle_window, seconds),
        decode=rates.decode_rate(shards, seconds),
        augment=rates.input_rate(shards, options, seconds),
        step=steps.of_made_up_batches(seconds),
        host=steps.of_training(shards, options, seconds),
        cores=_cores(),
        batch_size=options.batch_size,
        steps_per_call=recipe.run.steps_per_call,
        resolution=record.config.resolution[0],
        shares_cores=not (has_gpu or has_tpu),
        augmentation=recipe.augmentation.augmentation,
    )
    if not flags.try_settings or has_tpu:
        return measured
    tried = {}
    for setting in other_settings.settings_to_try(recipe, other_settings.cpu_flags(), has_gpu):
        logging.info("trying %s", setting.name)
        try:
            tried[setting.name] = other_settings.rate_under(setting, recipe, record, seconds)
        except UserError as error:
            logging.warning("%s", error)
    return dataclasses.replace(measured, settings=tried)


def _write(
    flags: DoctorFlags,
    notes: list[str],
    findings: list[Finding],
    measured: Measurements | None = None,
    judged: object = None,
) -> None:
    if flags.output:
        files.write_json(
            flags.output,
            {
                "notes": notes,
                "checks": [dataclasses.asdict(finding) for finding in findings],
                "measured": dataclasses.asdict(measured) if measured else None,
                "verdict": dataclasses.asdict(judged) if judged else None,
            },
        )


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    run(
        examine,
        ModelFlags,
        DataFlags,
        AugmentationFlags,
        OptimizationFlags,
        DistributionFlags,
        ExaminedRunFlags,
        DoctorFlags,
    )
