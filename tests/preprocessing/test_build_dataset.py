import csv
import json
import os
import struct

import pytest
import tensorflow as tf

from common.errors import UserError
from preprocessing import build_dataset
from preprocessing.examples import parse_example
from preprocessing.manifest import load_manifest, shard_offsets
from preprocessing.records import load_records

from .conftest import encoded, make_tree


def read_all(data_dir, split="train"):
    """What TensorFlow's own reader finds, shard after shard."""
    paths = sorted(str(path) for path in data_dir.glob(f"{split}-*"))
    return [
        {name: value.numpy() for name, value in parse_example(record).items()}
        for record in tf.data.TFRecordDataset(paths)
    ]


def test_records_hold_the_photos_verbatim_with_their_labels(tree, tmp_path, build):
    data_dir = build(tree, tmp_path / "out", split="validation")
    assert sorted(path.name for path in data_dir.iterdir()) == [
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
        "validation",
        *(f"validation-{index:05d}-of-00003" for index in range(3)),
    ]
    found = {record["file_name"].decode(): record for record in read_all(data_dir, "validation")}
    photos = {path.name: path for path in tree.glob("*/*")}
    assert found.keys() == photos.keys()
    for name, path in photos.items():
        assert found[name]["jpeg"] == path.read_bytes()
        assert found[name]["class_index"] == ["cat", "dog", "fox"].index(path.parent.name)


def test_recorded_offsets_are_where_tensorflow_can_start_reading(tree, tmp_path, build):
    data_dir = build(tree, tmp_path / "out")
    records = load_records(str(data_dir), "train")
    row = 0
    for index, offsets in enumerate(shard_offsets(str(data_dir), "train")):
        path = str(data_dir / f"train-{index:05d}-of-00003")
        everything = [record.numpy() for record in tf.data.TFRecordDataset(path)]
        assert len(everything) == len(offsets) == 4
        for number, offset in enumerate(offsets):
            with open(path, "rb") as file:
                file.seek(offset)
                (tmp_path / "rest").write_bytes(file.read())
            rest = tf.data.TFRecordDataset(str(tmp_path / "rest"))
            assert [record.numpy() for record in rest] == everything[number:]
            name = parse_example(everything[number])["file_name"].numpy().decode()
            assert records["key"][row].endswith("/" + name)
            assert records["length"][row] == len(everything[number]) + 16
            row += 1


def test_real_photos_get_imagenets_class_indices(reference_data, tmp_path, build):
    data_dir = build(reference_data / "imagenet_sample", tmp_path / "out", num_shards=5)
    with open(reference_data / "imagenet_sample_labels.csv") as file:
        expected = {row["path"]: row for row in csv.DictReader(file)}
    records = load_records(str(data_dir), "train")
    assert set(records["key"]) == set(expected)
    for name, kind in (("label", "class_index"), ("width", "width"), ("height", "height")):
        for key, value in zip(records["key"], records[name], strict=True):
            assert value == int(expected[key][kind])
    for key, sha256 in zip(records["key"], records["sha256"], strict=True):
        assert sha256 == expected[key]["sha256"]
    manifest = load_manifest(str(data_dir), "train")
    assert (len(manifest.classes), manifest.class_list_source) == (1000, "imagenet")
    by_name = {os.path.basename(key): row["class_index"] for key, row in expected.items()}
    for record in read_all(data_dir):
        assert record["class_index"] == int(by_name[record["file_name"].decode()])


