"""What counting costs an evaluation: `python -m benchmarks.evaluation_speed --data_dir=DATA`.

Bare inference is what nobody can do without: the same records, decoded by the same pipeline into
the same batches, and the model run on each of them as one TensorFlow function; nothing is counted
and nothing is looked at, only the last logits are waited for. The evaluator is what
`python -m pipeline.evaluate` runs: it counts every image, keeps what it makes of each, and works
out all statistics at the end. A second pair of sides has its batches in memory, decoded before, so
that reading and decoding cannot hide what counting costs. All sides are in one process and take
turns; seconds of the processor are told beside those of the clock, for a machine that is busy with
other things.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from benchmarks.turns import ratios, spread, take_turns
from common import files
from common.command import flag, run
from training.models.configs import model_names

_SOURCES = ("shards", "memory")

Seconds = tuple[float, float]  # by the clock, and of the processor over all threads


@dataclasses.dataclass(frozen=True)
class EvaluationSpeedFlags:
    """Which model, on which photos."""

    data_dir: str = flag(help="directory of shards of preprocessing.build_dataset")
    split: str = flag("validation[:256]", help="split, or the part of one, that is gone through")
    model_name: str = flag("mobilenet_v1", help="architecture", choices=model_names())
    width_multiplier: float = flag(0.25, help="scales the channels of every layer")
    resolution: int = flag(128, help="height and width of the input in pixels")
    batch_size: int = flag(64, help="images at once")
    rounds: int = flag(7, help="turns of each side")
    output: str = flag("", help="JSON file to write; empty for none")


def compare(config: EvaluationSpeedFlags) -> None:
    """Evaluates, and runs the bare model, in turns, and prints the ratios of images/s."""
    from training import runtime

    runtime.start()
    sides, num_images = _sides(config)
    turns = take_turns(sides, config.rounds, warm_up=1)
    found = {}
    for number, clock in enumerate(("clock", "processor")):
        rates = {
            name: [num_images / seconds[number] for seconds in rounds]
            for name, rounds in turns.items()
        }
        for name, values in rates.items():
            _show(f"{name}, images/s by the {clock}", "%.1f (%.1f to %.1f)", spread(values))
        for source in _SOURCES:
            ratio = spread(ratios(rates[f"evaluator, {source}"], rates[f"bare, {source}"]))
            _show(f"evaluator over bare, {source}, {clock}", "%.3f (%.3f to %.3f)", ratio)
            found[f"{source}, {clock}"] = {"ratio": ratio, "images_per_second": rates}
    if config.output:
        files.write_json(config.output, {"load": os.getloadavg()[0], **found})


def _show(what: str, form: str, shown: dict[str, Any]) -> None:
    logging.info(f"%-48s {form}", what, shown["median"], shown["min"], shown["max"])


def _sides(config: EvaluationSpeedFlags) -> tuple[dict[str, Callable[[], Seconds]], int]:
    """The sides by name, and how many images each goes through."""
    import tensorflow as tf

    from pipeline.evaluation import statistics
    from training import evaluation
    from training.config import DataFlags, ModelFlags
    from training.input_pipeline import evaluation_batches
    from training.models import build_model
    from training.readers import open_split
    from training.strategies import Devices

    shards = open_split(DataFlags(config.data_dir), config.split)
    flags = ModelFlags(config.model_name, config.width_multiplier, resolution=config.resolution)
    model = build_model(flags.config(len(shards.classes)))
    size = (config.resolution,) * 2
    reading = evaluation.Reading(size)

    def batches():
        return evaluation_batches(shards, config.batch_size, size, reading.input_range)

    in_memory = list(batches())
    signature = [tf.TensorSpec([None, *size, 3], tf.float32)]
    predict = tf.function(lambda images: model(images, training=False), input_signature=signature)
    evaluator = evaluation.Evaluator(
        lambda images: model(images, training=False),
        reading,
        Devices(tf.distribute.get_strategy()),
    )

    def bare(source: Callable) -> None:
        for batch in source():
            logits = predict(batch["images"])
        logits.numpy()

    def ours(source: Callable) -> None:
        # The evaluator's own source of batches is exchanged, for the side in memory alone.
        before, evaluation.evaluation_batches = evaluation.evaluation_batches, source
        try:
            outcomes = evaluator.run(shards, config.batch_size)
        finally:
            evaluation.evaluation_batches = before
        statistics.calibration(outcomes)
        statistics.confusion_pairs(outcomes, 0)
        statistics.per_class(outcomes, len(shards.classes))
        statistics.worst_mistakes(outcomes)

    return {
        "bare, shards": lambda: _timed(bare, batches),
        "evaluator, shards": lambda: _timed(ours, evaluation_batches),
        "bare, memory": lambda: _timed(bare, lambda: in_memory),
        "evaluator, memory": lambda: _timed(ours, lambda *_: in_memory),
    }, shards.num_examples


def _timed(side: Callable, source: Callable) -> Seconds:
    clock, processor = time.perf_counter(), time.process_time()
    side(source)
    return time.perf_counter() - clock, time.process_time() - processor


if __name__ == "__main__":
    run(compare, EvaluationSpeedFlags)
