"""What users get wrong: one line that says so, an exit code, and nothing half-written."""

import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from loaders.tf1_writer import write_tf1_checkpoint

from .conftest import CLASSES, TINY, Outcome, contents, draw_folders, start

FAILED, USAGE = 1, 2


@pytest.fixture(scope="module")
def places(data_dir, model_dir, photos, tmp_path_factory) -> dict[str, pathlib.Path]:
    """What the table below names in braces: good data, and things that are wrong with it."""
    root = tmp_path_factory.mktemp("mistakes")
    (root / "empty").mkdir()
    (root / "file").write_text("a file\n")
    (root / "no_photos" / "cat").mkdir(parents=True)
    draw_folders(root / "two_photos", 2)
    shutil.rmtree(root / "two_photos" / "fox")
    assert start("build", source=root / "two_photos", output_dir=root / "two", split="train") == 2
    code = start(
        "build",
        source=root / "two_photos",
        output_dir=root / "two",
        split="validation",
        num_shards=1,
    )
    assert code == 0
    (root / "text").mkdir()
    (root / "text" / "model.ckpt.index").write_text("this is no checkpoint\n")
    shutil.copytree(model_dir, root / "cut")
    for path in (root / "cut" / "checkpoints").glob("*.data-*"):
        os.truncate(path, 1000)
    shutil.copytree(model_dir / "checkpoints", root / "no_record" / "checkpoints")
    shutil.copytree(data_dir, root / "edited")
    manifest = root / "edited" / "validation" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"num_examples": 24', '"num_examples": 25'))
    (root / "metrics.json").write_text('{"accuracy": 1}')
    (root / "broken.json").write_text("{")
    (root / "saved_model").mkdir()
    (root / "saved_model" / "saved_model.pb").write_text("no model")
    shutil.copy(model_dir / "model.json", root / "saved_model")
    (root / "foreign").mkdir()
    (root / "foreign" / "thesis.txt").write_text("three years")
    return {"data": data_dir, "model": model_dir, "photos": photos, "root": root}


BUILD = {"source": "{photos}/train", "output_dir": "{new}"}
TRAIN = {"data_dir": "{data}", "model_dir": "{new}", "resolution": 32}
EVALUATE = {"checkpoint_path": "{model}", "data_dir": "{data}", "output": "{new}"}
EXPORT = {"checkpoint_path": "{model}", "data_dir": "{data}", "export_dir": "{new}"}
REPORT = {"data_dir": "{data}", "output": "{new}"}
RUN = {"dataset": "{photos}", "work_dir": "{new}"}

