"""What can be known to be wrong with a job before it is sent, without asking the cloud."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UsageError
from pipeline.cloud.commands import (
    JOB_MODULE,
    Command,
    gives,
    parse_command,
    recipe_of,
    variables_of,
    words_behind,
)
from pipeline.cloud.machines import MACHINE_TYPES
from pipeline.cloud.specs import continent_of, custom_job_of
from pipeline.cloud.topologies import Topology
from pipeline.evaluate import EvaluateConfig
from pipeline.experiments import DEMO, DEMO_SCRATCH, SCRATCH, TF1
from pipeline.run import RunConfig, change_recipe, choose_experiment
from pipeline.stages import DRAWN, TFDS_SOURCES
from training.config import Recipe

_DATAFLOW = "DataflowRunner"
_WORKER_POOLS = 4
_TASKS = ("containerSpec", "pythonPackageSpec")
# All flags that name what a job reads and writes.
PATH_FLAGS = (
    *("source", "output_dir", "labels", "classes", "class_text", "bounding_boxes", "tfds_dir"),
    *("data_dir", "model_dir", "log_dir", "init_checkpoint", "teacher_checkpoint"),
    *("checkpoint_path", "export_dir", "evaluation", "output", "to"),
    *("work_dir", "dataset", "init"),
)
ELSEWHERE = ("gs://", "/gcs/")
_TFDS = "tfds:"
# Values that are no paths.
_NAMES = {"dataset": (*DRAWN, *TFDS_SOURCES), "init": (TF1, SCRATCH)}
_REGISTRY = re.compile(r"((?P<old>[a-z]*)\.?gcr\.io)|((?P<place>.+)-docker\.pkg\.dev)")


class Outcome(enum.Enum):
    """What a check came to; the value is the mark before its line."""

    RIGHT = "✓"
    WRONG = "✗"
    DOUBTFUL = "!"
    UNCHECKED = "?"


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at, in a line."""

    outcome: Outcome
    text: str

    def __str__(self) -> str:
        return f"{self.outcome.value} {self.text}"


def right(text: str) -> Check:
    return Check(Outcome.RIGHT, text)


def wrong(text: str) -> Check:
    return Check(Outcome.WRONG, text)


def check_fields(spec: dict[str, Any]) -> Check:
    """Each field against Vertex AI's protos: name, type, and the values of enumerations."""
    try:
        # Not the package above it, google.cloud.aiplatform, which takes seconds to import.
        from google.cloud import aiplatform_v1
    except ImportError:
        return Check(
            Outcome.UNCHECKED,
            "fields are not checked: that needs google-cloud-aiplatform, which the extra 'vertex'"
            " installs",
        )
    from google.protobuf import json_format

    is_tuning = "trialJobSpec" in spec
    kind = aiplatform_v1.HyperparameterTuningJob if is_tuning else aiplatform_v1.CustomJobSpec
    try:
        json_format.ParseDict(spec, kind.pb(kind()))
    except json_format.ParseError as error:
        return wrong(f"fields: {' '.join(str(error).split())}")
    return right(f"every field is one of Vertex AI's {kind.__name__}")


def check_shape(spec: dict[str, Any]) -> list[Check]:
    """What Vertex AI asks for though its protos do not."""
    pools = custom_job_of(spec).get("workerPoolSpecs", [])
    found = [wrong(text) for text in _mistakes_of_shape(pools)]
    if found:
        return found
    machines = sum(int(pool.get("replicaCount", 0)) for pool in pools)
    return [right(f"{machines} machine{'s' if machines > 1 else ''}, one of them the chief")]


