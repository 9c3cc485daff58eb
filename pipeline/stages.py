"""The stages of a run, from photos to a report."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from common import files
from common.errors import UserError
from pipeline.evaluate import EvaluateConfig
from pipeline.experiments import SCRATCH, TF1, Experiment
from pipeline.export import ExportConfig
from pipeline.publish import PublishConfig
from pipeline.publishing.pointers import LATEST_FILE
from pipeline.report import ReportConfig
from pipeline.stage import Stage
from pipeline.start import choose_start
from preprocessing.build_dataset import BuildConfig
from preprocessing.demo_photos import DEMO, PRETRAINING, DemoConfig
from preprocessing.verify import VerifyConfig
from training.config import ModelFlags, Recipe

TRAIN, VALIDATION = "train", "validation"
DRAWN = (DEMO, PRETRAINING)

# Sizes of Imagenette's photos differ; the small ones download quickly and are larger than the
# input of any small model.
TFDS_SOURCES = {"imagenette": "tfds:imagenette/320px-v2"}
_TFDS = "tfds:"

_OFFICIAL_TARS = {TRAIN: "ILSVRC2012_img_train.tar", VALIDATION: "ILSVRC2012_img_val.tar"}

_VALIDATION_FOLDERS = ("validation", "val", "test")
_HOLDOUT_FRACTION = 0.2  # of a single tree of class folders
_DRAWN_BROKEN = 0.05  # some are broken on purpose, a larger share the fewer are drawn


@dataclasses.dataclass(frozen=True)
class Photos:
    """Where the photos of the two splits lie, and how they get there.

    Attributes:
        stage: the stage that draws them, or None if they are there.
        sources: by split what the build takes them from.
        holdout_fraction: above 0 where both splits share one tree.
        class_names: file of human names, or empty.
        max_rejected_fraction: more than this share of broken files is no accident.
    """

    stage: Stage | None
    sources: dict[str, str]
    holdout_fraction: float = 0.0
    class_names: str = ""
    max_rejected_fraction: float = BuildConfig.max_rejected_fraction


def choose_photos(dataset: str, work_dir: str) -> Photos:
    """What --dataset means: drawn things, a TFDS data set, or a directory.

    Raises:
        UserError: it is none of these.
    """
    drawn = files.join(work_dir, "photos")
    folders = {split: files.join(drawn, split) for split in (TRAIN, VALIDATION)}
    if dataset in DRAWN:
        stage = Stage(
            name="draw photos",
            command="preprocessing.demo_photos:draw_photos",
            configs=(DemoConfig(output_dir=drawn, things=dataset),),
            outputs=(files.join(drawn, "demo.json"),),
            owns=("photos",),
        )
        names = files.join(drawn, "class_names.txt")
        return Photos(stage, folders, class_names=names, max_rejected_fraction=_DRAWN_BROKEN)
    source = TFDS_SOURCES.get(dataset, dataset)
    if source.startswith(_TFDS):
        return Photos(None, {TRAIN: source, VALIDATION: source})
    if not files.is_directory(dataset):
        raise UserError(
            f"--dataset={dataset} is no directory: give one of class folders, or one of"
            f" {', '.join([*DRAWN, *TFDS_SOURCES])}, tfds:NAME"
        )
    tars = {split: files.join(dataset, name) for split, name in _OFFICIAL_TARS.items()}
    if all(map(files.is_file, tars.values())):
        return Photos(None, tars)
    train = files.join(dataset, "train")
    for name in _VALIDATION_FOLDERS:
        validation = files.join(dataset, name)
        if files.is_directory(train) and files.is_directory(validation):
            return Photos(None, {TRAIN: train, VALIDATION: validation})
    return Photos(None, {TRAIN: dataset, VALIDATION: dataset}, _HOLDOUT_FRACTION)


def _paths(source: str) -> tuple[str, ...]:
    return () if source.startswith(_TFDS) else (source,)


def _in_place(recipe: Recipe, data_dir: str, model_dir: str, **changes: Any) -> Recipe:
    """The recipe for these directories, with `changes` of how it starts."""
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, data_dir=data_dir),
        run=dataclasses.replace(recipe.run, model_dir=model_dir, **changes),
    )


def _title(model: ModelFlags, dataset: str) -> str:
    """What the report is headed by, for example `mobilenet_v1 0.25 on demo`."""
    data_set = os.path.basename(os.path.normpath(dataset))
    return f"{model.model_name} {model.width_multiplier} on {data_set}"


def plan_stages(experiment: Experiment, dataset: str, work_dir: str, init: str) -> list[Stage]:
    """All stages of a run in `work_dir`, in order.

    The demo can be trained both ways in one directory: what is trained from scratch there has
    names of its own, and each report draws the other way's curve too, once it is there.
    """
    way, other = ("-scratch", "") if (dataset, init) == (DEMO, SCRATCH) else ("", "-scratch")

    def at(name: str) -> str:
        return files.join(work_dir, name)

    photos = choose_photos(dataset, work_dir)
    start = choose_start(init, experiment, work_dir)
    data_dir, model_dir, export_dir = at("data"), at(f"model{way}"), at(f"export{way}")
    manifests = {
        split: files.join(data_dir, split, "manifest.json") for split in (TRAIN, VALIDATION)
    }
    num_shards = {TRAIN: experiment.num_shards, VALIDATION: experiment.num_validation_shards}
    evaluation, report = at(f"evaluation{way}.json"), at(f"report{way}.html")
    commands, published = at(f"commands{way}.txt"), at(f"published{way}")
    trained = tuple(files.join(model_dir, name) for name in ("model.json", "history.json"))
    exported = files.join(export_dir, "export.json")
    compared = files.join(at(f"model{other}"), "history.json")
    compare = dataset == DEMO and files.exists(compared)
    preprocess = [
        Stage(
            name=f"preprocess {split}",
            command="preprocessing.build_dataset:build_dataset",
            configs=(
                BuildConfig(
                    source=photos.sources[split],
                    class_text=photos.class_names or None,
                    max_rejected_fraction=photos.max_rejected_fraction,
                    output_dir=data_dir,
                    split=split,
                    num_shards=num_shards[split],
                    holdout_fraction=photos.holdout_fraction,
                ),
            ),
            inputs=photos.stage.outputs if photos.stage else (),
            outputs=(manifest,),
            owns=(f"data/{split}", f"data/{split}-*"),
            folders=() if photos.stage else _paths(photos.sources[split]),
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
        *start.stages,
        Stage(
            name=f"train{way}",
            command="training.train:train",
            configs=_in_place(
                experiment.recipe,
                data_dir,
                model_dir,
                init_checkpoint=start.checkpoint,
                # What the demo's weights tell apart is in no other data set.
                init_logits="drop" if init == TF1 else experiment.recipe.run.init_logits,
            ).groups,
            inputs=(*manifests.values(), *start.inputs),
            outputs=trained,
            owns=(f"model{way}",),
        ),
        Stage(
            name=f"evaluate{way}",
            command="pipeline.evaluate:evaluate",
            configs=(
                EvaluateConfig(checkpoint_path=model_dir, data_dir=data_dir, output=evaluation),
            ),
            inputs=(manifests[VALIDATION], *trained),
            outputs=(evaluation,),
        ),
        Stage(
            name=f"export{way}",
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
            owns=(f"export{way}",),
        ),
        Stage(
            name=f"publish{way}",
            command="pipeline.publish:publish",
            configs=(PublishConfig(to=published, export_dir=export_dir),),
            inputs=(exported,),
            # Owns nothing: versions are only ever added.
            outputs=(files.join(published, LATEST_FILE),),
        ),
        Stage(
            name=f"report{way}",
            command="pipeline.report:write_report",
            configs=(
                ReportConfig(
                    data_dir=data_dir,
                    output=report,
                    experiment=experiment.name,
                    title=_title(experiment.recipe.model, dataset),
                    model_dir=model_dir,
                    evaluation=evaluation,
                    export_dir=export_dir,
                    class_names=photos.class_names,
                    commands=commands,
                    compare=at(f"model{other}") if compare else "",
                ),
            ),
            inputs=(
                *(*manifests.values(), *trained, evaluation, exported, commands),
                *([compared] if compare else []),
            ),
            outputs=(report,),
        ),
    ]
