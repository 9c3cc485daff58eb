"""The README's first command, on a fresh clone, as a new user would type it."""

import json
import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TEN_MINUTES = 600.0

pytestmark = pytest.mark.long


def make(clone: pathlib.Path, *words: str) -> str:
    done = subprocess.run(
        ["make", *words], cwd=clone, capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_make_run_trains_on_the_demo_data_and_says_where_the_report_is(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    start = time.monotonic()
    first = make(clone, "run")
    seconds = time.monotonic() - start
    work = clone / "runs" / "demo"
    evaluation = json.loads((work / "evaluation.json").read_text())
    assert evaluation["num_examples"] == 502
    assert evaluation["top_1"] >= 0.95
    assert seconds < TEN_MINUTES
    history = json.loads((work / "model" / "history.json").read_text())
    assert "all but the logits" in history["start"]["from"]

    rejected = "".join((work / "data" / s / "rejected.jsonl").read_text() for s in SPLITS)
    repaired = "".join((work / "data" / s / "repaired.jsonl").read_text() for s in SPLITS)
    for kind in ("truncated", "text", "empty"):
        assert len(re.findall(f"bad_{kind}_", rejected)) == 4
    for kind in ("png", "cmyk"):
        assert len(re.findall(f"bad_{kind}_", repaired)) == 4
    report = re.search(r"^report: (.*)$", first, re.MULTILINE)
    assert report and pathlib.Path(report.group(1)).is_file()

    start = time.monotonic()
    second = make(clone, "run")
    assert time.monotonic() - start < 15.0
    stages = re.findall(r"^\[\d+/(\d+)\] .*: finished$", second, re.MULTILINE)
    assert len(stages) == int(stages[0]) == 11

    third = make(clone, "run", "INIT=scratch")
    finished = re.findall(r"^\[\d+/10\] ([a-z ]+): finished$", third, re.MULTILINE)
    assert finished[0] == "draw photos" and len(finished) == 5
    evaluation = json.loads((work / "evaluation-scratch.json").read_text())
    assert evaluation["top_1"] >= 0.90
    scratch = json.loads((work / "model-scratch" / "history.json").read_text())
    assert scratch["start"]["from"] == "random initial weights"
    assert all(
        tf1["validation_top_1"] > other["validation_top_1"]
        for tf1, other in zip(history["epochs"][1:6:2], scratch["epochs"][1:6:2], strict=True)
    )
    # Each page shows the other's curve as soon as it is there.
    assert "all but the logits" in (work / "report-scratch.html").read_text()
    assert "random initial weights" not in (work / "report.html").read_text()
    make(clone, "run")
    assert "random initial weights" in (work / "report.html").read_text()


SPLITS = ("train", "validation")