def _mistakes_of_shape(pools: Sequence[dict[str, Any]]) -> list[str]:
    if not pools or not pools[0]:
        return ["there is no chief: workerPoolSpecs must begin with it"]
    mistakes = []
    if len(pools) > _WORKER_POOLS:
        mistakes.append(f"there are {len(pools)} worker pools, and {_WORKER_POOLS} places for them")
    if pools[0].get("replicaCount") != 1:
        mistakes.append(f"worker pool 0, the chief, must have one machine: {pools[0]}")
    for place, pool in enumerate(pools):
        if not pool:
            continue
        if not pool.get("machineSpec", {}).get("machineType"):
            mistakes.append(f"worker pool {place} has no machineSpec.machineType")
        tasks = [name for name in _TASKS if name in pool]
        if len(tasks) != 1:
            mistakes.append(f"worker pool {place} must have one of {' and '.join(_TASKS)}")
        elif not _is_whole(pool[tasks[0]]):
            mistakes.append(f"worker pool {place} does not say what it runs: {pool[tasks[0]]}")
    is_tpu = any("tpu" in p.get("machineSpec", {}).get("machineType", "") for p in pools)
    if is_tpu and sum(pool.get("replicaCount", 0) for pool in pools) > 1:
        mistakes.append("a TPU must be the only machine of its job: no evaluator, no other workers")
    return mistakes


def _is_whole(task: dict[str, Any]) -> bool:
    needed = ("executorImageUri", "packageUris", "pythonModule")
    return bool(task.get("imageUri") or all(task.get(name) for name in needed))


def check_machines(spec: dict[str, Any]) -> list[Check]:
    """Whether each machine may have its accelerators, in that number."""
    checks = {}
    for pool in custom_job_of(spec).get("workerPoolSpecs", []):
        if machine := pool.get("machineSpec"):
            check = _check_machine(machine)
            checks[check.text] = check
    return list(checks.values())


def _check_machine(machine: dict[str, Any]) -> Check:
    name = machine.get("machineType", "")
    accelerator = machine.get("acceleratorType", "")
    count, layout = machine.get("acceleratorCount", 0), machine.get("tpuTopology", "")
    known = MACHINE_TYPES.get(name)
    if known is None:
        return Check(
            Outcome.UNCHECKED,
            f"{name} is not in the table of machine types, pipeline.cloud.machines",
        )
    if layout or known.tpu_topologies:
        if layout not in known.tpu_topologies:
            there = ", ".join(known.tpu_topologies) or "none"
            return wrong(f"{name} cannot have tpuTopology {layout or 'nothing'}: there is {there}")
        return right(f"{name} is a TPU of {layout}")
    if not accelerator:
        if known.required:
            return wrong(f"{name} must have {_choices(known.counts)}, and none is asked for")
        return right(f"{name} without accelerators")
    if accelerator not in known.counts:
        return wrong(f"{name} cannot have {accelerator}: it may have {_choices(known.counts)}")
    if count not in known.counts[accelerator]:
        allowed = {accelerator: known.counts[accelerator]}
        return wrong(f"{name} cannot have {count} {accelerator}, but {_choices(allowed)}")
    return right(f"{name} may have {count} {accelerator}")


def _choices(counts: Mapping[str, Sequence[int]]) -> str:
    words = [f"{' or '.join(map(str, each))} {name}" for name, each in counts.items()]
    return ", ".join(words) or "no accelerators"


def check_command(command: Command, run_dir: str) -> tuple[Check, list[Any]]:
    """Whether the command exists and takes its words; and what it makes of them, if it does."""
    try:
        parsed = parse_command(command, variables_of(run_dir))
    except UsageError as error:
        return wrong(f"{command.module}: {error}"), []
    return right(f"{command.module} takes these flags"), parsed


def check_entry_point(spec: dict[str, Any]) -> Check:
    """Whether the module that a package starts with is there; an image has its own."""
    pools = custom_job_of(spec)["workerPoolSpecs"]
    module = pools[0].get("pythonPackageSpec", {}).get("pythonModule", JOB_MODULE)
    if importlib.util.find_spec(module) is None:
        return wrong(f"the entry point {module} does not exist")
    return right(f"the entry point {module} exists")


def check_paths(parsed: Sequence[Any]) -> list[Check]:
    """Those of the job's paths that are of one machine only, and are gone with it."""
    return [
        wrong(
            f"--{name}={path} is a path on the job's own machine: give gs://BUCKET/..., or"
            " /gcs/BUCKET/..., where Vertex AI shows buckets as files"
        )
        for name, path in paths_in(parsed)
        if not path.startswith(ELSEWHERE)
    ]


