"""`python -m pipeline.evaluate`: counts against those that TF1 and TensorFlow's reader give."""

import csv
import hashlib
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from common.command import run_to_exit_code
from loaders.convert import ConvertConfig, convert
from pipeline.evaluation import result as result_module

from .colour_model import colour_model, images_by_hand
from .conftest import CLASSES, start, weights_in

V1_SMALL = ("mobilenet_v1_0.25_128", 0.25, 128)
V1_LARGE = ("mobilenet_v1_0.75_224", 0.75, 224)


@pytest.fixture
def evaluated(command, tmp_path):
    """Evaluates, and returns the JSON that was written."""

    def call(**flags) -> dict:
        output = tmp_path / "evaluation.json"
        outcome = command("evaluate", output=output, **flags)
        assert outcome.code == 0, outcome.err
        value = json.loads(output.read_text())
        value["shown"] = outcome.out
        assert f"top-1 {value['top_1']:.4f} ({value['num_correct_top_1']} of" in outcome.out
        return value

    return call


def tf1_flags(reference_data, model: tuple[str, float, int]) -> dict:
    name, width, resolution = model
    return {
        "checkpoint_path": reference_data / "tf1_checkpoints" / name,
        "model_name": "mobilenet_v1",
        "width_multiplier": width,
        "resolution": resolution,
    }


def tf1_predictions(reference_data, name: str) -> dict[str, dict[str, str]]:
    """What the TF1 graph made of each photo, by the photo's class folder."""
    with open(reference_data / "predictions" / f"{name}.csv") as file:
        return {row["path"].split("/")[0]: row for row in csv.DictReader(file)}


def is_clear(row: dict[str, str]) -> bool:
    """Whether the two best logits are so far apart that rounding cannot swap them."""
    return float(row["top1_margin"]) > 1e-3


@pytest.mark.parametrize(
    ("model", "top_1", "top_5"), [(V1_SMALL, 229, 358), (V1_LARGE, 417, 486)], ids=str
)
def test_real_weights_are_right_on_the_photos_that_tf1_is_right_on(
    reference_data, real_data, evaluated, monkeypatch, model, top_1, top_5
):
    results = []
    to_json = result_module.to_json
    monkeypatch.setattr(
        result_module,
        "to_json",
        lambda outcomes, *rest: results.append(outcomes) or to_json(outcomes, *rest),
    )
    value = evaluated(data_dir=real_data, **tf1_flags(reference_data, model))
    assert value["num_examples"] == 500
    assert abs(value["num_correct_top_1"] - top_1) <= 1
    assert abs(value["num_correct_top_5"] - top_5) <= 4
    assert value["label_offset"] == 1
    assert value["confusion"] is None  # a million numbers, nearly all of them 0

    expected = tf1_predictions(reference_data, model[0])
    synsets = (reference_data / "imagenet_synsets.txt").read_text().split()
    assert [row["class"] for row in value["per_class"]] == sorted(expected, key=synsets.index)
    for row in value["per_class"]:
        photo = expected[row["class"]]
        assert row["num_examples"] == 1
        if is_clear(photo):
            assert row["num_correct"] == (photo["label"] == photo["top1"]), photo["path"]
    (outcomes,) = results
    for index, output in zip(outcomes.class_index, outcomes.predicted, strict=True):
        photo = expected[synsets[index]]
        assert not is_clear(photo) or output == int(photo["top1"]), photo["path"]


@pytest.mark.parametrize(
    ("name", "weights", "top_1", "top_5"),
    [
        pytest.param("dq_mobilenet_v2_1.0_224", "averages", 424, 488, marks=pytest.mark.long),
        pytest.param("dq_mobilenet_v2_1.0_224", "raw", 197, 343, marks=pytest.mark.long),
        ("dq_mobilenet_v3_small_1.0_224", "averages", 363, 461),
        ("dq_mobilenet_edgetpu_0.75_224", "averages", 419, 484),
    ],
)
def test_real_weights_of_other_families_need_no_name(
    reference_data, real_data, evaluated, name, weights, top_1, top_5
):
    path = reference_data / "tf1_checkpoints" / name
    value = evaluated(data_dir=real_data, checkpoint_path=path, weights=weights)
    assert value["num_examples"] == 500
    assert abs(value["num_correct_top_1"] - top_1) <= 1
    assert abs(value["num_correct_top_5"] - top_5) <= 4


