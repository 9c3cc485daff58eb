import json
import shutil

import numpy as np
import pytest

from preprocessing import manifest as manifest_module
from preprocessing.manifest import load_manifest, shard_offsets
from preprocessing.records import load_records
from preprocessing.tfrecord import frame
from preprocessing.verify import VerifyConfig, find_faults, verify

from .conftest import encoded


@pytest.fixture
def data_dir(tree, tmp_path, build):
    return build(tree, tmp_path / "out")


@pytest.fixture
def check(command, data_dir):
    def call(*flags):
        return command(f"--data_dir={data_dir}", *flags, main=verify, config=VerifyConfig)

    return call


def overwrite(path, position, change):
    content = bytearray(path.read_bytes())
    content[position] ^= change
    path.write_bytes(bytes(content))


def edit_manifest(data_dir, change, hash_again=False):
    path = data_dir / "train/manifest.json"
    value = json.loads(path.read_text())
    change(value)
    if hash_again:
        del value["self_sha256"]
        value["self_sha256"] = manifest_module._hash_of(value)
    path.write_text(json.dumps(value))


def test_a_whole_split_is_called_whole(check):
    for flags in ((), ("--deep",)):
        code, text = check(*flags)
        assert code == 0 and "is whole: 12 examples in 3 shards" in text


def test_a_flipped_byte_anywhere_names_shard_record_and_source(data_dir, check):
    path = data_dir / "train-00001-of-00003"
    records = load_records(str(data_dir), "train")
    keys = [key for key, shard in zip(records["key"], records["shard"], strict=True) if shard == 1]
    offsets = [*shard_offsets(str(data_dir), "train")[1], path.stat().st_size]
    manifest = load_manifest(str(data_dir), "train")
    rng = np.random.default_rng(0)
    for number, key in enumerate(keys):
        start, end = offsets[number], offsets[number + 1]
        for position in [start, start + 9, start + 12, end - 1, *rng.integers(start, end, 5)]:
            change = 1 << rng.integers(8)
            overwrite(path, position, change)
            faults = list(find_faults(str(data_dir), manifest))
            assert len(faults) == 1
            assert str(path) in faults[0] and f"record {number} ({key})" in faults[0]
            overwrite(path, position, change)
    assert check()[0] == 0


def test_cut_long_missing_extra_and_swapped_shards_are_named(data_dir, check, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(data_dir, kept)
    names = [data_dir / f"train-{index:05d}-of-00003" for index in range(3)]
    records = load_records(str(data_dir), "train")
    last_key = [k for k, s in zip(records["key"], records["shard"], strict=True) if s == 0][-1]

    def cut():
        names[0].write_bytes(names[0].read_bytes()[:-10])

    def lengthen():
        names[1].write_bytes(names[1].read_bytes() + b"more")

    def swap():
        first, second = names[0].read_bytes(), names[2].read_bytes()
        names[0].write_bytes(second)
        names[2].write_bytes(first)

    inner = data_dir / "train"
    extra = data_dir / "train-00000-of-00004"
    for damage, words in (
        (cut, [f"{names[0]} is cut", f"from record 3 ({last_key}) on"]),
        (lengthen, [f"{names[1]} is too long"]),
        (names[2].unlink, [f"{names[2]} is missing (4 records)"]),
        (lambda: extra.write_bytes(b""), [f"{extra} is not in the manifest"]),
        (swap, [f"{names[0]} holds the bytes of {names[2].name}", f"{names[2]} holds"]),
        ((inner / "records.parquet").unlink, ["records.parquet is missing"]),
        ((inner / "plan.jsonl").unlink, ["plan.jsonl is missing"]),
        (lambda: overwrite(inner / "records.parquet", 50, 1), ["records.parquet is damaged"]),
        (lambda: overwrite(inner / "plan.jsonl", 5, 1), ["plan.jsonl is damaged"]),
        (lambda: overwrite(inner / "plan.json", 5, 1), ["plan.json is damaged"]),
    ):
        damage()
        code, text = check()
        assert code == 1 and all(word in text for word in words), (words, text)
        assert "Traceback" not in text and "error: split 'train'" in text.splitlines()[-1]
        shutil.rmtree(data_dir)
        shutil.copytree(kept, data_dir)


def test_a_record_replaced_with_a_right_checksum_is_noticed(data_dir, check):
    path = data_dir / "train-00000-of-00003"
    content = path.read_bytes()
    start, end = shard_offsets(str(data_dir), "train")[0][:2]
    payload = bytearray(content[start + 12 : end - 4])
    payload[-1] ^= 1
    header, footer = frame([bytes(payload)])
    path.write_bytes(content[:start] + header + bytes(payload) + footer + content[end:])
    code, text = check()
    assert code == 1 and f"{path} is not the file of the manifest" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value: value.update(num_examples=11), "num_examples"),
        (lambda value: value.update(seed=5), "seed"),
        (lambda value: value["examples_per_class"].__setitem__(0, 5), "examples_per_class"),
        (lambda value: value["shards"].pop(), "shards"),
        (lambda value: value["classes"].reverse(), "classes"),
        (lambda value: value["shards"][1].update(digest="0" * 64), "train-00001-of-00003"),
    ],
)
def test_an_edited_manifest_is_noticed_even_when_its_own_hash_is_made_anew(
    data_dir, check, change, words
):
    kept = (data_dir / "train/manifest.json").read_bytes()
    edit_manifest(data_dir, change)
    code, text = check()
    assert code == 1 and "manifest.json is damaged or was edited" in text
    (data_dir / "train/manifest.json").write_bytes(kept)
    edit_manifest(data_dir, change, hash_again=True)
    code, text = check()
    assert code == 1 and words in text, text


def test_only_deep_finds_images_that_were_stored_undecodable(tree, tmp_path, build, command):
    photo = encoded()
    table = photo.index(b"\xff\xc4") + 5  # a Huffman table, which only decoding looks at
    (tree / "cat/table.JPEG").write_bytes(photo[:table] + b"\xff" * 16 + photo[table + 16 :])
    out = build(tree, tmp_path / "out")
    flags = [f"--data_dir={out}"]
    assert command(*flags, main=verify, config=VerifyConfig)[0] == 0
    code, text = command(*flags, "--deep", main=verify, config=VerifyConfig)
    assert code == 1 and "(cat/table.JPEG) cannot be decoded" in text


def test_an_unfinished_split_is_one_line_that_names_the_command(tmp_path, command):
    code, text = command(f"--data_dir={tmp_path}", main=verify, config=VerifyConfig)
    assert code == 1 and "python -m preprocessing.build_dataset" in text
    assert len(text.splitlines()) == 1