def check_run(parsed: Sequence[Any], words: Sequence[str]) -> list[Check]:
    """Whether the whole line is told what to train on, and where to start; for RUN alone."""
    runs = [flags for flags in parsed if isinstance(flags, RunConfig)]
    if not runs:
        return []
    (flags,) = runs
    try:
        experiment = change_recipe(choose_experiment(flags), flags.train_flags)
    except UsageError as error:
        return [wrong(str(error))]
    found = []
    if not gives(words, "dataset") and experiment.name not in (DEMO.name, DEMO_SCRATCH.name):
        found.append(
            wrong(
                f"{experiment.name} would train on the demo's drawn photos: say on which, --"
                " --dataset=gs://..."
            )
        )
    if not (flags.init or experiment.init):
        found.append(wrong("this recipe starts from a checkpoint: say which, -- --init=gs://..."))
    return found or [right(f"{experiment.name} trains on {flags.dataset}")]


def paths_in(parsed: Sequence[Any]) -> list[tuple[str, str]]:
    """What a job reads and writes, by the flags that say so."""
    found = []
    for flags in parsed:
        for name in PATH_FLAGS:
            value = getattr(flags, name, "") or ""
            several = name == "data_dir" and isinstance(flags, EvaluateConfig)
            found += [(name, path.strip()) for path in (value.split(",") if several else [value])]
    return [(name, path) for name, path in found if path and not _is_name(name, path)]


def _is_name(flag: str, value: str) -> bool:
    """Whether a flag that takes a path is given what the command knows by its name."""
    takes_tfds = flag in ("source", "dataset")
    return value in _NAMES.get(flag, ()) or (takes_tfds and value.startswith(_TFDS))


def check_beam(command: Command) -> Check | None:
    """Whether Beam knows the options behind the `--` of a build; None for other commands."""
    if f"--runner={_DATAFLOW}" not in command.words:
        return None
    if importlib.util.find_spec("apitools") is None:
        return Check(
            Outcome.UNCHECKED,
            "options behind the second -- are not checked: that needs Beam's Google Cloud parts,"
            " which the extra 'gcp' installs",
        )
    from preprocessing.runners.options import check_options

    try:
        check_options(_DATAFLOW, words_behind(command))
    except UsageError as error:
        return wrong(str(error))
    return right("Beam knows the options behind the second --")


def check_start(recipe: Recipe, needs_checkpoint: bool) -> Check | None:
    """Whether a recipe that starts from a checkpoint is given one; None where it needs none."""
    if not needs_checkpoint:
        return None
    if not recipe.run.init_checkpoint:
        return wrong(
            "this recipe starts from a checkpoint: say which, -- --init_checkpoint=gs://..."
        )
    return right(f"it starts from {recipe.run.init_checkpoint}")


def check_strategy(strategy: str, hosts: int, devices: int, tpu: bool | None = None) -> str:
    """Why `--strategy` does not suit the machines of a job, in a line; empty if it does.

    Args:
        strategy: the flag's value.
        hosts: machines that work together.
        devices: accelerators of each of them; 1, or 0, for the processors alone.
        tpu: whether these are of a TPU; None if nobody knows.
    """
    named = f"--strategy={strategy}"
    if strategy == "auto":
        return ""
    if tpu is not None and tpu != (strategy == "tpu"):
        return f"{named} on a TPU: take tpu" if tpu else f"{named}, but there is no TPU"
    if hosts > 1 and strategy != "multi_worker":
        return f"{named} is for one host, and there are {hosts}: take multi_worker"
    if hosts == 1 and strategy == "multi_worker":
        return f"{named} is for several hosts, and there is one: take auto"
    if devices > 1 and strategy == "default":
        return f"{named} computes on one device, and there are {devices}: take mirrored"
    return ""