# (command, its good flags, what is changed in them, exit code, what the line says)
MISTAKES = [
    ("build", BUILD, {"source": "{root}/gone"}, FAILED, "{root}/gone"),
    ("build", BUILD, {"source": "{root}/file"}, FAILED, "{root}/file"),
    ("build", BUILD, {"source": "{root}/empty"}, FAILED, "{root}/empty"),
    ("build", BUILD, {"source": "{root}/no_photos"}, FAILED, "no files"),
    ("build", BUILD, {"num_shards": 0}, USAGE, "--num_shards=0"),
    ("build", BUILD, {"num_shards": "many"}, USAGE, "num_shards"),
    ("build", BUILD, {"num_shards": 1000}, USAGE, "48 at most"),
    ("build", BUILD, {"output_dir": "{root}/file/data"}, FAILED, "{root}/file/data"),
    ("verify", {"data_dir": "{data}"}, {"data_dir": "{root}/gone"}, FAILED, "{root}/gone"),
    ("verify", {"data_dir": "{data}"}, {"split": "../x"}, USAGE, "--split"),
    ("train", TRAIN, {"data_dir": "{root}/gone"}, FAILED, "{root}/gone"),
    ("train", TRAIN, {"eval_split": "test"}, FAILED, "'test'"),
    ("train", TRAIN, {"model_dir": "{root}/file"}, FAILED, "--model_dir={root}/file"),
    ("train", TRAIN, {"model_dir": "{root}/file/model"}, FAILED, "--model_dir={root}/file/model"),
    ("train", TRAIN, {"model_name": "resnet50"}, USAGE, "resnet50"),
    ("train", TRAIN, {"lr": -1}, USAGE, "--lr must be above 0"),
    ("train", TRAIN, {"lr": "fast"}, USAGE, "lr"),
    ("train", TRAIN, {"batch_size": 0}, USAGE, "--batch_size"),
    ("train", TRAIN, {"epochs": 1.5}, USAGE, "epochs"),
    ("train", TRAIN, {"input_range": "1,-1"}, USAGE, "--input_range"),
    ("train", TRAIN, {"input_range": "dark,bright"}, USAGE, "input_range"),
    ("train", TRAIN, {"width_multiplier": 0}, USAGE, "width_multiplier"),
    ("train", TRAIN, {"resolution": 8}, USAGE, "32 pixels"),
    ("train", TRAIN, {"min_crop_area": 2}, USAGE, "--min_crop_area"),
    ("train", TRAIN, {"num_classes": 9}, FAILED, "3 classes"),
    ("train", TRAIN, {"init_checkpoint": "{root}/gone"}, FAILED, "{root}/gone"),
    ("train", TRAIN, {"init_checkpoint": "{root}/text"}, FAILED, "{root}/text"),
    ("train", TRAIN, {"model_dir": "{model}"}, FAILED, "other settings"),
    ("evaluate", EVALUATE, {"checkpoint_path": "{root}/gone"}, FAILED, "{root}/gone"),
    ("evaluate", EVALUATE, {"checkpoint_path": "{root}/empty"}, FAILED, "{root}/empty"),
    ("evaluate", EVALUATE, {"checkpoint_path": "{root}/text"}, FAILED, "{root}/text/model.ckpt"),
    ("evaluate", EVALUATE, {"checkpoint_path": "{root}/cut"}, FAILED, "{root}/cut/checkpoints"),
    ("evaluate", EVALUATE, {"checkpoint_path": "{root}/no_record"}, FAILED, "model.json"),
    ("evaluate", EVALUATE, {"checkpoint_path": "{root}/saved_model"}, FAILED, "{root}/saved_model"),
    ("evaluate", EVALUATE, {"data_dir": "{root}/two"}, FAILED, "2 classes"),
    ("evaluate", EVALUATE, {"data_dir": "{root}/edited"}, FAILED, "damaged or was edited"),
    ("evaluate", EVALUATE, {"split": "test"}, FAILED, "'test'"),
    ("evaluate", EVALUATE, {"batch_size": 0}, USAGE, "--batch_size"),
    ("evaluate", EVALUATE, {"weights": "best"}, USAGE, "weights"),
    ("evaluate", EVALUATE, {"width_multiplier": 1.0}, USAGE, "--width_multiplier=1.0"),
    ("evaluate", EVALUATE, {"output": "{root}/empty"}, USAGE, "--output={root}/empty"),
    ("evaluate", EVALUATE, {"output": "{root}/file/e.json"}, FAILED, "--output"),
    ("export", EXPORT, {"checkpoint_path": "{root}/gone"}, FAILED, "{root}/gone"),
    ("export", EXPORT, {"data_dir": "{root}/two"}, FAILED, "2 classes"),
    ("export", EXPORT, {"export_dir": "{root}/foreign"}, FAILED, "{root}/foreign"),
    ("export", EXPORT, {"export_dir": "{root}/file"}, USAGE, "{root}/file"),
    ("export", EXPORT, {"export_dir": "{root}/file/export"}, FAILED, "{root}/file"),
    ("export", EXPORT, {"evaluation": "{root}/gone.json"}, FAILED, "{root}/gone.json"),
    ("export", EXPORT, {"evaluation": "{root}/broken.json"}, FAILED, "{root}/broken.json"),
    ("export", EXPORT, {"evaluation": "{root}/metrics.json"}, FAILED, "{root}/metrics.json"),
    ("export", EXPORT, {"num_parity_images": 0}, USAGE, "--num_parity_images"),
    ("report", REPORT, {"data_dir": "{root}/gone"}, FAILED, "{root}/gone"),
    ("report", REPORT, {"output": "{root}/empty"}, USAGE, "{root}/empty"),
    ("run", RUN, {"dataset": "{root}/gone"}, FAILED, "--dataset={root}/gone"),
    ("run", RUN, {"dataset": "{root}/empty"}, FAILED, "{root}/empty"),
    ("run", RUN, {"experiment": "huge"}, USAGE, "unknown experiment 'huge'"),
    ("run", RUN, {"train_flags": "--epochs=0"}, USAGE, "--epochs"),
    ("run", RUN, {"train_flags": "--epoch=1"}, USAGE, "epoch"),
    ("run", RUN, {"train_flags": "--model_dir=x"}, USAGE, "--model_dir"),
    ("run", RUN, {"train_flags": "'--epochs=1"}, USAGE, "--train_flags"),
    ("run", RUN, {"work_dir": "{root}/file"}, FAILED, "--work_dir={root}/file"),
]


def require_one_line(outcome: Outcome, code: int, words: str) -> None:
    assert outcome.code == code, (outcome.out, outcome.err)
    (line,) = outcome.err.splitlines()
    assert re.match(r"\S.*: error: \S", line)
    assert words in line
    assert "Traceback" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("name", "flags", "changes", "code", "words"),
    MISTAKES,
    ids=[f"{row[0]} {next(iter(row[2].items()))}" for row in MISTAKES],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    command, places, tmp_path, name, flags, changes, code, words
):
    before = contents(places["root"])
    values = {**places, "new": tmp_path / "new"}
    filled = {flag: str(value).format(**values) for flag, value in {**flags, **changes}.items()}
    require_one_line(command(name, **filled), code, words.format(**values))
    assert contents(places["root"]) == before
    # A directory for the results may be there already, and a plan of them, but no result.
    left = {os.path.basename(path) for path in contents(tmp_path)}
    assert not left - {"commands.txt", "preprocess-train.json"}


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("build", BUILD),
        ("verify", {"data_dir": "x"}),
        ("train", TRAIN),
        ("evaluate", EVALUATE),
        ("export", EXPORT),
        ("report", REPORT),
        ("run", RUN),
    ],
)
def test_an_unknown_flag_and_a_missing_one_are_usage_errors(command, name, flags):
    require_one_line(command(name, **flags, no_such_flag=1), USAGE, "no_such_flag")
    required = "work_dir" if name == "run" else next(iter(flags))
    others = {flag: value for flag, value in flags.items() if flag != required}
    require_one_line(command(name, **others), USAGE, f"--{required} is required")


