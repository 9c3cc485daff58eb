"""Builds from and into a bucket: the bytes of a local build, whatever the network does."""

import pathlib

import pytest

from common.files import list_tree, read_bytes, remove
from preprocessing.records import load_records
from preprocessing.verify import VerifyConfig, verify

from .conftest import contents, encoded, make_tree

pytest_plugins = ["tests.storage_emulator"]

SHARDS = [f"train-{index:05d}-of-00003" for index in range(3)]


def upload(tree: pathlib.Path, bucket: str, storage_proxy) -> str:
    for key, content in contents(tree).items():
        storage_proxy.put(f"photos/{key}", content)
    return f"{bucket}/photos"


@pytest.fixture
def photos(tmp_path):
    tree = make_tree(tmp_path / "photos", per_folder=12)
    (tree / "dog/png.JPEG").write_bytes(encoded("PNG"))
    return tree


def test_a_build_in_a_bucket_is_that_of_local_files(
    photos, tmp_path, build, command, bucket, storage_proxy
):
    local = contents(build(photos, tmp_path / "local"))
    source = upload(photos, bucket, storage_proxy)
    data_dir = f"{bucket}/data"
    flags = [f"--source={source}", f"--output_dir={data_dir}", "--num_shards=3"]
    code, text = command(*flags)
    assert code == 0, text
    names = [name for name, _ in list_tree(data_dir)]
    assert sorted(names) == sorted(local)
    for name in names:
        assert read_bytes(f"{data_dir}/{name}") == local[name], name
    check = [f"--data_dir={data_dir}"]
    for more in ([], ["--deep"]):
        code, text = command(*check, *more, main=verify, config=VerifyConfig)
        assert code == 0 and "is whole" in text

    code, text = command(*flags)
    assert code == 0 and "is finished" in text
    remove(f"{data_dir}/{SHARDS[1]}")
    storage_proxy.put(f"data/{SHARDS[2]}", local[SHARDS[2]][:-1] + b"\0")
    code, text = command(*check, main=verify, config=VerifyConfig)
    assert code == 1 and f"{SHARDS[1]} is missing" in text
    assert f"{SHARDS[2]} is damaged in record" in text
    remove(f"{data_dir}/train/manifest.json")
    code, text = command(*flags)
    assert code == 0 and "1 of 3 shards are finished already" in text
    assert all(read_bytes(f"{data_dir}/{name}") == local[name] for name in SHARDS)


def test_local_and_bucket_mix(photos, tmp_path, build, bucket, storage_proxy):
    local = contents(build(photos, tmp_path / "local"))
    source = upload(photos, bucket, storage_proxy)
    fetched = contents(build(source, tmp_path / "fetched"))
    assert fetched == local
    build(photos, f"{bucket}/sent")
    assert all(read_bytes(f"{bucket}/sent/{name}") == local[name] for name in SHARDS)


def test_a_build_through_a_faulty_network_ends_with_the_same_bytes(
    photos, tmp_path, build, command, faulty_bucket, storage_proxy
):
    local = contents(build(photos, tmp_path / "local"))
    source = upload(photos, faulty_bucket, storage_proxy)
    data_dir = f"{faulty_bucket}/data"
    code, text = command(f"--source={source}", f"--output_dir={data_dir}", "--num_shards=3")
    assert code == 0, text
    assert storage_proxy.num_faults > 10
    for name in SHARDS:
        assert read_bytes(f"{data_dir}/{name}") == local[name]
    assert load_records(data_dir, "train")["key"]


def test_a_bucket_that_stays_away_is_one_line_and_the_next_build_goes_on(
    photos, tmp_path, build, command, bucket, storage_proxy, monkeypatch
):
    local = contents(build(photos, tmp_path / "local"))
    source = upload(photos, bucket, storage_proxy)
    flags = [f"--source={source}", f"--output_dir={bucket}/data", "--num_shards=3"]
    monkeypatch.setenv("MOBILENET_BUCKET_RETRY_SECONDS", "0.5")
    storage_proxy.fail(503, every=1)
    code, text = command(*flags)
    storage_proxy.fail(None)
    assert code == 75 and "cannot be reached" in text and len(text.splitlines()) == 1
    code, text = command(*flags)
    assert code == 0, text
    assert all(read_bytes(f"{bucket}/data/{name}") == local[name] for name in SHARDS)


def test_a_missing_bucket_is_one_line(photos, command, bucket):
    code, text = command("--source=gs://nowhere/photos", f"--output_dir={bucket}/data")
    assert code == 1 and "gs://nowhere/photos" in text and "Traceback" not in text
    code, text = command(f"--source={photos}", "--output_dir=gs://nowhere/data")
    assert code == 1 and "gs://nowhere/data" in text.splitlines()[-1] and "Traceback" not in text
