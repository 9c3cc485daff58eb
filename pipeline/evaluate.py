"""Evaluates a model on data sets: `python -m pipeline.evaluate`.

Every image is counted once, on any number of replicas and workers. The result is printed, and
written as JSON where --output names a file.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Any

from common import files
from common.command import flag, run
from common.errors import UsageError
from training.config import EVAL_PREPROCESSINGS, STRATEGIES, DistributionFlags
from training.models.configs import model_names

if TYPE_CHECKING:
    from pipeline.evaluation.data_sets import DataSet
    from pipeline.evaluation.predictors import Predictor
    from training.evaluation import Outcomes
    from training.strategies import Devices


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated, and on what."""

    checkpoint_path: str = flag(
        help="TF1 or TF2 checkpoint, --model_dir of a training run, SavedModel, .keras or .tflite"
    )
    data_dir: str = flag(
        help="directory of shards: our own, the classic ImageNet ones of tf-slim and TPU, or TFDS';"
        " several are separated by commas"
    )
    split: str = flag(
        "validation",
        help="split to evaluate on, or a part as in validation[:1000]; of several, separated by"
        " commas, each is evaluated in each --data_dir",
    )
    dataset_name: str = flag("", help="which TFDS data set below --data_dir; empty for our shards")
    model_name: str | None = flag(
        None, help="architecture; by default what it looks like", choices=("auto", *model_names())
    )
    width_multiplier: float | None = flag(None, help="by default what the checkpoint says")
    resolution: int | None = flag(
        None, help="height and width of the input in pixels; of a TF1 checkpoint 224 by default"
    )
    input_range: tuple[float, ...] | None = flag(
        None,
        help="the value of a black and of a white pixel, as in --input_range=-1,1; by default what"
        " model.json says, else the file itself, else -1,1",
    )
    preprocessing: str | None = flag(
        None,
        help="from photo to pixels; by default what model.json says, else inception",
        choices=EVAL_PREPROCESSINGS,
    )
    weights: str | None = flag(
        None,
        help="moving averages, where the checkpoint has them, or raw weights; by default what its"
        " record says, else averages",
        choices=("averages", "raw"),
    )
    batch_size: int = flag(64, help="images evaluated at once; the result does not depend on it")
    compare_published: bool = flag(
        False, help="show the figures published of this model beside ours, if it is a released one"
    )
    diagnose: str = flag(
        "auto",
        help="try on a few hundred photos what may be wrong: labels, input range, channel order,"
        " preprocessing, weights; auto: where the accuracy is below nine tenths of the published"
        " figure, or near chance",
        choices=("auto", "always", "never"),
    )
    strategy: str = flag("auto", help="on what it runs, as in training", choices=STRATEGIES)
    num_virtual_devices: int = flag(
        1, help="mirrored, without a GPU: parts that the CPU is cut into, to try distribution"
    )
    tpu: str = flag("", help="tpu: name or address of the TPU; empty for the local one")
    output: str = flag(
        "",
        help="JSON file to write; of several data sets each has its own, with its name before the"
        " suffix: e.json becomes e-validation.json, e-validation-0-1000.json, or with several"
        " --data_dir e-DIRECTORY-validation.json; empty for none",
    )

    def __post_init__(self):
        if self.batch_size < 1:
            raise UsageError(f"--batch_size must be at least 1, not {self.batch_size}")
        limits = self.input_range
        if limits is not None and (len(limits) != 2 or limits[0] >= limits[1]):
            raise UsageError(
                f"--input_range must be two numbers, black and then white, not"
                f" {','.join(f'{value:g}' for value in limits)}"
            )


def evaluate(config: EvaluateConfig) -> None:
    """Evaluates a TF1 or TF2 checkpoint, SavedModel, .keras or LiteRT file on data sets."""
    from pipeline.evaluation.data_sets import open_data_sets

    data_sets = open_data_sets(config.data_dir, config.split, config.dataset_name, config.output)
    for data in data_sets:
        if data.output:
            files.require_writable_file(data.output, "output")
    from training import runtime

    runtime.start()
    from training.strategies import choose_devices

    flags = DistributionFlags(config.strategy, config.num_virtual_devices, config.tpu)
    devices = choose_devices(flags, os.environ)
    predictor = _open(config, devices, data_sets[0].shards.classes)
    results = _evaluate_all(config, predictor, devices, data_sets)
    if not devices.is_chief:
        return
    from pipeline.evaluation.result import print_table

    print_table(results, config.compare_published)
    if config.compare_published and not any(result["published"] for result in results):
        logging.info("no figure was published of this model on this data")


