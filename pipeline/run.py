"""The whole line from one experiment: `python -m pipeline.run`.

A stage that is finished and current is skipped: its settings are the same as last time, what it
read has the same content, and what it wrote is still there as it wrote it. A stage whose settings
or inputs have changed is run again, and what it wrote before is kept aside.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shlex
import time
from typing import Any

from common import command, files
from common.command import flag
from common.errors import UsageError, UserError
from pipeline.experiments import (
    DEMO_SCRATCH,
    EXPERIMENTS,
    SCRATCH,
    SMALL,
    TF1,
    Experiment,
    find_experiment,
)
from pipeline.stage import Stage
from pipeline.stages import DRAWN, TFDS_SOURCES, plan_stages
from preprocessing.demo_photos import DEMO, PRETRAINING
from training.config import FLAG_GROUPS, Recipe


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Which experiment, on what, where."""

    work_dir: str = flag(
        help="directory that everything is written to", variable="AIP_CHECKPOINT_DIR"
    )
    dataset: str = flag(
        DEMO,
        help=f"{DEMO} or {PRETRAINING} (drawn photos), {', '.join(TFDS_SOURCES)} or tfds:NAME, or a"
        " directory of class folders, or of train/ and validation/ with class folders",
    )
    init: str = flag(
        "",
        help=f"where training starts: {TF1} (a small TF1 checkpoint that comes with the demo, of"
        f" other things), {SCRATCH} (random weights), or the path of a TF1 or TF2 checkpoint; by"
        f" default {TF1} for the demo, {SCRATCH} for all else",
    )
    experiment: str = flag(
        "",
        help=f"recipe: {', '.join(EXPERIMENTS)}; by default that of the data set's own name,"
        f" for {DEMO} with --init={SCRATCH} {DEMO_SCRATCH.name}, and {SMALL.name} for all else",
    )
    train_flags: str = flag("", help="flags of training.train that change the recipe, in one word")


def run_line(config: RunConfig) -> None:
    """Runs every stage that is not finished, from photos to a report."""
    experiment = choose_experiment(config)
    init = config.init or experiment.init
    experiment = change_recipe(experiment, config.train_flags)
    stages = plan_stages(experiment, config.dataset, config.work_dir, init)
    files.require_writable(config.work_dir, "work_dir")
    _write_commands(stages)
    logging.info("experiment %s: %s", experiment.name, experiment.expectation)
    start = time.monotonic()
    _set_aside_outdated_data(stages, config.work_dir)
    for number, stage in enumerate(stages, 1):
        title = f"[{number}/{len(stages)}] {stage.name}"
        stamp, before = _stamp_of(stage, config.work_dir)
        asked = _what_is_asked(stage)
        if before and before["asked"] != asked:
            _set_aside(stage, config.work_dir)
        elif before and _is_there(before["written"], stage, config.work_dir):
            logging.info("%s: finished", title)
            continue
        logging.info("%s: %s", title, stage.command_line)
        stage_start = time.monotonic()
        files.write_json(stamp, {"asked": asked, "written": None})
        stage.function()(*stage.configs)
        _require_outputs(stage)
        written = _what_is_written(stage, config.work_dir)
        files.write_json(stamp, {"asked": asked, "written": written})
        logging.info("%s: done in %.0f s", title, time.monotonic() - stage_start)
    logging.info("all stages are finished, %.0f s", time.monotonic() - start)
    logging.info("report: %s", files.absolute(stages[-1].outputs[0]))


def choose_experiment(config: RunConfig) -> Experiment:
    """The recipe that is asked for, or that of the data set and the start."""
    if config.experiment:
        return find_experiment(config.experiment)
    if (config.dataset, config.init) == (DEMO, SCRATCH):
        return DEMO_SCRATCH
    named = config.dataset in (*DRAWN, *TFDS_SOURCES)
    return find_experiment(config.dataset if named else SMALL.name)


