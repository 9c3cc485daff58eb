import base64
import errno
import hashlib
import json
import os

import google_crc32c
import pytest

from common import files
from common.errors import UsageError, UserError
from common.listing import Entry

from .places import CONTENT, TREE, Stop

pytest_plugins = ["tests.storage_emulator", "tests.common.places"]


def test_a_file_appears_whole_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "file"
    with files.atomic_write(str(path)) as file:
        file.write(b"content")
        file.flush()
        assert not path.exists()
        assert [name[:5] for name in os.listdir(path.parent)] == [files.TEMPORARY_PREFIX]
    assert path.read_bytes() == b"content"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error), files.atomic_write(str(path)) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_takes_the_place_of_the_old_one_whole(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    with files.atomic_directory(str(path)) as temporary:
        with open(os.path.join(temporary, "new"), "w") as file:
            file.write("new")
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_failed_directory_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(Stop), files.atomic_directory(str(path)) as temporary:
        open(os.path.join(temporary, "new"), "w").close()
        raise Stop
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_directory_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    replace = os.replace

    def fail_to_install(source, target):
        if target == str(path) and not source.endswith(".old"):
            raise OSError("cannot")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_to_install)
    with pytest.raises(OSError, match="cannot"), files.atomic_directory(str(path)):
        pass
    assert os.listdir(path) == ["old"]
    assert os.listdir(tmp_path) == ["out"]


def test_temporary_names_match_no_glob_of_shards(tmp_path):
    name = os.path.basename(files.temporary_name(str(tmp_path / "train-00000-of-00001")))
    assert not name.startswith("train") and name.startswith(".")


