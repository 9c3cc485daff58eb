"""The stages of a run for schedulers: commands with placeholders, and which waits for which.

Made from the same table as `pipeline.run`. Nothing of what is planned need be seen from here, since
a scheduler's machines see other disks and buckets than the one that writes its files: paths below
the run's directory begin with `WORK_DIR`, which each format replaces by what it takes there.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from common import files
from common.command import to_flags
from common.errors import UsageError, UserError
from pipeline.experiments import SCRATCH, Experiment
from pipeline.report import ReportConfig
from pipeline.stage import Stage
from pipeline.stages import DRAWN, TFDS_SOURCES, TRAIN, VALIDATION, plan_stages
from preprocessing.build_dataset import BuildConfig
from training.config import RunFlags

WORK_DIR = "{work_dir}"
_TFDS = "tfds:"
_HOLDOUT_FRACTION = 0.2  # as of a directory that pipeline.run finds to be one tree


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where the photos lie, as `preprocessing.build_dataset` takes them.

    Attributes:
        train: of the training split.
        validation: of the other; empty to hold a part of `train` out for it.
    """

    train: str
    validation: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """A stage as a scheduler takes it.

    Attributes:
        name: the stage's, of letters, digits and hyphens.
        words: the module and its flags, as the containers' entry point takes them.
        needs: names of the tasks that must have succeeded before; what these need is left out.
        level: length of the longest way to it, from 1 on; tasks of one level may run together.
        trains: whether it is the one that accelerators and several workers are for.
    """

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    level: int
    trains: bool

    def words_in(self, work_dir: str) -> list[str]:
        """The words for a run in `work_dir`."""
        return [word.replace(WORK_DIR, work_dir) for word in self.words]


def is_shared(path: str) -> bool:
    """Whether a path can mean the same on all machines of a scheduler."""
    return files.is_remote(path) or os.path.isabs(path)


def plan_tasks(
    experiment: Experiment, dataset: str, init: str, sources: Sources | None = None
) -> list[Task]:
    """All stages of a run as tasks, in an order in which they can run.

    Args:
        experiment: what is trained, and how.
        dataset: as --dataset of `pipeline.run`; only a name where `sources` are given.
        init: scratch, or the path of a checkpoint.
        sources: photos that only the scheduler's machines see.

    Raises:
        UserError: there are no such photos.
        UsageError: the run needs what is on this machine.
    """
    stages = [_portable(stage, init) for stage in _plan(experiment, dataset, init, sources)]
    needs = {stage.name: _needs(stage, stages[:place]) for place, stage in enumerate(stages)}
    return _numbered(
        [
            Task(
                name=_task_name(stage.name),
                words=(
                    stage.command.partition(":")[0],
                    *(word for config in stage.configs for word in to_flags(config)),
                ),
                needs=tuple(map(_task_name, _direct(needs, stage.name))),
                level=0,
                trains=any(isinstance(config, RunFlags) for config in stage.configs),
            )
            for stage in stages
        ]
    )


def choose_tasks(tasks: list[Task], names: tuple[str, ...]) -> list[Task]:
    """The tasks of these names alone; what the others would write must be there.

    Raises:
        UsageError: there is none of some name.
    """
    needs = {task.name: task.needs for task in tasks}
    unknown = [name for name in names if name not in needs]
    if unknown:
        raise UsageError(f"--stages: there is no {unknown[0]!r}, but {', '.join(needs)}")
    # Two that are chosen may hang together by one that is not.
    closed = {name: [other for other in _closure(needs, name) if other in names] for name in names}
    return _numbered(
        [
            dataclasses.replace(task, needs=tuple(_direct(closed, task.name)))
            for task in tasks
            if task.name in names
        ]
    )


def _numbered(tasks: list[Task]) -> list[Task]:
    levels: dict[str, int] = {}
    for task in tasks:
        levels[task.name] = 1 + max((levels[name] for name in task.needs), default=0)
    return [dataclasses.replace(task, level=levels[task.name]) for task in tasks]