def test_a_checkpoint_of_no_mobilenet_is_refused_with_what_it_is(command, data_dir, tmp_path):
    write_tf1_checkpoint(str(tmp_path), {"ResnetV1/conv1/weights": np.zeros([3, 3], np.float32)}, 0)
    flags = {"checkpoint_path": tmp_path / "model.ckpt-0", "data_dir": data_dir}
    require_one_line(command("evaluate", **flags), FAILED, "ResnetV1")
    require_one_line(command("export", export_dir=tmp_path / "export", **flags), FAILED, "ResnetV1")
    assert not (tmp_path / "export").exists()


def test_a_tf1_checkpoint_of_1001_outputs_does_not_fit_three_classes(
    command, reference_data, data_dir
):
    outcome = command(
        "evaluate",
        checkpoint_path=reference_data / "tf1_checkpoints" / "mobilenet_v1_0.25_128",
        data_dir=data_dir,
        model_name="mobilenet_v1",
    )
    require_one_line(outcome, FAILED, "1001 outputs")


def test_splits_of_different_classes_are_refused(command, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos" / "validation" / "dog")
    flags = {"output_dir": tmp_path / "data", "num_shards": 1}
    train = {"source": tmp_path / "photos" / "train", "split": "train"}
    validation = {"source": tmp_path / "photos" / "validation", "split": "validation"}
    assert command("build", **train, **flags).code == 0
    outcome = command("build", **validation, **flags)
    require_one_line(outcome, FAILED, "give both the same list by --classes=FILE")
    # Built apart and put together, they are refused as well.
    shutil.rmtree(tmp_path / "data" / "validation")
    apart = flags | {"output_dir": tmp_path / "apart"}
    assert command("build", **validation, **apart).code == 0
    shutil.copytree(tmp_path / "apart", tmp_path / "data", dirs_exist_ok=True)
    outcome = command("train", data_dir=tmp_path / "data", model_dir=tmp_path / "model", **TINY)
    require_one_line(outcome, FAILED, "'dog'")
    assert contents(tmp_path / "model") == {}


def test_classes_in_another_order_are_refused(command, model_dir, photos, tmp_path):
    (tmp_path / "classes.txt").write_text("dog\ncat\nfox\n")
    flags = {"source": photos / "validation", "output_dir": tmp_path, "num_shards": 1}
    outcome = command("build", split="validation", classes=tmp_path / "classes.txt", **flags)
    assert outcome.code == 0
    outcome = command("evaluate", checkpoint_path=model_dir, data_dir=tmp_path)
    require_one_line(outcome, FAILED, f"class 0 is {CLASSES[0]!r}")


@pytest.fixture
def damaged(data_dir, tmp_path):
    """A copy of the data with one bit flipped in a record of a split; and the shard's path."""

    def damage(split: str) -> tuple[pathlib.Path, pathlib.Path]:
        shutil.copytree(data_dir, tmp_path / "damaged")
        shard = tmp_path / "damaged" / f"{split}-00001-of-00003"
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        return tmp_path / "damaged", shard

    return damage


def test_a_damaged_shard_is_named_by_the_evaluation(command, damaged, model_dir, tmp_path):
    directory, shard = damaged("validation")
    output = tmp_path / "evaluation.json"
    flags = {"checkpoint_path": model_dir, "data_dir": directory}
    require_one_line(command("evaluate", output=output, **flags), FAILED, f"shard {shard}")
    assert not output.exists()
    exported = tmp_path / "export"
    require_one_line(command("export", export_dir=exported, **flags), FAILED, f"shard {shard}")
    assert not exported.exists()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_damaged_shard_is_named_by_the_training(command, damaged, tmp_path, split):
    directory, shard = damaged(split)
    model = tmp_path / "model"
    outcome = command("train", data_dir=directory, model_dir=model, **TINY)
    require_one_line(outcome, FAILED, f"shard {shard}")
    assert "record" in outcome.err
    assert not list(model.glob("**/*_temp*"))


def test_a_lost_or_cut_shard_is_named(command, data_dir, model_dir, tmp_path):
    directory = tmp_path / "data"
    shutil.copytree(data_dir, directory)
    shard = directory / "validation-00002-of-00003"
    os.truncate(shard, shard.stat().st_size - 100)
    flags = {"checkpoint_path": model_dir, "data_dir": directory}
    require_one_line(command("evaluate", **flags), FAILED, f"shard {shard}")
    shard.unlink()
    require_one_line(command("evaluate", **flags), FAILED, f"shard {shard}")
