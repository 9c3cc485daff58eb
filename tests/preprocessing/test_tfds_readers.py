"""TFDS reads what was built, slices of it too, and finds what the source holds."""

import json
import subprocess

import pytest

from .conftest import MODULE, ROOT, encoded, make_tree

CLASSES = ["cat", "dog", "fox"]


@pytest.fixture
def data_dir(tmp_path, build):
    photos = make_tree(tmp_path / "photos", per_folder=9)
    (photos / "dog/text.JPEG").write_bytes(b"rejected, so that shards are of different lengths")
    (photos / "dog/png.JPEG").write_bytes(encoded("PNG", seed=99))
    out = tmp_path / "out"
    build(photos, out, split="train", num_shards=5, max_rejected_fraction=0.1)
    build(make_tree(tmp_path / "held", per_folder=4), out, split="validation")
    return out


def test_tfds_reads_every_split_in_full(data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(data_dir))
    assert builder.info.features["label"].names == CLASSES
    counts = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert counts == {"train": 28, "validation": 12}
    for split, photos in (("train", "photos"), ("validation", "held")):
        records = builder.as_dataset(
            split=split, decoders={"image/encoded": tfds.decode.SkipDecoding()}
        )
        found = {}
        for record in records.as_numpy_iterator():
            name = record["file_name"].decode()
            found[f"{CLASSES[record['label']]}/{name}"] = record["image/encoded"]
        paths = {f"{p.parent.name}/{p.name}": p for p in (data_dir.parent / photos).glob("*/*")}
        assert paths.keys() - found.keys() == ({"dog/text.JPEG"} if split == "train" else set())
        for key, content in found.items():
            if key != "dog/png.JPEG":
                assert content == paths[key].read_bytes()


@pytest.mark.parametrize(
    ("split", "count"),
    [("train[:10]", 10), ("train[5:7]", 2), ("train[:50%]", 14), ("validation[-3:]", 3)],
)
def test_tfds_slices_and_decodes(data_dir, split, count):
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(data_dir))
    pairs = list(builder.as_dataset(split=split, as_supervised=True).as_numpy_iterator())
    assert len(pairs) == count
    assert {image.shape for image, _ in pairs} == {(32, 48, 3)}


def test_a_moved_directory_reads_the_same_and_says_nothing_of_its_place(data_dir, tmp_path):
    import tensorflow_datasets as tfds

    moved = data_dir.rename(tmp_path / "moved")
    builder = tfds.builder_from_directory(str(moved))
    assert sum(1 for _ in builder.as_dataset(split="validation")) == 12
    info = json.loads((moved / "dataset_info.json").read_text())
    assert str(tmp_path) not in json.dumps(info)


def test_builds_of_two_splits_at_once_are_both_described(tmp_path):
    processes = []
    for split in ("train", "validation"):
        photos = make_tree(tmp_path / split, per_folder=5)
        flags = [f"--source={photos}", f"--output_dir={tmp_path}/out", f"--split={split}"]
        processes.append(subprocess.Popen([*MODULE, *flags], cwd=ROOT, stdout=subprocess.DEVNULL))
    assert [process.wait() for process in processes] == [0, 0]
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())
    assert [split["name"] for split in info["splits"]] == ["train", "validation"]
