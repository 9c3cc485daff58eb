import collections
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from common.errors import UsageError, UserError
from common.files import fingerprint
from preprocessing.demo.drawing import THINGS, Palette
from preprocessing.demo.pretraining import PRETRAINING_THINGS
from preprocessing.demo.sketch import Sketch
from preprocessing.demo_photos import (
    BAD_FILES_PER_KIND,
    REJECTED_KINDS,
    REPAIRABLE_KINDS,
    SPLITS,
    THING_SETS,
    bad_files,
    write_demo_photos,
)

TRAIN_PER_CLASS, VALIDATION_PER_CLASS = 80, 20

# Width, height and the mean grey of the quarters of each class's first photo.
LOOKS = {
    "striped ball": (251, 241, 89.2, 82.1, 76.2, 74.2),
    "doughnut": (215, 203, 111.4, 93.4, 125.5, 133.5),
    "star": (219, 248, 130.0, 132.7, 137.7, 140.1),
    "leaf": (275, 222, 80.2, 74.0, 71.7, 67.6),
    "fish": (293, 319, 138.4, 137.9, 114.5, 120.9),
    "house": (274, 313, 151.2, 147.7, 101.9, 129.5),
    "mug": (256, 232, 141.5, 153.3, 134.8, 142.2),
    "fir tree": (152, 155, 79.0, 69.3, 85.6, 70.7),
    "chequered box": (155, 106, 88.6, 89.6, 77.3, 78.3),
    "wheel": (267, 293, 136.8, 129.5, 126.3, 107.5),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A data set large enough for statistics."""
    directory = str(tmp_path_factory.mktemp("demo") / "photos")
    write_demo_photos(directory, TRAIN_PER_CLASS, VALIDATION_PER_CLASS, num_workers=2)
    return directory


@pytest.fixture(scope="module")
def photos(demo):
    """The good photos: `{(split, synset): [bytes, ...]}`."""
    bad = {path for split in SPLITS for paths in bad_files(split).values() for path in paths}
    found = collections.defaultdict(list)
    for path in _paths(demo):
        if path.endswith(".JPEG") and path not in bad:
            split, synset, _ = path.split("/")
            found[split, synset].append(_read(demo, path))
    return found


@pytest.mark.parametrize("things", THING_SETS)
def test_one_and_two_workers_write_the_same_bytes(tmp_path, things):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    write_demo_photos(one, 3, 1, num_workers=1, things=things)
    write_demo_photos(two, 3, 1, num_workers=2, things=things)
    assert fingerprint(one) == fingerprint(two)


def test_the_demo_photos_look_as_ever(demo):
    """By size and mean grey of the four quarters, which no processor's last bits change."""
    found = {}
    for thing in THINGS:
        photo = _open(_read(demo, f"train/{thing.synset}/{thing.synset}_0.JPEG"))
        grey = np.asarray(photo.convert("L"), np.float64)
        quarters = [half for rows in np.array_split(grey, 2) for half in np.array_split(rows, 2, 1)]
        found[thing.name] = (*photo.size, *(float(quarter.mean()) for quarter in quarters))
    assert found == {name: pytest.approx(row, abs=0.7) for name, row in LOOKS.items()}


def test_the_things_for_pretraining_are_none_of_the_demos(tmp_path, photos):
    directory = str(tmp_path / "photos")
    summary = write_demo_photos(directory, 1, 1, num_workers=1, things="pretraining")
    assert summary["settings"]["things"] == "pretraining"
    synsets = [thing.synset for thing in PRETRAINING_THINGS]
    assert sorted(os.listdir(os.path.join(directory, "train"))) == synsets
    lines = _read(directory, "class_names.txt").decode().splitlines()
    assert [line.split("\t")[0] for line in lines] == synsets
    both = (*THINGS, *PRETRAINING_THINGS)
    for values in ([thing.synset for thing in both], [thing.name for thing in both]):
        assert len(set(values)) == 20
    assert all(re.fullmatch(r"n9\d{7}", synset) for synset in synsets)
    bad = bad_files("validation", "pretraining")
    on_disk = [path for path in _paths(directory) if "/bad_" in path and path.startswith("val")]
    assert sorted(path for paths in bad.values() for path in paths) == on_disk
    # What lies behind and around a thing comes from random numbers: none of the demo's again.
    sizes = {
        _open(_read(directory, f"train/{new.synset}/{new.synset}_0.JPEG")).size
        == _open(photos["train", old.synset][0]).size
        for old, new in zip(THINGS, PRETRAINING_THINGS, strict=True)
    }
    assert sizes == {False}


@pytest.mark.parametrize("thing", (*THINGS, *PRETRAINING_THINGS), ids=lambda thing: thing.name)
def test_a_thing_fills_its_sheet_and_ends_before_its_edge(thing):
    for seed in range(8):
        sketch = Sketch(40, np.eye(2))
        colours = Palette(np.array([1, 0, 0]), np.array([0, 1, 0]), np.array([0, 0, 1]))
        thing.draw(sketch, colours, np.random.default_rng(seed))
        _, alpha = sketch.render()
        assert 0.1 < alpha.mean() < 0.7
        border = np.r_[alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]]
        assert not border.any()
        rows, columns = np.nonzero(alpha > 0.5)
        assert max(np.ptp(rows), np.ptp(columns)) > 0.5 * len(alpha)


