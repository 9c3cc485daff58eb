import base64
import errno
import io
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest

from common import bucket_client, buckets, files
from common.errors import UsageError, UserError
from tests.storage_emulator import CUT, RESET, SHORT

pytest_plugins = ["tests.storage_emulator"]

CONTENT = random.Random(1).randbytes(100_000)
LARGE = random.Random(2).randbytes(9 << 20)  # too much for a single request


class Stop(Exception):
    pass


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The directory of temporary files, to see whether any is left."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_all_of_it_comes_right_through_a_bad_line(faulty_bucket, storage_proxy, temporary):
    content = {f"{folder}/{i}": CONTENT[: 1000 * i] for folder in "abc" for i in range(3)}
    for name, data in content.items():
        files.write_bytes(files.join(faulty_bucket, "tree", name), data)
    files.write_bytes(files.join(faulty_bucket, "large"), LARGE)
    for name, data in content.items():
        path = files.join(faulty_bucket, "tree", name)
        assert files.read_bytes(path) == data
        assert files.file_size(path) == len(data)
        assert files.read_range(path, 10, 500) == data[10:510]
        crc32c = google_crc32c.Checksum(data).digest()
        assert files.crc32c_of_file(path) == base64.b64encode(crc32c).decode()
        assert files.exists(path) and not files.is_directory(path)
    assert files.sha256_of_file(files.join(faulty_bucket, "large")) == files.sha256_of_bytes(LARGE)
    assert files.list_directory(faulty_bucket) == [("large", False, 9 << 20), ("tree", True, 0)]
    tree = [(name, len(data)) for name, data in content.items()]
    assert files.list_tree(files.join(faulty_bucket, "tree")) == tree
    assert files.is_directory(files.join(faulty_bucket, "tree"))
    with pytest.raises(FileNotFoundError):
        files.read_bytes(files.join(faulty_bucket, "none"))
    files.require_writable(faulty_bucket, "data_dir")
    for name in content:
        files.remove(files.join(faulty_bucket, "tree", name))
    assert files.list_tree(faulty_bucket) == [("large", 9 << 20)]
    assert storage_proxy.num_faults > 5
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("fault", [429, 503, RESET, CUT, SHORT])
def test_reads_of_which_every_other_fails_are_right(bucket, storage_proxy, fault):
    storage_proxy.put("file", CONTENT)
    path = files.join(bucket, "file")
    storage_proxy.fail(fault, every=2)
    chance = random.Random(3)
    with files.open_for_reading(path, buffering=5000) as file:
        local = io.BytesIO(CONTENT)
        for _ in range(8):
            offset, length = chance.randrange(110_000), chance.choice([0, 1, 4000, 30_000])
            expected = CONTENT[offset : offset + length]
            assert files.read_range(path, offset, length) == expected
            file.seek(offset)
            local.seek(offset)
            assert file.read(length) == local.read(length)
            assert file.tell() == local.tell()
        assert files.read_bytes(path) == CONTENT
    assert storage_proxy.num_faults > 3


CALLS = {
    "read_bytes": files.read_bytes,
    "read_range": lambda path: files.read_range(path, 10, 1000),
    "sha256_of_file": files.sha256_of_file,
    "write_bytes": lambda path: files.write_bytes(path, b"new"),
    "write_large": lambda path: files.write_bytes(path, LARGE),
    "file_size": files.file_size,
    "crc32c_of_file": files.crc32c_of_file,
    "exists": files.exists,
    "is_directory": files.is_directory,
    "list_directory": files.list_directory,
    "list_tree": files.list_tree,
    "remove": files.remove,
    "read_json": files.read_json,
}


