"""What a tuning job reads of its trials: the file that the package cloudml-hypertune writes."""

import json
import time

import pytest

from tests.training.runs import flags_of, history_of
from training.train import train
from training.tuning import report_metric


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_measurement_is_a_line_of_five_fields(tmp_path):
    path = tmp_path / "deep/output.metrics"
    environment = {"CLOUD_ML_TRIAL_ID": "7", "CLOUD_ML_HP_METRIC_FILE": str(path)}
    report_metric("validation_top_1", 0.25, 3, environment)
    (line,) = lines_of(path)
    assert time.time() - line.pop("timestamp") < 60
    # That package's version 0.1.0.dev6 writes numbers as text, and the path though there is none.
    assert line == {
        "trial": "7",
        "validation_top_1": "0.25",
        "global_step": "3",
        "checkpoint_path": "",
    }


def test_the_last_hundred_are_kept_in_the_same_file(tmp_path):
    path = tmp_path / "output.metrics"
    environment = {"CLOUD_ML_TRIAL_ID": "7", "CLOUD_ML_HP_METRIC_FILE": str(path)}
    report_metric("loss", 1.0, 0, environment)
    number = path.stat().st_ino
    for step in range(1, 105):
        report_metric("loss", 1.0, step, environment)
    assert [int(line["global_step"]) for line in lines_of(path)] == list(range(5, 105))
    assert path.stat().st_ino == number  # what the service has open


@pytest.mark.parametrize("trial", [{}, {"CLOUD_ML_TRIAL_ID": ""}])
def test_what_is_no_trial_writes_nothing(tmp_path, trial):
    path = tmp_path / "output.metrics"
    report_metric("loss", 1.0, 0, {**trial, "CLOUD_ML_HP_METRIC_FILE": str(path)})
    assert not path.exists()


def test_a_run_reports_each_evaluation_by_its_epoch(drawn_data, tmp_path, monkeypatch):
    path = tmp_path / "output.metrics"
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "1")
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(path))
    changes = {"epochs": 3}
    train(
        *flags_of(
            drawn_data,
            tmp_path / "run",
            optimization=changes,
            run={"eval_every_epochs": 2, "early_stop_metric": "validation_loss"},
        )
    )
    told = [(int(row["global_step"]), float(row["validation_loss"])) for row in lines_of(path)]
    epochs = history_of(tmp_path / "run")["epochs"]
    assert told == [(row["epoch"], row["validation_loss"]) for row in epochs[1:]]
