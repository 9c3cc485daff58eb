"""Examines a machine before a long run: `python -m training.doctor`.

Takes the flags of `training.train` that say what would be trained on what. Measures reading,
decoding, the input pipeline, the step and the trainer's loop one at a time; names which one binds,
what this machine could reach and which setting to change; and checks disk, data, batch, memory and
decays. Nothing is trained or kept.
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
    from training.models import ModelRecord
    from training.shards import Shards
    from training.strategies import Devices

_SAMPLED_RECORDS = 64


@dataclasses.dataclass(frozen=True)
class DoctorFlags:
    """How thoroughly it looks."""

    model_dir: str = flag(
        "", help="where the run would live, whose disk is looked at; empty for nowhere yet"
    )
    steps_per_call: int = flag(20, help="as training.train takes it")
    keep_checkpoints: int = flag(3, help="as training.train takes it")
    seconds: float = flag(5.0, help="how long each of the measurements takes")
    deep: bool = flag(False, help="check every record's checksum; it reads the whole split")
    try_settings: bool = flag(
        True,
        help="measure the step under other settings too, each in a process of its own: about half"
        " a minute each",
    )
    output: str = flag("", help="JSON file for all that was found")

    def __post_init__(self):
        if self.seconds <= 0:
            raise UsageError(f"--seconds must be above 0, not {self.seconds}")


def examine(
    model: ModelFlags,
    data: DataFlags,
    augmentation: AugmentationFlags,
    optimization: OptimizationFlags,
    distribution: DistributionFlags,
    flags: DoctorFlags,
) -> int:
    """Measures what binds training on this machine, and checks it before a long run.

    Exit codes: 0 a run can start, 1 a check has found what would stop it.
    """
    if flags.output:
        files.require_writable_file(flags.output, "output")
    run_flags = RunFlags(
        flags.model_dir,
        steps_per_call=flags.steps_per_call,
        keep_checkpoints=flags.keep_checkpoints,
    )
    if distribution.strategy == "multi_worker":  # one machine is looked at, not its cluster
        distribution = dataclasses.replace(distribution, strategy="auto")
    recipe = Recipe(model, data, augmentation, optimization, distribution, run_flags)
    from training import runtime

    runtime.start()
    from training.initial import choose_labels
    from training.models import ModelRecord
    from training.readers import open_split
    from training.shard_errors import named_shard_errors
    from training.strategies import choose_devices

    devices = choose_devices(distribution, {})
    runtime.set_precision(distribution.precision)
    shards = open_split(data, data.train_split)
    outputs, labels = choose_labels(model, shards.classes, None)
    record = ModelRecord(model.config(outputs), labels, shards.classes, augmentation.input_range)
    notes = [*_notes(recipe, shards, devices), *runtime.describe()]
    findings = list(_findings(recipe, record, shards, devices, flags))
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        for finding in errors:
            logging.error("%s: %s", finding.check, finding.text)
        _write(flags, notes, findings)
        return 1
    with named_shard_errors(shards):
        measured = _measure(recipe, record, shards, devices, flags)
    from training.diagnosis.rates import peak_memory
    from training.diagnosis.show import show
    from training.diagnosis.verdict import verdict
    from training.words import bytes_in_words

    notes.append(f"this process took {bytes_in_words(peak_memory())} of memory at most")
    judged = verdict(measured)
    show(notes, findings, measured, judged)
    _write(flags, notes, findings, measured, judged)
    return 0


def _notes(recipe: Recipe, shards: Shards, devices: Devices) -> Iterator[str]:
    from training.diagnosis.checks import available_memory
    from training.words import bytes_in_words

    memory = available_memory()
    free = f", {bytes_in_words(memory)} of memory free" if memory is not None else ""
    yield f"{_cores()} cores{free}; {devices.description}, {recipe.distribution.precision}"
    yield (
        f"{shards.num_examples:,} examples in {len(shards.paths)} shards of {shards.name},"
        f" {bytes_in_words(shards.mean_record_bytes)} each"
    )


def _findings(
    recipe: Recipe, record: ModelRecord, shards: Shards, devices: Devices, flags: DoctorFlags
) -> Iterator[Finding]:
    from training.diagnosis import checks
    from training.readers.synthetic import SYNTHETIC

    options, config = recipe.optimization, record.config
    yield checks.check_disk(flags.model_dir, recipe, config)
    if recipe.data.dataset_name != SYNTHETIC:
        whole = checks.check_sizes(shards)
        yield whole
        if whole.level == checks.OK:
            if flags.deep:
                yield checks.check_all_records(shards)
            yield checks.check_records(
                shards, checks.sample_of(shards.num_examples, _SAMPLED_RECORDS)
            )
    batch = checks.check_batch(recipe, devices, shards.num_examples)
    yield batch
    if batch.level != checks.ERROR:
        local = devices.num_replicas // devices.num_workers
        share = devices.replica_batch(options.batch_size)
        yield checks.check_memory(recipe, config, shards.mean_record_bytes, local, share)
    yield from checks.check_decays(config, options, shards.num_examples)


def _measure(
    recipe: Recipe, record: ModelRecord, shards: Shards, devices: Devices, flags: DoctorFlags
) -> Measurements:
    """All rates, each of them measured alone."""
    import tensorflow as tf

    from training.diagnosis import other_settings, rates
    from training.diagnosis.verdict import Measurements
    from training.input_pipeline import TrainingInput

    data, seconds = recipe.data, flags.seconds
    options = TrainingInput(
        batch_size=recipe.optimization.batch_size,
        size=record.config.resolution,
        seed=0,
        augmentation=recipe.augmentation,
        num_streams=data.num_streams,
        shuffle_window=data.shuffle_window,
    )
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    has_tpu = isinstance(devices.strategy, tf.distribute.TPUStrategy)
    steps = rates.StepRates(recipe, record, devices, shards.num_examples)
    measured = Measurements(
        read=rates.read_rate(shards, data.shuffle_window, seconds),
        decode=rates.decode_rate(shards, seconds),
        augment=rates.input_rate(shards, options, seconds),
        step=steps.of_made_up_batches(seconds),
        host=steps.of_training(shards, options, seconds),
        cores=_cores(),
        batch_size=options.batch_size,
        steps_per_call=flags.steps_per_call,
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
            tried[setting.name] = other_settings.rate_under(
                setting, recipe, record.config.num_classes, seconds
            )
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
        DoctorFlags,
    )
