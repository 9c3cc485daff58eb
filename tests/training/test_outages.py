"""What lies outside a run fails: a bucket, a disk, memory, a file that was there before."""

import fcntl
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.errors import RESUME_ME, Unreachable, UserError
from tests.training.distribution import batches_of
from tests.training.runs import NUM_STEPS, flags_of, history_of, log_of, variables_of
from training.checkpoints import list_checkpoints
from training.history import History
from training.passed_over import FILE_NAME as PASSED_OVER
from training.shards import Shards
from training.train import train
from training.trainer import Trainer
from training.validation import Validator


def newest(model_dir) -> str:
    return list_checkpoints(str(pathlib.Path(model_dir, "checkpoints")))[-1]


def assert_bits_equal(one, other) -> None:
    ours, theirs = variables_of(newest(one)), variables_of(newest(other))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@pytest.fixture
def copied_data(drawn_data, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(drawn_data, tmp_path / "copied"))


def with_skips(data, model_dir, number=3):
    return flags_of(data, model_dir, data={"eval_split": "", "skip_corrupt_records": number})


def test_a_bucket_that_does_not_answer_is_no_damage_to_a_record(drawn_data, tmp_path, monkeypatch):
    """No record is passed over for it, and the exit code says that the same command goes on."""

    def fail(self, shard, start, length):
        raise Unreachable(f"{self.paths[shard]} cannot be reached: 503")

    monkeypatch.setattr(Shards, "_read_bytes", fail)
    with pytest.raises(Unreachable, match=r"^[^\n]* cannot be reached: 503$") as caught:
        train(*with_skips(drawn_data, tmp_path))
    assert caught.value.exit_code == RESUME_ME
    assert not (tmp_path / PASSED_OVER).exists()


def test_a_shard_that_is_gone_is_named_and_its_records_are_not_passed_over(
    copied_data, tmp_path, monkeypatch
):
    gone = Shards.open(str(copied_data), "train").paths[1]
    begin = Trainer._begin
    monkeypatch.setattr(Trainer, "_begin", lambda self: (begin(self), os.remove(gone)))
    with pytest.raises(UserError, match=f"{gone} cannot be read: No such file") as caught:
        train(*with_skips(copied_data, tmp_path / "run"))
    assert caught.value.exit_code == 1
    assert "--skip_corrupt_records" not in str(caught.value)
    assert not (tmp_path / "run" / PASSED_OVER).exists()


def test_a_step_for_which_memory_is_short_says_what_to_lower(drawn_data, tmp_path, monkeypatch):
    from training import trainer

    def run_steps(batches, count):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nmore")

    monkeypatch.setattr(trainer, "make_run_steps", lambda *args: run_steps)
    told = r"OOM when allocating tensor\): lower --batch_size \(now 12\), or raise --gradient"
    with pytest.raises(UserError, match=told):
        train(*flags_of(drawn_data, tmp_path, data={"eval_split": ""}))


def test_tensorboards_log_may_fail_without_harm(
    drawn_data, finished, tmp_path, monkeypatch, caplog
):
    def flush(*args, **kwargs):
        raise tf.errors.UnavailableError(None, None, "503")

    monkeypatch.setattr(tf.summary, "flush", flush)
    text = log_of(caplog, flags_of(drawn_data, tmp_path))
    assert text.count("TensorBoard's log") == 1 and "cannot be written: 503" in text
    assert_bits_equal(tmp_path, finished)


def test_a_second_run_is_kept_out_of_the_directory(drawn_data, tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match=f"another process is training in {tmp_path}"):
            train(*flags_of(drawn_data, tmp_path))
    finally:
        os.close(folder)
    assert os.listdir(tmp_path) == []


def test_what_a_run_started_from_may_be_gone_when_it_goes_on(drawn_data, finished, tmp_path):
    start = shutil.copytree(finished, tmp_path / "start")
    groups = flags_of(
        drawn_data,
        tmp_path / "run",
        optimization={"epochs": 2, "learning_scheduler_name": "constant"},
        run={"init_checkpoint": str(start)},
    )
    train(*groups)
    shutil.rmtree(start)
    longer = flags_of(
        drawn_data,
        tmp_path / "run",
        optimization={"epochs": 3, "learning_scheduler_name": "constant"},
        run={"init_checkpoint": str(start)},
    )
    train(*longer)
    assert len(history_of(tmp_path / "run")["epochs"]) == 3
    with pytest.raises(UserError, match="start"):  # but a new run needs it
        train(*flags_of(drawn_data, tmp_path / "new", run={"init_checkpoint": str(start)}))


