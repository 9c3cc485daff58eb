"""Exports a trained model: `python -m pipeline.export`.

Writes a TF2 checkpoint and a SavedModel, compares both with the Keras model on real photos, and
only then gives the directory its name. `export.json` says what is in it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import os
from typing import TYPE_CHECKING, Any

from common import files
from common.command import flag, run
from common.errors import UsageError, UserError
from training.models.configs import model_names

if TYPE_CHECKING:
    from loaders.open import OpenCheckpoint

MANIFEST = "export.json"

_METRICS = ("top_1", "top_5", "loss", "num_examples", "num_correct_top_1", "num_correct_top_5")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What is exported, and what it is checked on."""

    checkpoint_path: str = flag(help="TF1 or TF2 checkpoint, or --model_dir of a training run")
    export_dir: str = flag(help="directory to write; an export that it holds is replaced")
    data_dir: str = flag(help="directory of shards with the photos that outputs are compared on")
    split: str = flag("validation", help="split of those photos")
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
    num_parity_images: int = flag(32, help="photos that outputs are compared on")
    max_probability_difference: float = flag(
        1e-5, help="largest difference from the Keras model's probabilities"
    )

    def __post_init__(self):
        if self.num_parity_images < 1:
            raise UsageError(f"--num_parity_images must be at least 1: {self.num_parity_images}")


def export(config: ExportConfig) -> None:
    """Writes a TF2 checkpoint and a SavedModel that agree with the trained model."""
    from preprocessing.manifest import load_manifest

    manifest = load_manifest(config.data_dir, config.split)
    evaluation = files.read_json(config.evaluation) if config.evaluation else None
    _require_replaceable(config.export_dir)
    from training import runtime

    runtime.start()
    import tensorflow as tf

    from loaders.open import ModelRequest, open_checkpoint
    from pipeline.parity import ParityImages, compare, require_parity
    from pipeline.saved_model import write_saved_model
    from training.checkpoints import write_weights
    from training.shards import Shards

    request = ModelRequest(config.model_name, config.width_multiplier, config.resolution)
    checkpoint = open_checkpoint(config.checkpoint_path, request, config.weights, manifest.classes)
    metrics = _metrics(evaluation, config.evaluation, checkpoint) if evaluation else {}
    record = dataclasses.replace(
        checkpoint.record, classes=manifest.classes, weights=checkpoint.weights
    )
    model = checkpoint.build()
    shards = Shards.open(config.data_dir, config.split)
    inputs = ParityImages.read(shards, record, config.num_parity_images)
    expected = tf.nn.softmax(model(inputs.images, training=False)).numpy()
    with files.atomic_directory(config.export_dir) as directory:
        write_weights(os.path.join(directory, "checkpoint"), checkpoint.values)
        record.write(os.path.join(directory, "checkpoint"))
        signatures = write_saved_model(model, record, os.path.join(directory, "saved_model"))
        rows = compare(directory, expected, inputs)
        require_parity(rows, config.max_probability_difference)
        summary = {
            "artifacts": [_artifact(directory, name) for name in ("checkpoint", "saved_model")],
            "signatures": signatures,
            "parity": {
                "num_images": len(inputs.images),
                "limit": config.max_probability_difference,
                "rows": [dataclasses.asdict(row) for row in rows],
            },
            "model": record.to_json(),
            "exported_from": checkpoint.path,
            "data_manifest_sha256": manifest.sha256,
            "metrics": metrics,
            "versions": {
                name: importlib.metadata.version(name) for name in ("tensorflow", "keras")
            },
        }
        files.write_json(os.path.join(directory, MANIFEST), summary)
    for row in rows:
        logging.info(
            "%-30s largest probability difference %.1e, top-1 agreement %.1f %%",
            row.artifact,
            row.largest_probability_difference,
            100 * row.top_1_agreement,
        )
    logging.info("exported to %s", config.export_dir)


def _require_replaceable(export_dir: str) -> None:
    """Makes sure that nothing but an export is lost, and that there is room for one.

    Raises:
        UserError: there is a file, or a directory that is no export, or it cannot be written to.
    """
    if os.path.isfile(export_dir):
        raise UsageError(f"--export_dir={export_dir} is a file: name a directory")
    held = os.path.isdir(export_dir) and os.listdir(export_dir)
    if held and MANIFEST not in held:
        raise UserError(f"--export_dir={export_dir} holds files that are no export: give another")
    files.require_writable(os.path.dirname(os.path.abspath(export_dir)), "export_dir")


def _artifact(directory: str, name: str) -> dict[str, Any]:
    path = os.path.join(directory, name)
    return {
        "name": name,
        "path": name,
        "bytes": files.size_of(path),
        "sha256": files.fingerprint(path),
    }


def _metrics(evaluation: Any, path: str, checkpoint: OpenCheckpoint) -> dict[str, Any]:
    """The metrics to keep, which must be those of the weights that are exported.

    Raises:
        UserError: the file is no evaluation, or of other weights.
    """
    try:
        metrics = {name: evaluation[name] for name in _METRICS}
        evaluated, weights = evaluation["checkpoint"], evaluation["weights"]
    except (KeyError, TypeError):
        raise UserError(f"--evaluation={path} was not written by pipeline.evaluate") from None
    if (os.path.realpath(evaluated), weights) != (
        os.path.realpath(checkpoint.path),
        checkpoint.weights,
    ):
        raise UserError(
            f"--evaluation={path} is of {evaluated} (weights: {weights}), but {checkpoint.path}"
            f" (weights: {checkpoint.weights}) is exported: evaluate that, or leave the flag out"
        )
    return metrics


if __name__ == "__main__":
    run(export, ExportConfig)
