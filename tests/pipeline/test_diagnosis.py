"""The diagnosis names what is wrong, with the accuracy that the model has when it is mended."""

import dataclasses
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from loaders.open import ModelRequest, open_checkpoint
from pipeline.evaluation import diagnosis
from pipeline.evaluation.diagnosis import is_far_off
from training.checkpoints import write_weights

from .colour_model import colour_model
from .conftest import CLASSES, start

EYE = 10 * np.eye(3, dtype=np.float32)
GREY = (128, 128, 128)


@pytest.fixture
def evaluated(command, tmp_path):
    """Evaluates, and returns the JSON and what was printed."""

    def call(path, data, **flags) -> tuple[dict, str]:
        output = tmp_path / "evaluation.json"
        outcome = command("evaluate", checkpoint_path=path, data_dir=data, output=output, **flags)
        assert outcome.code == 0, outcome.err
        return json.loads(output.read_text()), outcome.out

    return call


def require(found: tuple[dict, str], cause: str, words: str, top_1: float, before: float) -> None:
    value, shown = found
    first = value["diagnosis"][0]
    assert (first["cause"], len(value["diagnosis"])) == (cause, 1)
    assert words in first["explanation"]
    assert first["top_1"] == pytest.approx(top_1, abs=0.01)
    assert first["top_1_before"] == pytest.approx(before, abs=0.01) == value["top_1"]
    assert f"likely cause: {cause}: {first['explanation']}" in shown
    assert f"top-1 would be {top_1:.3f}" in shown


def saved(model, directory: pathlib.Path) -> pathlib.Path:
    model.save(directory / "model.keras")
    return directory / "model.keras"


def test_labels_shifted_by_one(data_dir, tmp_path, evaluated):
    """Four outputs look like a background class before the three, but it is behind them."""
    behind = np.pad(EYE, [(0, 0), (0, 1)])
    path = saved(colour_model(behind, np.array([0, 0, 0, -90.0])), tmp_path)
    found = evaluated(path, data_dir)
    words = "one output earlier than output = class index + 1"
    require(found, "labels", words, top_1=1, before=0)


def test_labels_shifted_the_other_way(data_dir, tmp_path, evaluated):
    """Three outputs for three classes, but the first class is at output 1, and the last nowhere."""
    path = saved(colour_model(np.roll(EYE, 1, axis=1)), tmp_path)
    found = evaluated(path, data_dir)
    words = "one output later than output = class index + 0"
    require(found, "labels", words, top_1=2 / 3, before=0)


@pytest.mark.parametrize(
    ("threshold", "low", "high"), [(10.0, 0, 255), (0.05, 0, 1)], ids=["bytes", "unit"]
)
def test_another_input_range(data_dir, tmp_path, evaluated, threshold, low, high):
    """A model that takes all that is dark for black: elsewhere all is dark, or too little."""
    model = colour_model(EYE, threshold=threshold)
    path = saved(model, tmp_path)
    right, _ = evaluated(path, data_dir, input_range=f"{low},{high}", diagnose="never")
    wrong = evaluated(path, data_dir, input_range="-200,0")
    require(wrong, "input range", f"--input_range={low},{high}", right["top_1"], before=1 / 3)


def test_imagenet_statistics_as_input_range(tmp_path, evaluated, data_dir):
    trials = {}
    for cause, explanation, setting in diagnosis._changes(
        diagnosis._Setting("inception", (-1.0,) * 3, (1.0,) * 3, "raw"),
        dataclasses.make_dataclass("P", ["reading", "open_other_weights"])(
            dataclasses.make_dataclass("R", ["label_offset"])(0), None
        ),
    ):
        trials[explanation] = (cause, setting)
    (found,) = [row for text, row in trials.items() if "ImageNet's mean" in text]
    assert found[0] == "input range"
    # torchvision's ToTensor and Normalize, of a black and of a white pixel.
    assert np.allclose(found[1].low, [-2.1179, -2.0357, -1.8044], atol=1e-4)
    assert np.allclose(found[1].high, [2.2489, 2.4286, 2.6400], atol=1e-4)
    assert not any("[-1, 1], and" in text for text in trials)  # that is what it is given


def test_blue_before_red(data_dir, tmp_path, evaluated):
    path = saved(colour_model(EYE[::-1]), tmp_path)
    found = evaluated(path, data_dir)
    require(found, "channel order", "made for BGR images, and is given RGB", 1, before=1 / 3)