def change_recipe(experiment: Experiment, train_flags: str) -> Experiment:
    if not train_flags:
        return experiment
    words = [word for group in experiment.recipe.groups for word in command.to_flags(group)]
    try:
        changes = shlex.split(train_flags)
    except ValueError as error:
        raise UsageError(f"--train_flags={train_flags} cannot be split: {error}") from None
    recipe = Recipe(*command.parse(["", *words, *changes], *FLAG_GROUPS))
    if recipe.data.data_dir or recipe.run.model_dir:
        raise UsageError("--train_flags takes no --data_dir or --model_dir: --work_dir holds both")
    if recipe.data.dataset_name:
        raise UsageError("--train_flags takes no --dataset_name: --dataset says what is trained on")
    if recipe.run.init_checkpoint:
        raise UsageError("--train_flags takes no --init_checkpoint: name it by --init")
    return dataclasses.replace(experiment, recipe=recipe)


def _write_commands(stages: list[Stage]) -> None:
    """Keeps what a person would type for each stage, where the last of them, the report, looks."""
    lines = "".join(f"{stage.command_line}\n" for stage in stages)
    files.write_text(stages[-1].configs[0].commands, lines)


def _what_is_asked(stage: Stage) -> dict[str, Any]:
    """What must be the same for a stage to be current."""
    return {
        "command": stage.command_line,
        "inputs": _fingerprints(stage.inputs),
        "folders": {path: files.listing_fingerprint(path) for path in stage.folders},
    }


def _what_is_written(stage: Stage, work_dir: str) -> dict[str, Any]:
    """What must still be there for a stage to be finished: manifests by hash, the rest by size."""
    sizes = {}
    for name in _owned(stage, work_dir):
        path = files.join(work_dir, name)
        if files.is_directory(path):
            sizes |= {files.join(name, below): size for below, size in files.list_tree(path)}
        else:
            sizes[name] = files.file_size(path)
    return {"outputs": _fingerprints(stage.outputs), "sizes": sizes}


def _require_outputs(stage: Stage) -> None:
    """Stops where a stage went on from what it found and left out a file that was lost.

    Raises:
        UserError: it names the file.
    """
    for path in stage.outputs:
        if not files.exists(path):
            raise UserError(
                f"{path} is lost, and {stage.name!r} does not write it again as long as the rest is"
                f" there: move {files.parent(path)} away and run the same command again"
            )


def _is_there(written: dict[str, Any] | None, stage: Stage, work_dir: str) -> bool:
    """Whether all that a stage wrote is as it was; files that others have added do not matter."""
    if written is None:
        return False
    now = _what_is_written(stage, work_dir)
    return written["outputs"] == now["outputs"] and written["sizes"].items() <= now["sizes"].items()


def _fingerprints(paths: tuple[str, ...]) -> dict[str, str | None]:
    return {path: files.fingerprint(path) for path in paths}


def _stamp_of(stage: Stage, work_dir: str) -> tuple[str, dict[str, Any] | None]:
    """The path of a stage's stamp, and what it says; None if there is none."""
    path = files.join(work_dir, "stages", f"{stage.name.replace(' ', '-')}.json")
    return path, files.read_json(path) if files.exists(path) else None


def _set_aside_outdated_data(stages: list[Stage], work_dir: str) -> None:
    """Moves all splits of photos that have changed out of the way, before one is built anew.

    A split that is built beside an old one must have its classes.
    """
    for stage in stages:
        stamp, before = _stamp_of(stage, work_dir)
        if stage.folders and before and before["asked"] != (asked := _what_is_asked(stage)):
            _set_aside(stage, work_dir)
            files.write_json(stamp, {"asked": asked, "written": None})


def _set_aside(stage: Stage, work_dir: str) -> None:
    """Moves what the stage wrote under other settings out of the way; nothing is deleted."""
    found = _owned(stage, work_dir)
    if not found:
        return
    numbers = (files.join(work_dir, "outdated", str(n)) for n in itertools.count(1))
    directory = next(path for path in numbers if not files.exists(path))
    logging.info("settings or inputs of %s have changed: the old is in %s", stage.name, directory)
    for name in found:
        files.move(files.join(work_dir, name), files.join(directory, name))


def _owned(stage: Stage, work_dir: str) -> list[str]:
    """The files and directories that the stage wrote, as far as they are there, in `work_dir`."""
    return [name for pattern in stage.owns for name in files.find(work_dir, pattern)]


if __name__ == "__main__":
    command.run(run_line, RunConfig)
