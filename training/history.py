"""What a run has to tell, epoch by epoch: `history.json`."""

from __future__ import annotations

import math
from typing import Any

from common import files

FILE_NAME = "history.json"


class History:
    """Where a run started, and one row for each epoch that it finished."""

    def __init__(self, model_dir: str, writes: bool = True):
        self._writes = writes  # of several workers the chief does
        self._path = files.join(model_dir, FILE_NAME)
        self.start: dict[str, Any] = {}
        self.epochs: list[dict[str, Any]] = []
        self._finished_epochs: int | None = None
        self._compared_from = 0

    @property
    def compared(self) -> list[dict[str, Any]]:
        """The rows whose metrics can be compared: since evaluation was last changed."""
        return self.epochs[self._compared_from :]

    def compare_anew(self) -> None:
        """Notes that what is found from now on is not comparable to what was found before."""
        self._compared_from = len(self.epochs)
        self.write()

    def add_epoch(self, row: dict[str, Any]) -> None:
        """Adds the row of an epoch, and writes."""
        self.epochs.append(row)
        self.write()

    def finish(self, num_epochs: int) -> None:
        """Notes that a run of `num_epochs` is over; it may have ended early.

        A history that was lost is not made anew without its epochs.
        """
        if self._finished_epochs != num_epochs and self.epochs:
            self._finished_epochs = num_epochs
            self.write()

    def write(self) -> None:
        """Writes all of it, on the chief."""
        if self._writes:
            content = {"start": self.start, "epochs": self.epochs}
            if self._finished_epochs is not None:
                content["finished_epochs"] = self._finished_epochs
            if self._compared_from:
                content["compared_from"] = self._compared_from
            files.write_json(self._path, content)

    def go_back_to(self, num_epochs: int) -> None:
        """Reads what was written about the first `num_epochs` epochs."""
        if files.exists(self._path):
            written = files.read_json(self._path)
            self.start = written["start"]
            self.epochs = [row for row in written["epochs"] if row["epoch"] <= num_epochs]
            self._finished_epochs = written.get("finished_epochs")
            self._compared_from = min(written.get("compared_from", 0), len(self.epochs))


def finished_epochs(model_dir: str) -> int | None:
    """How many epochs the run was to have that is over; None as long as it goes on."""
    path = files.join(model_dir, FILE_NAME)
    return files.read_json(path).get("finished_epochs") if files.exists(path) else None


def is_better(metric: str, value: float, other: float) -> bool:
    """Whether a metric's value is better: smaller for a loss, else larger; NaN is worst."""
    if math.isnan(value) or math.isnan(other):
        return not math.isnan(value)
    return value < other if metric.endswith("loss") else value > other


def best_epoch(rows: list[dict[str, Any]], metric: str) -> int | None:
    """Index of the row that is best by `metric`, the first of equal ones; None without any."""
    best = None
    for number, row in enumerate(rows):
        if metric in row and (best is None or is_better(metric, row[metric], rows[best][metric])):
            best = number
    return best


def evaluations_since_best(rows: list[dict[str, Any]], metric: str) -> int:
    """How many evaluations have brought nothing better since the best one."""
    best = best_epoch(rows, metric)
    return 0 if best is None else sum(metric in row for row in rows[best + 1 :])
