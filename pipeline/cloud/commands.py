"""What a job runs: the command of each stage, and whether its words really are that command's."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common import command, files
from common.errors import UsageError
from pipeline.cloud.topologies import Topology
from pipeline.evaluate import EvaluateConfig
from pipeline.experiments import Experiment
from pipeline.export import ExportConfig, Int8Flags, ParityFlags
from pipeline.publish import PublishConfig
from pipeline.run import RunConfig
from pipeline.train_recipe import RecipeConfig, with_recipe
from preprocessing.build_dataset import BEAM_OPTIONS, TRAIN, BuildConfig
from training.config import FLAG_GROUPS, Recipe

PREPROCESS, TRAINING, EVALUATION, EXPORT, PUBLISH, RUN = STAGES = (
    "preprocess",
    "train",
    "evaluate",
    "export",
    "publish",
    "run",
)

# The entry point of every job; its first word is a command of this project.
JOB_MODULE = "pipeline.job"

# What Vertex AI makes of a job's baseOutputDirectory, by the variables that it sets in the job.
_CHECKPOINTS, _MODEL, _LOGS = "checkpoints", "model", "logs"
_VARIABLES = {
    "AIP_CHECKPOINT_DIR": _CHECKPOINTS,
    "AIP_MODEL_DIR": _MODEL,
    "AIP_TENSORBOARD_LOG_DIR": _LOGS,
}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of this project, as the entry point of a job takes it.

    Attributes:
        module: its module.
        words: its flags, and what stands behind them.
    """

    module: str
    words: tuple[str, ...]

    @property
    def all_words(self) -> list[str]:
        return [self.module, *self.words]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a job reads and writes, all of it `gs://`.

    Attributes:
        bucket: the bucket, as gs://NAME.
        data_dir: the shards.
        run_dir: what the stages of one run write; Vertex AI's baseOutputDirectory.
        published: where versions are published to.
    """

    bucket: str
    data_dir: str
    run_dir: str
    published: str

    @property
    def checkpoints(self) -> str:
        return files.join(self.run_dir, _CHECKPOINTS)

    @property
    def export_dir(self) -> str:
        return files.join(self.run_dir, _MODEL)

    @property
    def evaluation(self) -> str:
        return files.join(self.run_dir, "evaluation.json")


@dataclasses.dataclass(frozen=True)
class Dataflow:
    """What Dataflow is told when a build is started on it.

    Attributes:
        project: where the job runs.
        region: likewise.
        image: what its workers run.
        service_account: as whom they do.
    """

    project: str
    region: str
    image: str
    service_account: str


def stage_command(
    stage: str,
    experiment: Experiment | None,
    topology: Topology,
    places: Places,
    more: Sequence[str] = (),
    dataflow: Dataflow | None = None,
) -> Command:
    """The command of a stage for these machines and places; `more` of its flags win over ours.

    Args:
        stage: one of STAGES.
        experiment: needed for TRAINING and RUN; says how many shards PREPROCESS writes.
        topology: its strategy is said.
        places: where things are.
        more: flags of the command itself; for PREPROCESS Beam's behind a further `--`.
        dataflow: needed for PREPROCESS.

    Raises:
        UsageError: `more` has what the stage says itself.
    """
    if stage == PREPROCESS:
        assert dataflow
        return _build(experiment, places, more, dataflow)
    recipe = experiment.name if experiment else ""
    strategy = f"--strategy={topology.strategy}"
    data, checkpoint = f"--data_dir={places.data_dir}", f"--checkpoint_path={places.checkpoints}"
    # Each worker waits for an evaluation; with an evaluator only for the one at the end.
    seldom = []
    if topology.evaluator and experiment:
        seldom = [f"--eval_every_epochs={experiment.recipe.optimization.epochs}"]
    # Where a stage has a flag for what Vertex AI says by a variable, the variable says it, so that
    # each trial of a tuning job writes to a place of its own.
    module, words = {
        TRAINING: ("pipeline.train_recipe", [f"--recipe={recipe}", data, strategy, *seldom]),
        EVALUATION: (
            "pipeline.evaluate",
            [checkpoint, data, f"--output={places.evaluation}", strategy],
        ),
        EXPORT: ("pipeline.export", [checkpoint, data, f"--evaluation={places.evaluation}"]),
        PUBLISH: (
            "pipeline.publish",
            [f"--export_dir={places.export_dir}", f"--to={places.published}"],
        ),
        RUN: ("pipeline.run", [f"--experiment={recipe}"]),
    }[stage]
    return Command(module, (*words, *more))


def _build(
    experiment: Experiment | None, places: Places, more: Sequence[str], dataflow: Dataflow
) -> Command:
    """The build of one split, on Dataflow; behind a second `--` in `more` are options of Beam."""
    ours, beam = _split(more)
    if gives(ours, "runner"):
        raise UsageError(f"--stage={PREPROCESS} runs on Dataflow: leave --runner out")
    module, output = "preprocessing.build_dataset", f"--output_dir={places.data_dir}"
    shards = []
    if experiment:
        is_train = _split_of(Command(module, (output, *ours))) == TRAIN
        number = experiment.num_shards if is_train else experiment.num_validation_shards
        shards = [f"--num_shards={number}"]
    return Command(
        module,
        (
            output,
            *shards,
            *ours,
            *("--runner=DataflowRunner", "--"),
            *(f"--project={dataflow.project}", f"--region={dataflow.region}"),
            f"--temp_location={files.join(places.bucket, 'tmp')}",
            f"--sdk_container_image={dataflow.image}",
            f"--service_account_email={dataflow.service_account}",
            *("--machine_type=n2-standard-4", "--number_of_worker_harness_threads=2"),
            *("--num_workers=2", "--max_num_workers=20"),
            *beam,
        ),
    )


def _split_of(build: Command) -> str:
    """The split that a build writes; where its flags are wrong, a check will tell."""
    with contextlib.suppress(UsageError):
        return parse_command(build, {})[0].split
    return TRAIN


@dataclasses.dataclass(frozen=True)
class _Flags:
    """How a command's flags are parsed.

    Attributes:
        groups: its dataclasses, in order.
        passthrough: what stands behind a bare `--`; empty where nothing may.
        prepare: what the command does with its words before it parses them.
    """

    groups: tuple[type, ...]
    passthrough: str = ""
    prepare: Callable[[Sequence[str]], list[str]] = list


COMMANDS = {
    "preprocessing.build_dataset": _Flags((BuildConfig,), BEAM_OPTIONS),
    "training.train": _Flags(FLAG_GROUPS),
    "pipeline.train_recipe": _Flags((RecipeConfig, *FLAG_GROUPS), prepare=with_recipe),
    "pipeline.evaluate": _Flags((EvaluateConfig,)),
    "pipeline.export": _Flags((ExportConfig, ParityFlags, Int8Flags)),
    "pipeline.publish": _Flags((PublishConfig,)),
    "pipeline.run": _Flags((RunConfig,)),
}


def parse_command(wanted: Command, environment: Mapping[str, str]) -> list[Any]:
    """What the command would make of its words where `environment` is set.

    Raises:
        UsageError: there is no such command, or it would not take these words.
    """
    if wanted.module not in COMMANDS or not importlib.util.find_spec(wanted.module):
        raise UsageError(f"{wanted.module} is no command that runs as a job")
    flags = COMMANDS[wanted.module]
    words, _ = _split(wanted.words) if flags.passthrough else (wanted.words, ())
    with _environment(environment):
        return command.parse(
            flags.prepare(["", *words]), *flags.groups, passthrough=flags.passthrough
        )


def gives(words: Sequence[str], name: str) -> bool:
    """Whether the flag `name` is among the words, as --name=value or --name value."""
    return any(word.partition("=")[0] in (f"--{name}", f"-{name}") for word in words)


def words_behind(wanted: Command) -> tuple[str, ...]:
    """What stands behind the bare `--` of a command that takes such words."""
    return tuple(_split(wanted.words)[1]) if COMMANDS[wanted.module].passthrough else ()


def recipe_of(parsed: Sequence[Any]) -> Recipe | None:
    """The recipe in what `parse_command` returns; None where the command does not train by one."""
    groups = [value for value in parsed if isinstance(value, FLAG_GROUPS)]
    return Recipe(*groups) if groups else None


def variables_of(run_dir: str) -> dict[str, str]:
    """The variables that Vertex AI sets in a job with this baseOutputDirectory."""
    return {name: f"{files.join(run_dir, place)}/" for name, place in _VARIABLES.items()}


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(words)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Sets variables while flags are parsed, which take their defaults from them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