def test_mistakes_are_the_most_confident_ones_of_the_tf1_graph(
    reference_data, real_data, evaluated
):
    value = evaluated(data_dir=real_data, **tf1_flags(reference_data, V1_SMALL))
    expected = tf1_predictions(reference_data, V1_SMALL[0]).values()
    wrong = sorted(
        (row for row in expected if row["label"] != row["top1"]),
        key=lambda row: -float(row["top1_probability"]),
    )[: len(value["mistakes"])]
    assert len(wrong) == 24
    names = ["background", *(reference_data / "imagenet_synsets.txt").read_text().split()]
    for mistake, row in zip(value["mistakes"], wrong, strict=True):
        assert mistake["file_name"] == os.path.basename(row["path"])
        assert mistake["label"] == names[int(row["label"])]
        assert mistake["predicted"] == names[int(row["top1"])]
        assert mistake["probability"] == pytest.approx(float(row["top1_probability"]), abs=1e-3)


def test_every_form_of_a_model_and_every_batch_size_gives_the_same_counts(
    reference_data, real_data, evaluated, succeed, tmp_path
):
    counts = ("num_examples", "num_correct_top_1", "num_correct_top_5")
    flags = tf1_flags(reference_data, V1_SMALL)
    of_tf1 = evaluated(data_dir=real_data, batch_size=64, **flags)
    of_sevens = evaluated(data_dir=real_data, batch_size=7, **flags)

    converted, exported = tmp_path / "converted", tmp_path / "exported"
    words = [f"--{name}={value}" for name, value in flags.items()]
    argv = ["command", f"--output_dir={converted}", *words]
    assert run_to_exit_code(convert, ConvertConfig, argv=argv) == 0
    of_tf2 = evaluated(data_dir=real_data, checkpoint_path=converted)

    succeed("export", data_dir=real_data, export_dir=exported, **flags)
    of_saved_model = evaluated(data_dir=real_data, checkpoint_path=exported / "saved_model")
    of_export = evaluated(data_dir=real_data, checkpoint_path=exported)
    for other in (of_sevens, of_tf2, of_saved_model, of_export):
        assert [other[name] for name in counts] == [of_tf1[name] for name in counts]
        assert other["loss"] == pytest.approx(of_tf1["loss"], rel=1e-5)
        assert other["mistakes"][0]["file_name"] == of_tf1["mistakes"][0]["file_name"]
    with open(exported / "saved_model" / "assets" / "labels.txt") as file:
        assert file.read().split() == [
            "background",
            *(reference_data / "imagenet_synsets.txt").read_text().split(),
        ]