def _task_name(stage_name: str) -> str:
    return stage_name.replace(" ", "-")


def _plan(experiment: Experiment, dataset: str, init: str, sources: Sources | None) -> list[Stage]:
    if init != SCRATCH and not is_shared(init):
        raise UsageError(
            f"--init={init}: the scheduler's machines do not have what lies on this one; take"
            f" --init={SCRATCH}, or the path of a checkpoint in a bucket or on their disk"
        )
    if sources is None:
        try:
            stages = plan_stages(experiment, dataset, WORK_DIR, SCRATCH)
        except UserError as error:
            raise UserError(
                f"{error}; where only the scheduler's machines see them, --train_source and"
                " --validation_source say where they are"
            ) from None
    else:
        if dataset in (*DRAWN, *TFDS_SOURCES) or dataset.startswith(_TFDS):
            raise UsageError(
                f"--dataset={dataset} says by itself where its photos are: leave out --train_source"
                " and --validation_source, or give the data set another name"
            )
        # Of a TFDS data set nothing is looked at while it is planned; its last part is its name.
        stages = [
            _built_from(stage, sources)
            for stage in plan_stages(experiment, f"{_TFDS}/{dataset}", WORK_DIR, SCRATCH)
        ]
    for path in (path for stage in stages for path in stage.folders):
        if not is_shared(path):
            raise UsageError(
                f"{path} means nothing to the scheduler's machines: give an absolute path, or one"
                " in a bucket"
            )
    return stages


def _built_from(stage: Stage, sources: Sources) -> Stage:
    """The stage, taking photos from `sources` if it is one that takes photos."""
    build = stage.configs[0]
    if not isinstance(build, BuildConfig):
        return stage
    by_split = {TRAIN: sources.train, VALIDATION: sources.validation or sources.train}
    source = by_split[build.split]
    fraction = 0.0 if sources.validation else _HOLDOUT_FRACTION
    build = dataclasses.replace(build, source=source, holdout_fraction=fraction)
    return dataclasses.replace(stage, configs=(build,), folders=(source,))


def _portable(stage: Stage, init: str) -> Stage:
    """The stage as it runs on another machine, where nobody types commands."""

    def changed(config: Any) -> Any:
        if isinstance(config, RunFlags) and init != SCRATCH:
            return dataclasses.replace(config, init_checkpoint=init)
        if isinstance(config, ReportConfig):  # only pipeline.run writes that file
            return dataclasses.replace(config, commands="")
        return config

    return dataclasses.replace(stage, configs=tuple(map(changed, stage.configs)))


def _needs(stage: Stage, earlier: list[Stage]) -> list[str]:
    """Names of the earlier stages that must have succeeded.

    Those that write what it reads; those that write nothing, and so only check something that it
    reads; and those that own parts of the same folder, since the parts of a folder keep a common
    account there and a bucket has no locks.
    """
    reads, folders = set(stage.inputs), _folders(stage)
    return [
        other.name
        for other in earlier
        if reads & set(other.outputs)
        or (stage.outputs and not other.outputs and reads & set(other.inputs))
        or folders & _folders(other)
    ]


def _folders(stage: Stage) -> set[str]:
    return {pattern.partition("/")[0] for pattern in stage.owns if "/" in pattern}


def _closure(needs: dict[str, Any], name: str) -> list[str]:
    """All that must have succeeded before, in the order of `needs`."""
    found: set[str] = set()
    waiting = list(needs[name])
    while waiting:
        found.add(other := waiting.pop())
        waiting += [before for before in needs[other] if before not in found]
    return [other for other in needs if other in found]


def _direct(needs: dict[str, Any], name: str) -> list[str]:
    """What it needs, without what that needs in turn."""
    implied = {before for other in needs[name] for before in _closure(needs, other)}
    return [other for other in needs[name] if other not in implied]
