"""Publishing through kills, bad lines, restarts, and others who publish at once."""

import base64
import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import google_crc32c
import pytest

from common import bucket_client, files
from common.errors import UserError
from pipeline.publish import PublishConfig, publish
from pipeline.publishing import resolve
from tests.pipeline.publishing import (
    ROOT,
    contents_of,
    flip_a_bit,
    held_by,
    in_bucket,
    make_export,
    words,
)
from tests.storage_emulator import BUCKET, CUT, RESET, SHORT

pytest_plugins = ["tests.storage_emulator", "tests.pipeline.publishing"]

KILLED = """
import os, signal, sys, threading
from common.command import run_to_exit_code
from pipeline.publish import PublishConfig, publish
from pipeline.publishing.local_store import LocalStore
puts, put = [], LocalStore.put
def put_and_die(*arguments):
    puts.append(arguments)
    if len(puts) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    put(*arguments)
LocalStore.put = put_and_die
run_to_exit_code(publish, PublishConfig, argv=["publish", *sys.argv[1:]])
"""


def test_kill_9_in_a_directory_leaves_the_old_version_and_the_next_run_completes(
    tmp_path, publishes
):
    place = tmp_path / "published"
    old, new = make_export(tmp_path / "old", 1), make_export(tmp_path / "new", 2)
    publishes(export_dir=old, to=place)
    command = [sys.executable, "-c", KILLED, *words(export_dir=new, to=place, num_parallel=1)[1:]]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -signal.SIGKILL
    assert resolve(str(place)).version == 1
    visible = sorted(path.name for path in (place / "versions").iterdir())
    assert visible[1:] == ["1"] and visible[0].startswith(".tmp-")
    (staging,) = (place / "versions").glob(".tmp-*")
    assert len(contents_of(staging)) == 3
    # One of them is damaged meanwhile: it is sent again, with the files that are missing.
    flip_a_bit(next(path for path in staging.rglob("*") if path.is_file()))
    assert "9 files (2 were there)" in publishes(export_dir=new, to=place)
    assert resolve(str(place)).version == 2
    version = contents_of(place / "versions" / "2")
    del version["manifest.json"]
    assert version == contents_of(new)
    assert sorted(path.name for path in (place / "versions").iterdir()) == ["1", "2"]


def kill_at_upload(service, number: int, **flags) -> int:
    """Runs the command in a process that is killed in its n-th upload; returns its exit code."""
    command = [sys.executable, "-m", "pipeline.publish", *words(**flags, num_parallel=1)[1:]]
    process = subprocess.Popen(command, cwd=ROOT)
    uploads = []

    def on_upload():
        uploads.append(1)
        if len(uploads) == number:
            process.kill()
            process.wait()

    service.on_upload = on_upload
    code = process.wait(60)
    service.on_upload = None
    return code


@pytest.mark.parametrize("number", [1, 4, 10, 11, 12])
def test_kill_9_at_any_upload_leaves_the_old_version_and_the_next_run_completes(
    in_a_bucket, service, tmp_path, publishes, number
):
    # In turn: the claim, 9 files, the manifest, LATEST.
    old, new = make_export(tmp_path / "old", 1), make_export(tmp_path / "new", 2)
    publishes(export_dir=old, to=in_a_bucket)
    flags = {"export_dir": new, "to": in_a_bucket}
    assert kill_at_upload(service, number, **flags) == -signal.SIGKILL
    # The request that was under way may still come through, but nothing behind it.
    latest = 2 if number == 12 else 1
    deadline = time.monotonic() + 10
    while resolve(in_a_bucket).version != latest and time.monotonic() < deadline:
        time.sleep(0.02)
    assert resolve(in_a_bucket).version == latest
    service.fail(None)  # count from here
    out = publishes(**flags)
    uploads = [line for line in service.requests if line.startswith("POST /upload")]
    assert len(uploads) <= max(0, 13 - number)
    assert ("nothing was transferred" in out) == (number >= 11)
    assert resolve(in_a_bucket).version == 2
    version = in_bucket(service, "models/mine/versions/2/")
    given = contents_of(new)
    assert {name: version[name] for name in given} == given
    assert version.keys() - given.keys() == {"manifest.json"}
    assert resolve(in_a_bucket, 1).version == 1


@pytest.mark.parametrize("fault", [429, 503, RESET, CUT, SHORT])
def test_a_bad_line_changes_nothing(in_a_bucket, service, tmp_path, publishes, fault):
    export = make_export(tmp_path / "export", large=True)
    service.fail(fault, every=2 if fault == SHORT else 3)  # that is of downloads alone
    publishes(export_dir=export, to=in_a_bucket, alias="stable")
    assert resolve(in_a_bucket, "stable").version == 1
    assert service.num_faults >= (1 if fault == SHORT else 5)
    service.fail(None)
    version = in_bucket(service, "models/mine/versions/1/")
    del version["manifest.json"]
    assert version == contents_of(export)
    assert resolve(in_a_bucket, "stable").version == 1
    assert "nothing was transferred" in publishes(export_dir=export, to=in_a_bucket)