def test_a_photo_depends_on_seed_split_class_and_number_alone(tmp_path, demo):
    write_demo_photos(str(tmp_path / "few"), 2, 1, num_workers=1)
    shared = [path for path in _paths(tmp_path / "few") if path.endswith(".JPEG")]
    assert len(shared) == 10 * 3 + 5 * 4
    for path in shared:
        assert _read(tmp_path / "few", path) == _read(demo, path), path


def test_another_seed_draws_other_photos(tmp_path, demo):
    write_demo_photos(str(tmp_path / "other"), 1, 1, seed=1, num_workers=1)
    path = "train/n90000013/n90000013_0.JPEG"
    assert _read(tmp_path / "other", path) != _read(demo, path)


def test_no_photo_is_there_twice(photos):
    contents = [content for group in photos.values() for content in group]
    assert len(set(contents)) == len(contents)


def test_the_folders_are_imagenets_with_the_number_of_photos_asked_for(demo, photos):
    assert sorted(os.listdir(demo)) == ["class_names.txt", "demo.json", "train", "validation"]
    for split, per_class in (("train", TRAIN_PER_CLASS), ("validation", VALIDATION_PER_CLASS)):
        folders = sorted(os.listdir(os.path.join(demo, split)))
        assert folders == [thing.synset for thing in THINGS]
        assert [len(photos[split, folder]) for folder in folders] == [per_class] * 10
    # ImageNet's own identifiers end at n15300051.
    assert all(re.fullmatch(r"n9\d{7}", thing.synset) for thing in THINGS)


def test_the_class_names_tell_the_folders_apart(demo):
    lines = _read(demo, "class_names.txt").decode().splitlines()
    names = dict(line.split("\t") for line in lines)
    assert list(names) == sorted(os.listdir(os.path.join(demo, "train")))
    assert len(set(names.values())) == 10


def test_the_summary_counts_what_is_on_the_disk(demo):
    summary = json.loads(_read(demo, "demo.json"))
    for split in SPLITS:
        paths = [path for path in _paths(demo) if path.startswith(f"{split}/")]
        readable = sum(_decodes(_read(demo, path)) for path in paths)
        assert summary["counts"][split] == {
            "files": len(paths),
            "examples": readable,
            "rejected": len(paths) - readable,
        }


@pytest.mark.parametrize("split", SPLITS)
def test_bad_files_are_bad_in_the_way_their_names_say(demo, split):
    found = bad_files(split)
    assert set(found) == set(REPAIRABLE_KINDS + REJECTED_KINDS)
    on_disk = {path for path in _paths(demo) if path.startswith(split) and "/bad_" in path}
    assert on_disk == {path for paths in found.values() for path in paths}
    for kind, paths in found.items():
        assert len(paths) == BAD_FILES_PER_KIND[split] > 0
        for path in paths:
            assert f"bad_{kind}_" in path
            assert IS_OF_KIND[kind](_read(demo, path)), path


def test_good_photos_are_whole_jpegs_and_vary(photos):
    images = [_open(content) for group in photos.values() for content in group]
    assert {image.format for image in images} == {"JPEG"}
    for image in images:
        image.load()
        assert min(image.size) >= 90 and max(image.size) <= 320
    ratios = np.array([image.width / image.height for image in images])
    assert ratios.min() < 0.67 and ratios.max() > 1.5
    assert len({image.size for image in images}) > len(images) / 2
    assert 0.01 < np.mean([image.mode == "L" for image in images]) < 0.06
    assert {image.mode for image in images} == {"RGB", "L"}
    tables = {tuple(image.quantization[0]) for image in images}
    assert len(tables) > 40
    chroma = collections.Counter(image.layer[0][1:3] for image in images if image.mode == "RGB")
    assert set(chroma) == {(1, 1), (2, 2)}
    assert min(chroma.values()) > len(images) / 3


@pytest.mark.long
def test_a_linear_model_on_pixels_cannot_tell_the_classes_apart(photos):
    train, train_classes = _pixels(photos, "train")
    validation, classes = _pixels(photos, "validation")
    mean, deviation = train.mean(0), train.std(0)
    train, validation = (train - mean) / deviation, (validation - mean) / deviation
    targets = np.eye(10)[train_classes]

    fitted, accuracies = [], []
    # Ridge regression on one-hot targets, solved in the space of the examples, which are fewer
    # than the weights.
    kernel = train @ train.T
    for penalty in 10.0 ** np.arange(1, 8):
        weights = train.T @ np.linalg.solve(kernel + penalty * np.eye(len(kernel)), targets - 0.1)
        fitted.append(np.mean((train @ weights).argmax(1) == train_classes))
        accuracies.append(np.mean((validation @ weights).argmax(1) == classes))
    weights = np.zeros((train.shape[1], 10))
    for _ in range(400):  # logistic regression by gradient descent
        logits = train @ weights
        odds = np.exp(logits - logits.max(1, keepdims=True))
        weights -= 1e-3 * train.T @ (odds / odds.sum(1, keepdims=True) - targets) / len(train)
    accuracies.append(np.mean((validation @ weights).argmax(1) == classes))

    assert max(fitted) > 0.95, "a model that has not even learnt its own photos proves nothing"
    # The best of all penalties, chosen on the validation photos themselves.
    assert max(accuracies) < 0.45, accuracies


