"""Whole runs: they learn, leave what is promised, and refuse what does not fit."""

import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from common.command import run_to_exit_code, to_flags
from common.errors import UserError
from common.labels import LabelNumbering
from loaders.open import ModelRequest, open_checkpoint
from tests.training.conftest import NUM_DRAWN, TF1_CHECKPOINT
from tests.training.runs import NUM_STEPS, flags_of, history_of, log_of, variables_of
from training.checkpoints import list_checkpoints
from training.config import FLAG_GROUPS
from training.models import ModelRecord
from training.train import train


def test_a_run_learns_what_the_photos_show(finished):
    history = history_of(finished)
    assert history["start"]["from"] == "random initial weights"
    rows = history["epochs"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in rows] == [4, 7, 10, 14, NUM_STEPS]
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > 0.65


def test_a_run_leaves_what_its_description_promises(finished):
    assert {"checkpoints", "config.json", "history.json", "logs", "model.json"} <= set(
        os.listdir(finished)
    )
    record = ModelRecord.read(str(finished))
    assert record.classes == ("blue", "red") and record.labels == LabelNumbering(2, 0)
    assert record.weights == "both"
    kept = [os.path.basename(p) for p in list_checkpoints(str(finished / "checkpoints"))]
    assert kept == ["ckpt-14", "ckpt-16", "ckpt-17"]


def test_the_summaries_are_those_of_the_history(finished):
    (path,) = (finished / "logs").glob("events*")
    losses = {
        event.step: float(tf.make_ndarray(value.tensor))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "loss"
    }
    rows = history_of(finished)["epochs"]
    assert losses == pytest.approx({row["step"]: row["loss"] for row in rows})


def test_a_run_opens_as_a_checkpoint_with_its_averages_or_raw_weights(finished):
    held = variables_of(str(finished / "checkpoints" / f"ckpt-{NUM_STEPS}"))
    for which, group in (("averages", "averages"), ("raw", "model")):
        opened = open_checkpoint(str(finished), ModelRequest(), which, ["blue", "red"])
        assert opened.weights == which
        assert len(opened.values) == 137
        for name, value in opened.values.items():
            key = f"{group}/{name.replace('.', '..')}/.ATTRIBUTES/VARIABLE_VALUE"
            assert np.array_equal(value, held[key])
    with pytest.raises(UserError, match="class 0 is 'blue'"):
        open_checkpoint(str(finished), ModelRequest(), "raw", ["red", "blue"])
    logits = opened.build()(np.zeros([1, 32, 32, 3], np.float32), training=False)
    assert logits.shape == (1, 2)


def test_a_batch_larger_than_the_data_set_still_ends_with_an_evaluation(drawn_data, tmp_path):
    changes = {
        "optimization": {"batch_size": 2 * NUM_DRAWN, "epochs": 3},
        "run": {"eval_every_epochs": 3},
    }
    train(*flags_of(drawn_data, tmp_path, **changes))
    last = history_of(tmp_path)["epochs"][-1]
    assert last["step"] == 2  # 3 x 40 examples in batches of 80
    assert "validation_top_1" in last


