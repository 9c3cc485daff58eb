"""Exports to publish, places for them, and a line to a service that keeps preconditions."""

import hashlib
import json
import pathlib
import random
import re
import sys
import threading
import urllib.parse

import pytest

from common import files
from common.command import run_to_exit_code
from pipeline.publish import PublishConfig, publish
from tests.storage_emulator import BUCKET, _Answer, _Handler

ROOT = pathlib.Path(__file__).parents[2]
LARGE = 9 << 20  # too much for a single request
MODEL = {
    "config": {"name": "mobilenet_v1"},
    "labels": {"offset": 1, "num_classes": 2},
    "classes": ["cat", "dog"],
}


def make_export(directory: pathlib.Path, seed: int = 0, large: bool = False) -> pathlib.Path:
    """An export as pipeline.export lays it out, of random bytes."""
    chance = random.Random(seed)
    contents = {
        "saved_model/saved_model.pb": chance.randbytes(30_000),
        "saved_model/variables/variables.data-00000-of-00001": chance.randbytes(50_000),
        "saved_model/variables/variables.index": chance.randbytes(900),
        "checkpoint/ckpt-1.index": chance.randbytes(700),
        "litert/float32.tflite": chance.randbytes(LARGE if large else 20_000),
        "labels.txt": b"background\ncat\ndog\n",
        "model.json": json.dumps(MODEL).encode(),
        "MODEL_CARD.md": b"# a model\n",
    }
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    artifacts = ("checkpoint", "saved_model", "litert/float32.tflite")
    companions = ("labels.txt", "model.json", "MODEL_CARD.md")
    summary = {
        "artifacts": [
            {"path": path, "sha256": files.fingerprint(str(directory / path))} for path in artifacts
        ],
        "files": [
            {"path": path, "sha256": hashlib.sha256(contents[path]).hexdigest()}
            for path in companions
        ],
        "parity": {"passed": True, "rows": []},
        "model": MODEL,
        "metrics": {"top_1": 0.6875},
    }
    (directory / "export.json").write_text(json.dumps(summary))
    return directory


def contents_of(directory: pathlib.Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def in_bucket(proxy, below: str = "") -> dict[str, bytes]:
    """What the emulator itself holds, past the code that is tested."""
    listing = json.loads(proxy.ask("GET", f"/storage/v1/b/{BUCKET}/o").body)
    return {
        item["name"].removeprefix(below): proxy.ask(
            "GET", f"/download/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(item['name'], '')}"
        ).body
        for item in listing.get("items", [])
        if item["name"].startswith(below)
    }


def words(**flags: object) -> list[str]:
    return ["publish", *(f"--{name}={value}" for name, value in flags.items())]


@pytest.fixture
def call(capfd):
    """Runs the command in this process; returns exit code, what it printed, and its errors."""

    def run(**flags):
        capfd.readouterr()
        code = run_to_exit_code(publish, PublishConfig, argv=words(**flags))
        sys.stdout.flush()
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def publishes(call):
    def run(**flags):
        code, out, err = call(**flags)
        assert code == 0, err
        return out

    return run


@pytest.fixture
def refuses(call):
    """As `call`, for a run that must fail with one line; returns exit code and line."""

    def run(**flags):
        code, _, err = call(**flags)
        (line,) = err.splitlines()
        return code, line

    return run


class _ServiceHandler(_Handler):
    """Keeps preconditions, as the service does and the emulator does not; tells of uploads."""

    def _answer(self, body):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        is_upload = self.command in ("POST", "PUT") and "uploadType" in query
        if is_upload and self.server.on_upload:
            self.server.on_upload()
        if "upload_id" in query:
            try:
                return super()._answer(body)
            except (BrokenPipeError, ConnectionResetError):  # of the emulator, not of the client
                return _Answer(410, {}, b"")
        if "ifGenerationMatch" not in query:
            return super()._answer(body)
        # It is in the address, in the JSON that begins an upload, or in the first part of one.
        name = query.get("name") or re.search(rb'"name": *"([^"]+)"', body).group(1).decode()
        with self.server.one_at_a_time:
            where = f"/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, '')}"
            found = self.server.ask("GET", where)
            there = json.loads(found.body)["generation"] if found.status == 200 else "0"
            if there != query["ifGenerationMatch"]:
                message = json.dumps({"error": {"code": 412, "message": "conditionNotMet"}})
                return _Answer(412, {"Content-Type": "application/json"}, message.encode())
            return super()._answer(body)


@pytest.fixture
def service(storage_proxy):
    """The line to the emulator, with the service's preconditions."""
    storage_proxy.RequestHandlerClass = _ServiceHandler
    storage_proxy.one_at_a_time = threading.Lock()
    storage_proxy.on_upload = None
    return storage_proxy


@pytest.fixture
def in_a_bucket(service) -> str:
    return f"gs://{BUCKET}/models/mine"


@pytest.fixture(params=["directory", "bucket"])
def place(request, tmp_path) -> str:
    """Both kinds of place in turn."""
    if request.param == "directory":
        return str(tmp_path / "published")
    return request.getfixturevalue("in_a_bucket")


def held_by(place: str, request) -> dict[str, bytes]:
    if files.is_remote(place):
        return in_bucket(request.getfixturevalue("service"), "models/mine/")
    return {k: v for k, v in contents_of(pathlib.Path(place)).items() if k != ".lock"}


def flip_a_bit(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
