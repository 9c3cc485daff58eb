"""What training costs beyond its steps: `python -m benchmarks.loop_overhead --photos=DIR`.

One side is the trainer on real shards, with all that it does beside the step: reading, decoding,
augmentation, guards, summaries. The other is the same model and optimizer on one batch of numbers
that stays where it is. They take turns, each in a process of its own. Only a step that binds can
hide the rest: on a CPU the input shares the cores with the step, so the model must be a heavy one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.turns import ratios, spread, take_turns
from common import files
from common.command import flag, run


@dataclasses.dataclass(frozen=True)
class OverheadFlags:
    """Which model, on which photos."""

    photos: str = flag("", help="class folders that shards are made from; for the trainer's side")
    model_name: str = flag("mobilenet_edgetpu", help="architecture, at width 1")
    resolution: int = flag(224, help="height and width of the input in pixels")
    batch_size: int = flag(32, help="examples a step")
    steps: int = flag(40, help="steps that are timed in a turn")
    rounds: int = flag(3, help="turns of each side")
    output: str = flag("", help="JSON file to write; empty for none")
    bare: bool = flag(False, help="run the bare side in this process and print its images/s")


def compare(config: OverheadFlags) -> None:
    """Trains on real shards and on made-up numbers in turns, and prints the ratio."""
    if config.bare:
        print(json.dumps({"images_per_second": bare_rate(config)}))
        return
    from preprocessing.build_dataset import BuildConfig, build_dataset

    with tempfile.TemporaryDirectory() as directory:
        data = os.path.join(directory, "data")
        build_dataset(BuildConfig(config.photos, data, num_shards=8))
        turns = take_turns(
            {
                "trainer": lambda: trainer_rate(config, data, tempfile.mkdtemp(dir=directory)),
                "bare step": lambda: _bare_process(config),
            },
            config.rounds,
        )
    ratio = spread(ratios(turns["trainer"], turns["bare step"]))
    for side, rates in turns.items():
        shown = spread(rates)
        logging.info(
            "%-10s %7.2f images/s (%.2f to %.2f)",
            side,
            shown["median"],
            shown["min"],
            shown["max"],
        )
    logging.info("ratio %.3f (%.3f to %.3f)", ratio["median"], ratio["min"], ratio["max"])
    if config.output:
        files.write_json(config.output, {"turns": turns, "ratio": ratio})


def trainer_rate(config: OverheadFlags, data: str, model_dir: str) -> float:
    """Images/s of `training.train`, without its first call."""
    words = [
        f"--data_dir={data}",
        f"--model_dir={model_dir}",
        f"--model_name={config.model_name}",
        f"--resolution={config.resolution}",
        f"--batch_size={config.batch_size}",
        "--optimizer_name=momentum",
        "--ma_decay_rate=0",
        "--eval_split=",
        "--epochs=1",
    ]
    manifest = files.read_json(os.path.join(data, "train", "manifest.json"))
    part = min(sum(s["num_examples"] for s in manifest["shards"]), config.steps * config.batch_size)
    subprocess.run(
        [sys.executable, "-m", "training.train", *words, f"--train_split=train[:{part}]"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (row,) = files.read_json(os.path.join(model_dir, "history.json"))["epochs"]
    return row["images_per_second"]


def _bare_process(config: OverheadFlags) -> float:
    words = [
        f"--{name}={getattr(config, name)}"
        for name in ("model_name", "resolution", "batch_size", "steps")
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loop_overhead", "--bare", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["images_per_second"]


def bare_rate(config: OverheadFlags) -> float:
    """Images/s of forward pass, backward pass and update alone, on the same numbers each time."""
    from training import runtime

    runtime.start()
    import tensorflow as tf

    from training.config import ModelFlags, OptimizationFlags
    from training.state import TrainState

    flags = ModelFlags(config.model_name, resolution=config.resolution)
    options = OptimizationFlags(optimizer_name="momentum", ma_decay_rate=0.0)
    state = TrainState(flags.config(1000), options)
    shape = [config.batch_size, config.resolution, config.resolution, 3]
    images = tf.Variable(tf.random.stateless_uniform(shape, [0, 0], -1.0, 1.0), trainable=False)
    labels = tf.range(config.batch_size)

    @tf.function
    def steps(count):
        for _ in tf.range(count):
            with tf.GradientTape() as tape:
                logits = state.model(images, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss = tf.reduce_mean(losses)
            names = list(state.trainable)
            gradients = tape.gradient(loss, [state.trainable[name].value for name in names])
            gradients = dict(zip(names, gradients, strict=True))
            state.optimizer.update(gradients, tf.constant(1e-3), state.step)

    steps(tf.constant(2))
    start = time.monotonic()
    for _ in range(config.steps // 4):
        steps(tf.constant(4))
    return config.steps // 4 * 4 * config.batch_size / (time.monotonic() - start)


if __name__ == "__main__":
    run(compare, OverheadFlags)
