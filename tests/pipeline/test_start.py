"""Where a run starts: from scratch, from the demo's TF1 checkpoint, or from another one."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from loaders import load_mobilenet_v1
from pipeline.experiments import DEMO, DEMO_SCRATCH, PRETRAINING, SMALL
from pipeline.run import RunConfig, choose_experiment
from pipeline.stages import plan_stages
from pipeline.start import DEMO_WEIGHTS
from preprocessing.build_dataset import BuildConfig
from preprocessing.demo_photos import write_demo_photos
from training.config import AugmentationFlags, ModelFlags, OptimizationFlags, RunFlags
from training.initial import choose_labels, open_initial
from training.models import MobileNetV1Config
from training.state import TrainState

from .conftest import CLASSES, ROOT, start, weights_in

BEFORE = ["draw photos", "preprocess train", "preprocess validation"]
BEFORE += ["verify train", "verify validation"]
TF1_OF_17 = ROOT / "tests" / "data" / "random_v1_0.25_128_quant" / "model.ckpt-2345"
SMALL_INPUT = {"width_multiplier": 0.25, "resolution": 32}


def plan(dataset, work_dir, init=""):
    experiment = choose_experiment(RunConfig(str(work_dir), str(dataset), init))
    stages = plan_stages(experiment, str(dataset), str(work_dir), init or experiment.init)
    return {stage.name: stage for stage in stages}


def flags_of_training(stage):
    return {name: value for config in stage.configs for name, value in vars(config).items()}


def test_the_demo_starts_from_the_tf1_checkpoint_through_a_conversion(tmp_path):
    stages = plan("demo", tmp_path)
    assert list(stages) == [*BEFORE, "convert", "train", "evaluate", "export", "publish", "report"]
    (convert,) = stages["convert"].configs
    assert (convert.checkpoint_path, convert.resolution) == (DEMO_WEIGHTS, 96)
    flags = flags_of_training(stages["train"])
    assert flags["init_checkpoint"] == convert.output_dir == str(tmp_path / "converted")
    assert (flags["init_logits"], flags["epochs"]) == ("drop", DEMO.recipe.optimization.epochs)
    assert str(tmp_path / "converted") in stages["train"].inputs


def test_the_demo_from_scratch_has_its_own_recipe_and_names(tmp_path):
    stages, others = plan("demo", tmp_path, "scratch"), plan("demo", tmp_path)
    own = [f"{name}-scratch" for name in ("train", "evaluate", "export", "publish", "report")]
    assert list(stages) == [*BEFORE, *own]
    flags = flags_of_training(stages["train-scratch"])
    assert flags["init_checkpoint"] == ""
    epochs = DEMO_SCRATCH.recipe.optimization.epochs
    assert flags["epochs"] == epochs > DEMO.recipe.optimization.epochs
    # Both ways share photos and shards, and neither writes what the other does.
    assert [stages[name] for name in BEFORE] == [others[name] for name in BEFORE]
    written = [
        {path for name, stage in some.items() if name not in BEFORE for path in stage.outputs}
        for some in (stages, others)
    ]
    assert all(written) and not written[0] & written[1]


def test_other_data_starts_from_scratch_unless_it_is_told(tmp_path, photos):
    assert choose_experiment(RunConfig(str(tmp_path), str(photos))) is SMALL
    assert choose_experiment(RunConfig(str(tmp_path), "pretraining")) is PRETRAINING
    for dataset in (photos, "pretraining"):
        stages = plan(dataset, tmp_path)
        assert "convert" not in stages
        assert flags_of_training(stages["train"])["init_checkpoint"] == ""
    (draw,) = plan("pretraining", tmp_path)["draw photos"].configs
    assert draw.things == "pretraining"
    stages = plan(photos, tmp_path, str(TF1_OF_17))
    flags = flags_of_training(stages["train"])
    assert (flags["init_checkpoint"], flags["init_logits"]) == (str(TF1_OF_17), "auto")
    assert f"{TF1_OF_17}.index" in stages["train"].inputs


def test_a_report_draws_the_other_way_once_it_has_been_run(tmp_path):
    for init, other in (("", "model-scratch"), ("scratch", "model")):
        name = "report-scratch" if init else "report"
        assert plan("demo", tmp_path, init)[name].configs[0].compare == ""
        history = tmp_path / other / "history.json"
        history.parent.mkdir()
        history.write_text("{}")
        stage = plan("demo", tmp_path, init)[name]
        assert stage.configs[0].compare == str(tmp_path / other)
        assert str(history) in stage.inputs
        history.unlink()


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        ({"init": "no/such"}, 1, "--init=no/such is no checkpoint: give scratch, tf1, or the path"),
        (
            {"init": "tf1"},
            2,
            "mobilenet_v1 at width 0.25, but mobilenet_v1 at width 0.5 is trained",
        ),
        ({"train_flags": "--init_checkpoint=x"}, 2, "name it by --init"),
        ({"train_flags": "--dataset_name=x"}, 2, "--dataset says what is trained on"),
        ({"train_flags": "--data_dir=x"}, 2, "--work_dir holds both"),
        ({"experiment": "fine-tune"}, 2, "experiment fine-tune starts from a checkpoint"),
        ({"experiment": "no_such"}, 2, "unknown experiment 'no_such': there are demo, "),
    ],
)
def test_a_start_that_cannot_be_is_one_line_before_any_work(
    tmp_path, photos, command, flags, code, told
):
    outcome = command("run", dataset=photos, work_dir=tmp_path / "work", **flags)
    assert outcome.code == code
    (line,) = outcome.err.splitlines()
    assert told in line
    assert not (tmp_path / "work").exists()


def test_the_packaged_checkpoint_is_small_and_is_installed(tmp_path):
    names = sorted(os.listdir(DEMO_WEIGHTS))
    sizes = [os.path.getsize(os.path.join(DEMO_WEIGHTS, name)) for name in names]
    assert "model.ckpt-0.index" in names
    assert sum(sizes) <= 2_000_000
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_py", f"--build-lib={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert sorted(os.listdir(tmp_path / "pipeline/demo_weights/mobilenet_v1_0.25_96")) == names


def test_the_packaged_checkpoint_holds_tf1_names_and_loads_as_any_other():
    prefix = os.path.join(DEMO_WEIGHTS, "model.ckpt-0")
    shapes = dict(tf.train.list_variables(prefix))
    assert shapes["MobilenetV1/Conv2d_0/weights"] == [3, 3, 3, 8]
    assert shapes["MobilenetV1/Logits/Conv2d_1c_1x1/biases"] == [10]
    assert len(shapes) == 138  # 137 of the model, and the step
    config = MobileNetV1Config(
        width_multiplier=0.25, input_shape=(96, 96, 3), num_classes=10, classifier_activation=None
    )
    model = load_mobilenet_v1(checkpoint_path=prefix, config=config)
    assert model(np.zeros((2, 96, 96, 3), np.float32)).shape == (2, 10)


def test_the_packaged_checkpoint_knows_the_ten_things_it_was_trained_on(tmp_path):
    """On new photos, and by the TF1 files alone: the record beside them is not looked at."""
    write_demo_photos(str(tmp_path / "photos"), 1, 10, seed=1, things="pretraining")
    validation = {"data_dir": tmp_path / "data", "split": "validation"}
    code = start(
        "build",
        source=tmp_path / "photos" / "validation",
        output_dir=tmp_path / "data",
        split="validation",
        num_shards=1,
        max_rejected_fraction=0.1,
    )
    assert code == 0
    output = tmp_path / "evaluation.json"
    prefix = os.path.join(DEMO_WEIGHTS, "model.ckpt-0")
    assert (
        start("evaluate", checkpoint_path=prefix, resolution=96, output=output, **validation) == 0
    )
    evaluation = json.loads(output.read_text())
    assert evaluation["num_examples"] == 102
    assert evaluation["top_1"] >= 0.85


@pytest.mark.long
def test_training_is_ahead_from_the_first_epoch_when_it_starts_from_the_tf1_weights(tmp_path):
    photos, work = tmp_path / "photos", tmp_path / "work"
    write_demo_photos(str(photos), 40, 15)
    top_1 = {}
    changes = {
        OptimizationFlags: {"epochs": 3, "batch_size": 8},
        BuildConfig: {"max_rejected_fraction": 0.1},  # few photos, as many broken ones as ever
    }
    for init in ("tf1", "scratch"):
        stages = plan_stages(DEMO, str(photos), str(work / init), init)
        for stage in stages:
            if stage.name.startswith(("preprocess", "convert", "train")):
                stage.function()(
                    *(
                        dataclasses.replace(config, **changes.get(type(config), {}))
                        for config in stage.configs
                    )
                )
        history = json.loads((work / init / "model" / "history.json").read_text())
        top_1[init] = [row["validation_top_1"] for row in history["epochs"]]
        told = "all but the logits: new ones" if init == "tf1" else "random initial weights"
        assert told in history["start"]["from"]
    assert all(tf1 > scratch for tf1, scratch in zip(*top_1.values(), strict=True)), top_1
    assert top_1["tf1"][-1] > top_1["scratch"][-1] + 0.15, top_1


@pytest.mark.parametrize(
    ("init_logits", "classes", "num_outputs", "why"),
    [
        ("auto", CLASSES, 3, ""),
        ("auto", CLASSES[::-1], 3, "other classes than the data's, or in another order"),
        ("auto", ("ant", "bee", "cow"), 3, "other classes than the data's, or in another order"),
        ("auto", ("ant", "bee"), 2, "it has 3 outputs, the model 2"),
        ("keep", ("ant", "bee", "cow"), 3, ""),
        ("drop", CLASSES, 3, "new ones are asked for"),
    ],
)
def test_logits_are_kept_where_the_class_lists_agree(
    model_dir, init_logits, classes, num_outputs, why
):
    run = RunFlags("", init_checkpoint=str(model_dir), init_logits=init_logits)
    model = ModelFlags(**SMALL_INPUT)
    initial = open_initial(model, AugmentationFlags(), run, classes)
    assert bool(initial.why_new_logits) == bool(why)
    assert why in initial.why_new_logits
    assert choose_labels(model, classes, initial)[0] == num_outputs


@pytest.mark.parametrize("num_classes", [17, 16])  # without a background class, and with one
def test_logits_of_a_tf1_checkpoint_are_kept_if_their_number_fits(num_classes):
    run, model = RunFlags("", init_checkpoint=str(TF1_OF_17)), ModelFlags(**SMALL_INPUT)
    classes = [f"class {n}" for n in range(num_classes)]
    initial = open_initial(model, AugmentationFlags(), run, classes)
    assert initial.why_new_logits == ""
    outputs, labels = choose_labels(model, classes, initial)
    assert (outputs, labels.offset) == (17, 17 - num_classes)


def test_logits_that_cannot_be_kept_are_named(model_dir):
    run = RunFlags("", init_checkpoint=str(model_dir), init_logits="keep")
    with pytest.raises(UserError, match="do not fit: it has 3 outputs, the model 2"):
        open_initial(ModelFlags(**SMALL_INPUT), AugmentationFlags(), run, ("ant", "bee"))


@pytest.mark.parametrize("init_logits", ["auto", "drop"])
def test_all_is_loaded_but_logits_that_are_not_kept(model_dir, init_logits):
    stored = weights_in(tf.train.latest_checkpoint(str(model_dir / "checkpoints")), "averages")
    run = RunFlags("", init_checkpoint=str(model_dir), init_logits=init_logits)
    initial = open_initial(ModelFlags(**SMALL_INPUT), AugmentationFlags(), run, CLASSES)
    state = TrainState(ModelFlags(**SMALL_INPUT).config(3), OptimizationFlags(ma_decay_rate=0.9))
    told = initial.load(state)
    logits = {name for name in stored if name.startswith("Logits.Conv2d_1c_1x1")}
    assert len(logits) == 2
    for which in ("raw", "averages"):
        values = state.weights(which)
        other = {n for n in stored if not np.array_equal(values[n], stored[n])}
        assert other == (set() if init_logits == "auto" else logits)
    assert ("all but the logits" in told) == (init_logits == "drop")