def test_a_line_that_stays_bad_is_one_line_and_the_next_run_goes_on(
    in_a_bucket, service, tmp_path, publishes, refuses, monkeypatch
):
    export = make_export(tmp_path / "export")
    monkeypatch.setenv(bucket_client.RETRY_SECONDS_VARIABLE, "0.3")
    uploads = []

    def on_upload():
        uploads.append(1)
        if len(uploads) == 5:
            service.fail(503)

    service.on_upload = on_upload
    code, line = refuses(export_dir=export, to=in_a_bucket, num_parallel=1)
    assert code == 75 and "cannot be reached" in line
    service.fail(None)
    service.on_upload = None
    with pytest.raises(UserError, match="nothing is published there"):
        resolve(in_a_bucket)
    assert "not whole" in publishes(to=in_a_bucket, list=True)
    assert "9 files (4 were there)" in publishes(export_dir=export, to=in_a_bucket)
    assert resolve(in_a_bucket).version == 1


def test_what_came_damaged_is_sent_again(in_a_bucket, service, tmp_path, publishes, refuses):
    export = make_export(tmp_path / "export")
    damaged = []

    def damage():
        names = [n for n in in_bucket(service, "models/mine/versions/1/") if n.endswith(".tflite")]
        if names and not damaged:
            damaged.append(1)
            service.put("models/mine/versions/1/litert/float32.tflite", b"something else")

    service.on_upload = damage
    publishes(export_dir=export, to=in_a_bucket, num_parallel=1)
    assert damaged
    version = in_bucket(service, "models/mine/versions/1/")
    assert version["litert/float32.tflite"] == (export / "litert/float32.tflite").read_bytes()


@contextlib.contextmanager
def another_emulator():
    code = "from tests.storage_emulator import serve; serve()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("upload", [2, 5, 9])
def test_an_emulator_that_is_restarted_and_has_lost_all_gets_all(
    in_a_bucket, service, tmp_path, publishes, upload
):
    export = make_export(tmp_path / "export", large=True)
    uploads = []
    with another_emulator() as (first, port), another_emulator() as (_, other_port):
        made = json.dumps({"name": BUCKET}).encode()
        headers = {"Content-Type": "application/json"}
        for service.emulator_port in (other_port, port):
            service.ask("POST", "/storage/v1/b?project=test", made, headers)

        def restart():
            uploads.append(1)
            if len(uploads) == upload:
                first.kill()
                threading.Timer(0.3, setattr, (service, "emulator_port", other_port)).start()

        service.on_upload = restart
        publishes(export_dir=export, to=in_a_bucket, num_parallel=2)
        assert len(uploads) > 12  # a claim, 9 files, a manifest, LATEST, and some once more
        version = in_bucket(service, "models/mine/versions/1/")
        manifest = json.loads(version.pop("manifest.json"))
        assert version == contents_of(export)
        for entry in manifest["files"]:
            checksum = google_crc32c.Checksum(version[entry["path"]]).digest()
            assert entry["crc32c"] == base64.b64encode(checksum).decode()
        assert resolve(in_a_bucket).version == 1


def test_publishers_at_once_do_not_mix(place, request, tmp_path):
    exports = [make_export(tmp_path / f"export{i}", i) for i in range(4)]
    exports += [make_export(tmp_path / f"twin{i}", 0) for i in range(2)]  # the same as the first
    together = threading.Barrier(len(exports))

    def run(export):
        together.wait()
        config = PublishConfig(to=place, export_dir=str(export), num_parallel=2)
        publish(config)

    with ThreadPoolExecutor(len(exports)) as pool:
        list(pool.map(run, exports))
    held = held_by(place, request)
    versions: dict[str, dict[str, bytes]] = {}
    for name, content in held.items():
        parts = name.split("/", 2)
        if len(parts) == 3:
            versions.setdefault(parts[1], {})[parts[2]] = content
    assert sorted(versions) == ["1", "2", "3", "4"]
    for version in versions.values():
        del version["manifest.json"]
    expected = [contents_of(export) for export in exports[:4]]
    assert all(version in expected for version in versions.values())
    assert all(content in versions.values() for content in expected)
    assert resolve(place).version == 4


def test_a_reader_sees_whole_versions_only(place, tmp_path):
    exports = [make_export(tmp_path / f"export{i}", i) for i in range(3)]
    publish(PublishConfig(to=place, export_dir=str(exports[0])))
    done = threading.Event()
    seen = []
    deadline = time.monotonic() + 60

    def read():
        is_last = False
        while not is_last:
            assert time.monotonic() < deadline
            is_last = done.is_set()
            found = resolve(place)
            for entry in found.manifest.files:
                content = files.read_bytes(files.join(found.path, entry.path))
                assert hashlib.sha256(content).hexdigest() == entry.sha256
            seen.append(found.version)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for export in exports[1:]:
                publish(PublishConfig(to=place, export_dir=str(export)))
        finally:
            done.set()
        reader.result()
    assert seen == sorted(seen) and seen[-1] == 3


def test_what_a_manifest_says_is_no_markup(tmp_path, publishes):
    place = tmp_path / "published"
    publishes(export_dir=make_export(tmp_path / "export"), to=place)
    path = place / "versions" / "1" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"published": "[/b]", "content_sha256": "[red]0"}))
    shown = publishes(to=place, list=True)
    assert "[/b]" in shown and "[red]0" in shown
