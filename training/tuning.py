"""Tells a tuning job how good this trial is.

Vertex AI reads the metric of a trial from a file in its container: a line of JSON for each
measurement, of which the last hundred are kept. That is the form of the package cloudml-hypertune,
which has had no release since 2019 and is not needed for it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping

TRIAL, FILE = "CLOUD_ML_TRIAL_ID", "CLOUD_ML_HP_METRIC_FILE"
_DEFAULT_FILE = "/tmp/hypertune/output.metrics"
_MOST_LINES = 100


def report_metric(name: str, value: float, step: int, environment: Mapping[str, str]) -> None:
    """Adds a measurement to the trial's file; nothing where this is no trial.

    Args:
        name: of the metric, as `metricId` in the job's specification.
        value: what was measured.
        step: after how much training; the service compares trials at equal steps.
        environment: names the trial, and may name the file.
    """
    if not environment.get(TRIAL):
        return
    path = environment.get(FILE) or _DEFAULT_FILE
    os.makedirs(os.path.dirname(path), exist_ok=True)
    lines = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    measured = {
        "timestamp": time.time(),
        "trial": environment[TRIAL],
        name: str(float(value)),
        "global_step": str(int(step)),
        "checkpoint_path": "",
    }
    lines.append(json.dumps(measured, sort_keys=True))
    # In place, not by renaming: the service has the file open and reads on.
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines[-_MOST_LINES:])
