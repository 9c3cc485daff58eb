import base64
import hashlib
import json

import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from common.errors import UserError
from preprocessing.examples import parse_example
from preprocessing.manifest import load_manifest, shard_offsets
from preprocessing.records import load_records

from .conftest import encoded


def test_the_manifest_describes_the_split(tree, tmp_path, build):
    (tree / "dog/png.JPEG").write_bytes(encoded("PNG"))
    (tree / "dog/text.JPEG").write_bytes(b"text")
    (tmp_path / "classes").write_text("fox\ncow\ndog\ncat\n")
    out = build(
        tree, tmp_path / "out", seed=7, classes=tmp_path / "classes", max_rejected_fraction=0.1
    )
    manifest = load_manifest(str(out), "train")
    path = out / "train/manifest.json"
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest.classes == ("fox", "cow", "dog", "cat")
    assert manifest.class_list_source == "file"
    assert manifest.class_list_sha256 == hashlib.sha256(b"fox\ncow\ndog\ncat\n").hexdigest()
    assert manifest.examples_per_class == (4, 0, 5, 4)
    assert (manifest.labels.num_classes, manifest.labels.offset) == (4, 1)
    assert (manifest.split, manifest.seed, manifest.flags["num_shards"]) == ("train", 7, 3)
    assert (manifest.num_listed, manifest.num_examples, manifest.num_repaired) == (14, 13, 1)
    assert manifest.rejected == {"not an image": 1}
    assert manifest.versions.keys() == {"pillow", "libjpeg", "pyarrow", "apache-beam"}
    for shard in manifest.shards:
        content = (out / shard.name).read_bytes()
        assert shard.num_bytes == len(content)
        assert shard.crc32c == google_crc32c_text(content)
    for name, sha256 in (
        ("records.parquet", manifest.records_sha256),
        ("plan.json", manifest.plan_sha256),
    ):
        assert sha256 == hashlib.sha256((out / "train" / name).read_bytes()).hexdigest()


def google_crc32c_text(content: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(content).digest()).decode()


def test_a_digest_is_that_of_the_shard_with_images_replaced_by_their_hashes(tree, tmp_path, build):
    (tree / "dog/png.JPEG").write_bytes(encoded("PNG"))
    out = build(tree, tmp_path / "out")
    for shard in load_manifest(str(out), "train").shards:
        content = (out / shard.name).read_bytes()
        records = tf.data.TFRecordDataset(str(out / shard.name))
        for image in [parse_example(record)["jpeg"].numpy() for record in records]:
            assert content.count(image) == 1
            content = content.replace(image, hashlib.sha256(image).digest())
        assert shard.digest == hashlib.sha256(content).hexdigest()


def test_the_files_tell_nothing_of_place_and_time(tree, tmp_path, build):
    out = build(tree, tmp_path / "out")
    for path in out.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()


def test_the_records_table_has_a_row_for_each_listed_image(tree, tmp_path, build):
    (tree / "dog/text.JPEG").write_bytes(b"text")
    out = build(tree, tmp_path / "out", max_rejected_fraction=0.1)
    records = load_records(str(out), "train")
    assert {len(column) for column in records.values()} == {13}
    rows = dict(zip(records["key"], range(13), strict=True))
    for path in tree.glob("*/*"):
        row = rows[f"{path.parent.name}/{path.name}"]
        assert records["sha256"][row] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert records["class"][row] == path.parent.name
    row = rows["dog/text.JPEG"]
    assert (records["action"][row], records["reason"][row]) == ("rejected", "not an image")
    for name, value in (("offset", -1), ("length", 0), ("jpeg_offset", -1), ("jpeg_length", 0)):
        assert records[name][row] == value
    for row, shard in enumerate(records["shard"]):
        if records["action"][row] == "verbatim":
            content = (out / f"train-{shard:05d}-of-00003").read_bytes()
            image = content[records["jpeg_offset"][row] :][: records["jpeg_length"][row]]
            assert image == (tree / records["source"][row]).read_bytes()
            assert records["source_offset"][row] == -1
    assert set(load_records(str(out), "train", ["shard", "offset"])) == {"shard", "offset"}
    assert sum(map(len, shard_offsets(str(out), "train"))) == 12
    assert np.all(np.diff(records["shard"]) >= 0)


def test_a_missing_damaged_or_foreign_manifest_is_one_clear_error(tree, tmp_path, build):
    with pytest.raises(UserError, match=r"preprocessing.build_dataset --output_dir=.* makes it"):
        load_manifest(str(tmp_path), "train")
    path = build(tree, tmp_path / "out") / "train/manifest.json"
    whole = path.read_text()
    for content, words in (
        (whole[: len(whole) // 2], "JSON"),
        (whole.replace('"num_examples": 12', '"num_examples": 13'), "was edited"),
        ("[]", "was edited"),
        (json.dumps({"self_sha256": hashlib.sha256(b"{}").hexdigest()}), "another version"),
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            load_manifest(str(tmp_path / "out"), "train")
    (tmp_path / "out/train/records.parquet").write_bytes(b"rubbish")
    with pytest.raises(UserError, match="cannot be read"):
        load_records(str(tmp_path / "out"), "train")
