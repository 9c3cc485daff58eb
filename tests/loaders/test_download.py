import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest

from common.errors import UserError
from loaders import archive as archives
from loaders import download
from loaders.archive import extract_checkpoint, fetch_checkpoint
from loaders.download import default_cache_dir, fetch_archive, plain_address
from loaders.zoo import find_row

V1 = find_row("mobilenet_v1_0.25_128")
V3 = find_row("v3-small_224_1.0_float")
EDGETPU = find_row("mobilenet_edgetpu_224_1.0")


def tgz(members):
    """A .tgz archive of {path: bytes or TarInfo}."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for path, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def checkpoint(prefix, word=b""):
    return {f"{prefix}.index": b"index" + word, f"{prefix}.data-00000-of-00001": b"data" + word}


NOISE = np.random.default_rng(0).bytes(3_000_000)  # so that the archive stays large
ARCHIVE = tgz(
    {**checkpoint("./mobilenet_v1_0.25_128.ckpt"), "./mobilenet_v1_0.25_128_frozen.pb": NOISE}
)


class Server:
    """An HTTP server on loopback; `content` and the rest may be changed between requests."""

    def __init__(self):
        self.content = ARCHIVE
        self.ranges = True
        self.tag = None  # by default a hash of the content
        self.status = []  # for the next answers, instead of 200
        self.break_after = []  # bytes after which the next bodies break off
        self.seconds_a_block = 0.0
        self.requests = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                owner.answer(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/{V1.name}.tgz"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, handler):
        asked = handler.headers.get("Range")
        self.requests.append(asked)
        if self.status:
            handler.send_response(self.status.pop(0))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        tag = self.tag or f'"{hashlib.md5(self.content).hexdigest()}"'
        start, body = 0, self.content
        if asked and self.ranges and handler.headers.get("If-Range") == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if start:
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        body = body[start:]
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", tag)
        handler.end_headers()
        broken = self.break_after.pop(0) if self.break_after else None
        with contextlib.suppress(OSError):
            for position in range(0, len(body[:broken]), 100_000):
                handler.wfile.write(body[:broken][position : position + 100_000])
                time.sleep(self.seconds_a_block)
        if broken is not None:
            handler.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_SECONDS_BEFORE_RETRY", 0.01)
    server = Server()
    yield server
    server.close()


@pytest.fixture
def row(server):
    return dataclasses.replace(V1, url=server.url)


def content_of(path):
    with open(path, "rb") as file:
        return file.read()


def record_of(path):
    return json.loads(content_of(f"{path}.json"))


def test_an_archive_is_downloaded_once_and_its_hash_recorded(server, row, tmp_path):
    path = fetch_archive(row, str(tmp_path))
    assert path == str(tmp_path / "mobilenet_v1_0.25_128.tgz")
    assert content_of(path) == ARCHIVE
    assert record_of(path)["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert record_of(path)["url"] == server.url
    assert fetch_archive(row, str(tmp_path)) == path
    assert server.requests == [None]
    assert not os.path.exists(f"{path}.part")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_body_that_breaks_off_is_gone_on_with_or_begun_anew(server, row, tmp_path, ranges):
    server.ranges = ranges
    server.break_after = [1_000_000, 500_000]
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE
    continued = "bytes=1500000-" if ranges else "bytes=500000-"
    assert server.requests == [None, "bytes=1000000-", continued]


def test_a_server_that_always_breaks_off_ends_in_one_line(server, row, tmp_path):
    server.break_after = [10] * 100
    with pytest.raises(UserError, match="broke off 11 times") as error:
        fetch_archive(row, str(tmp_path))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "mobilenet_v1_0.25_128.tgz").exists()


def test_a_killed_download_goes_on_where_it_stopped(server, row, tmp_path):
    server.seconds_a_block = 0.1
    code = (
        "import dataclasses; from loaders.download import fetch_archive;"
        "from loaders.zoo import find_row;"
        f"fetch_archive(dataclasses.replace(find_row({row.name!r}), url={row.url!r}),"
        f" {str(tmp_path)!r})"
    )
    part = tmp_path / "mobilenet_v1_0.25_128.tgz.part"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 500_000):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    size = part.stat().st_size
    assert size < len(ARCHIVE)
    server.seconds_a_block = 0.0
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE
    assert server.requests == [None, f"bytes={size}-"]


def test_a_file_that_changed_on_the_server_is_not_mixed_with_its_old_part(server, row, tmp_path):
    server.break_after = [1_000_000]
    server.status = []
    other = tgz({**checkpoint("mobilenet_v1_0.25_128.ckpt"), "more": NOISE[::-1]})

    original = server.answer

    def answer(handler):
        if server.requests:
            server.content = other
        original(handler)

    server.answer = answer
    assert content_of(fetch_archive(row, str(tmp_path))) == other
    assert server.requests == [None, "bytes=1000000-"]


def test_a_part_larger_than_the_file_is_dropped(server, row, tmp_path):
    path = tmp_path / "mobilenet_v1_0.25_128.tgz"
    path.with_name(f"{path.name}.part").write_bytes(b"x" * (len(ARCHIVE) + 5))
    server.tag = '"same"'
    record = {"url": row.url, "size": len(ARCHIVE) + 9, "validator": '"same"'}
    path.with_name(f"{path.name}.json").write_text(json.dumps(record), encoding="utf-8")
    server.status = [416]
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE
    assert server.requests == [f"bytes={len(ARCHIVE) + 5}-", None]


def test_a_part_of_another_address_is_not_used(server, row, tmp_path):
    path = tmp_path / "mobilenet_v1_0.25_128.tgz"
    path.with_name(f"{path.name}.part").write_bytes(b"x" * 99)
    record = {"url": "http://elsewhere/", "size": 99, "validator": '"a"'}
    path.with_name(f"{path.name}.json").write_text(json.dumps(record), encoding="utf-8")
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE


def test_a_busy_server_is_asked_again(server, row, tmp_path):
    server.status = [503, 429]
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [403, 404])
def test_a_dead_link_is_one_line_that_says_what_to_do(server, row, tmp_path, status):
    server.status = [status]
    with pytest.raises(UserError, match=f"HTTP {status}") as error:
        fetch_archive(row, str(tmp_path))
    message = str(error.value)
    assert row.url in message and "--checkpoint_path" in message and "\n" not in message
    assert len(server.requests) == 1


def test_without_a_network_the_error_is_one_line_too(row, tmp_path, server):
    server.close()
    with pytest.raises(UserError, match="Connection refused") as error:
        fetch_archive(row, str(tmp_path))
    assert row.url in str(error.value) and "\n" not in str(error.value)


def test_a_sign_in_page_is_no_archive(server, row, tmp_path):
    server.content = b"<html>sign in</html>"
    with pytest.raises(UserError, match=r"no \.tgz archive"):
        fetch_archive(row, str(tmp_path))
    server.content = ARCHIVE
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE


def test_an_archive_that_changed_in_the_cache_is_refused(server, row, tmp_path):
    path = fetch_archive(row, str(tmp_path))
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    with pytest.raises(UserError, match="has changed since it was downloaded"):
        fetch_archive(row, str(tmp_path))
    os.remove(path)
    assert content_of(fetch_archive(row, str(tmp_path))) == ARCHIVE


def test_what_is_downloaded_anew_must_have_the_recorded_hash(server, row, tmp_path):
    os.remove(fetch_archive(row, str(tmp_path)))
    server.content = tgz(checkpoint("mobilenet_v1_0.25_128.ckpt"))
    with pytest.raises(UserError, match="has changed"):
        fetch_archive(row, str(tmp_path))


def test_an_archive_put_into_the_cache_by_hand_is_taken(server, row, tmp_path):
    (tmp_path / "mobilenet_v1_0.25_128.tgz").write_bytes(ARCHIVE)
    path = fetch_archive(row, str(tmp_path))
    assert record_of(path)["sha256"] == hashlib.sha256(ARCHIVE).hexdigest()
    assert not server.requests


def test_several_threads_download_an_archive_once(server, row, tmp_path):
    threads = [threading.Thread(target=fetch_archive, args=(row, str(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


def test_the_cache_may_be_moved_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path))
    assert default_cache_dir() == str(tmp_path)
    monkeypatch.delenv(download.CACHE_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == str(tmp_path / ".cache" / "mobilenet-pipeline")


def test_the_address_for_browsers_becomes_the_one_for_programs():
    assert plain_address(EDGETPU.url).startswith("https://storage.googleapis.com/mobilenet_edge")
    assert plain_address(V1.url) == V1.url


def test_a_checkpoint_is_downloaded_and_unpacked_once(server, row, tmp_path):
    prefix = fetch_checkpoint(row, cache_dir=str(tmp_path))
    assert content_of(f"{prefix}.index") == b"index"
    assert content_of(f"{prefix}.data-00000-of-00001") == b"data"
    assert len(os.listdir(os.path.dirname(prefix))) == 2
    server.content = b""
    os.remove(tmp_path / "mobilenet_v1_0.25_128.tgz")
    assert fetch_checkpoint(row, cache_dir=str(tmp_path)) == prefix
    assert len(server.requests) == 1


def unpack(tmp_path, content, row, weights=None):
    archive = tmp_path / "archive.tgz"
    archive.write_bytes(content if isinstance(content, bytes) else tgz(content))
    return extract_checkpoint(str(archive), row, str(tmp_path / "out"), weights)


@pytest.mark.parametrize(
    "weights, expected", [(None, "ema/model-1"), ("raw", "pristine/model.ckpt-1")]
)
def test_of_v3_the_averages_or_the_training_checkpoint_are_taken(tmp_path, weights, expected):
    members = {
        **checkpoint(f"{V3.name}/pristine/model.ckpt-1", b" raw"),
        **checkpoint(f"{V3.name}/ema/model-1", b" ema"),
        f"{V3.name}/ema/._model-1.index": b"left by a Mac",
        f"{V3.name}/v3.pb": b"graph",
    }
    prefix = unpack(tmp_path, members, V3, weights)
    assert prefix == str(tmp_path / "out" / expected)
    assert content_of(f"{prefix}.index") == (b"index raw" if weights else b"index ema")
    assert sorted(os.listdir(os.path.dirname(prefix))) == [
        f"{os.path.basename(expected)}.data-00000-of-00001",
        f"{os.path.basename(expected)}.index",
    ]


def test_a_training_checkpoint_alone_serves_both_and_averages_alone_only_averages(tmp_path):
    pristine = checkpoint("x/pristine/model.ckpt-2790692")
    assert unpack(tmp_path, pristine, V3).endswith("pristine/model.ckpt-2790692")
    assert unpack(tmp_path, checkpoint("x/ema/model-7"), V3).endswith("out/ema/model-7")
    with pytest.raises(UserError, match=r"raw weights \(it holds x/ema/model-7\)"):
        unpack(tmp_path, checkpoint("x/ema/model-7"), V3, "raw")


def test_a_single_checkpoint_of_any_name_is_taken_and_of_several_none(tmp_path):
    one = checkpoint("mobilenet_edgetpu_224_1.0/model")
    assert unpack(tmp_path, one, EDGETPU) == str(tmp_path / "out" / "model")
    with pytest.raises(UserError, match="it holds a/model, b/model"):
        unpack(tmp_path, {**checkpoint("a/model"), **checkpoint("b/model")}, EDGETPU)
    with pytest.raises(UserError, match="it holds none"):
        unpack(tmp_path, {"readme": b""}, EDGETPU)


def link(kind, target):
    member = tarfile.TarInfo("link.index")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "hostile",
    [
        {"/etc/x.index": b""},
        {"../x.index": b""},
        {"a/../../x.index": b""},
        {"..": b""},
        {"link.index": link(tarfile.SYMTYPE, "/etc/passwd")},
        {"link.index": link(tarfile.LNKTYPE, "mobilenet_v1_0.25_128.ckpt.index")},
        {"link.index": link(tarfile.FIFOTYPE, "")},
    ],
)
def test_hostile_archives_are_refused_and_nothing_is_written(tmp_path, hostile):
    members = {**checkpoint("mobilenet_v1_0.25_128.ckpt"), **hostile}
    with pytest.raises(UserError, match="not to be trusted"):
        unpack(tmp_path, members, V1)
    assert os.listdir(tmp_path) == ["archive.tgz"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    members = {**checkpoint("mobilenet_v1_0.25_128.ckpt"), "bomb": bytes(2 << 20)}
    with pytest.raises(UserError, match="'bomb' goes beyond 1 MB"):
        unpack(tmp_path, members, V1)
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(UserError, match="or 1 members"):
        unpack(tmp_path, checkpoint("mobilenet_v1_0.25_128.ckpt"), V1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:2_000_000] + b"\0\0\0\0" + content[2_000_004:],
        lambda content: b"no archive",
        lambda content: gzip.compress(b"no tar, but gzip" * 100),
    ],
)
def test_a_damaged_archive_is_one_line_and_the_old_directory_stays(tmp_path, damage):
    prefix = unpack(tmp_path, ARCHIVE, V1)
    with pytest.raises(UserError, match="is damaged") as error:
        unpack(tmp_path, damage(ARCHIVE), V1)
    assert "\n" not in str(error.value)
    assert content_of(f"{prefix}.index") == b"index"


def test_what_is_unpacked_is_a_checkpoint_that_opens(reference_data, tmp_path):
    import tensorflow as tf

    source = reference_data / "tf1_checkpoints" / "random_v1_0.25_128"
    members = {
        path.name.replace("model.ckpt-1234", "mobilenet_v1_0.25_128.ckpt"): path.read_bytes()
        for path in source.glob("model.ckpt-1234.*")
    }
    prefix = unpack(tmp_path, members, V1)
    expected = tf.train.load_checkpoint(str(source / "model.ckpt-1234"))
    name = "MobilenetV1/Conv2d_13_pointwise/weights"
    np.testing.assert_array_equal(
        tf.train.load_checkpoint(prefix).get_tensor(name), expected.get_tensor(name)
    )
