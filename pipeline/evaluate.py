"""Evaluates a model on a data set: `python -m pipeline.evaluate`.

Every image is counted once. The result is printed, and written as JSON where --output names a file.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from typing import TYPE_CHECKING, Any

from common import files
from common.command import flag, run
from common.errors import UsageError
from training.models.configs import model_names

if TYPE_CHECKING:
    from pipeline.predictor import Predictor
    from preprocessing.manifest import Manifest
    from training.evaluation import Evaluation

_MOST_CLASSES_IN_CONFUSION = 200


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated, and on what."""

    checkpoint_path: str = flag(
        help="TF1 or TF2 checkpoint, --model_dir of a training run, or SavedModel"
    )
    data_dir: str = flag(help="directory of shards that preprocessing.build_dataset wrote")
    split: str = flag("validation", help="split to evaluate on")
    model_name: str | None = flag(
        None, help="architecture; by default what it looks like", choices=("auto", *model_names())
    )
    width_multiplier: float | None = flag(None, help="by default what the checkpoint says")
    resolution: int | None = flag(
        None, help="height and width of the input in pixels; of a TF1 checkpoint 224 by default"
    )
    weights: str | None = flag(
        None,
        help="moving averages, where the checkpoint has them, or raw weights; by default what its"
        " record says, else averages",
        choices=("averages", "raw"),
    )
    batch_size: int = flag(64, help="images evaluated at once; the result does not depend on it")
    output: str = flag("", help="JSON file to write; empty for none")

    def __post_init__(self):
        if self.batch_size < 1:
            raise UsageError(f"--batch_size must be at least 1, not {self.batch_size}")


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a TF1 or TF2 checkpoint or a SavedModel on a data set."""
    from preprocessing.manifest import load_manifest

    if config.output:
        files.require_writable_file(config.output, "output")
    manifest = load_manifest(config.data_dir, config.split)
    from training import runtime

    runtime.start()
    from loaders.open import ModelRequest
    from pipeline.predictor import open_predictor
    from training.evaluation import evaluate as count
    from training.input_pipeline import evaluation_batches
    from training.shard_errors import named_shard_errors
    from training.shards import Shards

    request = ModelRequest(config.model_name, config.width_multiplier, config.resolution)
    predictor = open_predictor(config.checkpoint_path, request, config.weights, manifest.classes)
    record = predictor.record
    shards = Shards.open(config.data_dir, config.split)
    batches = evaluation_batches(
        shards,
        config.batch_size,
        record.config.resolution,
        record.input_range,
        record.evaluation_preprocessing,
    )
    with named_shard_errors(shards):
        result = count(predictor.predict, batches, manifest, record)
    report = to_json(result, manifest, predictor, config.data_dir)
    if config.output:
        files.write_json(config.output, report)
    logging.info(
        "%s (weights: %s) on %s of %s: top-1 %.4f (%d of %d)  top-5 %.4f (%d)  loss %.4f",
        predictor.path,
        predictor.weights,
        config.split,
        config.data_dir,
        result.top_1,
        result.num_correct_top_1,
        result.num_examples,
        result.top_5,
        result.num_correct_top_5,
        result.loss,
    )


def to_json(
    result: Evaluation, manifest: Manifest, predictor: Predictor, data_dir: str
) -> dict[str, Any]:
    """The evaluation as it is written to a file."""
    classes, offset = manifest.classes, predictor.record.labels.offset
    correct = [int(result.confusion[i, i + offset]) for i in range(len(classes))]
    few = len(classes) <= _MOST_CLASSES_IN_CONFUSION
    return {
        "top_1": result.top_1,
        "top_5": result.top_5,
        # JSON has no NaN: a model that gives one has no loss.
        "loss": result.loss if math.isfinite(result.loss) else None,
        "num_examples": result.num_examples,
        "num_correct_top_1": result.num_correct_top_1,
        "num_correct_top_5": result.num_correct_top_5,
        "checkpoint": predictor.path,
        "weights": predictor.weights,
        "data_dir": data_dir,
        "split": manifest.split,
        "data_manifest_sha256": manifest.sha256,
        "model": predictor.record.config.to_json(),
        "label_offset": offset,
        "classes": list(classes),
        "per_class": [
            {"class": name, "num_examples": count, "num_correct": right}
            for name, count, right in zip(
                classes, result.confusion.sum(axis=1).tolist(), correct, strict=True
            )
            if count
        ],
        "confusion": result.confusion[:, offset:].tolist() if few else None,
        "mistakes": [
            {
                "file_name": mistake.file_name,
                "label": classes[mistake.class_index],
                "predicted": _output_name(mistake.predicted_output - offset, classes),
                "probability": mistake.probability,
            }
            for mistake in result.mistakes
        ],
    }


def _output_name(class_index: int, classes: tuple[str, ...]) -> str:
    return classes[class_index] if class_index >= 0 else "background"


if __name__ == "__main__":
    run(evaluate, EvaluateConfig)