@pytest.mark.parametrize("fault", [429, 503, RESET, CUT])
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_that_does_not_end_is_one_clear_error(
    bucket, storage_proxy, temporary, monkeypatch, call, fault
):
    if (call, fault) == ("remove", CUT):
        pytest.skip("the answer has no body that could be cut")
    monkeypatch.setenv(bucket_client.RETRY_SECONDS_VARIABLE, "0.3")
    storage_proxy.put("file", CONTENT)
    storage_proxy.fail(fault)
    path = files.join(bucket, "file")
    with pytest.raises(UserError, match=f"^{path} cannot be reached: ") as caught:
        CALLS[call](path)
    assert "\n" not in str(caught.value)
    if isinstance(fault, int):
        assert str(fault) in str(caught.value)
    assert os.listdir(temporary) == []


@pytest.mark.parametrize("call", ["read_bytes", "read_range", "sha256_of_file"])
def test_a_body_that_never_comes_whole_is_never_handed_on(bucket, storage_proxy, monkeypatch, call):
    monkeypatch.setenv(bucket_client.RETRY_SECONDS_VARIABLE, "0.3")
    storage_proxy.put("file", CONTENT)
    storage_proxy.fail(SHORT)
    with pytest.raises(UserError, match=r"/file cannot be reached: .*bytes came"):
        CALLS[call](files.join(bucket, "file"))


@pytest.mark.parametrize("call", CALLS)
def test_what_is_refused_says_so(bucket, storage_proxy, temporary, call):
    storage_proxy.put("file", CONTENT)
    path = files.join(bucket, "file")
    storage_proxy.fail(403)
    if call == "read_json":
        with pytest.raises(UserError, match=f"{path} cannot be read as JSON: .*by order"):
            CALLS[call](path)
    else:
        with pytest.raises(PermissionError, match=f"refused: .*by order of the test.*{path}"):
            CALLS[call](path)
    storage_proxy.fail(401)
    with pytest.raises(UserError, match=f"^{path} needs credentials: run `gcloud auth appl"):
        CALLS[call](path)
    assert len(storage_proxy.requests) == 1  # to ask again would not help
    assert os.listdir(temporary) == []


def test_a_place_that_cannot_be_written_to_is_named_with_its_flag(bucket, storage_proxy):
    with pytest.raises(
        UserError, match="--data_dir=gs://no-such-bucket/x cannot be written to: No"
    ):
        files.require_writable("gs://no-such-bucket/x", "data_dir")
    storage_proxy.fail(403)
    with pytest.raises(UserError, match=f"--data_dir={bucket} cannot be written to: refused"):
        files.require_writable(bucket, "data_dir")


def test_a_bucket_that_is_not_there_is_a_file_not_found(bucket):
    for name, call in CALLS.items():
        if name in ("exists", "is_directory"):
            assert call("gs://no-such-bucket/x") is False
            assert call("gs://no-such-bucket") is False
        elif name not in ("remove", "read_json"):
            with pytest.raises(FileNotFoundError):
                call("gs://no-such-bucket/x")