def test_a_loss_that_is_no_number_ends_the_run_before_anything_broken_is_saved(
    drawn_data, tmp_path
):
    changes = {
        "optimization": {"lr": 1e30, "optimizer_name": "sgd", "ma_decay_rate": 0.0},
        "run": {"checkpoint_every_steps": 1},
    }
    told = r"broke at step 2, where the loss is .*Conv2d_\d+.*Lower --lr \(now 1e\+30\)"
    with pytest.raises(UserError, match=told):
        train(*flags_of(drawn_data, tmp_path, **changes))
    for prefix in list_checkpoints(str(tmp_path / "checkpoints")):
        assert all(np.all(np.isfinite(value)) for value in variables_of(prefix).values())


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        ({"model": {"num_classes": 5}}, 1, "has 2 classes, but the model has 5 outputs"),
        ({"data": {"train_split": "test"}}, 1, "no finished split 'test'"),
        ({"data": {"eval_split": "test"}}, 1, "no finished split 'test'"),
        ({"model": {"resolution": 16}}, 2, "at least 32 pixels"),
        (
            {"data": {"eval_split": ""}, "run": {"early_stop_epochs": 2}},
            2,
            "--early_stop_epochs=2 looks at validation_top_1: name an --eval_split",
        ),
        (
            {"optimization": {"batch_size": 9}, "augmentation": {"cutmix_alpha": 1.0}},
            2,
            "--batch_size=9 cannot be shared in pairs",
        ),
        ({"run": {"init_checkpoint": "/nowhere"}}, 1, "there is no checkpoint /nowhere"),
        (
            {
                "run": {"init_checkpoint": str(TF1_CHECKPOINT)},
                "augmentation": {"input_range": (0.0, 1.0)},
            },
            1,
            "expects pixels in [-1, 1], but they would be fed in [0, 1]: pass --input_range=-1,1",
        ),
        (
            {
                "run": {"init_checkpoint": str(TF1_CHECKPOINT)},
                "model": {"width_multiplier": 0.5},
            },
            1,
            "it looks like mobilenet_v1 at width 0.25 with 17 outputs",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(drawn_data, tmp_path, capsys, changes, code, told):
    words = [w for config in flags_of(drawn_data, tmp_path, **changes) for w in to_flags(config)]
    logging_before = logging.getLogger().handlers[:]
    try:
        assert run_to_exit_code(train, *FLAG_GROUPS, argv=["train", *words]) == code
    finally:
        logging.getLogger().handlers[:] = logging_before
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "checkpoints").exists() or not os.listdir(tmp_path / "checkpoints")


def test_fine_tuning_to_other_classes_loads_all_but_the_logits_and_says_so(
    drawn_data, tmp_path, caplog
):
    changes = {
        "model": {"resolution": 64},
        "optimization": {"epochs": 1, "batch_size": NUM_DRAWN, "lr": 1e-9},
        "run": {"init_checkpoint": str(TF1_CHECKPOINT)},
    }
    text = log_of(caplog, flags_of(drawn_data, tmp_path, **changes))
    told = f"{TF1_CHECKPOINT} (raw weights), all but the logits: it has 17 outputs, the model 2"
    assert told in text and told in history_of(tmp_path)["start"]["from"]
    tf1 = tf.train.load_checkpoint(str(TF1_CHECKPOINT))
    first = open_checkpoint(str(tmp_path / "checkpoints" / "ckpt-0"), ModelRequest(), "raw")
    kernel = "Conv2d_7_depthwise/depthwise_weights"
    expected = tf1.get_tensor(f"MobilenetV1/{kernel}")
    assert np.array_equal(first.values["Conv2d_7_depthwise.kernel"], expected)
    assert first.values["Logits.Conv2d_1c_1x1.bias"].tolist() == [0, 0]


def test_a_run_from_tf1_weights_begins_at_their_accuracy(reference_data, sample_data, tmp_path):
    """The TF1 graph with these weights is right about 229 of the 500 photos."""
    checkpoint = reference_data / "tf1_checkpoints" / "mobilenet_v1_0.25_128"
    changes = {
        "model": {"resolution": 128},
        "optimization": {"epochs": 1, "batch_size": 100, "lr": 1e-9},
        "run": {"init_checkpoint": str(checkpoint)},
    }
    train(*flags_of(sample_data, tmp_path, **changes))
    start = history_of(tmp_path)["start"]
    assert abs(start["validation_top_1"] * 500 - 229) <= 1
    assert ModelRecord.read(str(tmp_path)).labels == LabelNumbering(1000, 1)


@pytest.mark.parametrize(("decay", "warns"), [(0.9997, True), (0.7, False)])
def test_a_run_too_short_for_its_decays_is_told_so_at_the_start(
    drawn_data, tmp_path, caplog, decay, warns
):
    changes = {"model": {"batch_norm_decay": decay}, "data": {"eval_split": ""}}
    told = log_of(caplog, flags_of(drawn_data, tmp_path, optimization={"epochs": 3}, **changes))
    assert ("batch norm decay: " in told and "--batch_norm_decay=" in told) == warns
