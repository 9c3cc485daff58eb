"""The evaluator of a cluster, on a run that is over and on one that goes on."""

import json
import shutil

import pytest

from common.errors import UsageError
from tests.training.runs import flags_of, history_of, log_of
from training.evaluator import FILE_NAME
from training.train import train

EVALUATOR = json.dumps(
    {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "evaluator", "index": 0}}
)


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of a finished run, seen by the evaluator of a cluster."""
    monkeypatch.setenv("TF_CONFIG", EVALUATOR)
    return shutil.copytree(finished, tmp_path / "run")


def rows_of(run) -> list[dict]:
    return json.loads((run / FILE_NAME).read_text())


def test_it_counts_what_the_run_itself_counted(run, drawn_data, caplog):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    log_of(caplog, flags_of(drawn_data, run))
    (row,) = rows_of(run)
    last = history_of(run)["epochs"][-1]
    assert row["step"] == last["step"]
    for name in ("validation_top_1", "validation_top_5", "validation_top_1_raw"):
        assert row[name] == last[name]
    assert row["validation_loss"] == pytest.approx(last["validation_loss"], rel=1e-6)
    # It changes nothing of the run's own.
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert list((run / "logs/evaluator").glob("events*"))


def test_it_does_not_count_twice(run, drawn_data, caplog):
    flags = flags_of(drawn_data, run)
    log_of(caplog, flags)
    before = rows_of(run)
    assert "the run is finished: 1 checkpoints were evaluated" in log_of(caplog, flags)
    assert rows_of(run) == before


def test_it_waits_for_the_checkpoint_that_comes_and_for_the_end(
    run, drawn_data, caplog, monkeypatch
):
    """The run is seen as it was after an earlier checkpoint, and goes on while it is waited for."""
    checkpoints, aside = run / "checkpoints", run / "aside"
    newest = max(checkpoints.glob("*.index"), key=lambda path: int(path.stem.split("-")[1]))
    aside.mkdir()
    for path in checkpoints.glob(f"{newest.stem}.*"):
        path.rename(aside / path.name)
    history = json.loads((run / "history.json").read_text())
    (run / "history.json").write_text(json.dumps({**history, "finished_epochs": None}))
    waits = []

    def go_on(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            for path in sorted(aside.iterdir()):  # .data before .index
                path.rename(checkpoints / path.name)
        if len(waits) == 3:
            (run / "history.json").write_text(json.dumps(history))

    monkeypatch.setattr("training.evaluator.time.sleep", go_on)
    log_of(caplog, flags_of(drawn_data, run))
    first, last = (row["step"] for row in rows_of(run))
    assert first < last == history["epochs"][-1]["step"]
    assert len(waits) == 3


def test_it_needs_something_to_evaluate_on(run, drawn_data):
    with pytest.raises(UsageError, match="needs an --eval_split"):
        train(*flags_of(drawn_data, run, data={"eval_split": ""}))