def logits_by_hand(prefix: str, group: str, data_dir) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits, class indices and file names of the validation photos, without the evaluator."""
    from training.models import build_model, make_config
    from training.models.mobilenet import weights_of

    config = make_config(
        "mobilenet_v1", num_classes=3, width_multiplier=0.25, input_shape=(32, 32, 3)
    ).replace(classifier_activation=None)
    model = build_model(config)
    values = weights_in(prefix, group)
    for name, variable in weights_of(model).items():
        variable.assign(values[name])
    images, labels, names = images_by_hand(data_dir)
    return model(images, training=False).numpy(), labels, names


@pytest.mark.parametrize(("weights", "group"), [("averages", "averages"), ("raw", "model")])
def test_the_weights_that_are_asked_for_are_evaluated(
    data_dir, model_dir, evaluated, weights, group
):
    value = evaluated(checkpoint_path=model_dir, data_dir=data_dir, weights=weights)
    prefix = str(model_dir / "checkpoints" / "ckpt-24")
    assert (value["checkpoint"], value["weights"]) == (prefix, weights)
    logits, labels, names = logits_by_hand(prefix, group, data_dir)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    predicted = logits.argmax(axis=1)
    assert value["loss"] == pytest.approx(float(losses.mean()), abs=1e-4)
    assert value["num_correct_top_1"] == int((predicted == labels).sum())
    assert value["num_correct_top_5"] == value["num_examples"] == 24
    assert value["top_1"] == value["num_correct_top_1"] / 24
    confusion = np.zeros([3, 3], int)
    np.add.at(confusion, (labels, predicted), 1)
    assert value["confusion"] == confusion.tolist()
    assert sorted(m["file_name"] for m in value["mistakes"]) == sorted(
        name for name, label, best in zip(names, labels, predicted, strict=True) if label != best
    )


def test_averages_and_raw_weights_differ_and_are_those_of_the_history(
    data_dir, model_dir, evaluated
):
    averages = evaluated(checkpoint_path=model_dir, data_dir=data_dir, weights="averages")
    raw = evaluated(checkpoint_path=model_dir, data_dir=data_dir, weights="raw")
    last = json.loads((model_dir / "history.json").read_text())["epochs"][-1]
    assert averages["top_1"] == last["validation_top_1"]
    assert averages["loss"] == pytest.approx(last["validation_loss"], rel=1e-5)
    assert raw["top_1"] == last["validation_top_1_raw"]
    assert not math.isclose(raw["loss"], averages["loss"], rel_tol=0.01)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_no_photo_is_lost_in_any_batch_size(data_dir, model_dir, evaluated, batch_size):
    value = evaluated(checkpoint_path=model_dir, data_dir=data_dir, batch_size=batch_size)
    usual = evaluated(checkpoint_path=model_dir, data_dir=data_dir)
    assert value["num_examples"] == 24
    assert value["confusion"] == usual["confusion"]
    assert value["loss"] == pytest.approx(usual["loss"], rel=1e-5)


def test_an_evaluation_names_the_data_by_its_hash(data_dir, model_dir, evaluated):
    value = evaluated(checkpoint_path=model_dir, data_dir=data_dir, split="train")
    content = (data_dir / "train" / "manifest.json").read_bytes()
    assert value["data_manifest_sha256"] == hashlib.sha256(content).hexdigest()
    assert (value["data_dir"], value["split"]) == (str(data_dir), "train")
    assert (value["num_examples"], value["classes"]) == (48, list(CLASSES))


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A model that is right on some of the drawn photos."""
    path = tmp_path_factory.mktemp("colours") / "model.keras"
    colour_model(np.eye(3, dtype=np.float32), np.array([0.65, 0, 0])).save(path)
    return path


@pytest.mark.parametrize(
    ("split", "places"),
    [
        ("validation[:10]", slice(0, 10)),
        ("validation[10:]", slice(10, 24)),
        ("validation[25%:50%]", slice(6, 12)),
    ],
)
def test_a_part_of_a_split_is_those_examples_of_it(data_dir, colours, evaluated, split, places):
    value = evaluated(checkpoint_path=colours, data_dir=data_dir, split=split)
    _, labels, names = images_by_hand(data_dir)
    labels, names = labels[places], names[places]
    assert (value["split"], value["num_examples"]) == (split, len(labels))
    assert value["per_class"] == [
        {
            "class": CLASSES[i],
            "num_examples": n,
            "num_correct": value["per_class"][k]["num_correct"],
        }
        for k, (i, n) in enumerate(zip(*np.unique(labels, return_counts=True), strict=True))
    ]
    for mistake in value["mistakes"]:
        assert names[mistake["example"] - places.start] == mistake["file_name"]


def test_the_number_of_a_mistake_is_its_row_among_the_records(data_dir, colours, evaluated):
    import pyarrow.parquet

    value = evaluated(checkpoint_path=colours, data_dir=data_dir)
    table = pyarrow.parquet.read_table(data_dir / "validation" / "records.parquet").to_pylist()
    stored = [row["key"] for row in table if row["offset"] >= 0]
    assert len(value["mistakes"]) > 3
    for mistake in value["mistakes"]:
        assert os.path.basename(stored[mistake["example"]]) == mistake["file_name"]


