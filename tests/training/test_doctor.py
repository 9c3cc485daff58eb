"""The doctor's arithmetic with made-up figures, its checks on damaged data, and one examination."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from common.command import parse, to_flags
from common.errors import UserError
from common.labels import LabelNumbering
from tests.training.conftest import TF1_CHECKPOINT
from tests.training.runs import flags_of
from training import strategies
from training.checkpoints import CheckpointStore
from training.config import (
    FLAG_GROUPS,
    AugmentationFlags,
    DataFlags,
    DistributionFlags,
    ModelFlags,
    OptimizationFlags,
    Recipe,
    RunFlags,
)
from training.diagnosis import checks, other_settings
from training.diagnosis.checks import ERROR, OK, WARNING
from training.diagnosis.other_settings import Setting, settings_to_try
from training.diagnosis.show import bar
from training.diagnosis.verdict import Measurements, binding_stage, cores_in_words, verdict
from training.distillation import Teacher
from training.doctor import DoctorFlags, ExaminedRunFlags, examine
from training.models import ModelRecord
from training.readers import open_split
from training.state import TrainState
from training.strategies import Devices

# A machine with an accelerator, whose input is four times as fast as it need be.
FAST = Measurements(
    read=20_000,
    decode=6_000,
    augment=4_000,
    step=1_000,
    host=980,
    cores=8,
    batch_size=64,
    shares_cores=False,
)


RECORD = ModelRecord(
    ModelFlags(resolution=32).config(7), LabelNumbering(7, 0), classes=tuple("abcdefg")
)


def changed(**changes) -> Measurements:
    return dataclasses.replace(FAST, **changes)


@pytest.mark.parametrize(
    ("stage", "measured"),
    [
        ("read", changed(read=500, augment=480, host=470)),
        ("decode", changed(decode=500, augment=480, host=470)),
        ("decode", changed(decode=480, augment=500, host=470)),  # the crop needs less than all
        ("augment", changed(augment=480, host=470)),
        ("step", FAST),
        ("host", changed(host=700)),
    ],
)
def test_each_stage_binds_in_its_turn(stage, measured):
    judged = verdict(measured)
    assert judged.binds == stage == binding_stage(measured)
    words = {"read": "reading the shards binds", "host": "the loop on the host binds"}
    assert judged.summary.startswith(words.get(stage, ("decoding", "augmentation", "the step")))
    assert judged.remedies or stage == "step"


def test_input_and_step_take_turns_where_they_share_the_cores():
    measured = changed(augment=1_000, step=1_000, host=490, shares_cores=True)
    judged = verdict(measured)
    assert judged.reachable == pytest.approx(500)
    assert judged.efficiency == pytest.approx(0.98)
    assert judged.binds == "step"
    # With an accelerator of that speed the same loop would lose half of it.
    assert verdict(dataclasses.replace(measured, shares_cores=False)).binds == "host"


def test_the_cores_that_decoding_takes_are_counted():
    slow = changed(decode=520, augment=500, step=2_000, host=490)
    judged = verdict(slow)
    assert judged.input_cores == pytest.approx(32)  # 8 cores make 500 a second, 2,000 are wanted
    assert "takes 32 cores" in judged.summary
    assert any("a machine with 32 cores (this one has 8 cores)" in r for r in judged.remedies)
    shared = verdict(dataclasses.replace(slow, shares_cores=True, host=390))
    assert any("a machine with 40 cores" in remedy for remedy in shared.remedies)
    assert [cores_in_words(n) for n in (0.25, 1.0, 1.2, 3.01)] == [
        "0.2 of a core", "1 core", "2 cores", "3 cores",
    ]  # fmt: skip


@pytest.mark.parametrize(("resolution", "side"), [(224, 256), (128, 160), (192, 224)])
def test_where_decoding_binds_smaller_photos_are_advised(resolution, side):
    measured = changed(decode=500, augment=480, host=470, resolution=resolution)
    assert f"--shorter_side={side}" in verdict(measured).remedies[0]


def test_where_a_policy_binds_a_cheaper_one_is_advised():
    measured = changed(augment=480, host=470, augmentation="randaugment")
    assert "--augmentation=inception" in verdict(measured).remedies[0]
    assert "--shorter_side" in verdict(changed(augment=480, host=470)).remedies[0]


def test_what_makes_the_step_faster_is_advised_and_what_does_not_is_not():
    settings = {"--precision=bfloat16": 1_500.0, "A=1": 1_020.0, "B=0": 1_200.0}
    remedies = verdict(changed(settings=settings)).remedies
    assert remedies == (
        "--precision=bfloat16 makes the step 1.50 times as fast",
        "B=0 makes the step 1.20 times as fast",
    )
    # It would not help where the accelerator waits for decoding.
    slow = changed(decode=500, augment=480, host=470, settings=settings)
    assert not any("bfloat16" in remedy for remedy in verdict(slow).remedies)


def test_where_the_host_binds_more_steps_a_call_are_advised():
    assert (
        "--steps_per_call from 1 to 20" in verdict(changed(host=500, steps_per_call=1)).remedies[0]
    )
    assert "--batch_size" in verdict(changed(host=500)).remedies[0]
    assert "--batch_size from 8" in verdict(changed(batch_size=8)).remedies[0]


def test_what_is_tried_is_what_is_not_set(monkeypatch):
    def names(precision="float32", flags=(), has_gpu=False):
        recipe = recipe_of("", precision=precision)
        return [s.name for s in settings_to_try(recipe, frozenset(flags), has_gpu)]

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    assert names(flags=["avx2"]) == ["TF_ENABLE_ONEDNN_OPTS=0"]
    assert names(flags=["avx512_bf16"])[1:] == ["--precision=bfloat16"]
    assert names(has_gpu=True) == ["--precision=bfloat16"]
    assert names("bfloat16", has_gpu=True) == ["--precision=float32"]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert names() == ["TF_ENABLE_ONEDNN_OPTS=1"]


def test_a_setting_is_tried_in_a_process_that_has_it(monkeypatch):
    shown = "int(os.environ['FACTOR']) * int('--precision=bfloat16' in sys.argv)"
    words = (
        "len(json.load(open(path + '/model.json'))['classes']) * ('TF_CONFIG' not in os.environ)"
    )
    path = "(path,) = [word[9:] for word in sys.argv if word.startswith('--record=')]"
    code = f"import json, os, sys; {path}; print('images a second:', {shown} * {words})"
    monkeypatch.setattr(other_settings, "_CODE", code)
    monkeypatch.setenv("TF_CONFIG", "{}")
    setting = Setting("--precision=bfloat16", {"FACTOR": "42"}, "bfloat16")
    assert other_settings.rate_under(setting, recipe_of("data"), RECORD, 1.0) == 7 * 42


def test_why_a_setting_does_not_run_is_told(monkeypatch):
    monkeypatch.setattr(other_settings, "_CODE", "import sys; sys.exit('no such kernel')")
    with pytest.raises(UserError, match="with A=1 the step does not run here: no such kernel"):
        other_settings.rate_under(Setting("A=1", {}), recipe_of("data"), RECORD, 1.0)


def recipe_of(data_dir, model_dir="", precision="float32", **optimization) -> Recipe:
    return Recipe(
        ModelFlags("mobilenet_v1", width_multiplier=0.25, resolution=32),
        DataFlags(str(data_dir)),
        AugmentationFlags(),
        OptimizationFlags(**{"batch_size": 8, **optimization}),
        DistributionFlags(precision=precision),
        RunFlags(str(model_dir)),
    )


@pytest.mark.parametrize(("free", "level"), [(99, ERROR), (150, WARNING), (200, OK), (999, OK)])
def test_the_disk_is_compared_with_what_a_run_writes(free, level):
    assert checks.disk_finding(100, free, "run").level == level


def test_a_directory_that_is_not_there_yet_has_the_disk_of_its_parent(tmp_path):
    recipe = recipe_of("", tmp_path / "a" / "b")
    config = recipe.model.config(10)
    assert checks.check_disk(recipe.run.model_dir, recipe, config).level == OK
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("free", "level"), [(99, ERROR), (110, WARNING), (126, OK), (None, OK)])
def test_memory_is_compared_with_what_is_free(free, level):
    assert checks.memory_finding(100, free).level == level


def test_free_memory_is_what_the_system_says():
    rows = pathlib.Path("/proc/meminfo").read_text().splitlines()
    total = next(int(row.split()[1]) * 1024 for row in rows if row.startswith("MemTotal"))
    assert 0 < checks.available_memory() < total


@pytest.fixture
def damaged(drawn_data, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(drawn_data, tmp_path / "data"))


def test_whole_data_passes(drawn_data):
    shards = open_split(DataFlags(drawn_data), "train")
    places = checks.sample_of(shards.num_examples, 16)
    for finding in (
        checks.check_sizes(shards),
        checks.check_records(shards, places),
        checks.check_all_records(shards),
        checks.check_sizes(open_split(DataFlags(drawn_data), "train[10%:60%]")),
    ):
        assert finding.level == OK, finding
    of_evaluation = checks.check_split(shards, 4, deep=True, what="evaluation")
    assert [(finding.check, finding.level) for finding in of_evaluation] == [
        ("evaluation shards", OK), ("evaluation records", OK), ("evaluation records", OK),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes instead of"),
    ],
)
def test_a_shard_of_another_size_is_named(damaged, damage, words):
    shards = open_split(DataFlags(str(damaged)), "train")
    path = damaged / "train-00001-of-00003"
    damage(path)
    finding = checks.check_sizes(shards)
    assert finding.level == ERROR
    assert str(path) in finding.text and words in finding.text


def test_a_flipped_bit_is_found_by_a_look_at_every_record(damaged):
    path = damaged / "train-00002-of-00003"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    shards = open_split(DataFlags(str(damaged)), "train")
    assert checks.check_sizes(shards).level == OK
    finding = checks.check_all_records(shards)
    assert finding.level == ERROR and str(path) in finding.text
    every = checks.check_records(shards, range(shards.num_examples))
    assert every.level == ERROR and str(path) in every.text


def test_the_sample_is_spread_over_the_split():
    places = checks.sample_of(1_000, 10)
    assert [place // 100 for place in places] == list(range(10))
    assert checks.sample_of(3, 64) == [0, 1, 2]
    assert places != checks.sample_of(1_000, 10, seed=1)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"optimization": {"batch_size": 8}}, OK),
        ({"optimization": {"batch_size": 9}}, OK),
        ({"optimization": {"batch_size": 9}, "augmentation": {"mixup_alpha": 0.2}}, ERROR),
        ({"optimization": {"batch_size": 8, "gradient_accumulation": 4}}, OK),
        ({"optimization": {"batch_size": 8, "gradient_accumulation": 3}}, ERROR),
        ({"optimization": {"batch_size": 80}}, WARNING),
    ],
)
def test_the_batch_must_be_shared_evenly(changes, level):
    devices = Devices(tf.distribute.get_strategy())
    recipe = Recipe(*flags_of("data", "run", **changes))
    assert checks.check_batch(recipe, devices, 40).level == level


def test_the_rule_for_replicas_is_that_of_training():
    class OfFour(Devices):
        num_replicas = 4

    devices = OfFour(tf.distribute.get_strategy())
    of_12, of_16 = (
        Recipe(*flags_of("data", "run", optimization={"batch_size": size})) for size in (12, 16)
    )
    finding = checks.check_batch(of_12, devices, 40)
    assert finding.level == ERROR and "multiple of 8" in finding.text
    assert checks.check_batch(of_16, devices, 40).level == OK


def decays(decay, epochs, ma_decay=0.9999):
    config = ModelFlags("mobilenet_v2", batch_norm_decay=decay).config(10)
    options = OptimizationFlags(batch_size=10, epochs=epochs, ma_decay_rate=ma_decay)
    return list(checks.check_decays(config, options, num_examples=100))


def test_statistics_that_forget_too_slowly_are_told_with_a_decay_that_does():
    slow, averages = decays(0.997, epochs=30)  # .997**300 = .41
    assert slow.level == WARNING and "40.6%" in slow.text
    assert averages.level == OK
    assert "--batch_norm_decay=0.97 or less" in slow.text  # .97**300 = .0001, .99**300 = .05
    assert decays(0.97, epochs=30)[0].level == OK
    assert decays(0.997, epochs=200)[0].level == OK
    assert len(decays(0.9, epochs=30, ma_decay=0.0)) == 1


@pytest.mark.parametrize(("decay", "steps"), [(0.9999, 2), (0.9999, 500), (0.5, 7)])
def test_what_is_left_of_the_start_in_the_averages_is_what_they_hold(decay, steps):
    from training.optimizers import MovingAverages

    weight = tf.Variable(1.0)
    holder = type("Weight", (), {"value": weight})
    averages = MovingAverages(decay, {"w": holder})
    weight.assign(0.0)
    for step in range(1, steps + 1):
        averages.update(tf.constant(step))
    left = checks.start_in_averages(decay, steps)
    assert left == pytest.approx(averages.values["w"].numpy(), rel=1e-3)


def test_bars_are_as_long_as_their_values():
    assert [len(bar(value, 30)) for value in (30, 20, 1)] == [30, 20, 1]
    assert bar(0.5, 30) == "▌"
    assert bar(400, 30).endswith("▶") and len(bar(400, 30)) == 30


def test_rates_are_counts_over_time():
    import itertools
    import time

    from training.diagnosis.rates import _rate, made_up_batch

    def slowly():
        for _ in itertools.count():
            time.sleep(0.01)
            yield 5

    assert _rate(slowly(), 0.3) == pytest.approx(500, rel=0.3)
    batch = made_up_batch(4, (16, 16), 3)
    assert batch["images"].shape == (4, 16, 16, 3) and np.max(batch["class_index"]) < 3


def groups_of(data_dir, model_dir="", **changes) -> list:
    """The six groups of flags as the doctor takes them."""
    *groups, run = flags_of(data_dir, model_dir, **changes)
    return [*groups, ExaminedRunFlags(**dataclasses.asdict(run))]


def teacher_of(recipe: Recipe, directory) -> str:
    """The checkpoint of a model that has learnt nothing yet."""
    record = ModelRecord(recipe.model.config(2), LabelNumbering(2, 0), ("blue", "red"))
    items = TrainState(record.config, recipe.optimization).checkpoint_items()
    CheckpointStore(str(directory), items).save(1)
    record.write(str(directory))
    return str(directory / "ckpt-1")


def test_an_examination_measures_everything_and_keeps_it(drawn_data, tmp_path, capsys, monkeypatch):
    asked, mixed = [], Teacher.mixed
    monkeypatch.setattr(Teacher, "mixed", lambda *args: asked.append(args) or mixed(*args))
    output = tmp_path / "found.json"
    teacher = teacher_of(recipe_of(drawn_data), tmp_path / "teacher")
    groups = groups_of(
        drawn_data,
        tmp_path / "run",
        optimization={"batch_size": 8, "epochs": 1, "teacher_checkpoint": teacher},
    )
    flags = DoctorFlags(seconds=0.2, output=str(output), try_settings=False)
    assert examine(*groups, flags) == 0
    assert asked  # while the step was traced, which is measured
    found = json.loads(output.read_text())
    assert "each step asks a teacher: mobilenet_v1, width 0.25" in found["notes"]
    measured = found["measured"]
    assert all(measured[stage] > 0 for stage in ("read", "decode", "augment", "step", "host"))
    assert measured["cores"] == len(os.sched_getaffinity(0))
    # The input pipeline reads and decodes, and the loop does both; even rough figures show that.
    assert measured["host"] < 1.5 * min(measured["augment"], measured["step"])
    levels = {check["check"]: check["level"] for check in found["checks"]}
    assert levels == {
        "disk": OK, "shards": OK, "records": OK, "evaluation shards": OK,
        "evaluation records": OK, "batch": OK, "memory": OK,
        "batch norm decay": WARNING, "averages": OK,
    }  # fmt: skip
    text = capsys.readouterr().out
    assert "verdict: " in text and "<- binds" in text
    assert not (tmp_path / "run").exists()


def test_what_would_stop_a_run_is_told_before_anything_is_measured(damaged, tmp_path, caplog):
    output = tmp_path / "found.json"
    (damaged / "train-00001-of-00003").unlink()
    changes = {"optimization": {"batch_size": 9}, "augmentation": {"mixup_alpha": 0.2}}
    assert examine(*groups_of(damaged, **changes), DoctorFlags(output=str(output))) == 1
    told = f"{damaged / 'train-00001-of-00003'} is missing: build or copy it anew"
    for check in ("shards", "evaluation shards"):  # both splits are of these files
        assert f"{check}: {told}" in caplog.messages
    assert any(message.startswith("batch: --batch_size=9") for message in caplog.messages)
    assert json.loads(output.read_text())["measured"] is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"eval_split": "validation"}}, "no finished split 'validation'"),
        (
            {"data": {"eval_split": ""}, "run": {"early_stop_epochs": 2}},
            "--early_stop_epochs=2 .* name an --eval_split",
        ),
        ({"run": {"init_checkpoint": "/nowhere"}}, "there is no checkpoint /nowhere"),
        (
            {"optimization": {"teacher_checkpoint": str(TF1_CHECKPOINT)}},
            "--teacher_checkpoint: .* the model has 17 outputs",
        ),
    ],
)
def test_what_training_refuses_the_doctor_refuses_in_its_words(drawn_data, changes, told):
    with pytest.raises(UserError, match=told):
        examine(*groups_of(drawn_data, **changes), DoctorFlags())


def test_the_doctor_takes_every_flag_of_training():
    words = ["--data_dir=data", "--model_dir=run", "--seed=7", "--log_dir=logs", "--dry_run"]
    groups = parse(["train", *words], *FLAG_GROUPS)
    *others, run, doctor = parse(
        ["doctor", *words], *FLAG_GROUPS[:5], ExaminedRunFlags, DoctorFlags
    )
    assert [*others, run.of_training] == groups and doctor == DoctorFlags()
    (nowhere,) = parse(["doctor"], ExaminedRunFlags)
    assert nowhere.model_dir == "" and to_flags(nowhere.of_training) == ["--model_dir="]


def test_the_doctor_looks_at_this_machine_and_the_tpu_that_the_environment_names(
    drawn_data, monkeypatch
):
    def no_tpu(flags, cluster):
        raise UserError("the TPU is asked for")

    monkeypatch.setattr(strategies, "_MAKERS", {"tpu": no_tpu})
    monkeypatch.setenv("TPU_NAME", "a-name")
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}))
    with pytest.raises(UserError, match="the TPU is asked for"):
        examine(*groups_of(drawn_data), DoctorFlags())
