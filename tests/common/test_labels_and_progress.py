import logging
import sys

import pytest

from common import progress
from common.errors import UsageError, UserError
from common.labels import LabelNumbering
from common.progress import Progress


def test_the_background_class_comes_before_the_first_class():
    assert LabelNumbering(1000, 1).num_outputs == 1001
    assert LabelNumbering(1000).num_outputs == 1000
    assert LabelNumbering.of_outputs(1001, 1000, "it") == LabelNumbering(1000, 1)
    assert LabelNumbering.of_outputs(1000, 1000, "it") == LabelNumbering(1000, 0)


@pytest.mark.parametrize("num_outputs", [2, 4, 7])
def test_outputs_that_fit_no_numbering_are_refused_with_both_numbers(num_outputs):
    with pytest.raises(UserError, match=f"it has 5 classes, but the model has {num_outputs} out"):
        LabelNumbering.of_outputs(num_outputs, 5, "it")


@pytest.mark.parametrize("fields", [(0, 0), (-1, 0), (3, 2), (3, -1)])
def test_a_numbering_that_cannot_be_is_refused(fields):
    with pytest.raises(UsageError):
        LabelNumbering(*fields)


def test_progress_logs_a_line_now_and_then_where_there_is_no_terminal(caplog, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), Progress(100, "img", "training", initial=20) as bar:
        for _ in range(8):
            now[0] += 4.0
            bar.update(10, "loss 1.5")
    # Lines at 12 s and 24 s: the first moments at least ten seconds after the one before.
    first, second = (record.getMessage() for record in caplog.records)
    assert "50/100" in first and "80/100" in second
    for part in ("training", "50%", "img/s", "loss 1.5", "00:12"):
        assert part in first
    assert "2.50img/s" in first  # (50 - 20) images in 12 s: what was done before does not count


def test_progress_draws_a_bar_on_a_terminal_and_logs_nothing(caplog, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOG_LINES", 0.0)
    with caplog.at_level(logging.INFO), Progress(4, "img", "evaluating") as bar:
        bar.update(4, "top-1 0.5")
    assert "evaluating" in capsys.readouterr().err
    assert not caplog.records
