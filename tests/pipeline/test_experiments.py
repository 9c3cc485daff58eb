"""Named experiments: their recipes, what is told about them, and the commands that use them."""

import dataclasses
import pathlib
import re
import shlex

import numpy as np
import pytest

from common.command import parse, run_to_exit_code
from pipeline.experiments import EXPERIMENTS, SCRATCH, ShowConfig, show, training_flags
from pipeline.recipes.experiment import IMAGENET, hours_at
from pipeline.run import RunConfig, choose_experiment, run_line
from pipeline.stages import plan_stages
from pipeline.train_recipe import RecipeConfig, train_by_recipe, with_recipe
from training.config import FLAG_GROUPS, Recipe, RunFlags
from training.readers.slices import parse_split

ROOT = pathlib.Path(__file__).parents[2]
ON_IMAGENET = [name for name, e in EXPERIMENTS.items() if e.recipe.data == IMAGENET]


def training_of(name: str, work_dir, dataset) -> tuple:
    """The settings that the stage `train` has, and the stage `evaluate`'s."""
    stages = plan_stages(EXPERIMENTS[name], str(dataset), str(work_dir), SCRATCH)
    by_name = {stage.name: stage for stage in stages}
    return Recipe(*by_name["train"].configs), by_name["evaluate"].configs[0]


@pytest.fixture
def trained(monkeypatch) -> list[Recipe]:
    """What training was started with; nothing is trained."""
    started = []
    monkeypatch.setattr("training.train.train", lambda *groups: started.append(Recipe(*groups)))
    return started


def train_recipe(*words: str) -> int:
    argv = with_recipe(["train_recipe", *words])
    return run_to_exit_code(train_by_recipe, RecipeConfig, *FLAG_GROUPS, argv=argv)


def shown(capsys, **flags: str) -> str:
    words = [f"--{name}={value}" for name, value in flags.items()]
    assert run_to_exit_code(show, ShowConfig, argv=["experiments", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_recipe_is_a_command_line_that_gives_it_back(name):
    recipe = EXPERIMENTS[name].recipe
    assert [type(group) for group in recipe.groups] == list(FLAG_GROUPS)
    words = ["", "--data_dir=d", "--model_dir=m", *training_flags(EXPERIMENTS[name])]
    parsed = Recipe(*parse(words, *FLAG_GROUPS))
    assert (parsed.data.data_dir, parsed.run.model_dir) == ("d", "m")
    assert parsed == dataclasses.replace(
        recipe,
        data=dataclasses.replace(recipe.data, data_dir="d"),
        run=dataclasses.replace(recipe.run, model_dir="m"),
    )


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_experiment_tells_what_it_costs_and_who_says_so(name):
    experiment = EXPERIMENTS[name]
    assert experiment.name == name
    for field in ("command", "hardware", "time", "accuracy", "source"):
        assert getattr(experiment, field).strip()
    # Where a figure is told, its source says how it is known.
    if re.search(r"\d", experiment.time + experiment.accuracy):
        ways = r"published|own run|derived|own choice|own estimate|accuracy and settings"
        assert re.search(ways, experiment.source)


def test_the_demos_keep_the_settings_that_their_weights_were_made_with():
    for name, epochs, rate in (
        ("demo", 14, 0.82),
        ("demo-scratch", 24, 0.88),
        ("pretraining", 40, 0.93),
    ):
        model, data, augmentation, optimization, distribution, _ = EXPERIMENTS[name].recipe.groups
        what = (model.model_name, model.width_multiplier, model.resolution)
        assert what == ("mobilenet_v1", 0.25, 96)
        assert (augmentation.augmentation, augmentation.min_crop_area) == ("inception", 0.3)
        assert (augmentation.mixes, augmentation.random_erasing) == (False, 0)
        assert (optimization.epochs, optimization.lr_decay_rate) == (epochs, rate)
        how = (optimization.batch_size, optimization.lr, optimization.epsilon)
        assert how == (32, 0.001, 1e-4)
        assert (data.train_split, data.eval_split) == ("train", "validation")
        assert distribution.precision == "float32"


# From the scripts' and papers' tables: batch, optimizer, rate, decay, epochs a decay, epsilon.
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("mobilenet_v1", (64, "rmsprop", 0.045, 0.94, 2.5, 1.0)),
        ("mobilenet_v2", (96, "rmsprop", 0.045, 0.98, 1.0, 1.0)),
        ("mobilenet_v3_large", (192, "rmsprop", 0.02, 0.99, 3.0, 0.002)),
        ("mobilenet_v2_slim", (8 * 96, "rmsprop", 8 * 0.045, 0.98, 2.5, 1.0)),
        ("mobilenet_v3_large_slim", (8 * 192, "rmsprop", 8 * 0.02, 0.99, 3.0, 0.002)),
        ("mobilenet_v3_large_timm", (2 * 512, "rmsprop", 0.064, 0.973, 2.4, 0.001)),
        ("mobilenet_v2_torchvision", (8 * 32, "momentum", 0.045, 0.98, 1.0, None)),
        ("mobilenet_v3_small_torchvision", (8 * 128, "rmsprop", 0.064, 0.973, 2.0, 0.001)),
    ],
)
def test_published_settings(name, settings):
    o = EXPERIMENTS[name].recipe.optimization
    assert o.optimizer_name == settings[1]
    *numbers, epsilon = settings[0], *settings[2:]
    ours = (o.batch_size, o.lr, o.lr_decay_rate, o.lr_decay_epochs)
    np.testing.assert_allclose(ours, numbers, rtol=1e-12)
    assert o.optimizer_name != "rmsprop" or o.epsilon == pytest.approx(epsilon, rel=1e-12)