def test_bad_files_are_named_and_the_rest_is_built(tree, tmp_path, command):
    photo = encoded(seed=77)
    bad = {
        "cat/cut.JPEG": (photo[:-200], "truncated"),
        "cat/text.JPEG": (b"this is a text\n", "not an image"),
        "dog/empty.JPEG": (b"", "empty"),
    }
    odd = {
        "dog/png.JPEG": (encoded("PNG"), "PNG file"),
        "fox/cmyk.JPEG": (encoded(mode="CMYK"), "CMYK JPEG"),
    }
    for key, (content, _) in {**bad, **odd}.items():
        (tree / key).write_bytes(content)
    (tree / "fox/dangling.JPEG").symlink_to(tmp_path / "nowhere")
    (tree / "fox/.DS_Store").write_bytes(b"hidden")
    (tree / "fox/inner").mkdir()
    (tree / "fox/inner/deep.JPEG").write_bytes(photo)
    out = tmp_path / "out"
    flags = [f"--source={tree}", f"--output_dir={out}", "--num_shards=4"]

    code, text = command(*flags)
    assert code == 1
    assert "4 of 18 images were rejected" in text and "--max_rejected_fraction=0.01" in text
    assert "rejected: 1 truncated" in text and "Traceback" not in text
    assert not (out / "train/manifest.json").exists()

    def rows(name):
        lines = (out / "train" / name).read_text().splitlines()
        return {row["key"]: row["reason"] for row in map(json.loads, lines)}

    rejected = {key: reason for key, (_, reason) in bad.items()}
    rejected["fox/dangling.JPEG"] = "unreadable"
    assert rows("rejected.jsonl") == rejected

    code, text = command(*flags, "--max_rejected_fraction=0.5")
    assert code == 0, text
    assert rows("rejected.jsonl") == rejected
    assert rows("repaired.jsonl") == {key: reason for key, (_, reason) in odd.items()}
    manifest = load_manifest(str(out), "train")
    assert manifest.rejected == {"empty": 1, "not an image": 1, "truncated": 1, "unreadable": 1}
    assert (manifest.num_listed, manifest.num_examples, manifest.num_repaired) == (18, 14, 2)
    assert sum(shard.num_examples for shard in manifest.shards) == 14
    found = read_all(out)
    assert len(found) == 14
    for record in found:
        assert tf.io.decode_jpeg(record["jpeg"], channels=3).shape == (32, 48, 3)

    code, text = command(*flags)
    assert code == 1 and "4 of 18" in text, "finished, but more is rejected than now allowed"


def test_splits_share_a_directory_and_a_holdout_divides_one_tree(tmp_path, build):
    photos = make_tree(tmp_path / "photos", per_folder=20)
    out = tmp_path / "out"
    for split in ("train", "validation"):
        build(photos, out, split=split, holdout_fraction=0.25, num_shards=2)
    keys = {split: set(load_records(str(out), split)["key"]) for split in ("train", "validation")}
    assert not keys["train"] & keys["validation"]
    assert len(keys["train"]) + len(keys["validation"]) == 60
    assert 5 < len(keys["validation"]) < 25
    assert load_manifest(str(out), "train").classes == ("cat", "dog", "fox")


def test_names_may_hold_anything_that_a_file_system_allows(tree, tmp_path, build):
    names = ["line\nbreak.JPEG", 'quo"te\\.JPEG', "Föhn 図.JPEG", os.fsdecode(b"\xff\xfe.JPEG")]
    for number, name in enumerate(names):
        (tree / "cat" / name).write_bytes(encoded(seed=1000 + number))
    out = build(tree, tmp_path / "out")
    assert {os.fsencode(name) for name in names} <= {row["file_name"] for row in read_all(out)}
    assert "cat/Föhn 図.JPEG" in load_records(str(out), "train")["key"]


