"""Exports a trained model: `python -m pipeline.export`.

Writes the formats that are asked for, compares each with the Keras model on real photos, and only
then gives the directory its name. `export.json` says what is in it, `MODEL_CARD.md` tells people.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from common import files
from common.command import flag, run
from common.errors import UsageError, UserError
from pipeline import formats
from pipeline.formats import MANIFEST
from pipeline.formats.int8 import Int8Flags
from pipeline.parity import ParityFlags, require_parity
from training.models.configs import model_names

if TYPE_CHECKING:
    import numpy as np

    from loaders.open import OpenCheckpoint
    from training.models import ModelRecord

_METRICS = ("top_1", "top_5", "loss", "num_examples", "num_correct_top_1", "num_correct_top_5")
_MORE_METRICS = ("interval_95", "interval_95_top_5", "split", "data_manifest_sha256")
_TRAIN = "train"
# By their modules: TensorFlow's wheel has another name on a TPU.
_PACKAGES = ("tensorflow", "keras")
_DEFAULT_LIMITS, _DEFAULT_INT8 = ParityFlags(), Int8Flags()


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What is exported, and what it is checked on."""

    checkpoint_path: str = flag(help="TF1 or TF2 checkpoint, or --model_dir of a training run")
    export_dir: str = flag(
        help="directory to write; an export that it holds is replaced", variable="AIP_MODEL_DIR"
    )
    data_dir: str = flag(help="directory of shards with the photos that outputs are compared on")
    split: str = flag("validation", help="split of those photos")
    formats: tuple[str, ...] | None = flag(
        None,
        help=f"what to write, of {', '.join(formats.PATHS)}; 'all' for what can be written here; by"
        f" default {', '.join(formats.DEFAULT)}, or what a quantisation-aware model can be",
    )
    evaluation: str = flag("", help="JSON file of pipeline.evaluate, whose metrics are kept")
    weights: str | None = flag(
        None,
        help="which weights are exported; by default what the checkpoint's record says, else"
        " averages",
        choices=("averages", "raw"),
    )
    model_name: str | None = flag(
        None, help="architecture; by default what it looks like", choices=("auto", *model_names())
    )
    width_multiplier: float | None = flag(None, help="by default what the checkpoint says")
    resolution: int | None = flag(None, help="height and width of the input in pixels")
    quantization_aware: bool = flag(
        False,
        help="take up the 8-bit ranges of a quantisation-aware TF1 checkpoint; a TF2 checkpoint"
        " says so itself",
    )
    calibration_split: str = flag(
        "",
        help="split with the photos that litert_int8 is calibrated on; by default 'train' where the"
        " data have it, else --split",
    )

    def __post_init__(self):
        if self.formats is None:
            return
        known = (*formats.PATHS, formats.ALL)
        if unknown := [name for name in self.formats if name not in known]:
            raise UsageError(f"--formats knows {', '.join(known)}; not {', '.join(unknown)}")
        if not self.formats:
            raise UsageError(f"--formats names none: there are {', '.join(known)}")


def export(
    config: ExportConfig, limits: ParityFlags = _DEFAULT_LIMITS, int8: Int8Flags = _DEFAULT_INT8
) -> None:
    """Writes a trained model in the formats of --formats, if they agree with it."""
    from preprocessing.manifest import load_manifest

    manifest = load_manifest(config.data_dir, config.split)
    evaluation = files.read_json(config.evaluation) if config.evaluation else None
    _require_checkpoint(config.checkpoint_path)
    _require_replaceable(config.export_dir)
    from training import runtime

    runtime.start()
    from loaders.open import ModelRequest, open_checkpoint
    from pipeline.formats.model_card import model_card
    from pipeline.formats.saved_model import signatures_of
    from pipeline.formats.writing import Source, choose_formats, write_artifacts
    from pipeline.parity import ParityImages, run_gate
    from training.shards import Shards

    request = ModelRequest(
        config.model_name, config.width_multiplier, config.resolution, config.quantization_aware
    )
    checkpoint = open_checkpoint(config.checkpoint_path, request, config.weights, manifest.classes)
    files.require_outside(checkpoint.path, config.export_dir, "export_dir")
    names = choose_formats(config.formats, checkpoint.record.config.quantization_aware)
    metrics = _metrics(evaluation, config.evaluation, checkpoint) if evaluation else {}
    record = dataclasses.replace(
        checkpoint.record, classes=manifest.classes, weights=checkpoint.weights
    )
    source = Source(
        model=checkpoint.build(),
        record=record,
        values=checkpoint.values,
        read_photos=lambda: _calibration_photos(config, record, int8.num_calibration_images),
        int8=int8,
    )
    shards = Shards.open(config.data_dir, config.split)
    images = ParityImages.read(shards, record, limits.num_parity_images)
    with files.atomic_directory(config.export_dir, last=MANIFEST) as directory:
        artifacts = write_artifacts(source, names, directory)
        rows = run_gate(directory, artifacts, source.model, record, images, limits)
        require_parity(rows)
        summary = {
            "artifacts": [_described(artifact) for artifact in artifacts],
            "signatures": signatures_of(record) if formats.SAVED_MODEL in names else {},
            "parity": {
                "num_images": len(images.images),
                "rows": [dataclasses.asdict(row) for row in rows],
                "passed": True,
            },
            "model": record.to_json(),
            "class_texts": list(manifest.class_texts),
            "exported_from": checkpoint.path,
            "training": _training_settings(checkpoint.path),
            "data_manifest_sha256": manifest.sha256,
            "metrics": metrics,
            "versions": {name: importlib.import_module(name).__version__ for name in _PACKAGES},
        }
        card = model_card(record, summary)
        files.write_text(os.path.join(directory, formats.MODEL_CARD), card)
        summary["files"] = _companions(directory)
        files.write_json(os.path.join(directory, MANIFEST), summary)
    logging.info("exported to %s", config.export_dir)


