"""The arithmetic of a dry run beside what a run really does and writes."""

import dataclasses
import types

import numpy as np
import pytest
import tensorflow as tf

from common.labels import LabelNumbering
from training.checkpoints import CheckpointStore
from training.config import (
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    Recipe,
    RunFlags,
)
from training.dry_run import (
    SLOTS,
    checkpoint_bytes,
    describe,
    epochs_to_show,
    learning_rates,
    num_steps,
    settings_table,
    step_bytes,
)
from training.models import ModelRecord
from training.state import TrainState
from training.strategies import Devices
from training.words import bytes_in_words


@pytest.mark.parametrize(
    ("model", "optimizer", "decay"),
    [
        ("mobilenet_v1", "rmsprop", 0.9999),
        ("mobilenet_v2", "momentum", 0.0),
        ("mobilenet_v3_small", "sgd", 0.9999),
        ("mobilenet_v3_small", "lamb", 0.0),
    ],
)
def test_a_checkpoint_is_as_large_as_was_said(tmp_path, model, optimizer, decay):
    config = ModelFlags(model, width_multiplier=0.5, resolution=32).config(100)
    options = OptimizationFlags(optimizer_name=optimizer, ma_decay_rate=decay)
    state = TrainState(config, options)
    CheckpointStore(str(tmp_path), state.checkpoint_items()).save(1)
    written = sum(path.stat().st_size for path in tmp_path.glob("ckpt-1.*"))
    assert checkpoint_bytes(config, options) == pytest.approx(written, rel=0.05)
    assert len(state.optimizer.slots) == SLOTS[optimizer]


def test_the_optimizers_are_all_known():
    from training.config import OPTIMIZERS

    assert set(SLOTS) == set(OPTIMIZERS)


@pytest.mark.parametrize(
    ("num_examples", "batch", "epochs"), [(40, 12, 5), (48, 12, 5), (7, 50, 3), (1, 1, 1)]
)
def test_the_steps_are_those_that_a_loop_takes(num_examples, batch, epochs):
    position = steps = 0
    while position < epochs * num_examples:
        position, steps = position + batch, steps + 1
    assert num_steps(OptimizationFlags(batch_size=batch, epochs=epochs), num_examples) == steps


def test_learning_rates_are_shown_where_they_turn():
    warm = OptimizationFlags(
        lr=0.4, learning_scheduler_name="cosine", warmup_epochs=5.0, epochs=100
    )
    rates = learning_rates(warm, 1000)
    assert list(rates) == [0.0, 5.0, 25.0, 50.0, 75.0, 100.0]
    expected = [0.4 / 5000, *(0.2 * (1 + np.cos(np.pi * e / 100)) for e in (5, 25, 50, 75, 100))]
    assert list(rates.values()) == pytest.approx(expected, abs=1e-7)
    stairs = OptimizationFlags(
        lr=1.0, learning_scheduler_name="stepwise", lr_boundaries=(30.0, 60.0), lr_decay_rate=0.1,
        epochs=90,
    )  # fmt: skip
    assert learning_rates(stairs, 7) == pytest.approx({0: 1, 30: 0.1, 60: 0.01, 90: 0.01})
    assert epochs_to_show(OptimizationFlags(learning_scheduler_name="constant", epochs=9)) == [0, 9]


def test_memory_grows_with_the_batch_and_not_with_its_parts():
    config = ModelFlags("mobilenet_v2", resolution=64).config(10)
    whole, parts = OptimizationFlags(), OptimizationFlags(gradient_accumulation=4)
    assert step_bytes(config, whole, 64) > 1.5 * step_bytes(config, whole, 32)
    assert step_bytes(config, parts, 64) == step_bytes(config, whole, 16)


def test_a_teacher_takes_memory_and_less_than_a_student_of_its_size():
    small, large = (ModelFlags("mobilenet_v2", width, 96).config(10) for width in (0.5, 1.0))
    options = OptimizationFlags()
    alone = step_bytes(small, options, 32)
    for_teacher = step_bytes(small, options, 32, teacher=large) - alone
    assert 4 * 3_500_000 * 0.6 < for_teacher < step_bytes(large, options, 32) / 4
    parts = OptimizationFlags(gradient_accumulation=4)
    assert step_bytes(small, parts, 128, large) == step_bytes(small, options, 32, large)


def cells_of(table: str) -> dict[str, tuple[str, str]]:
    """The mark and the value of each name in a table of settings."""
    found = {}
    for line in table.splitlines():
        is_one = len(line[13:].strip(" *").split()) == 2
        for cell in (line[13:],) if is_one else (line[13:58], line[58:]):
            name, value = cell[1:].split()
            found[name] = (cell[0].strip(), value)
    return found


