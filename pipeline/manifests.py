"""Writes the stages for another scheduler: `python -m pipeline.manifests`.

A pipeline for Kubeflow or Vertex Pipelines, or Jobs for plain Kubernetes, from the same table of
stages as `pipeline.run`, whose flags it takes. Nothing is submitted. docs/kubernetes.md tells what
to do with what is written.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shlex
import textwrap
from typing import Any

from common import command, files
from common.command import flag
from common.errors import UsageError
from pipeline.cloud import checks
from pipeline.cloud.containers import ContainerFlags
from pipeline.cloud.kubernetes import ClusterFlags, describe_cluster
from pipeline.cloud.stage_graph import Sources, Task, choose_tasks, is_shared, plan_tasks
from pipeline.cloud.topologies import Machine, Topology
from pipeline.experiments import Experiment
from pipeline.run import RunConfig, change_recipe, choose_experiment
from training import runtime
from training.config import Recipe

KUBEFLOW, KUBERNETES = "kubeflow", "kubernetes"
_HEAD = "# Written by `python -m pipeline.manifests`; change the flags, not the file:"


@dataclasses.dataclass(frozen=True)
class ManifestFlags:
    """What is written, and where."""

    format: str = flag(
        help="a pipeline for Kubeflow and Vertex Pipelines, or Jobs for Kubernetes",
        choices=(KUBEFLOW, KUBERNETES),
    )
    output: str = flag(
        help="kubeflow: file to write; kubernetes: directory, which then holds these files alone"
    )
    name: str = flag(
        "", help="of the pipeline, or what all Jobs' names begin with; by default of --work_dir"
    )
    stages: tuple[str, ...] = flag(
        (), help="only these stages, such as train,evaluate; what others write must be there"
    )
    train_source: str = flag(
        "",
        help="photos to train on that only the scheduler's machines see, as --source of"
        " preprocessing.build_dataset; --dataset is then only a name",
    )
    validation_source: str = flag(
        "", help="likewise, photos to evaluate on; empty to hold a fifth of --train_source out"
    )

    def __post_init__(self):
        if self.validation_source and not self.train_source:
            raise UsageError("--validation_source needs --train_source: where is the other split?")


FLAGS = (ManifestFlags, ContainerFlags, ClusterFlags, RunConfig)


def write_manifests(
    flags: ManifestFlags, given: ContainerFlags, cluster: ClusterFlags, run: RunConfig
) -> None:
    """Writes the stages of a run as a Kubeflow pipeline or as Kubernetes Jobs; submits nothing."""
    texts = render(flags, given, cluster, run)
    if flags.format == KUBEFLOW:
        files.require_writable_file(flags.output, "output")
        (text,) = texts.values()
        files.write_text(flags.output, text)
        logging.info("wrote %s", flags.output)
        return
    _require_ours(flags.output)
    with files.atomic_directory(flags.output) as directory:
        for name, text in texts.items():
            files.write_text(files.join(directory, name), text)
    logging.info("wrote %d files into %s", len(texts), flags.output)


def render(
    flags: ManifestFlags, given: ContainerFlags, cluster: ClusterFlags, run: RunConfig
) -> dict[str, str]:
    """What is to be written, by file name.

    Raises:
        UsageError: something of it cannot be run by that scheduler.
    """
    if not is_shared(run.work_dir):
        raise UsageError(
            f"--work_dir={run.work_dir} means nothing to the scheduler's machines: give an absolute"
            " path on their volume, or gs://BUCKET/NAME"
        )
    name = flags.name or os.path.basename(run.work_dir.rstrip("/"))
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            f"--name={name}: it must be small letters, digits and hyphens, and begin with a letter"
        )
    head = _head(flags, given, cluster, run)
    experiment = change_recipe(choose_experiment(run), run.train_flags)
    tasks = _tasks(flags, run, experiment)
    if flags.format == KUBEFLOW:
        texts = {os.path.basename(flags.output): _kubeflow(name, tasks, given, cluster, run)}
    else:
        described = describe_cluster(name, tasks, run.work_dir, given, cluster)
        texts = {f"{file}.yaml": _yaml(objects) for file, objects in described.items()}
    if any(task.trains for task in tasks):
        _require_trainable(experiment.recipe, given, cluster.workers)
    return {file: f"{head}\n{text}" for file, text in texts.items()}


def _tasks(flags: ManifestFlags, run: RunConfig, experiment: Experiment) -> list[Task]:
    init = run.init or experiment.init
    sources = None
    if flags.train_source:
        sources = Sources(flags.train_source, flags.validation_source)
    tasks = plan_tasks(experiment, run.dataset, init, sources)
    return choose_tasks(tasks, flags.stages) if flags.stages else tasks


def _require_trainable(recipe: Recipe, given: ContainerFlags, workers: int) -> None:
    """Checks what training itself would refuse once its containers are there.

    Raises:
        UsageError: it would.
    """
    flags = recipe.distribution
    # A TPU that is named need not be one of the nodes'.
    is_tpu = None if flags.tpu else given.gpus > 0 and "tpu" in given.gpu_type.lower()
    mistake = checks.check_strategy(flags.strategy, workers, given.gpus, is_tpu)
    if not mistake:
        runtime.start()  # the rule for batches needs TensorFlow
        mirrors_cpu = flags.strategy == "mirrored" and not given.gpus
        devices = flags.num_virtual_devices if mirrors_cpu else max(given.gpus, 1)
        replicas = workers * devices
        there = Topology("", "", Machine(""), workers, flags.strategy, replicas)
        batch = checks.check_batch(recipe, there)
        mistake = batch.text if batch.outcome is checks.Outcome.WRONG else ""
    if mistake:
        raise UsageError(f"training would refuse it: {mistake}; --train_flags changes that")


def _kubeflow(
    name: str, tasks: list[Task], given: ContainerFlags, cluster: ClusterFlags, run: RunConfig
) -> str:
    from pipeline.cloud.kubeflow import compile_pipeline

    if not files.is_remote(run.work_dir):
        raise UsageError(
            f"--work_dir={run.work_dir}: a pipeline's steps share no disk; give gs://BUCKET/NAME"
        )
    if cluster != ClusterFlags():
        (first, *_) = command.to_flags(cluster)
        raise UsageError(
            f"{first} is for --format={KUBERNETES}: a step of a pipeline is one container"
        )
    description = f"{run.dataset}, from photos to a published model"
    return compile_pipeline(name, description, tasks, run.work_dir, given)


def _head(*configs: Any) -> str:
    """The command that writes the file again, as a comment."""
    words = (word for config in configs for word in command.to_flags(config))
    line = shlex.join(["python", "-m", "pipeline.manifests", *words])
    folded = textwrap.wrap(line, 94, break_long_words=False, break_on_hyphens=False)
    return "\n".join([_HEAD, "#   " + " \\\n#     ".join(folded)])


def _yaml(objects: list[dict[str, Any]]) -> str:
    import yaml

    class WithoutAnchors(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump_all(objects, Dumper=WithoutAnchors, sort_keys=False, width=1000)


def _require_ours(directory: str) -> None:
    """Checks that nothing of somebody else's is in a directory that is to be replaced.

    Raises:
        UsageError: there is.
    """
    if not files.exists(directory):
        return
    if not files.is_directory(directory):
        raise UsageError(f"--output={directory} is a file: name a directory")
    for entry in files.list_directory(directory):
        path = files.join(directory, entry.name)
        if entry.is_directory or not files.read_bytes(path).startswith(_HEAD.encode()):
            raise UsageError(
                f"--output={directory} holds {entry.name}, which this command did not write: name"
                " another directory"
            )


if __name__ == "__main__":
    command.run(write_manifests, *FLAGS)