def draw_data(root: pathlib.Path, draw) -> pathlib.Path:
    """A data set of 10 photos a class; `draw` makes one from the class' colour and another's."""
    colours = 60 + 160 * np.eye(3, dtype=int)
    for index, name in enumerate(CLASSES):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(10):
            other = tuple(colours[(index + 1 + number % 2) % 3])
            image = draw(tuple(colours[index] - number), other)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=95, subsampling=0)
            (root / "photos" / name / f"{name}_{number}.JPEG").write_bytes(buffer.getvalue())
    code = start("build", source=root / "photos", output_dir=root / "data", split="validation")
    assert code == 0
    return root / "data"


def framed(colour, other) -> Image.Image:
    """What tells the class is in the outermost sixteenth, which the crop takes away."""
    image = Image.new("RGB", (160, 160), colour)
    box = [9, 9, 150, 150]
    inner = tuple((9 * grey + hue) // 10 for grey, hue in zip(GREY, other, strict=True))
    ImageDraw.Draw(image).rectangle(box, fill=inner)
    return image


def wide(colour, other) -> Image.Image:
    """What tells the class is in the middle square of a wide picture."""
    image = Image.new("RGB", (320, 80), other)
    ImageDraw.Draw(image).rectangle([120, 0, 200, 80], fill=colour)
    return image


@pytest.mark.parametrize(
    ("draw", "words"),
    [(framed, "the whole photo without a crop"), (wide, "--preprocessing=bicubic")],
    ids=["no crop", "bicubic"],
)
def test_other_preprocessing(tmp_path, evaluated, draw, words):
    data = draw_data(tmp_path, draw)
    path = saved(colour_model(EYE), tmp_path)
    require(evaluated(path, data), "preprocessing", words, top_1=1, before=0)


def test_raw_weights_instead_of_averages(reference_data, real_data, evaluated):
    """The raw weights of this checkpoint are its averages plus noise."""
    path = reference_data / "tf1_checkpoints" / "dq_mobilenet_v2_1.0_224"
    flags = {"resolution": 96, "split": "validation[:48]"}
    right, _ = evaluated(path, real_data, diagnose="never", **flags)
    wrong = evaluated(path, real_data, weights="raw", **flags)
    require(wrong, "weights", "--weights=averages", right["top_1"], wrong[0]["top_1"])


@pytest.fixture(scope="module")
def bgr_checkpoint(reference_data, tmp_path_factory) -> pathlib.Path:
    """The real weights, for images that have blue first."""
    opened = open_checkpoint(
        str(reference_data / "tf1_checkpoints" / "mobilenet_v1_0.25_128"),
        ModelRequest(resolution=128),
    )
    values = dict(opened.values)
    (stem,) = [name for name, value in values.items() if value.shape == (3, 3, 3, 8)]
    values[stem] = values[stem][:, :, ::-1]
    directory = tmp_path_factory.mktemp("bgr")
    write_weights(str(directory), values)
    opened.record.write(str(directory))
    return directory


def test_two_causes_of_real_weights_are_found_one_on_top_of_the_other(
    bgr_checkpoint, real_data, evaluated
):
    flags = {"split": "validation[:220]", "input_range": "0,255", "diagnose": "always"}
    value, shown = evaluated(bgr_checkpoint, real_data, **flags)
    assert value["top_1"] < 0.05 and value["published"]["name"] == "mobilenet_v1_0.25_128"
    causes = [finding["cause"] for finding in value["diagnosis"]]
    assert causes == ["input range", "channel order"]
    assert "and then channel order" in shown
    last = value["diagnosis"][-1]
    assert last["top_1_before"] == value["diagnosis"][0]["top_1"] < last["top_1"]
    assert last["top_1"] > 0.3


def test_what_is_right_is_left_in_peace(data_dir, tmp_path, evaluated):
    path = saved(colour_model(EYE), tmp_path)
    value, shown = evaluated(path, data_dir)
    assert value["diagnosis"] is None and "far off" not in shown
    value, shown = evaluated(path, data_dir, diagnose="always")
    assert value["diagnosis"] == [] and "none of the usual causes" in shown
    blind = saved(colour_model(0 * EYE), tmp_path)
    value, shown = evaluated(blind, data_dir, diagnose="never")
    assert value["diagnosis"] is None and "cause" not in shown
    value, shown = evaluated(blind, data_dir)
    assert value["diagnosis"] == [] and "far off" in shown and "none of the usual" in shown


@pytest.mark.parametrize(
    ("correct", "count", "num_classes", "published", "expected"),
    [
        (229, 500, 1000, 0.415, False),
        (150, 500, 1000, 0.415, True),
        (150, 500, 1000, None, False),
        (50, 500, 1000, None, True),
        (9, 24, 3, None, True),
        (10, 24, 3, None, False),
        (2, 8, 1000, 0.415, False),  # so few say nothing
    ],
)
def test_what_counts_as_far_off(correct, count, num_classes, published, expected):
    assert is_far_off(correct, count, num_classes, published) is expected
