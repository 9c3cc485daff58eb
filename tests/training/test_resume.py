"""Runs that are stopped, killed or damaged go on where they were, to the bit."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from common.command import to_flags
from common.errors import UserError
from tests.training.conftest import build, draw_photos
from tests.training.runs import NUM_STEPS, flags_of, history_of, log_of, variables_of
from training.checkpoints import CheckpointStore, list_checkpoints
from training.train import train

ROOT = pathlib.Path(__file__).parents[2]


def assert_same_end(one, other) -> None:
    """The last checkpoints of two runs are equal to the bit, and tell the same story."""
    ends = [list_checkpoints(str(pathlib.Path(run, "checkpoints")))[-1] for run in (one, other)]
    assert [os.path.basename(end) for end in ends] == [f"ckpt-{NUM_STEPS}"] * 2
    ours, theirs = map(variables_of, ends)
    assert ours.keys() == theirs.keys() and len(ours) > 300
    different = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    assert not different
    histories = [history_of(run)["epochs"] for run in (one, other)]
    for row in itertools.chain(*histories):
        del row["images_per_second"], row["waits_for_input"]  # how fast it was
    assert histories[0] == histories[1]


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run, to go on with."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_finished_run_says_so_and_changes_nothing(copy, drawn_data, caplog):
    before = {p: p.read_bytes() for p in (copy / "checkpoints").iterdir() if "ckpt" in p.name}
    text = log_of(caplog, flags_of(drawn_data, copy))
    assert f"resumed at step {NUM_STEPS}" in text and f"finished: all {NUM_STEPS} steps" in text
    assert before == {p: p.read_bytes() for p in before}


def test_a_run_that_goes_on_from_an_earlier_checkpoint_ends_with_the_same_bits(
    copy, finished, drawn_data, caplog
):
    """In the middle of an epoch, and with the damaged newest checkpoint passed over."""
    for path in (copy / "checkpoints").glob(f"ckpt-{NUM_STEPS}.data*"):
        path.write_bytes(path.read_bytes()[:-1000])
    text = log_of(caplog, flags_of(drawn_data, copy))
    assert f"ckpt-{NUM_STEPS} cannot be restored and is passed over" in text
    assert "resumed at step 16, epoch 5, example 32 of 40" in text
    assert_same_end(copy, finished)


def start_command(flags) -> subprocess.Popen:
    words = [word for config in flags for word in to_flags(config)]
    return subprocess.Popen(
        [sys.executable, "-m", "training.train", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_killed_run_resumes_and_ends_with_the_bits_of_an_undisturbed_one(
    finished, drawn_data, tmp_path
):
    flags = flags_of(drawn_data, tmp_path)
    process = start_command(flags)
    try:
        middle = tmp_path / "checkpoints" / "ckpt-6.index"
        deadline = time.monotonic() + 120
        while not middle.exists():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    reached = [os.path.basename(p) for p in list_checkpoints(str(tmp_path / "checkpoints"))]
    assert f"ckpt-{NUM_STEPS}" not in reached

    again = start_command(flags)
    text, _ = again.communicate(timeout=120)
    assert again.returncode == 0, text
    assert "resumed at step" in text and "Traceback" not in text
    assert_same_end(tmp_path, finished)


def test_how_many_steps_a_call_takes_and_when_it_saves_changes_no_bit(
    finished, drawn_data, tmp_path, monkeypatch
):
    rows_at_save = {}
    save = CheckpointStore.save

    def noting_save(store, step):
        rows_at_save[step] = [row["step"] for row in history_of(tmp_path)["epochs"]]
        return save(store, step)

    monkeypatch.setattr(CheckpointStore, "save", noting_save)
    run = {"steps_per_call": 20, "checkpoint_every_steps": 1000, "eval_every_epochs": 5}
    train(*flags_of(drawn_data, tmp_path, run=run))
    # The row of an epoch is there before its checkpoint: a run that is killed between the two
    # goes on from the checkpoint before, and writes the row again.
    ends = [4, 7, 10, 14, NUM_STEPS]
    assert rows_at_save == {0: []} | {end: ends[: i + 1] for i, end in enumerate(ends)}
    ours = variables_of(str(tmp_path / "checkpoints" / f"ckpt-{NUM_STEPS}"))
    theirs = variables_of(str(finished / "checkpoints" / f"ckpt-{NUM_STEPS}"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_changed_settings_are_refused_with_the_list_of_them(copy, drawn_data):
    changes = {"optimization": {"lr": 0.01, "epochs": 9}, "run": {"seed": 3}}
    with pytest.raises(UserError) as one:
        train(*flags_of(drawn_data, copy, **changes))
    text = str(one.value)
    assert "optimization.lr 0.02 -> 0.01" in text and "run.seed 0 -> 3" in text
    assert "--allow_changes" in text and str(copy) in text
    assert "epochs" not in text and "input_range" not in text


def test_changed_settings_are_allowed_when_asked_for(copy, drawn_data, caplog):
    changes = {"optimization": {"lr": 0.01, "epochs": 6}, "run": {"allow_changes": True}}
    text = log_of(caplog, flags_of(drawn_data, copy, **changes))
    assert f"resumed at step {NUM_STEPS}" in text
    last = history_of(copy)["epochs"][-1]
    assert (last["epoch"], last["step"]) == (6, 20)
    assert last["learning_rate"] == pytest.approx(0.01 * 0.94**2)
    assert json.loads((copy / "config.json").read_text())["optimization"]["lr"] == 0.01


def test_other_data_is_a_changed_setting(copy, tmp_path):
    data = build(draw_photos(tmp_path / "photos", 5), tmp_path / "data", num_shards=1)
    with pytest.raises(UserError, match="data_fingerprint"):
        train(*flags_of(data, copy))


def test_another_model_can_not_take_up_the_checkpoints(copy, drawn_data):
    changes = {"model": {"width_multiplier": 0.5}, "run": {"allow_changes": True}}
    with pytest.raises(UserError, match="can be restored under these settings"):
        train(*flags_of(drawn_data, copy, **changes))


@pytest.fixture
def float32_afterwards():
    """A run's precision is that of the process."""
    yield
    keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize(
    "changes",
    [
        {
            "augmentation": {
                "augmentation": "randaugment",
                "mixup_alpha": 0.2,
                "cutmix_alpha": 1.0,
                "random_erasing": 0.3,
            },
            "optimization": {
                "optimizer_name": "rmsprop",
                "gradient_accumulation": 2,
                "clip_gradient_norm": 1.0,
            },
        },
        {"distribution": {"precision": "float16"}},
    ],
    ids=["all that is random", "scaled loss"],
)
def test_whatever_is_switched_on_a_resumed_run_ends_with_the_same_bits(
    drawn_data, tmp_path, changes, float32_afterwards
):
    changes = {"data": {"eval_split": ""}, "run": {"keep_checkpoints": 100}} | changes
    changes["run"] = changes["run"] | {"checkpoint_every_steps": 3}
    whole, piece = tmp_path / "whole", tmp_path / "piece"
    train(*flags_of(drawn_data, whole, **changes))
    shutil.copytree(whole, piece)
    for prefix in list_checkpoints(str(piece / "checkpoints"))[2:]:
        for path in (piece / "checkpoints").glob(f"{os.path.basename(prefix)}.*"):
            path.unlink()
    (piece / "checkpoints" / "checkpoint").unlink()
    train(*flags_of(drawn_data, piece, **changes))
    assert_same_end(whole, piece)
    if "distribution" in changes:
        end = variables_of(list_checkpoints(str(piece / "checkpoints"))[-1])
        (scale,) = (value for name, value in end.items() if "/loss_scale/" in name)
        assert scale > 1.0