def test_boxes_and_texts_come_into_the_records_of_their_images(tree, tmp_path, build, command):
    (tmp_path / "boxes.csv").write_text(
        "cat_1.JPEG,0.25,0.125,0.5,1.0\nfox_0.JPEG,0,0,1,1\ncat_1.JPEG,0.5,0.5,0.75,0.75\n"
    )
    (tmp_path / "texts").write_text("cat\ta cat, Felis\nfox\tred fox\n")
    flags = {"bounding_boxes": tmp_path / "boxes.csv", "class_text": tmp_path / "texts"}
    out = build(tree, tmp_path / "out", **flags)
    found = {}
    for path in sorted(out.glob("train-*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            name = feature["image/filename"].bytes_list.value[0].decode()
            found[name] = (
                feature["image/class/text"].bytes_list.value[0].decode(),
                list(feature["image/object/bbox/label"].int64_list.value),
                *(
                    list(feature[f"image/object/bbox/{side}"].float_list.value)
                    for side in ("xmin", "ymin", "xmax", "ymax")
                ),
            )
    assert len(found) == 12
    boxes = ([0.25, 0.5], [0.125, 0.5], [0.5, 0.75], [1.0, 0.75])
    assert found["cat_1.JPEG"] == ("a cat, Felis", [1, 1], *boxes)
    assert found["fox_0.JPEG"] == ("red fox", [3], [0.0], [0.0], [1.0], [1.0])
    assert found["dog_2.JPEG"] == ("dog", [], [], [], [], [])
    assert load_manifest(str(out), "train").class_texts == ("a cat, Felis", "dog", "red fox")
    (tmp_path / "boxes.csv").write_text("other.JPEG,0,0,1,1\n")
    code, text = command(
        f"--source={tree}", f"--output_dir={tmp_path}/no", f"--bounding_boxes={tmp_path}/boxes.csv"
    )
    assert code == 1 and "names none of the images" in text
    (tree / "dog/cat_1.JPEG").write_bytes((tree / "cat/cat_1.JPEG").read_bytes())
    flags = [f"--source={tree}", f"--bounding_boxes={tmp_path}/boxes.csv", "--num_shards=1"]
    (tmp_path / "boxes.csv").write_text("cat_1.JPEG,0,0,1,1\n")
    code, text = command(*flags, f"--output_dir={tmp_path}/no")
    assert code == 1 and "'cat_1.JPEG' may be 'dog/cat_1.JPEG' or 'cat/cat_1.JPEG'" in text
    (tmp_path / "boxes.csv").write_text("cat/cat_1.JPEG,0,0,1,1\n")
    assert command(*flags, f"--output_dir={tmp_path}/yes")[0] == 0


def test_a_header_of_an_impossible_size_is_one_rejected_image(tree, tmp_path, build):
    header = struct.pack(">II5B", 0xFFFFFFFF, 5, 8, 2, 0, 0, 0)
    (tree / "cat/huge.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + header + bytes(99))
    out = build(tree, tmp_path / "out", max_rejected_fraction=0.1)
    assert sum(load_manifest(str(out), "train").rejected.values()) == 1


def test_larger_images_are_made_smaller_and_others_stay(tree, tmp_path, build, command):
    (tree / "cat/large.JPEG").write_bytes(encoded(size=(300, 200), quality=98))
    (tree / "dog/large.png").write_bytes(encoded("PNG", size=(100, 400)))
    out = build(tree, tmp_path / "out", shorter_side=50, jpeg_quality=80)
    found = {record["file_name"].decode(): record["jpeg"] for record in read_all(out)}
    sizes = {name: tf.io.decode_jpeg(jpeg).shape[:2] for name, jpeg in found.items()}
    assert (sizes["large.JPEG"], sizes["large.png"]) == ((50, 75), (200, 50))
    assert found["cat_0.JPEG"] == (tree / "cat/cat_0.JPEG").read_bytes()
    manifest = load_manifest(str(out), "train")
    assert (manifest.num_resized, manifest.num_repaired, manifest.num_examples) == (2, 0, 14)
    records = load_records(str(out), "train")
    row = records["key"].index("cat/large.JPEG")
    assert (records["width"][row], records["height"][row]) == (75, 50)
    assert (records["action"][row], records["jpeg_length"][row]) == (
        "resized",
        len(found["large.JPEG"]),
    )
    assert (
        "2 resized"
        in command(
            f"--source={tree}",
            f"--output_dir={tmp_path}/again",
            "--num_shards=3",
            "--shorter_side=50",
        )[1]
    )


def test_a_photo_that_changes_or_goes_while_the_build_runs_is_named(tree, tmp_path, monkeypatch):
    config = build_dataset.BuildConfig(str(tree), str(tmp_path / "out"), num_shards=3)
    write_shards = build_dataset._write_shards

    def change_first(*arguments):
        (tree / "cat/cat_0.JPEG").write_bytes(b"changed since it was listed")
        write_shards(*arguments)

    monkeypatch.setattr(build_dataset, "_write_shards", change_first)
    with pytest.raises(UserError, match=r"'cat/cat_0.JPEG' has 27 bytes, but had \d+ when"):
        build_dataset.build_dataset(config)
    assert not (tmp_path / "out/train/manifest.json").exists()
