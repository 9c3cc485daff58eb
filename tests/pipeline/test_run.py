"""`python -m pipeline.run`: every stage once, and again only when something has changed."""

import dataclasses
import importlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from common.command import parse
from common.errors import UserError
from pipeline.experiments import SMALL
from pipeline.stages import plan_stages
from preprocessing.records import load_records
from training.config import Recipe

from .conftest import ROOT, TINY, draw_folders, draw_photo, draw_splits, start

STAGES = [
    "preprocess train",
    "preprocess validation",
    "verify train",
    "verify validation",
    "train",
    "evaluate",
    "export",
    "publish",
    "report",
]
TRAIN_FLAGS = " ".join(f"--{name}={value}" for name, value in TINY.items())

AGAIN = """
import sys, time
start = time.monotonic()
from common import command
from pipeline.run import RunConfig, run_line
code = command.run_to_exit_code(run_line, RunConfig)
heavy = [name for name in ("tensorflow", "keras", "apache_beam") if name in sys.modules]
print("code", code, "heavy", heavy, "seconds below 5", time.monotonic() - start < 5)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    """A directory with photos and one finished run; its name has a space."""
    directory = tmp_path_factory.mktemp("a run")
    draw_splits(directory / "photos")
    assert start("run", **flags_of(directory)) == 0
    return directory


def flags_of(place: pathlib.Path, more: str = "") -> dict:
    return {
        "dataset": place / "photos",
        "work_dir": place / "work",
        "train_flags": f"{TRAIN_FLAGS} {more}".strip(),
    }


def stages_run(text: str) -> list[str]:
    """Names of the stages that were not skipped, from what was printed."""
    titles = re.findall(r"^\[(\d)/9\] ([a-z ]+): (.*)$", text, re.MULTILINE)
    assert [name for _, name, what in titles if not what.startswith("done in")] == STAGES
    return [name for _, name, what in titles if what.startswith("done in")]


def times(directory: pathlib.Path) -> dict[str, int]:
    """When each file was last written, commands.txt aside, which each run writes."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in directory.rglob("*")
        if path.is_file() and path.name != "commands.txt"
    }


def stop_at_training(monkeypatch):
    def stop(*_):
        raise UserError("stopped at training")

    monkeypatch.setattr("training.train.train", stop)


def test_a_run_leaves_what_each_stage_promises(place):
    work = place / "work"
    history = json.loads((work / "model" / "history.json").read_text())
    evaluation = json.loads((work / "evaluation.json").read_text())
    export = json.loads((work / "export" / "export.json").read_text())
    assert [row["epoch"] for row in history["epochs"]] == [1, 2]
    assert evaluation["top_1"] == history["epochs"][-1]["validation_top_1"]
    assert evaluation["num_examples"] == 24
    assert export["metrics"]["top_1"] == evaluation["top_1"]
    assert export["exported_from"] == evaluation["checkpoint"]
    assert (work / "report.html").read_text().lstrip().lower().startswith("<!doctype html")
    assert not list(work.rglob(".tmp-*"))


def test_the_commands_that_are_written_down_are_those_that_ran(place):
    lines = (place / "work" / "commands.txt").read_text().splitlines()
    experiment = SMALL
    stages = plan_stages(experiment, str(place / "photos"), str(place / "work"), "scratch")
    assert len(lines) == len(stages)
    for line, stage in zip(lines, stages, strict=True):
        python, dash, module, *words = shlex.split(line)
        assert (python, dash, module) == ("python", "-m", stage.command.split(":")[0])
        assert hasattr(importlib.import_module(module), stage.command.split(":")[1])
        parsed = parse([module, *words], *map(type, stage.configs))
        if stage.name == "train":
            recipe = Recipe(*parsed)
            assert (recipe.model.resolution, recipe.optimization.lr) == (32, 0.02)
            assert recipe.augmentation.augmentation == "none"
            assert recipe.run.model_dir == str(place / "work" / "model")
            # What the flags do not name stays the recipe's.
            asked = experiment.recipe.optimization
            assert recipe.optimization.label_smoothing == asked.label_smoothing > 0
            assert recipe.augmentation.min_crop_area == 0.2
        elif stage.name == "report":
            (report,), (planned,) = parsed, stage.configs
            # The title tells the model that was trained, by the changed recipe.
            assert report == dataclasses.replace(planned, title="mobilenet_v1 0.25 on photos")
        else:
            assert parsed == list(stage.configs)