def test_a_damaged_list_of_the_best_weights_is_written_anew(drawn_data, tmp_path):
    groups = flags_of(drawn_data, tmp_path, optimization={"epochs": 1})
    (tmp_path / "best" / "ckpt-9_temp").mkdir(parents=True)
    (tmp_path / "best" / "checkpoint").write_bytes(b"\xff\xfe")
    train(*groups)
    assert not (tmp_path / "best" / "ckpt-9_temp").exists()
    assert list_checkpoints(str(tmp_path / "best"))


def test_an_evaluation_by_other_means_is_not_compared_to_those_before(drawn_data, tmp_path):
    """A top-1 accuracy of 1.0 would never be beaten; losses are compared to losses."""
    constant = {"learning_scheduler_name": "constant"}
    train(*flags_of(drawn_data, tmp_path, optimization={"epochs": 2, **constant}))
    first = list_checkpoints(str(tmp_path / "best"))
    train(
        *flags_of(
            drawn_data,
            tmp_path,
            optimization={"epochs": 3, **constant},
            run={"early_stop_metric": "validation_loss"},
        )
    )
    history = history_of(tmp_path)
    assert history["compared_from"] == 2
    (best,) = list_checkpoints(str(tmp_path / "best"))
    assert [best] != first and best.endswith(f"-{history['epochs'][-1]['step']}")


def test_rows_are_compared_from_where_evaluation_changed(tmp_path):
    history = History(str(tmp_path))
    history.add_epoch({"epoch": 1, "a": 1.0})
    history.compare_anew()
    history.add_epoch({"epoch": 2, "a": 0.5})
    again = History(str(tmp_path))
    again.go_back_to(2)
    assert [row["epoch"] for row in again.compared] == [2]
    again.go_back_to(0)
    assert again.compared == []
    again.add_epoch({"epoch": 1, "a": 0.1})
    assert [row["epoch"] for row in again.compared] == [1]


def test_all_is_saved_before_the_first_evaluation_is_compiled(
    drawn_data, finished, tmp_path, monkeypatch
):
    """There a signal may end the process at once, as a compilation looks for none."""
    early = pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
    for prefix in list_checkpoints(str(early / "checkpoints"))[1:]:
        for path in early.glob(f"checkpoints/{os.path.basename(prefix)}.*"):
            path.unlink()
    (early / "checkpoints" / "checkpoint").unlink()

    class Killed(BaseException):
        pass

    def score(*args):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Validator, "score", score)
        train(*flags_of(drawn_data, early))
    steps = [row["step"] for row in history_of(finished)["epochs"]]
    assert int(newest(early).rpartition("-")[2]) in steps
    train(*flags_of(drawn_data, early))
    assert newest(early).endswith(f"-{NUM_STEPS}")
    assert_bits_equal(early, finished)


def test_half_a_line_of_example_numbers_is_taken_away(drawn_data, tmp_path):
    groups = flags_of(drawn_data, tmp_path, data={"eval_split": ""}, run={"log_examples": True})
    (tmp_path / "examples").mkdir()
    path = tmp_path / "examples" / "worker-00000.jsonl"
    path.write_text(json.dumps({"step": 0, "examples": [1]}) + '\n{"step": 1, "exam')
    train(*groups)
    assert sorted(batches_of(tmp_path)) == list(range(NUM_STEPS + 1))


def test_a_batch_that_broke_is_looked_at_in_the_parts_it_was_computed_in(drawn_data, tmp_path):
    sizes = []

    def watched(batch, *args):
        sizes.append(batch["images"].shape[0])
        return broken_in(batch, *args)

    from training import blow_up

    broken_in = blow_up._broken_in
    blow_up._broken_in = watched
    try:
        with pytest.raises(UserError, match=r"broke at step \d+.*(layer|gradient|weights)"):
            train(
                *flags_of(
                    drawn_data,
                    tmp_path,
                    optimization={
                        "optimizer_name": "sgd",
                        "lr": 3e4,
                        "ma_decay_rate": 0.0,
                        "gradient_accumulation": 3,
                    },
                )
            )
    finally:
        blow_up._broken_in = broken_in
    assert set(sizes) <= {4}
    assert all(np.all(np.isfinite(v)) for v in variables_of(newest(tmp_path)).values())