def test_lengths_in_epochs_are_those_in_steps():
    for name, steps in (("mobilenet_v2_slim", 700_000), ("mobilenet_v3_large_slim", 540_000)):
        optimization = EXPERIMENTS[name].recipe.optimization
        assert round(steps * optimization.batch_size / 1_281_167) == optimization.epochs


def test_hours_are_images_over_images_a_second():
    assert hours_at(1_281_167 / 3600, 5) == "5 h"
    assert EXPERIMENTS["mobilenet_v2_slim"].time == "65 h"  # 420 x 1,281,167 / 2,313 / 3,600 = 64.6


def test_what_is_chosen_on_imagenet_is_chosen_on_photos_held_out_of_train(tmp_path, photos):
    assert len(ON_IMAGENET) >= 10
    for name in ON_IMAGENET:
        recipe, evaluation = training_of(name, tmp_path, photos)
        train, held_out = parse_split(recipe.data.train_split), parse_split(recipe.data.eval_split)
        assert train.split == held_out.split == "train"
        positions = np.arange(1_281_167)
        parts = [positions[slice(*part.range_of(len(positions)))] for part in (train, held_out)]
        np.testing.assert_array_equal(np.concatenate(parts), positions)
        assert 12_000 < len(parts[1]) < 14_000
        assert evaluation.split == "validation"


def test_every_model_that_is_named_can_be_made():
    for experiment in EXPERIMENTS.values():
        model = experiment.recipe.model
        assert model.config(num_classes=1000).name == model.model_name


def test_imagenette_has_its_own_recipe_and_folders_have_the_small_one(tmp_path):
    assert choose_experiment(RunConfig(str(tmp_path), "imagenette")).name == "imagenette"
    assert choose_experiment(RunConfig(str(tmp_path), "some/photos")).name == "small"


def test_the_run_fills_in_directories_and_nothing_else(tmp_path, photos):
    recipe, evaluation = training_of("mobilenet_v3_large_timm", tmp_path, photos)
    asked = EXPERIMENTS["mobilenet_v3_large_timm"].recipe
    assert recipe.data == dataclasses.replace(IMAGENET, data_dir=str(tmp_path / "data"))
    assert recipe.run == RunFlags(model_dir=str(tmp_path / "model"))
    assert (recipe.model, recipe.augmentation) == (asked.model, asked.augmentation)
    assert (recipe.optimization, recipe.distribution) == (asked.optimization, asked.distribution)
    assert evaluation.data_dir == recipe.data.data_dir
    *_, report = plan_stages(EXPERIMENTS["demo"], str(photos), str(tmp_path), SCRATCH)
    assert report.configs[0].title == "mobilenet_v1 0.25 on photos"


def test_a_recipe_is_trained_with_the_flags_that_are_given_on_top(trained):
    words = ["--data_dir=d", "--model_dir=m", "--epochs=3", "--recipe", "mobilenet_v2"]
    assert train_recipe(*words) == 0
    (recipe,) = trained
    asked = EXPERIMENTS["mobilenet_v2"].recipe
    assert recipe.optimization == dataclasses.replace(asked.optimization, epochs=3)
    assert recipe.model == asked.model
    assert recipe.data == dataclasses.replace(IMAGENET, data_dir="d")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe=no_such"], "unknown experiment 'no_such': there are demo"),
        ([], "--recipe is required"),
        (["--recipe=fine-tune"], "name it by --init_checkpoint"),
        (["--recipe=mobilenet_v1", "--epochs=0"], "--epochs must be at least 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(trained, capsys, words, told):
    assert train_recipe("--data_dir=d", "--model_dir=m", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not trained


def test_fine_tuning_starts_from_the_checkpoint_that_is_named(trained, photos, tmp_path, capsys):
    flags = ("--data_dir=d", "--model_dir=m", "--init_checkpoint=c")
    assert train_recipe("--recipe=fine-tune", *flags) == 0
    assert trained[0].run.init_checkpoint == "c"
    words = [f"--dataset={photos}", f"--work_dir={tmp_path / 'work'}", "--experiment=fine-tune"]
    assert run_to_exit_code(run_line, RunConfig, argv=["run", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "experiment fine-tune starts from a checkpoint" in line
    assert not (tmp_path / "work").exists()


def test_the_table_has_a_line_for_each_experiment(capsys):
    heads, *rows, blank, _ = shown(capsys).splitlines()
    assert heads.split()[:3] == ["name", "model", "epochs"]
    assert blank == ""
    assert [row.split()[0] for row in rows] == list(EXPERIMENTS)


@pytest.mark.parametrize("name", ["mobilenet_v2_torchvision_600", "demo"])
def test_flags_of_one_experiment_are_for_the_shell(capsys, name):
    words = shlex.split(shown(capsys, name=name, format="flags"))
    assert words == training_flags(EXPERIMENTS[name])
    text = shown(capsys, name=name)
    source = " ".join(text.partition("source:")[2].partition("\n\n")[0].split())
    assert source == EXPERIMENTS[name].source
    python, dash, module, *typed = shlex.split(text.partition("\n\n")[2].replace("\\\n", ""))
    assert (python, dash, module) == ("python", "-m", "training.train")
    assert typed == ["--data_dir=DATA", "--model_dir=MODEL", *words]


def test_the_page_on_recipes_is_up_to_date(capsys):
    assert (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8") == shown(
        capsys, format="markdown"
    ), "make recipes"
