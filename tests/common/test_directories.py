"""Directories that appear whole, are moved, and copied, on this machine and in a bucket."""

import os

import pytest

from common import buckets, files
from common.errors import UserError

from .places import CONTENT, TREE, Stop

pytest_plugins = ["tests.storage_emulator", "tests.common.places"]


def write_tree(directory, tree):
    for name, content in tree.items():
        os.makedirs(os.path.dirname(os.path.join(directory, name)), exist_ok=True)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(content)


def read_tree(directory):
    names = [name for name, _ in files.list_tree(directory)]
    return {name: files.read_bytes(files.join(directory, name)) for name in names}


def test_a_directory_takes_the_place_of_the_old_one(place):
    for tree in (TREE, {"a/x": b"new", "c": CONTENT}):
        with files.atomic_directory(files.join(place, "out"), last="a/x") as temporary:
            write_tree(temporary, tree)
        assert read_tree(files.join(place, "out")) == tree
        assert [entry.name for entry in files.list_directory(place)] == ["out"]


def test_a_block_that_fails_leaves_the_old_directory(place):
    files.write_bytes(files.join(place, "out", "old"), b"old")
    with pytest.raises(Stop), files.atomic_directory(files.join(place, "out")) as temporary:
        write_tree(temporary, TREE)
        raise Stop
    assert read_tree(place) == {"out/old": b"old"}


def test_a_directory_in_a_bucket_is_whole_wherever_its_last_file_is(bucket, storage_proxy):
    """Whatever a reader sees between two requests, the last file vouches for all others."""
    old = {"last": b"1", **{f"{n}": b"old" for n in range(5)}}
    new = {"last": b"2", **{f"{n}": b"new" for n in range(2, 7)}}
    seen = []
    for tree in (old, new):
        with files.atomic_directory(bucket + "/out/", last="last") as temporary:
            write_tree(temporary, tree)
            storage_proxy.watch(lambda: seen.append(storage_proxy.objects()))
        storage_proxy.watch(None)
    assert len(seen) > 15
    for objects in seen:
        unfinished = objects.pop("out/.tmp-unfinished", None) is not None
        assert unfinished or "out/last" in objects or not objects
        if "out/last" in objects:
            whole = {b"1": old, b"2": new}[objects["out/last"]]
            assert objects == {f"out/{name}": content for name, content in whole.items()}
    assert any(objects and "out/last" not in objects for objects in seen)


def test_a_transfer_that_breaks_off_leaves_nothing_that_looks_whole(
    bucket, storage_proxy, monkeypatch
):
    place = files.join(bucket, "out")
    for tree in (TREE, {**TREE, "last": b"1"}):
        with files.atomic_directory(place, last="last") as temporary:
            write_tree(temporary, tree)
    monkeypatch.setattr(buckets, "upload", _upload_unless("a/x", buckets.upload))
    with pytest.raises(Stop), files.atomic_directory(place, last="last") as temporary:
        write_tree(temporary, {**TREE, "last": b"2"})
    assert not files.exists(files.join(place, "last"))
    assert files.is_replaceable(place, last="last")


def test_a_transfer_that_follows_a_broken_one_is_unfinished_until_its_last_file(
    bucket, storage_proxy
):
    place = files.join(bucket, "out")
    files.write_bytes(files.join(place, buckets.UNFINISHED), b"")
    files.write_bytes(files.join(place, "left"), b"1")
    seen = []
    with files.atomic_directory(place, last="last") as temporary:
        write_tree(temporary, {"a": b"1", "b": b"2", "last": b"3"})
        storage_proxy.watch(lambda: seen.append(storage_proxy.objects()))
    storage_proxy.watch(None)
    assert len(seen) > 5
    assert all({f"out/{buckets.UNFINISHED}", "out/last"} & objects.keys() for objects in seen)


def test_behind_a_link_it_is_the_directory_that_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    with files.atomic_directory(str(tmp_path / "link")) as temporary:
        write_tree(temporary, {"new": b"2"})
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "real") == ["new"]


