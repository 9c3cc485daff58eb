"""The specifications of `infra/vertex/`: an example for each topology, written from the tables."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from common import files
from pipeline.cloud.commands import PREPROCESS, RUN, TRAINING, Dataflow, Places, stage_command
from pipeline.cloud.specs import (
    DEFAULT_HOURS,
    Image,
    Job,
    Package,
    Range,
    account_of,
    custom_job_spec,
    gcloud_command,
    image_name,
    image_uri,
    label,
    tuning_job_spec,
)
from pipeline.cloud.topologies import BUILD, TOPOLOGIES, Topology
from pipeline.experiments import find_experiment

# What a reader replaces.
PROJECT, REGION, BUCKET, REPOSITORY = "PROJECT", "REGION", "gs://BUCKET", "REPOSITORY"
_SAMPLES = {
    "PROJECT": "my-project",
    "REGION": "us-central1",
    "BUCKET": "my-bucket",
    "REPOSITORY": "mobilenet",
    "VERSION": "0.1.0",
}
# The last of Vertex AI's containers for TensorFlow that its documentation lists.
_EXECUTOR = "us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest"
_DIRECTORY = "infra/vertex"


@dataclasses.dataclass(frozen=True)
class Example:
    """One file.

    Attributes:
        name: of the file, without its ending.
        about: what the job does, in a sentence or two.
        topology: on which machines.
        experiment: by which recipe.
        stage: what is run.
        more: flags of the stage.
        max_hours: when it is ended.
        is_package: whether the code is a package in Vertex AI's own container.
        ranges: of a tuning job, the flags that it varies.
    """

    name: str
    about: str
    topology: Topology
    experiment: str
    stage: str = TRAINING
    more: tuple[str, ...] = ()
    max_hours: int = DEFAULT_HOURS
    is_package: bool = False
    ranges: tuple[Range, ...] = ()


_LARGE = "mobilenet_v3_large_torchvision"
_MAX_TRIALS, _PARALLEL_TRIALS = 20, 4
_BY_TOPOLOGY = (
    Example(
        "cpu",
        "Draws a small data set and runs the whole line on it, in a few minutes: whether image,"
        " account and bucket work.",
        TOPOLOGIES["cpu"],
        "demo",
        RUN,
        max_hours=2,
    ),
    Example(
        "gpu-1",
        "Trains a TF1 checkpoint further on the shards of your own photos, on one L4.",
        TOPOLOGIES["gpu-1"],
        "fine-tune",
        more=(
            f"--init_checkpoint={BUCKET}/pretrained/mobilenet_v2_1.0_224.ckpt",
            "--model_name=mobilenet_v2",
        ),
    ),
    Example(
        "gpu-1-spot",
        "Trains MobileNetV3-Small for 30 epochs on an L4 that is stopped when others pay more for"
        " it, and goes on from the last checkpoint on the next one.",
        TOPOLOGIES["gpu-1-spot"],
        "mobilenet_v3_small",
    ),
    Example(
        "gpu-8",
        "Trains MobileNetV3-Large for 600 epochs on the eight A100 of one host, mirrored.",
        TOPOLOGIES["gpu-8"],
        _LARGE,
    ),
    Example(
        "gpu-4x8",
        "The same on four such hosts: a chief and three workers.",
        TOPOLOGIES["gpu-4x8"],
        _LARGE,
    ),
    Example(
        "gpu-4x8-reduction",
        "The same with reduction servers, which sum the gradients. The image needs Google's plug-in"
        " for NCCL: see README.md.",
        TOPOLOGIES["gpu-4x8-reduction"],
        _LARGE,
    ),
    Example(
        "gpu-4x8-evaluator",
        "The same on spot machines, with one more machine that evaluates each checkpoint. When one"
        " is taken away all are started again, and go on from the last checkpoint.",
        TOPOLOGIES["gpu-4x8-evaluator"],
        _LARGE,
    ),
    Example(
        "tpu-v2",
        "Trains MobileNetV3-Large for 30 epochs on a TPU v2 of eight cores.",
        TOPOLOGIES["tpu-v2"],
        "mobilenet_v3_large",
    ),
    Example(
        "tpu-v3",
        "Trains MobileNetV3-Large for 30 epochs on a TPU v3 of eight cores.",
        TOPOLOGIES["tpu-v3"],
        "mobilenet_v3_large",
    ),
    Example(
        "tpu-v5e",
        "Trains MobileNetV3-Large for 30 epochs on a TPU v5e of four chips.",
        TOPOLOGIES["tpu-v5e"],
        "mobilenet_v3_large",
    ),
)
EXAMPLES = (
    Example(
        "preprocess",
        "Builds ImageNet's training split on Dataflow. This job lists the photos, waits for the"
        " workers and writes the manifest.",
        BUILD,
        _LARGE,
        PREPROCESS,
        (f"--source={BUCKET}/ILSVRC2012_img_train.tar", "--split=train"),
    ),
    *_BY_TOPOLOGY,
    Example(
        "cpu-package",
        "As cpu, without an image of our own: a container of Vertex AI's installs this package when"
        " it starts. Its documentation says that this container is there until 11 July 2026; name"
        " another one of its list after that.",
        TOPOLOGIES["cpu"],
        "demo",
        RUN,
        max_hours=2,
        is_package=True,
    ),
    Example(
        "tuning",
        f"Looks for settings of the recipe imagenette in {_MAX_TRIALS} trials,"
        f" {_PARALLEL_TRIALS} at a time, each on one L4.",
        TOPOLOGIES["gpu-1"],
        "imagenette",
        ranges=(
            Range("lr", 0.01, 0.2, logarithmic=True),
            Range("std_weight_decay", 1e-5, 1e-3, logarithmic=True),
            Range("label_smoothing", 0.0, 0.2),
            Range("min_crop_area", 0.08, 0.5),
        ),
    ),
)


def spec_of(example: Example) -> tuple[Job, dict[str, Any]]:
    """The job of an example, and its specification."""
    topology, is_build = example.topology, example.stage == PREPROCESS
    run_dir = f"{BUCKET}/runs/{example.name}"
    account = account_of(PROJECT, is_build)
    image = image_uri(PROJECT, REGION, REPOSITORY, image_name(topology.image, is_build), "1")
    places = Places(BUCKET, f"{BUCKET}/data", run_dir, f"{BUCKET}/published/{example.name}")
    code: Image | Package = Image(image, is_worker=is_build)
    if example.is_package:
        package = f"{BUCKET}/packages/mobilenet_pipeline-VERSION-py3-none-any.whl"
        code = Package(package, _EXECUTOR)
    job = Job(
        name=example.name,
        command=stage_command(
            example.stage,
            find_experiment(example.experiment),
            topology,
            places,
            example.more,
            Dataflow(PROJECT, REGION, image, account),
        ),
        topology=topology,
        code=code,
        region=REGION,
        service_account=account,
        run_dir=run_dir,
        max_hours=example.max_hours,
        labels=(("run", label(example.name)), ("stage", example.stage)),
    )
    if example.ranges:
        return job, tuning_job_spec(job, example.ranges, _MAX_TRIALS, _PARALLEL_TRIALS)
    return job, custom_job_spec(job)


def text_of(example: Example) -> str:
    """The file of an example: what it is, how it is submitted, and the specification."""
    job, spec = spec_of(example)
    trials = (_MAX_TRIALS, _PARALLEL_TRIALS) if example.ranges else None
    path = f"{example.name}.yaml"
    specification = to_yaml(spec)
    edits = [f"s/{name}/{value}/g" for name, value in _SAMPLES.items() if name in specification]
    lines = [
        *textwrap.wrap(example.about, 96),
        "",
        "Name your own project, region, bucket and so on, and submit it:",
        "",
        f"  sed '{'; '.join(edits)}' \\\n    {_DIRECTORY}/{path} > {path}",
        *(f"  {line}" for line in folded(gcloud_command(job, PROJECT, path, trials)).splitlines()),
        "",
        f"Written by `python -m pipeline.submit --write_specs={_DIRECTORY}`.",
    ]
    comment = "\n".join(f"# {line}".rstrip() for text in lines for line in text.split("\n"))
    return f"{comment}\n\n{specification}"


def write_spec_files(directory: str) -> list[str]:
    """Writes all examples.

    Returns:
        Their paths.
    """
    paths = []
    for example in EXAMPLES:
        paths.append(files.join(directory, f"{example.name}.yaml"))
        files.write_text(paths[-1], text_of(example))
    return paths


def to_yaml(spec: dict[str, Any]) -> str:
    """A specification as YAML that `gcloud ... --config` reads, in the order in which it is."""
    return yaml.dump(spec, Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes what occurs twice twice, without anchors, which no reader expects."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def folded(words: Sequence[str], width: int = 92) -> str:
    """A command for the shell, over several lines; no word is cut."""
    first, *rest = map(shlex.quote, words)
    lines = [first]
    for word in rest:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return " \\\n".join(lines)