def test_several_data_sets_have_a_file_each(
    data_dir, colours, command, evaluated, photos, tmp_path
):
    other = tmp_path / "other"
    assert start("build", source=photos / "train", output_dir=other, split="validation") == 0
    one_by_one = {
        (str(directory), split): evaluated(checkpoint_path=colours, data_dir=directory, split=split)
        for directory, split in [
            (data_dir, "validation[:10]"),
            (data_dir, "train"),
            (other, "validation"),
        ]
    }
    results = tmp_path / "results"
    results.mkdir()
    flags = {"checkpoint_path": colours, "output": results / "e.json"}
    outcome = command("evaluate", data_dir=data_dir, split="validation[:10],train", **flags)
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("95 %") == 1  # one table
    assert sorted(os.listdir(results)) == ["e-train.json", "e-validation-0-10.json"]
    outcome = command("evaluate", data_dir=f"{data_dir},{other}", **flags)
    assert outcome.code == 0, outcome.err
    names = [f"e-{folder}-validation.json" for folder in ("data", "other")]
    assert set(names) < set(os.listdir(results))
    for name in ("e-train.json", "e-validation-0-10.json", names[1]):
        value = json.loads((results / name).read_text())
        alone = one_by_one[value["data_dir"], value["split"]]
        assert value == {key: alone[key] for key in value}


def test_data_sets_of_other_classes_are_not_evaluated_together(
    data_dir, colours, command, photos, tmp_path
):
    (tmp_path / "two").mkdir()
    for name in CLASSES[:2]:
        (tmp_path / "two" / name).symlink_to(photos / "validation" / name)
    other = tmp_path / "other"
    assert start("build", source=tmp_path / "two", output_dir=other, split="validation") == 0
    outcome = command("evaluate", checkpoint_path=colours, data_dir=f"{data_dir},{other}")
    (line,) = outcome.err.splitlines()
    assert outcome.code == 1 and "has other classes" in line


def test_the_published_figure_is_shown_beside_ours(reference_data, real_data, evaluated):
    flags = tf1_flags(reference_data, V1_SMALL) | {"split": "validation[:32]"}
    value = evaluated(data_dir=real_data, compare_published=True, **flags)
    # As the release's table has it.
    assert (value["published"]["top_1"], value["published"]["top_5"]) == (0.415, 0.663)
    (row,) = [line for line in value["shown"].splitlines() if "validation[:32]  " in line]
    assert row.split()[-4:] == ["41.5", "%", "66.3", "%"]
    assert "published" not in evaluated(data_dir=real_data, **flags)["shown"]


def test_a_model_that_was_not_released_has_no_published_figure(data_dir, colours, evaluated):
    value = evaluated(checkpoint_path=colours, data_dir=data_dir, compare_published=True)
    assert value["published"] is None
    assert "no figure was published" in value["shown"]


@pytest.mark.parametrize(
    "kind",
    [
        "checkpoint",
        pytest.param("saved_model", marks=pytest.mark.long),
        pytest.param("keras", marks=pytest.mark.long),
    ],
)
def test_replicas_give_what_one_device_gives(
    data_dir, model_dir, good_export, colours, evaluated, kind, tmp_path
):
    """In a process of its own: the devices are set up once a process. 24 is no multiple of 10."""
    path = {"checkpoint": model_dir, "saved_model": good_export / "saved_model", "keras": colours}
    words = [
        f"--checkpoint_path={path[kind]}",
        f"--data_dir={data_dir}",
        f"--output={tmp_path / 'replicas.json'}",
        *("--batch_size=10", "--strategy=mirrored", "--num_virtual_devices=2"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.evaluate", *words],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    value = json.loads((tmp_path / "replicas.json").read_text())
    alone = evaluated(checkpoint_path=path[kind], data_dir=data_dir)
    assert value["confusion"] == alone["confusion"]
    assert value["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert [m["example"] for m in value["mistakes"]] == [m["example"] for m in alone["mistakes"]]