def _open(config: EvaluateConfig, devices: Devices, classes: tuple[str, ...]) -> Predictor:
    from loaders.open import ModelRequest
    from pipeline.evaluation.predictors import PredictorRequest, open_predictor

    request = PredictorRequest(
        ModelRequest(config.model_name, config.width_multiplier, config.resolution),
        config.weights,
        config.input_range,
        config.preprocessing,
    )
    with devices.strategy.scope():
        predictor = open_predictor(config.checkpoint_path, request, classes)
    for note in predictor.notes:
        logging.info("%s", note)
    return predictor


def _evaluate_all(
    config: EvaluateConfig, predictor: Predictor, devices: Devices, data_sets: list[DataSet]
) -> list[dict[str, Any]]:
    """Evaluates on one data set after the other; the chief writes and shows each result."""
    from pipeline.evaluation.published import find_published, is_imagenet
    from pipeline.evaluation.published import to_json as published_json
    from pipeline.evaluation.result import to_json
    from training.evaluation import Evaluator
    from training.shard_errors import named_shard_errors

    evaluator = Evaluator(predictor.predict, predictor.reading, devices, predictor.in_graph)
    row = None
    if is_imagenet(data_sets[0].shards.classes):
        row = find_published(predictor.path, predictor.model, predictor.is_quantized)
    published = published_json(row) if row else None
    results = []
    for data in data_sets:
        with named_shard_errors(data.shards):
            outcomes = evaluator.run(data.shards, config.batch_size)
            if not devices.is_chief:
                continue
            findings = _diagnose(config, predictor, devices, data, outcomes, published)
            result = to_json(outcomes, data, predictor, published, findings)
        if data.output:
            files.write_json(data.output, result)
        _log(result)
        results.append(result)
    return results


def _diagnose(
    config: EvaluateConfig,
    predictor: Predictor,
    devices: Devices,
    data: DataSet,
    outcomes: Outcomes,
    published: dict[str, Any] | None,
) -> list | None:
    """What is wrong with an accuracy that is far off; None where nothing was tried."""
    from pipeline.evaluation.diagnosis import diagnose, is_far_off

    figure = published["top_1"] if published else None
    is_off = is_far_off(
        outcomes.num_correct_top_1, outcomes.num_examples, len(data.shards.classes), figure
    )
    if config.diagnose == "never" or not (is_off or config.diagnose == "always"):
        return None
    if devices.num_workers > 1:
        logging.warning(
            "top-1 is %.4f, which is far off: one worker alone would diagnose it", outcomes.top_1
        )
        return None
    if is_off:
        logging.warning("top-1 is %.4f, which is far off: trying what may be wrong", outcomes.top_1)
    return diagnose(predictor, data.shards, figure, is_thorough=config.diagnose == "always")


def _log(result: dict[str, Any]) -> None:
    logging.info(
        "%s (weights: %s) on %s of %s: top-1 %.4f (%d of %d)  top-5 %.4f (%d)  loss %s",
        result["checkpoint"],
        result["weights"],
        result["split"],
        result["data_dir"],
        result["top_1"],
        result["num_correct_top_1"],
        result["num_examples"],
        result["top_5"],
        result["num_correct_top_5"],
        "none" if result["loss"] is None else f"{result['loss']:.4f}",
    )
    for number, finding in enumerate(result["diagnosis"] or []):
        logging.warning(
            "%s %s: %s; top-1 would be %.3f instead of %.3f (on %d photos)",
            "and then" if number else "likely cause:",
            *(finding[key] for key in ("cause", "explanation", "top_1", "top_1_before")),
            finding["num_examples"],
        )
    if result["diagnosis"] == []:
        logging.warning(
            "none of the usual causes (labels, input range, channel order, preprocessing, weights)"
            " explains it"
        )


if __name__ == "__main__":
    run(evaluate, EvaluateConfig)