def test_json_is_written_the_same_way_every_time(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    files.write_json(str(one), {"b": [1, 2.5], "a": "é"})
    files.write_json(str(other), {"a": "é", "b": [1, 2.5]})
    content = one.read_bytes()
    assert content == other.read_bytes()
    assert content.endswith(b"}\n") and "é".encode() in content
    assert files.read_json(str(one)) == json.loads(content) == {"a": "é", "b": [1, 2.5]}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_json_that_cannot_be_read_is_a_user_error(tmp_path, content):
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match="does not exist"):
        files.read_json(str(path))
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.json cannot be read as JSON"):
        files.read_json(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        files.read_json(str(tmp_path))


def test_a_directory_that_cannot_be_written_to_is_named_with_its_flag(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=f"--model_dir={path} cannot be written to"):
            files.require_writable(str(path), "model_dir")
        with pytest.raises(UserError, match=f"cannot make the directory {path}"):
            files.make_directory(str(path))
    files.require_writable(str(tmp_path / "new"), "model_dir")
    assert os.listdir(tmp_path / "new") == []


def test_hashes_are_sha256(tmp_path):
    content = bytes(range(256)) * 10_000  # more than a block
    (tmp_path / "file").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert files.sha256_of_bytes(content) == expected
    assert files.sha256_of_file(str(tmp_path / "file")) == expected
    assert files.fingerprint(str(tmp_path / "file")) == expected
    assert files.fingerprint(str(tmp_path / "none")) is None


def test_the_fingerprint_of_a_directory_sees_contents_names_and_places_only(tmp_path):
    def tree(name, entries):
        for path, content in entries:
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
        return files.fingerprint(str(tmp_path / name))

    entries = [("a", "1"), ("sub/b", "2"), ("z/c", "3")]
    original = tree("one", entries)
    assert tree("copy", reversed(entries)) == original
    others = [
        [("a", "1"), ("sub/b", "2"), ("z/c", "4")],
        [("a", "1"), ("sub/b", "2"), ("z/d", "3")],
        [("a", "1"), ("b", "2"), ("z/c", "3")],
        [("a", "1"), ("sub/b", "2")],
        [("a", "2"), ("sub/b", "1"), ("z/c", "3")],
    ]
    assert original not in [tree(f"other{i}", entries) for i, entries in enumerate(others)]


def test_the_size_of_a_directory_is_that_of_its_files(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "sub" / "b").write_bytes(b"4567")
    assert files.size_of(str(tmp_path)) == 7
    assert files.size_of(str(tmp_path / "a")) == 3


def test_what_is_written_is_read(place):
    path = files.join(place, "new", "file")
    for content in (CONTENT, b"", b"other"):
        files.write_bytes(path, content)
        assert files.read_bytes(path) == content
        assert files.file_size(path) == len(content)
    files.write_text(path, "é")
    assert files.read_bytes(path) == "é".encode()
    files.write_json(path, {"é": [1, 2.5]})
    assert files.read_json(path) == {"é": [1, 2.5]}
    with files.atomic_write(path, buffering=1 << 20) as file:
        file.write(b"a")
        file.write(b"b")
    assert files.read_bytes(path) == b"ab"


def test_ranges_end_where_the_file_does(place):
    path = files.join(place, "file")
    files.write_bytes(path, CONTENT)
    size = len(CONTENT)
    for offset, length in [
        (0, 1), (0, size), (5, 100), (size - 3, 3), (size - 3, 10), (size, 5), (size + 9, 5), (3, 0)
    ]:  # fmt: skip
        assert files.read_range(path, offset, length) == CONTENT[offset : offset + length]


def test_a_file_is_read_from_any_place(place):
    path = files.join(place, "file")
    files.write_bytes(path, CONTENT)
    with files.open_for_reading(path) as file:
        assert file.seekable() and file.readable()
        assert file.read(10) == CONTENT[:10] and file.tell() == 10
        file.seek(-7, os.SEEK_END)
        assert file.read() == CONTENT[-7:] and file.read(1) == b""
        file.seek(20)
        file.seek(5, os.SEEK_CUR)
        assert file.read(300) == CONTENT[25:325]
        file.seek(0)
        assert file.read() == CONTENT
        with pytest.raises(OSError, match="Invalid argument"):
            file.seek(-1)


def test_digests_of_files(place):
    path = files.join(place, "file")
    for content in (b"", CONTENT, CONTENT * 300):  # 3 MB: more than a block
        files.write_bytes(path, content)
        assert files.sha256_of_file(path) == hashlib.sha256(content).hexdigest()
        expected = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        assert files.crc32c_of_file(path) == expected
    assert google_crc32c.value(b"123456789") == 0xE3069283  # the published check value
    files.write_bytes(path, b"123456789")
    assert files.crc32c_of_file(path) == base64.b64encode(b"\xe3\x06\x92\x83").decode()


def test_what_is_there_and_what_is_not(place):
    files.write_bytes(files.join(place, "a", "file"), b"123")
    for below, exists, is_directory in [
        ("a", True, True),
        ("a/file", True, False),
        ("a/fil", False, False),
        ("b", False, False),
        ("a/file/c", False, False),
    ]:
        path = files.join(place, below)
        assert (files.exists(path), files.is_directory(path)) == (exists, is_directory)
    assert files.is_directory(place) and files.exists(place)


def test_a_missing_file_is_a_file_not_found(place):
    path = files.join(place, "none")
    for call in (
        files.read_bytes,
        files.open_for_reading,
        files.file_size,
        files.sha256_of_file,
        files.crc32c_of_file,
        files.list_directory,
        files.list_tree,
        lambda path: files.read_range(path, 0, 1),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            call(path)
        assert caught.value.filename == path and caught.value.errno == errno.ENOENT
    with pytest.raises(UserError, match=f"{path} does not exist"):
        files.read_json(path)
    assert files.fingerprint(path) is None


def test_to_remove_what_is_not_there_is_fine(place):
    path = files.join(place, "file")
    files.write_bytes(path, b"")
    files.remove(path)
    assert not files.exists(path)
    files.remove(path)


def test_listings(place):
    for name, content in TREE.items():
        files.write_bytes(files.join(place, *name.split("/")), content)
    assert files.list_directory(place) == [
        Entry("a", True, 0),
        Entry("a.b", False, 3),
        Entry("b.txt", False, 2),
        Entry("é", True, 0),
    ]
    assert files.list_directory(files.join(place, "a")) == [("x", False, 1), ("y", True, 0)]
    assert files.list_tree(place) == sorted((name, len(data)) for name, data in TREE.items())
    assert files.list_tree(place + "/") == files.list_tree(place)
    assert files.list_tree(files.join(place, "a")) == [("x", 1), ("y/z", 0)]
    assert files.size_of(place) == 10
    assert files.size_of(files.join(place, "b.txt")) == 2


def test_a_tree_has_the_same_fingerprint_here_and_in_a_bucket(tmp_path, bucket):
    for name, content in TREE.items():
        files.write_bytes(files.join(str(tmp_path), name), content)
        files.write_bytes(files.join(bucket, "tree", name), content)
    assert files.fingerprint(files.join(bucket, "tree")) == files.fingerprint(str(tmp_path))
    assert files.fingerprint(bucket) != files.fingerprint(str(tmp_path))


def test_a_failed_write_leaves_the_old_content(place):
    path = files.join(place, "file")
    files.write_bytes(path, b"old")
    with pytest.raises(Stop), files.atomic_write(path) as file:
        file.write(CONTENT)
        raise Stop
    assert files.read_bytes(path) == b"old"
    assert [entry.name for entry in files.list_directory(place)] == ["file"]


def test_a_place_that_can_be_written_to_is_left_as_it_was(place):
    files.require_writable(place, "data_dir")
    files.write_bytes(files.join(place, "file"), b"1")
    files.require_writable(place, "data_dir")
    files.require_writable_file(files.join(place, "file"), "output")
    files.make_directory(place)
    assert [entry.name for entry in files.list_directory(place)] == ["file"]
    with pytest.raises(UsageError, match=f"--output={place} is a directory"):
        files.require_writable_file(place, "output")


def test_paths_are_joined_by_their_kind():
    assert files.is_remote("gs://b/x") and not files.is_remote("/gs://b")
    assert files.join("gs://b", "x") == files.join("gs://b/", "x") == "gs://b/x"
    assert files.join("gs://b/x", "y", "z") == "gs://b/x/y/z"
    assert files.join("/d", "y", "z") == os.path.join("/d", "y", "z")


def test_links_are_followed_and_dangling_ones_are_files_of_no_bytes(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"12345")
    (tmp_path / "to_directory").symlink_to("real")
    (tmp_path / "to_file").symlink_to("real/x")
    (tmp_path / "to_nothing").symlink_to("none")
    (tmp_path / "to_itself").symlink_to("to_itself")
    assert files.list_directory(str(tmp_path)) == [
        ("real", True, 0),
        ("to_directory", True, 0),
        ("to_file", False, 5),
        ("to_itself", False, 0),
        ("to_nothing", False, 0),
    ]
    assert files.list_tree(str(tmp_path)) == [
        ("real/x", 5),
        ("to_directory/x", 5),
        ("to_file", 5),
        ("to_itself", 0),
        ("to_nothing", 0),
    ]


def test_a_link_to_a_directory_above_ends(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    assert files.list_tree(str(tmp_path)) == [("a/x", 1)]


def test_a_full_disk_names_what_it_had_no_room_for(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    path = str(tmp_path / "file")
    os.symlink("/dev/full", files.temporary_name(path))
    with pytest.raises(OSError, match="No space left") as caught:
        files.write_bytes(path, b"x" * 100)
    assert caught.value.filename == path
    assert os.listdir(tmp_path) == []


def test_the_size_of_a_local_directory_is_no_size_of_a_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        files.file_size(str(tmp_path))


def test_proving_a_directory_writable_touches_nothing_in_it(tmp_path):
    (tmp_path / "write-test").write_text("somebody's")
    files.require_writable(str(tmp_path), "output_dir")
    assert [path.name for path in tmp_path.iterdir()] == ["write-test"]
    assert (tmp_path / "write-test").read_text() == "somebody's"
