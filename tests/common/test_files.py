import hashlib
import json
import os

import pytest

from common import files
from common.errors import UserError


class Stop(Exception):
    pass


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
