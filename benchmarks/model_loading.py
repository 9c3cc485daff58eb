"""How long a model takes to build and load: `python -m benchmarks.model_loading`.

MobileNetV3-Large from a TF1 checkpoint by `loaders`, beside keras.applications' from its own file
of weights. Both files hold random weights and are written by the benchmark. The two sides take
turns, and swap places from round to round.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.turns import ratios, spread, take_turns
from common.command import flag, run
from common.errors import UsageError
from common.files import require_writable_file, write_json

OURS, THEIRS = "loaders, TF1 checkpoint", "keras.applications, .weights.h5"

_NUM_OUTPUTS = 1001


@dataclasses.dataclass(frozen=True)
class LoadingConfig:
    """Flags of the command."""

    rounds: int = flag(5, help="how often each side is measured, after one time unmeasured")
    json: str = flag("", help="JSON file for the same figures; empty for none")

    def __post_init__(self):
        if self.rounds < 1:
            raise UsageError(f"--rounds must be at least 1, not {self.rounds}")


def measure_loading(config: LoadingConfig) -> None:
    """Compares the time to build and load MobileNetV3-Large with that of keras.applications."""
    if config.json:
        require_writable_file(config.json, "json")
    from training import runtime

    runtime.start()
    with tempfile.TemporaryDirectory() as directory:
        sides = {OURS: seconds_of(_ours(directory)), THEIRS: seconds_of(_theirs(directory))}
        seconds = take_turns(sides, config.rounds, warm_up=1)
    figures = summarize(seconds)
    if config.json:
        write_json(config.json, figures)
    _print_table(figures)


def seconds_of(side: Callable[[], Any]) -> Callable[[], float]:
    """Calls a side and returns how long it took."""

    def timed() -> float:
        gc.collect()
        start = time.perf_counter()
        side()
        return time.perf_counter() - start

    return timed


def summarize(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median, least and greatest seconds of each side, and of the first over the second."""
    ours, theirs = seconds.values()
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": spread(ratios(ours, theirs)),
    }


def _ours(directory: str) -> Callable[[], Any]:
    """Writes a TF1 checkpoint of random weights; returns what builds and loads the model."""
    from loaders import load_mobilenet_v3_large
    from loaders.loaders import StoredWeights
    from loaders.tf1_writer import tf1_variables, write_tf1_checkpoint
    from training.models import MobileNetV3LargeConfig, build_model
    from training.models.mobilenet import weights_of

    config = MobileNetV3LargeConfig(num_classes=_NUM_OUTPUTS)
    weights = weights_of(build_model(config))
    stored = StoredWeights({name: value.numpy() for name, value in weights.items()}, {})
    variables = tf1_variables(config.family.scope, stored)
    prefix = write_tf1_checkpoint(directory, variables, stored.step)
    return lambda: load_mobilenet_v3_large(prefix, config)


def _theirs(directory: str) -> Callable[[], Any]:
    """The same of keras.applications."""
    import keras

    path = os.path.join(directory, "keras.weights.h5")

    def build():
        return keras.applications.MobileNetV3Large(
            weights=None, classes=_NUM_OUTPUTS, include_preprocessing=False
        )

    def build_and_load():
        model = build()
        model.load_weights(path)
        return model

    build().save_weights(path)
    return build_and_load


def _print_table(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="MobileNetV3-Large, built and loaded: seconds")
    table.add_column("side")
    for heading in ("median", "min", "max"):
        table.add_column(heading, justify="right")
    for name, values in [*figures["seconds"].items(), ("ratio", figures["ratio"])]:
        words = (f"{values[key]:.3f}" for key in ("median", "min", "max"))
        table.add_row(name, *words, end_section=name == THEIRS)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run(measure_loading, LoadingConfig)