def _require_checkpoint(path: str) -> None:
    """Names what is given by mistake in a checkpoint's place.

    Raises:
        UserError: it is an exported model, which holds no weights as they were trained.
    """
    exported = path.endswith((".keras", ".tflite", ".onnx"))
    if exported or files.exists(files.join(path, "saved_model.pb")):
        raise UserError(
            f"--checkpoint_path={path} is an exported model, with batch norm folded in: name the"
            " checkpoint that it was made of, or the directory `checkpoint` of its export"
        )


def _require_replaceable(export_dir: str) -> None:
    """Makes sure that nothing but an export is lost, and that there is room for one.

    Raises:
        UserError: there is a file, or a directory that is no export, or it cannot be written to.
    """
    if files.exists(export_dir) and not files.is_directory(export_dir):
        raise UsageError(f"--export_dir={export_dir} is a file: name a directory")
    if not files.is_replaceable(export_dir, MANIFEST):
        raise UserError(f"--export_dir={export_dir} holds files that are no export: give another")
    files.require_writable(files.parent(export_dir), "export_dir")


def _calibration_photos(config: ExportConfig, record: ModelRecord, count: int) -> np.ndarray:
    """(n, height, width, 3) float32."""
    from pipeline.parity import ParityImages
    from preprocessing import layout
    from training.shards import Shards

    split = config.calibration_split
    if not split:
        train = layout.split_path(config.data_dir, _TRAIN, layout.MANIFEST)
        split = _TRAIN if files.exists(train) else config.split
    shards = Shards.open(config.data_dir, split)
    return ParityImages.read(shards, record, count).images


def _described(artifact: formats.Artifact) -> dict[str, Any]:
    reproducible = artifact.format not in formats.VARYING
    described = dataclasses.asdict(artifact)
    return {"name": artifact.format, "reproducible": reproducible, **described}


def _companions(directory: str) -> list[dict[str, str]]:
    """Path and hash of the files beside the artifacts."""
    from training.models.record import FILE_NAME as RECORD

    names = (formats.LABELS, RECORD, formats.MODEL_CARD)
    return [
        {"path": name, "sha256": files.sha256_of_file(os.path.join(directory, name))}
        for name in names
    ]


def _training_settings(checkpoint_path: str) -> dict[str, Any] | None:
    """`config.json` of the run that the checkpoint is of, if it lies in one."""
    path = files.join(files.parent(files.parent(checkpoint_path)), "config.json")
    return files.read_json(path) if files.exists(path) else None


def _metrics(evaluation: Any, path: str, checkpoint: OpenCheckpoint) -> dict[str, Any]:
    """The metrics to keep, which must be those of what is exported.

    Raises:
        UserError: the file is no evaluation, or of other weights or another reading of photos.
    """
    try:
        metrics = {name: evaluation[name] for name in _METRICS}
        metrics |= {name: evaluation[name] for name in _MORE_METRICS if name in evaluation}
        evaluated, weights = evaluation["checkpoint"], evaluation["weights"]
    except (KeyError, TypeError):
        raise UserError(f"--evaluation={path} was not written by pipeline.evaluate") from None
    paths: Sequence[str] = [
        p if files.is_remote(p) else os.path.realpath(p) for p in (evaluated, checkpoint.path)
    ]
    if (paths[0], weights) != (paths[1], checkpoint.weights):
        raise UserError(
            f"--evaluation={path} is of {evaluated} (weights: {weights}), but {checkpoint.path}"
            f" (weights: {checkpoint.weights}) is exported: evaluate that, or leave the flag out"
        )
    _require_same_reading(evaluation, path, checkpoint.record)
    return metrics


def _require_same_reading(evaluation: Mapping[str, Any], path: str, record: ModelRecord) -> None:
    """Makes sure that photos went into the model as they will; old evaluations do not say.

    Raises:
        UserError: they did not.
    """
    exported = {
        "resolution": list(record.config.resolution),
        "input_range": list(record.input_range),
        "preprocessing": record.evaluation_preprocessing,
        "label_offset": record.labels.offset,
    }
    for name, value in exported.items():
        evaluated = evaluation.get(name, value)
        if evaluated != value:
            raise UserError(
                f"--evaluation={path} was made with {name} {evaluated}, but the model is exported"
                f" with {value}: evaluate it so, or leave the flag out"
            )


if __name__ == "__main__":
    run(export, ExportConfig, ParityFlags, Int8Flags)