def check_devices(parsed: Sequence[Any], topology: Topology) -> list[Check]:
    """Whether the strategy suits the machines, and an evaluator has something to do."""
    strategies = [group.strategy for group in parsed if hasattr(group, "strategy")]
    devices, tpu = topology.replicas // topology.num_hosts, topology.image == "tpu"
    found = [check_strategy(name, topology.num_hosts, devices, tpu) for name in strategies]
    recipe = recipe_of(parsed)
    if topology.evaluator and recipe and not recipe.data.eval_split:
        found.append("an evaluator needs photos to count, and --eval_split is empty: name a split")
    mistakes = [wrong(text) for text in found if text]
    if strategies and not mistakes:
        return [right(f"--strategy={strategies[0]} suits {topology.name}")]
    return mistakes


def check_batch(recipe: Recipe, topology: Topology) -> Check:
    """Whether the batch can be shared by the replicas, by the rule of training itself."""
    from training.strategies import Devices  # imports TensorFlow

    class Planned(Devices):
        """Devices that are not here: as many as there will be there."""

        num_replicas = topology.replicas

    optimization = recipe.optimization
    try:
        share = Planned(strategy=None).replica_batch(
            optimization.batch_size, optimization.gradient_accumulation, recipe.augmentation.mixes
        )
    except UsageError as error:
        return wrong(str(error))
    return right(
        f"a batch of {optimization.batch_size} is {share} on each of"
        f" {topology.replicas} replica{'s' if topology.replicas > 1 else ''}"
    )


def check_image(uri: str, region: str) -> Check:
    """Whether an image lies where the job runs: from elsewhere each machine fetches it slowly."""
    host = uri.partition("/")[0]
    registry = _REGISTRY.fullmatch(host)
    if not registry:
        return Check(Outcome.UNCHECKED, f"image {uri}: not in a registry of Google Cloud's")
    place = registry["place"] or {"": "us", "eu": "europe"}.get(registry["old"], registry["old"])
    if place in (region, continent_of(region)):
        return right(f"image {uri} lies in {place}, the job runs in {region}")
    return Check(
        Outcome.DOUBTFUL,
        f"image {uri} lies in {place}, the job runs in {region}: each start is slower, and the"
        " transfer is paid for",
    )


def check_package(spec: dict[str, Any]) -> Check | None:
    """Whether a package may find the accelerators; None where an image is run.

    The package brings TensorFlow without the libraries of CUDA or of TPUs. Without those that it
    was built for it trains on the CPU, at the price of the accelerator.
    """
    pools = custom_job_of(spec)["workerPoolSpecs"]
    if "pythonPackageSpec" not in pools[0]:
        return None
    machine = pools[0]["machineSpec"]
    if "acceleratorType" in machine or "tpuTopology" in machine:
        return Check(
            Outcome.DOUBTFUL,
            "the package installs a TensorFlow of its own, which finds accelerators only by the"
            " libraries that it was built for: if the container has others it trains on the CPU;"
            " an image of infra/docker/ has the right ones",
        )
    return right("a package on a machine without accelerators")


def check_time(hours: float | None, max_hours: int) -> list[Check]:
    """Whether the job can be finished before it is ended; nothing where nobody knows."""
    if hours is None:
        return []
    if hours <= max_hours:
        text = f"some {hours:.1f} hours of work fit into the {max_hours} that it may take"
        return [right(text)]
    text = (
        f"it would take some {hours:.0f} hours, and is ended after {max_hours}: raise --max_hours,"
        " or submit it again then; it goes on from its last checkpoint"
    )
    return [Check(Outcome.DOUBTFUL, text)]


def offline_checks(
    spec: dict[str, Any],
    command: Command,
    topology: Topology,
    run_dir: str,
    region: str,
    images: Sequence[str],
    needs_checkpoint: bool,
) -> tuple[list[Check], list[Any]]:
    """All checks that ask nobody, and what the command makes of its words."""
    command_check, parsed = check_command(command, run_dir)
    recipe = recipe_of(parsed)
    checks = [
        check_fields(spec),
        *check_shape(spec),
        *check_machines(spec),
        check_package(spec),
        check_entry_point(spec),
        command_check,
        check_beam(command),
        *check_run(parsed, command.words),
        *check_devices(parsed, topology),
        *([check_start(recipe, needs_checkpoint), check_batch(recipe, topology)] if recipe else []),
        *(check_image(uri, region) for uri in images),
    ]
    return [check for check in checks if check], parsed
