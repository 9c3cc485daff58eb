"""The stages of a run as data: what each reads, what it writes, and its settings.

A stage hands over files with a manifest, never objects in memory, so that each can be run by its
command alone, by `pipeline.run`, or by a scheduler on another machine.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import shlex
from collections.abc import Callable
from typing import Any

from common.command import to_flags
from common.errors import UserError
from pipeline.evaluate import EvaluateConfig
from pipeline.experiments import Experiment
from pipeline.export import ExportConfig
from pipeline.report import ReportConfig
from preprocessing.build_dataset import BuildConfig
from preprocessing.demo_photos import DemoConfig
from preprocessing.fetch_tfds import FetchConfig
from preprocessing.verify import VerifyConfig

TRAIN, VALIDATION = "train", "validation"
DEMO = "demo"

# Sizes of Imagenette's photos differ; the small ones download quickly and are larger than the
# input of any small model.
TFDS_NAMES = {"imagenette": "imagenette/320px-v2"}

_VALIDATION_FOLDERS = ("validation", "val", "test")
_HOLDOUT_FRACTION = 0.2  # of a single tree of class folders


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the line.

    Attributes:
        name: what people call it.
        command: module and function, 'package.module:function'.
        configs: the function's arguments.
        inputs: files whose content decides whether the stage is current.
        outputs: the manifests that the stage writes last.
        owns: all that it writes, as patterns below the run's directory; moved aside before it
            runs under other settings.
        folders: directories of photos that it reads, which are too large to be hashed.
    """

    name: str
    command: str
    configs: tuple[Any, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """What to type to run the stage alone."""
        module = self.command.split(":")[0]
        words = (word for config in self.configs for word in to_flags(config))
        return shlex.join(["python", "-m", module, *words])

    def function(self) -> Callable[..., None]:
        module, name = self.command.split(":")
        return getattr(importlib.import_module(module), name)


@dataclasses.dataclass(frozen=True)
class Photos:
    """Where the photos of the two splits lie, and how they get there.

    Attributes:
        stage: the stage that draws or fetches them, or None if they are there.
        folders: by split the directory of class folders.
        holdout_fraction: above 0 where both splits share one tree.
        class_names: file of human names, or empty.
    """

    stage: Stage | None
    folders: dict[str, str]
    holdout_fraction: float = 0.0
    class_names: str = ""


def choose_photos(dataset: str, work_dir: str) -> Photos:
    """What --dataset means: 'demo', a TFDS name, or a directory.

    Raises:
        UserError: it is none of these.
    """
    drawn = os.path.join(work_dir, "photos")
    folders = {TRAIN: os.path.join(drawn, "train"), VALIDATION: os.path.join(drawn, "validation")}
    if dataset == DEMO:
        stage = Stage(
            name="draw photos",
            command="preprocessing.demo_photos:draw_photos",
            configs=(DemoConfig(output_dir=drawn),),
            outputs=(os.path.join(drawn, "demo.json"),),
            owns=("photos",),
        )
        return Photos(stage, folders, class_names=os.path.join(drawn, "class_names.txt"))
    if dataset in TFDS_NAMES:
        stage = Stage(
            name="fetch photos",
            command="preprocessing.fetch_tfds:fetch",
            configs=(FetchConfig(name=TFDS_NAMES[dataset], output_dir=drawn),),
            outputs=(os.path.join(drawn, "fetched.json"),),
            owns=("photos",),
        )
        return Photos(stage, folders)
    if not os.path.isdir(dataset):
        raise UserError(
            f"--dataset={dataset} is no directory: give one of class folders, or one of"
            f" {', '.join([DEMO, *TFDS_NAMES])}"
        )
    train = os.path.join(dataset, "train")
    for name in _VALIDATION_FOLDERS:
        validation = os.path.join(dataset, name)
        if os.path.isdir(train) and os.path.isdir(validation):
            return Photos(None, {TRAIN: train, VALIDATION: validation})
    return Photos(None, {TRAIN: dataset, VALIDATION: dataset}, _HOLDOUT_FRACTION)


def plan_stages(experiment: Experiment, dataset: str, work_dir: str) -> list[Stage]:
    """All stages of a run in `work_dir`, in order."""

    def at(*names: str) -> str:
        return os.path.join(work_dir, *names)

    photos = choose_photos(dataset, work_dir)
    data_dir, model_dir, export_dir = at("data"), at("model"), at("export")
    manifests = {split: at("data", split, "manifest.json") for split in (TRAIN, VALIDATION)}
    evaluation, report = at("evaluation.json"), at("report.html")
    trained = (at("model", "model.json"), at("model", "history.json"))
    exported = at("export", "export.json")
    preprocess = [
        Stage(
            name=f"preprocess {split}",
            command="preprocessing.build_dataset:build_dataset",
            configs=(
                BuildConfig(
                    input_dir=photos.folders[split],
                    output_dir=data_dir,
                    split=split,
                    num_shards=experiment.num_shards,
                    holdout_fraction=photos.holdout_fraction,
                ),
            ),
            inputs=photos.stage.outputs if photos.stage else (),
            outputs=(manifest,),
            owns=(f"data/{split}", f"data/{split}-*"),
            folders=() if photos.stage else (photos.folders[split],),
        )
        for split, manifest in manifests.items()
    ]
    verify = [
        Stage(
            name=f"verify {split}",
            command="preprocessing.verify:verify",
            configs=(VerifyConfig(data_dir=data_dir, split=split),),
            inputs=(manifest,),
        )
        for split, manifest in manifests.items()
    ]
    return [
        *([photos.stage] if photos.stage else []),
        *preprocess,
        *verify,
        Stage(
            name="train",
            command="training.train:train",
            configs=(
                experiment.model,
                dataclasses.replace(
                    experiment.data,
                    data_dir=data_dir,
                    dataset_name=os.path.basename(os.path.normpath(dataset)),
                ),
                experiment.optimization,
                dataclasses.replace(experiment.run, model_dir=model_dir),
            ),
            inputs=tuple(manifests.values()),
            outputs=trained,
            owns=("model",),
        ),
        Stage(
            name="evaluate",
            command="pipeline.evaluate:evaluate",
            configs=(
                EvaluateConfig(checkpoint_path=model_dir, data_dir=data_dir, output=evaluation),
            ),
            inputs=(manifests[VALIDATION], *trained),
            outputs=(evaluation,),
        ),
        Stage(
            name="export",
            command="pipeline.export:export",
            configs=(
                ExportConfig(
                    checkpoint_path=model_dir,
                    export_dir=export_dir,
                    data_dir=data_dir,
                    evaluation=evaluation,
                ),
            ),
            inputs=(manifests[VALIDATION], *trained, evaluation),
            outputs=(exported,),
            owns=("export",),
        ),
        Stage(
            name="report",
            command="pipeline.report:write_report",
            configs=(
                ReportConfig(
                    data_dir=data_dir,
                    output=report,
                    model_dir=model_dir,
                    evaluation=evaluation,
                    export_dir=export_dir,
                    class_names=photos.class_names,
                    commands=at("commands.txt"),
                ),
            ),
            inputs=(*manifests.values(), *trained, evaluation, exported, at("commands.txt")),
            outputs=(report,),
        ),
    ]
