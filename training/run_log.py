"""What a run tells on its way besides its history: TensorBoard, the log, which examples it saw."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import tensorflow as tf

from common import files
from common.errors import first_line
from training.checkpoints import reachable
from training.config import RunFlags
from training.state import TrainState
from training.strategies import Devices

EXAMPLES = "examples"  # with --log_examples

_LONGEST_LINE = 1 << 22  # bytes: a step's numbers of a few hundred thousand examples


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
        self._has_warned = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The block in which `call` and `epoch` write."""
        writer = tf.summary.create_noop_writer()
        if self._devices.is_chief:
            with reachable(self._directory):
                writer = tf.summary.create_file_writer(self._directory)
        block = writer.as_default()
        block.__enter__()
        try:
            yield
        finally:
            with self._tolerated():
                block.__exit__(None, None, None)  # where it is flushed

    @contextlib.contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Warns once where TensorBoard's files cannot be written: training goes on without."""
        try:
            yield
        except tf.errors.OpError as error:
            if not self._has_warned:
                logging.warning(
                    "TensorBoard's log in %s cannot be written: %s",
                    self._directory,
                    first_line(error),
                )
            self._has_warned = True

    def call(self, first_step: int, losses: Sequence[float], values: Mapping[str, Any]) -> None:
        """The losses of a call's steps, and values at its end."""
        with self._tolerated():
            for step, loss in enumerate(losses, first_step + 1):
                tf.summary.scalar("steps/loss", loss, step=step)
            for name, value in values.items():
                tf.summary.scalar(f"steps/{name}", value, step=first_step + len(losses))

    def epoch(self, step: int, row: Mapping[str, Any], state: TrainState | None = None) -> None:
        """A row of the history; histograms of the weights of `state` where they are asked for."""
        shown = {name: value for name, value in row.items() if value is not None}
        with self._tolerated():
            for name, value in shown.items():
                tf.summary.scalar(name, value, step=step)
            if self._run.histograms and state is not None:
                for name, variable in state.weight_variables("raw").items():
                    tf.summary.histogram(name, variable, step=step)
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
        with open(files.join(directory, f"{name}.jsonl"), "ab+") as file:
            _end_last_line(file)
            file.write("".join(lines).encode())


def _end_last_line(file: BinaryIO) -> None:
    """Takes away the part of a line that a killed process left at a file's end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_LINE))
    rest = file.read()
    if not rest.endswith(b"\n"):
        file.truncate(size - len(rest) + rest.rfind(b"\n") + 1)