def _upload_unless(name, upload):
    def broken(local, path):
        if path.endswith(name):
            raise Stop
        upload(local, path)

    return broken


def test_what_is_somebody_elses_is_not_replaceable(place):
    assert files.is_replaceable(place, last="last")
    files.write_bytes(files.join(place, "note"), b"1")
    assert not files.is_replaceable(place, last="last")
    assert not files.is_replaceable(files.join(place, "note"), last="last")
    files.write_bytes(files.join(place, "last"), b"1")
    assert files.is_replaceable(place, last="last")


def test_names_are_found_by_patterns(place):
    for name in ("data/train/x", "data/train-0", "data/train-1", "data/.train-2", "data/test"):
        files.write_bytes(files.join(place, name), b"1")
    assert files.find(place, "data/train-*") == ["data/train-0", "data/train-1"]
    assert files.find(place, "data/*") == [
        "data/test",
        "data/train",
        "data/train-0",
        "data/train-1",
    ]
    assert files.find(place, "data") == ["data"]
    assert files.find(place, "none/*") == files.find(files.join(place, "none"), "*") == []


def test_what_is_moved_is_there_and_nowhere_else(place):
    write = {f"here/{name}": content for name, content in TREE.items()}
    for name, content in write.items():
        files.write_bytes(files.join(place, name), content)
    files.move(files.join(place, "here"), files.join(place, "old", "1", "here"))
    files.write_bytes(files.join(place, "file"), CONTENT)
    files.move(files.join(place, "file"), files.join(place, "old", "1", "file"))
    moved = {f"old/1/{name}": content for name, content in write.items()}
    assert read_tree(place) == {**moved, "old/1/file": CONTENT}
    files.remove_tree(files.join(place, "old"))
    assert not files.exists(files.join(place, "old"))


def test_the_fingerprint_of_a_listing_sees_every_change(place):
    path = files.join(place, "a")
    seen = set()
    for name, content in [("x", b"1"), ("y/z", b"2"), ("x", b"3"), ("x", b"33")]:
        files.write_bytes(files.join(path, name), content)
        seen.add(files.listing_fingerprint(path))
        assert files.listing_fingerprint(path) in seen
    assert len(seen) == 4
    file = files.join(path, "x")
    before = files.listing_fingerprint(file)
    files.write_bytes(file, b"other")
    assert files.listing_fingerprint(file) != before


def test_a_local_path_is_its_own_copy(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with files.local_copy(str(path)) as local:
            assert local == str(path)


def test_a_copy_is_what_is_in_the_bucket_and_goes_away(faulty_bucket, storage_proxy):
    tree = {**TREE, "large": os.urandom(3_000_000)}
    with files.atomic_directory(files.join(faulty_bucket, "some.dir")) as temporary:
        write_tree(temporary, tree)
    for name in ("some.dir", "some.dir/"):
        with files.local_copy(files.join(faulty_bucket, name)) as local:
            assert os.path.basename(local) == "some.dir"
            assert read_tree(local) == tree
        assert not os.path.exists(local)
    with files.local_copy(files.join(faulty_bucket, "some.dir", "é", "ü ?&#%.JPEG")) as local:
        assert os.path.basename(local) == "ü ?&#%.JPEG"
        with open(local, "rb") as file:
            assert file.read() == b"4567"
    assert storage_proxy.num_faults > 2
    with pytest.raises(FileNotFoundError), files.local_copy(files.join(faulty_bucket, "none")):
        pass


@pytest.mark.parametrize("name", ["../../stray", "a/../../../stray", "/stray", "a//b", "a/./b"])
def test_no_name_of_an_object_leads_out_of_the_copy(bucket, monkeypatch, name):
    """Objects may have such names, but not in the emulator."""
    files.write_bytes(files.join(bucket, "dir", "fine"), b"1")
    monkeypatch.setattr(buckets, "list_tree", lambda path: [("fine", 1), (name, 1)])
    with (
        pytest.raises(UserError, match=r"gs://pictures/dir/.* cannot be fetched: no file can"),
        files.local_copy(files.join(bucket, "dir")),
    ):
        pass