def recipe_of(optimization=None, **run) -> Recipe:
    return Recipe(
        ModelFlags("mobilenet_v3_small", batch_norm_decay=0.99),
        DataFlags("photos", eval_split="", num_streams=7),
        AugmentationFlags(min_crop_area=0.2, input_range=(0.0, 1.0)),
        optimization or OptimizationFlags(label_smoothing=0.1, lr=0.000123456789),
        DistributionFlags(sync_batch_norm=True),
        RunFlags("run", **run),
    )


def test_every_flag_is_shown_and_those_that_are_not_the_default_are_marked():
    recipe = recipe_of(seed=42)
    cells = cells_of(settings_table(recipe, recipe.model.config(10)))
    fields = {field.name: field for group in recipe.groups for field in dataclasses.fields(group)}
    assert sorted(cells) == sorted(fields)
    assert {name for name, (mark, _) in cells.items() if mark} == {
        "model_name", "batch_norm_decay", "eval_split", "num_streams", "min_crop_area",
        "input_range", "label_smoothing", "lr", "sync_batch_norm", "seed",
    }  # fmt: skip
    values = {name: value for name, (_, value) in cells.items()}
    assert values["lr"] == "0.000123456789" and values["input_range"] == "0,1"
    assert values["sync_batch_norm"] == "yes" and values["eval_split"] == "-"
    assert values["seed"] == "42" and values["data_dir"] == "photos"


def test_a_flag_that_was_left_alone_is_shown_with_what_it_stands_for():
    recipe = recipe_of()
    config = recipe.model.config(10)
    cells = cells_of(settings_table(recipe, config))
    assert cells["num_classes"] == ("", "10") and cells["log_dir"] == ("", "run/logs")
    assert cells["dropout_rate"] == ("", f"{config.dropout_rate:g}")
    assert cells["op_epsilon"] == ("", "1") and cells["op_decay_rate"] == ("", "0.9")
    of_momentum = recipe_of(OptimizationFlags(optimizer_name="momentum"))
    cells = cells_of(settings_table(of_momentum, config))
    assert cells["op_epsilon"] == cells["op_decay_rate"] == ("", "-")


def test_a_long_path_stands_whole_on_a_line_of_its_own():
    path = f"gs://bucket/{'checkpoints/' * 8}ckpt-1"
    recipe = recipe_of(init_checkpoint=path)
    (line,) = (
        line
        for line in settings_table(recipe, recipe.model.config(10)).splitlines()
        if "init_checkpoint" in line
    )
    assert line.split() == ["run", "*init_checkpoint", path]


def test_the_table_says_it_all():
    model = ModelFlags("mobilenet_v2", resolution=224)
    recipe = Recipe(
        model,
        DataFlags("photos", train_split="train[:90%]"),
        AugmentationFlags(mixup_alpha=0.2),
        OptimizationFlags(batch_size=96, epochs=10),
        DistributionFlags(),
        RunFlags("run"),
    )
    record = ModelRecord(model.config(1000), LabelNumbering(1000, 0))
    shards = types.SimpleNamespace(num_examples=1_281_167, mean_record_bytes=110_000.0)
    devices = Devices(tf.distribute.get_strategy(), description="one CPU")
    lines = describe(recipe, record, shards, devices).splitlines()
    end_of_settings = max(n for n, line in enumerate(lines) if not line)
    rows = {line[:16].strip(): line[16:] for line in lines[end_of_settings:]}
    # Published of MobileNetV2 1.0 at 224: 3.50 M parameters and 300 M multiply-adds.
    assert rows["parameters"].startswith("3,538,984 (3,504,872 of them trained)")
    assert rows["multiply-adds"].startswith("300,77")
    assert rows["epochs"] == "10 of 13,346 steps (13,345.5)"
    assert rows["steps"] == "133,455"
    assert rows["batch"] == "96 on 1 replicas: 96 each"
    assert rows["devices"] == "one CPU, float32"
    assert "mixup 0.2" in rows["input"] and "train[:90%] in photos" in rows["examples"]
    assert "GB" in rows["step memory"] and "MB" in rows["a checkpoint"]
    assert "0.045 at epoch 0" in rows["learning rate"]
    assert all(len(line) <= 100 for line in lines)
    assert set(lines[2:end_of_settings]) == set(settings_table(recipe, record.config).splitlines())
    assert "teacher" not in rows["step memory"]


@pytest.mark.parametrize(
    ("count", "words"),
    [(999, "999 bytes"), (1000, "1.0 kB"), (54_321_000, "54 MB"), (2.55e12, "2.5 TB")],
)
def test_bytes_are_told_in_words(count, words):
    assert bytes_in_words(count) == words
