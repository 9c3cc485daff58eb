"""What goes wrong in a run: it blows up, its data is damaged, it is asked to end."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from common.errors import UserError
from tests.training.distribution import ROOT, words_of
from tests.training.runs import NUM_STEPS, flags_of, history_of, log_of, variables_of
from training.checkpoints import list_checkpoints
from training.shards import Shards
from training.stopping import RESUME_ME
from training.train import train

BLOWS_UP = {"optimizer_name": "sgd", "lr": 3e4, "ma_decay_rate": 0.0}


def newest(model_dir) -> str:
    return list_checkpoints(str(pathlib.Path(model_dir, "checkpoints")))[-1]


def test_a_run_that_blows_up_names_step_loss_and_layer_and_keeps_the_last_good_checkpoint(
    drawn_data, tmp_path
):
    told = r"broke at step \d+, where the loss is .*(layer|gradient|weights).*--on_nan=rollback"
    with pytest.raises(UserError, match=told):
        train(*flags_of(drawn_data, tmp_path, optimization=BLOWS_UP))
    assert all(np.all(np.isfinite(v)) for v in variables_of(newest(tmp_path)).values())


def test_a_run_goes_back_at_half_the_learning_rate_until_it_holds(drawn_data, tmp_path, caplog):
    def groups(epochs: int):
        constant = {"learning_scheduler_name": "constant", "warmup_epochs": 0.0, "epochs": epochs}
        return flags_of(
            drawn_data,
            tmp_path,
            data={"eval_split": ""},
            optimization={**BLOWS_UP, **constant, "lr": 10.0},
            run={"on_nan": "rollback"},
        )

    text = log_of(caplog, groups(5))
    told = [line.split("at ")[-1] for line in text.splitlines() if "Back to step" in line]
    scales = [float(words.split()[0]) for words in told]
    assert 1 <= len(scales) < 10 and scales == [0.5**n for n in range(1, len(scales) + 1)]
    assert f"finished: all {NUM_STEPS} steps" in text
    assert all(np.all(np.isfinite(v)) for v in variables_of(newest(tmp_path)).values())
    train(*groups(6))  # what it went back to lasts
    assert history_of(tmp_path)["epochs"][-1]["epoch"] == 6
    assert history_of(tmp_path)["epochs"][-1]["learning_rate"] == pytest.approx(10.0 * scales[-1])


@pytest.fixture
def damaged_data(drawn_data, tmp_path):
    """The data set with a flipped bit in record 3 of shard 1, and a broken photo in shard 2."""
    root = tmp_path / "damaged"
    shutil.copytree(drawn_data, root)
    shards = Shards.open(str(root), "train")
    path = pathlib.Path(shards.paths[1])
    content = bytearray(path.read_bytes())
    content[int(shards.bounds[1][3]) + 100] ^= 1
    path.write_bytes(content)
    return str(root), path


def test_a_damaged_record_ends_the_run_in_one_line_that_names_it(damaged_data, tmp_path):
    data, path = damaged_data
    with pytest.raises(UserError, match=f"record 3 of shard {path}") as error:
        train(*flags_of(data, tmp_path / "run", data={"eval_split": ""}))
    assert "--skip_corrupt_records" in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_record_is_passed_over_and_logged_where_that_is_allowed(
    damaged_data, tmp_path, caplog
):
    data, path = damaged_data
    groups = flags_of(data, tmp_path / "run", data={"eval_split": "", "skip_corrupt_records": 1})
    text = log_of(caplog, groups)
    assert text.count("passed over: ") == 1 and f"record 3 of shard {path}" in text
    assert history_of(tmp_path / "run")["epochs"][-1]["step"] == NUM_STEPS
    text = log_of(caplog, groups)
    assert f"finished: all {NUM_STEPS} steps" in text


def test_training_ends_early_when_the_metric_stands_still(drawn_data, tmp_path, caplog):
    groups = flags_of(
        drawn_data,
        tmp_path,
        optimization={"lr": 1e-9, "epochs": 30},
        run={"early_stop_epochs": 2},
    )
    text = log_of(caplog, groups)
    assert "ends early: validation_top_1 has not improved for 2 evaluations" in text
    assert len(history_of(tmp_path)["epochs"]) == 3
    assert "finished" in log_of(caplog, groups)
    assert len(history_of(tmp_path)["epochs"]) == 3


def started(groups) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "training.train", *words_of(groups)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_sigterm_in_the_first_compilation_and_in_training_saves_and_says_resume_me(
    drawn_data, tmp_path
):
    """In the first one there is nothing to save yet; then the run goes on to its end."""
    groups = flags_of(
        drawn_data,
        tmp_path,
        data={"eval_split": ""},
        optimization={"epochs": 200},
        run={"checkpoint_every_steps": 10_000},
    )
    process = started(groups)
    for line in process.stdout:
        if line.startswith("starting from"):
            break
    time.sleep(0.5)
    assert_ends_in_time(process, "nothing was trained that is not saved")
    saved = list_checkpoints(str(tmp_path / "checkpoints"))
    assert all(prefix.endswith("ckpt-0") for prefix in saved)

    process = started(groups)
    wait_for_summaries(process, tmp_path)
    assert_ends_in_time(process, "stopped by SIGTERM at step")
    step = int(newest(tmp_path).rpartition("-")[2])
    assert 0 < step < 667


def wait_for_summaries(process, model_dir) -> None:
    deadline = time.monotonic() + 120
    while not (model_dir / "history.json").exists() or not history_of(model_dir)["epochs"]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def assert_ends_in_time(process: subprocess.Popen, told: str) -> None:
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == RESUME_ME, output
    assert told in output and "Traceback" not in output
    assert time.monotonic() - begin < 10