def test_a_full_disk_of_this_machine_is_named(bucket, storage_proxy, temporary):
    storage_proxy.fail(None)  # count from here
    full = pytest.raises(OSError, match=f"No space left on device: '{temporary}")
    with full, files.atomic_write(files.join(bucket, "file")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert storage_proxy.requests == []


@pytest.mark.parametrize("content", [b"half", LARGE])
def test_a_block_that_fails_sends_nothing(bucket, storage_proxy, temporary, content):
    storage_proxy.put("file", b"old")
    storage_proxy.fail(None)  # count from here
    for error in (Stop, KeyboardInterrupt):
        with pytest.raises(error), files.atomic_write(files.join(bucket, "file")) as file:
            file.write(content)
            raise error
    assert storage_proxy.requests == []
    assert os.listdir(temporary) == []


def test_a_written_object_says_what_it_is(bucket):
    for name, kind in [("a.json", "application/json"), ("b", "application/octet-stream")]:
        files.write_bytes(files.join(bucket, name), b"{}")
        assert bucket_client.client().bucket("pictures").get_blob(name).content_type == kind


def test_listings_of_more_than_a_page(bucket, storage_proxy):
    expected = sorted((f"{i % 3}/{i:04}", 1 + i % 7) for i in range(2300))
    expected += [(f"top{i}", 1) for i in range(1205)]
    for name, size in expected:
        storage_proxy.put(name, b"x" * size)
    files.write_bytes(bucket + "/3/", b"")  # as a console makes a folder
    assert files.list_tree(bucket) == sorted(expected)
    entries = files.list_directory(bucket)
    assert entries[:4] == [("0", True, 0), ("1", True, 0), ("2", True, 0), ("3", True, 0)]
    assert len(entries) == 4 + 1205
    assert files.list_directory(files.join(bucket, "3")) == []
    storage_proxy.fail(None)
    storage_proxy.page = 100
    assert files.list_directory(bucket) == entries
    assert len(storage_proxy.requests) == 13


def test_an_empty_bucket_is_an_empty_directory(bucket):
    assert files.list_directory(bucket) == files.list_tree(bucket) == []
    assert files.is_directory(bucket) and files.exists(bucket + "/")


def test_a_bucket_is_no_file(bucket):
    for call in (files.read_bytes, files.file_size, files.open_for_reading):
        with pytest.raises(IsADirectoryError):
            call(bucket)
    with pytest.raises(UsageError, match="names no bucket"):
        files.read_bytes("gs://")
    with pytest.raises(UsageError, match="gs://-x/y: the name of a bucket begins"):
        files.exists("gs://-x/y")


def test_many_threads_read_at_once_by_one_client(bucket, storage_proxy, caplog):
    storage_proxy.put("file", CONTENT)
    path = files.join(bucket, "file")
    together = threading.Barrier(16)

    def read(i):
        together.wait()
        clients.append(bucket_client.client())
        return [files.read_range(path, 100 * j + i, 1000) for j in range(5)]

    clients = []
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(16) as pool:
        for i, parts in enumerate(pool.map(read, range(16))):
            assert parts == [CONTENT[100 * j + i :][:1000] for j in range(5)]
    assert len(set(map(id, clients))) == 1
    assert caplog.messages == []  # the library says when connections are thrown away


def test_another_endpoint_has_another_client(bucket, monkeypatch):
    first = bucket_client.client()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert bucket_client.client() is not first
    assert bucket_client.client().api_endpoint == "http://127.0.0.1:9"


def test_a_deadline_that_is_no_number_is_named(bucket, monkeypatch):
    monkeypatch.setenv(bucket_client.RETRY_SECONDS_VARIABLE, "soon")
    with pytest.raises(UserError, match="MOBILENET_BUCKET_RETRY_SECONDS=soon is not a number"):
        files.read_bytes(files.join(bucket, "file"))


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_credentials_access_is_anonymous(tmp_path, monkeypatch):
    for name in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "from common import bucket_client as b; print(b.client()._credentials, b.client().project)"
    )
    done = run(code, NO_GCE_CHECK="true", CLOUDSDK_CONFIG=str(tmp_path), HOME=str(tmp_path))
    assert (
        done.stdout.strip().endswith(" None")
        and "AnonymousCredentials" in done.stdout
        and done.stderr == ""
    )
    done = run(code, GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path / "none.json"))
    assert "UserError: GOOGLE_APPLICATION_CREDENTIALS=" in done.stderr.splitlines()[-1]


def test_nothing_heavy_is_imported_for_local_files(tmp_path):
    (tmp_path / "x").write_bytes(b"1")
    code = (
        "import sys; from common import files; files.read_json(sys.argv[1]);"
        "print([m for m in ('google.cloud.storage', 'requests', 'apache_beam', 'tensorflow')"
        " if m in sys.modules])"
    )
    done = run(code.replace("sys.argv[1]", repr(str(tmp_path / "x"))))
    assert done.stdout.strip() == "[]", done.stderr
    assert buckets.SCHEME == "gs://"