def test_a_second_run_does_nothing_and_does_it_quickly(place):
    before = times(place / "work")
    words = [f"--{name}={value}" for name, value in flags_of(place).items()]
    process = subprocess.run(
        [sys.executable, "-c", AGAIN, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert stages_run(process.stdout) == []
    assert process.stdout.splitlines()[-1] == "code 0 heavy [] seconds below 5 True"
    assert times(place / "work") == before


def test_what_was_deleted_is_made_again(place, succeed):
    work = place / "work"
    assert stages_run(succeed("run", **flags_of(place))) == []
    shard, report = work / "data" / "train-00003-of-00008", work / "report.html"
    content, kept = shard.read_bytes(), (work / "data" / "train-00002-of-00008").stat()
    shard.unlink()
    report.unlink()
    (work / "evaluation.json").unlink()
    again = stages_run(succeed("run", **flags_of(place)))
    # The evaluation comes out as it was, so that the export still stands.
    assert again == ["preprocess train", "evaluate", "report"]
    assert shard.read_bytes() == content
    assert (work / "data" / "train-00002-of-00008").stat().st_mtime_ns == kept.st_mtime_ns
    assert report.exists()
    assert not (work / "outdated").exists()


def test_a_lost_file_that_no_stage_writes_again_is_named(place, command):
    history = place / "work" / "model" / "history.json"
    content = history.read_bytes()
    history.unlink()
    outcome = command("run", **flags_of(place))
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert f"{history} is lost" in line
    history.write_bytes(content)
    assert command("run", **flags_of(place)).code == 0


def test_files_that_others_add_change_nothing(place, succeed):
    (place / "work" / "model" / "notes.txt").write_text("looks good")
    assert stages_run(succeed("run", **flags_of(place))) == []


def test_other_train_flags_train_again_and_keep_the_old_run(place, succeed):
    work = place / "work"
    history = (work / "model" / "history.json").read_bytes()
    weights = (work / "model" / "checkpoints" / "ckpt-24.index").read_bytes()
    export = (work / "export" / "export.json").read_bytes()
    data = times(work / "data")
    text = succeed("run", **flags_of(place, "--seed=1"))
    assert stages_run(text) == ["train", "evaluate", "export", "publish", "report"]
    assert times(work / "data") == data
    outdated = work / "outdated"
    assert (outdated / "1" / "model" / "history.json").read_bytes() == history
    assert (outdated / "1" / "model" / "checkpoints" / "ckpt-24.index").read_bytes() == weights
    assert (outdated / "2" / "export" / "export.json").read_bytes() == export
    assert json.loads((work / "model" / "config.json").read_text())["run"]["seed"] == 1
    assert (work / "model" / "history.json").read_bytes() != history


def test_a_changed_photo_is_preprocessed_again(place, command, monkeypatch):
    stop_at_training(monkeypatch)
    work = place / "work"
    before = load_records(str(work / "data"), "validation")
    key, content = "dog/dog_3.JPEG", draw_photo(1, (7, 7))
    (place / "photos" / "validation" / key).write_bytes(content)
    outcome = command("run", **flags_of(place, "--seed=1"))
    assert outcome.code == 1
    assert outcome.err.rstrip().endswith("error: stopped at training")
    done = re.findall(r"^\[\d/9\] ([a-z ]+): done in", outcome.out, re.MULTILINE)
    assert done == ["preprocess validation", "verify validation"]
    after = load_records(str(work / "data"), "validation")
    changed = [
        name
        for name, old, new in zip(
            before["key"],
            before["sha256"],
            (dict(zip(after["key"], after["sha256"], strict=True))[name] for name in before["key"]),
            strict=True,
        )
        if old != new
    ]
    assert changed == [key]
    assert (work / "outdated" / "3" / "data" / "validation" / "manifest.json").exists()
    assert len(list((work / "outdated" / "3" / "data").glob("validation-*"))) == 8


def test_a_single_tree_is_split_into_two_that_share_no_photo(tmp_path, command, monkeypatch):
    stop_at_training(monkeypatch)
    draw_folders(tmp_path / "photos", 30)
    outcome = command("run", **flags_of(tmp_path))
    assert outcome.code == 1
    assert outcome.err.rstrip().endswith("error: stopped at training")
    data = str(tmp_path / "work" / "data")
    train, validation = (set(load_records(data, name)["key"]) for name in ("train", "validation"))
    assert not train & validation
    assert len(train | validation) == 90
    assert 5 <= len(validation) <= 36  # a fifth is asked for


def test_a_class_that_is_added_has_all_splits_built_anew(tmp_path, command, monkeypatch):
    """A split alone, beside an old one, would be refused: they must have the same classes."""
    stop_at_training(monkeypatch)
    photos, data = tmp_path / "photos", str(tmp_path / "work" / "data")
    draw_folders(photos, 20)
    assert command("run", **flags_of(tmp_path)).err.rstrip().endswith("stopped at training")
    (photos / "cat").rename(tmp_path / "cat")
    shutil.copytree(tmp_path / "cat", photos / "wolf")
    outcome = command("run", **flags_of(tmp_path))
    assert outcome.err.rstrip().endswith("stopped at training")
    for split in ("train", "validation"):
        classes = {key.partition("/")[0] for key in load_records(data, split)["key"]}
        assert "wolf" in classes and "cat" not in classes


def test_a_killed_stage_goes_on_where_it_was(tmp_path, command, monkeypatch):
    draw_splits(tmp_path / "photos")
    stop_at_training(monkeypatch)
    command("run", **flags_of(tmp_path))
    kept = tmp_path / "work" / "model" / "left-by-the-first-try"
    kept.parent.mkdir()
    kept.write_text("")
    outcome = command("run", **flags_of(tmp_path))
    assert "[4/9] verify validation: finished" in outcome.out
    assert kept.exists()
    assert not (tmp_path / "work" / "outdated").exists()
