"""What a run has to tell, epoch by epoch: `history.json`."""

from __future__ import annotations

import os
from typing import Any

from common import files

FILE_NAME = "history.json"


class History:
    """Where a run started, and one row for each epoch that it finished."""

    def __init__(self, model_dir: str):
        self._path = os.path.join(model_dir, FILE_NAME)
        self.start: dict[str, Any] = {}
        self.epochs: list[dict[str, Any]] = []

    def add_epoch(self, row: dict[str, Any]) -> None:
        self.epochs.append(row)
        self.write()

    def write(self) -> None:
        files.write_json(self._path, {"start": self.start, "epochs": self.epochs})

    def go_back_to(self, step: int) -> None:
        """Reads what was written, without the epochs that ended after `step`."""
        if os.path.exists(self._path):
            written = files.read_json(self._path)
            self.start = written["start"]
            self.epochs = [row for row in written["epochs"] if row["step"] <= step]
