"""What a run tells on its way besides its history: TensorBoard, the log, which examples it saw."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from common import files
from training.checkpoints import reachable
from training.config import RunFlags
from training.state import TrainState
from training.strategies import Devices

EXAMPLES = "examples"  # with --log_examples


class RunLog:
    """Writes to TensorBoard on the chief, and the numbers of examples on every worker.

    Args:
        run: where, and how much.
        devices: which of the workers this is.
        name: a directory below TensorBoard's, for a process beside the run; empty for the run.
    """

    def __init__(self, run: RunFlags, devices: Devices, name: str = ""):
        self._run, self._devices = run, devices
        self._directory = files.join(run.logs, name) if name else run.logs

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The block in which `call` and `epoch` write."""
        writer = tf.summary.create_noop_writer()
        if self._devices.is_chief:
            with reachable(self._directory):
                writer = tf.summary.create_file_writer(self._directory)
        with writer.as_default():
            yield

    def call(self, first_step: int, losses: Sequence[float], values: Mapping[str, Any]) -> None:
        """The losses of a call's steps, and values at its end."""
        for step, loss in enumerate(losses, first_step + 1):
            tf.summary.scalar("steps/loss", loss, step=step)
        for name, value in values.items():
            tf.summary.scalar(f"steps/{name}", value, step=first_step + len(losses))

    def epoch(self, step: int, row: Mapping[str, Any], state: TrainState | None = None) -> None:
        """A row of the history; histograms of the weights of `state` where they are asked for."""
        shown = {name: value for name, value in row.items() if value is not None}
        for name, value in shown.items():
            tf.summary.scalar(name, value, step=step)
        if self._run.histograms and state is not None:
            for name, variable in state.weight_variables("raw").items():
                tf.summary.histogram(name, variable, step=step)
        with reachable(self._directory):
            tf.summary.flush()
        logging.info(
            "  ".join(
                f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in shown.items()
            )
        )

    def examples(self, first_step: int, last_step: int, numbers: tf.Variable) -> None:
        """Appends what this worker's replicas were given in a call, a line a step."""
        parts = self._devices.strategy.experimental_local_results(numbers)
        by_step = zip(*(part.numpy()[: last_step - first_step] for part in parts), strict=True)
        lines = []
        for step, replicas in enumerate(by_step, first_step + 1):
            given = [int(example) for part in replicas for example in part]
            lines.append(json.dumps({"step": step, "examples": given}) + "\n")
        directory = files.join(self._run.model_dir, EXAMPLES)
        name = f"worker-{self._devices.worker:05}"
        if files.is_remote(directory):  # an object takes no more once it is there
            path = files.join(directory, f"{name}-step-{first_step + 1:08}.jsonl")
            files.write_text(path, "".join(lines))
            return
        files.make_directory(directory)
        with open(files.join(directory, f"{name}.jsonl"), "a", encoding="utf-8") as file:
            file.writelines(lines)