def test_colour_does_not_tell_the_class(photos):
    """Nearest class mean of the colour histogram: little better than one in ten is right."""

    def histograms(split):
        rows, classes = [], []
        for index, thing in enumerate(THINGS):
            for content in photos[split, thing.synset]:
                pixels = np.asarray(_open(content).convert("RGB").resize((48, 48))).reshape(-1, 3)
                counts = np.bincount((pixels // 64) @ [16, 4, 1], minlength=64)
                rows.append(np.sqrt(counts / counts.sum()))
                classes.append(index)
        return np.array(rows), np.array(classes)

    train, train_classes = histograms("train")
    validation, classes = histograms("validation")
    means = np.stack([train[train_classes == index].mean(0) for index in range(10)])
    nearest = ((validation[:, None] - means) ** 2).sum(-1).argmin(1)
    assert np.mean(nearest == classes) < 0.3


def test_a_finished_data_set_is_left_alone(tmp_path, caplog):
    directory = str(tmp_path / "photos")
    first = write_demo_photos(directory, 1, 1, num_workers=1)
    before = os.stat(os.path.join(directory, "demo.json")).st_mtime_ns
    caplog.set_level("INFO")
    caplog.clear()
    assert write_demo_photos(directory, 1, 1, num_workers=2) == first
    assert os.stat(os.path.join(directory, "demo.json")).st_mtime_ns == before
    assert len(caplog.records) == 1 and directory in caplog.text
    with pytest.raises(UserError, match="other settings"):
        write_demo_photos(directory, 2, 1)


def test_other_files_are_never_replaced(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UserError, match="not demo photos"):
        write_demo_photos(str(tmp_path), 1, 1)
    with pytest.raises(UserError, match="is a file"):
        write_demo_photos(str(tmp_path / "holiday.jpg"), 1, 1)
    assert os.listdir(tmp_path) == ["holiday.jpg"]


def test_a_drawing_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("preprocessing.demo_photos.draw_scene", fail)
    with pytest.raises(OSError, match="No space left"):
        write_demo_photos(str(tmp_path / "photos"), 1, 1, num_workers=1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [{"train_per_class": 0}, {"validation_per_class": -1}, {"seed": -1}, {"num_workers": 0}],
)
def test_numbers_out_of_range_are_named(tmp_path, wrong):
    with pytest.raises(UsageError, match=f"--{next(iter(wrong))}="):
        write_demo_photos(str(tmp_path / "photos"), **wrong)


def test_the_command_draws_and_needs_no_tensorflow(tmp_path):
    flags = ["--output_dir=photos", "--train_per_class=1", "--validation_per_class=1"]
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['demo_photos', *{flags!r}, '--num_workers=1']\n"
        "try: runpy.run_module('preprocessing.demo_photos', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "assert 'tensorflow' not in sys.modules and 'apache_beam' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=True)
    assert os.path.exists(tmp_path / "photos" / "demo.json")


def _paths(directory):
    return sorted(
        os.path.relpath(os.path.join(folder, name), directory)
        for folder, _, names in os.walk(directory)
        for name in names
    )


def _read(directory, path):
    with open(os.path.join(directory, path), "rb") as file:
        return file.read()


def _open(content):
    return Image.open(io.BytesIO(content))


def _decodes(content):
    try:
        _open(content).load()
    except OSError:
        return False
    return True


def _pixels(photos, split):
    """Photos squeezed to 32x32x3, flattened, and their classes."""
    rows = [
        (np.asarray(_open(content).convert("RGB").resize((32, 32))).ravel(), index)
        for index, thing in enumerate(THINGS)
        for content in photos[split, thing.synset]
    ]
    return np.array([row for row, _ in rows], np.float64), np.array([index for _, index in rows])


IS_OF_KIND = {
    "truncated": lambda content: (
        content.startswith(b"\xff\xd8\xff")
        and not content.endswith(b"\xff\xd9")
        and not _decodes(content)
    ),
    "text": lambda content: content.decode("ascii").strip() != "" and not _decodes(content),
    "empty": lambda content: content == b"",
    "png": lambda content: content.startswith(b"\x89PNG") and _decodes(content),
    "cmyk": lambda content: _open(content).format == "JPEG" and _open(content).mode == "CMYK",
}
