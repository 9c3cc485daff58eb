"""A bucket of Cloud Storage on this machine, and a bad line to it, as fixtures.

The emulator runs in a process of its own and keeps all in memory. In front of it is a small proxy,
which cuts listings into pages as the real service does (the emulator lists all at once), counts
requests, and can make every n-th of them fail. A test module that needs them says
`pytest_plugins = ["tests.storage_emulator"]`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.bucket_client import RETRY_SECONDS_VARIABLE

BUCKET = "pictures"
PAGE = 1000

# What can go wrong: an error's status, the connection reset when the work is done, a body that
# ends in the middle, a body of half the bytes whose headers say that it is whole.
RESET, CUT, SHORT = "reset", "cut", "short"
FAULTS = (429, 503, RESET, CUT, SHORT)

# By this address the fault can be set from another process; see `fail`.
FAIL = "/fail"

HOP_HEADERS = {"connection", "content-length", "date", "server", "transfer-encoding"}


def serve() -> None:
    """Runs the emulator, says its port, and ends when standard input does."""
    from gcp_storage_emulator import server as emulator
    from gcp_storage_emulator.server import create_server
    from gcp_storage_emulator.storage import Storage

    logging.disable()
    Storage._write_config_to_file = lambda self: None  # nobody reads it, and it grows
    read_body = emulator._read_data

    def body_of(handler, query):
        body = read_body(handler, query)
        # An empty object, as TensorFlow makes one for a directory: the emulator takes no body.
        return b"" if body is None and query.get("uploadType") == ["media"] else body

    emulator._read_data = body_of
    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    print(server._api._httpd.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


class Proxy(ThreadingHTTPServer):
    """Hands requests on to the emulator, and fails every n-th of them when it is told to."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, emulator_port: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.emulator_port = emulator_port
        self.emulator_lock = threading.Lock()  # the emulator does one thing at a time
        self.page = PAGE
        self.finished_uploads: dict[str, _Answer] = {}
        self.requests: list[str] = []
        self.clients: set[str] = set()  # by what they call themselves, without the version
        self.num_faults = 0
        self._fault: int | str | None = None
        self._every = 1
        self._turn = 0
        self._lock = threading.Lock()
        self._look: Callable[[], None] | None = None
        self._looking = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fail(self, fault: int | str | None, every: int = 1) -> None:
        """From now on every `every`-th request meets `fault` (a status, RESET, CUT or SHORT)."""
        with self._lock:
            self._fault, self._every = fault, every
            self._turn = self.num_faults = 0
            self.requests.clear()

    def next_fault(self, command: str, path: str) -> int | str | None:
        with self._lock:
            self.requests.append(f"{command} {path}")
            if self._fault == SHORT and "alt=media" not in path:
                return None  # half an answer of JSON is none: that is not what SHORT is about
            self._turn += 1
            if self._fault is None or self._turn % self._every:
                return None
            self.num_faults += 1
            return self._fault

    def watch(self, look: Callable[[], None] | None) -> None:
        """From now on `look` is called behind every request, before it is answered."""
        self._look = look

    def looked(self) -> None:
        look = self._look
        if look:
            with self._looking:
                look()

    def objects(self) -> dict[str, bytes]:
        """All that is in the bucket, past faults and tested code."""
        listed = json.loads(self.ask("GET", f"/storage/v1/b/{BUCKET}/o").body)
        return {
            item["name"]: self.ask(
                "GET", f"/storage/v1/b/{BUCKET}/o/{_quoted(item['name'])}?alt=media"
            ).body
            for item in listed.get("items", [])
        }

    def put(self, name: str, content: bytes) -> None:
        """Lays an object (not an empty one) into the bucket, past faults and tested code."""
        where = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={_quoted(name)}"
        headers = {"Content-Type": "application/octet-stream"}
        assert self.ask("POST", where, content, headers).status == 200

    def ask(self, command: str, path: str, body: bytes = b"", headers: dict | None = None):
        """What the emulator itself answers."""
        with (
            self.emulator_lock,
            contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", self.emulator_port, timeout=60)
            ) as connection,
        ):
            connection.request(command, path, body, headers or {})
            answer = connection.getresponse()
            return _Answer(answer.status, dict(answer.getheaders()), answer.read())


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


class _Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes):
        self.status = status
        self.headers = headers
        self.body = body


def fail(fault: int | str | None, every: int = 1) -> None:
    """As `Proxy.fail`, from a process that knows the proxy by STORAGE_EMULATOR_HOST alone."""
    address = os.environ["STORAGE_EMULATOR_HOST"].removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request("POST", f"{FAIL}?fault={fault or ''}&every={every}")
        assert connection.getresponse().status == 200


def _fault_of(path: str) -> tuple[int | str | None, int]:
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query))
    fault = query.get("fault")
    return int(fault) if fault and fault.isdigit() else fault, int(query["every"])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def handle_any(self) -> None:
        body = self._body()
        self.server.clients.add(self.headers.get("User-Agent", "").partition("/")[0])
        if self.path.startswith(FAIL):
            self.server.fail(*_fault_of(self.path))
            self._send(_Answer(200, {}, b""))
            return
        fault = self.server.next_fault(self.command, self.path)
        if isinstance(fault, int):
            message = json.dumps({"error": {"code": fault, "message": "by order of the test"}})
            self._send(_Answer(fault, {"Content-Type": "application/json"}, message.encode()))
            return
        answer = self._answer(body)
        self.server.looked()
        if fault == RESET:
            self._reset()
        elif fault == SHORT:
            self._send(_Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2]))
        else:
            self._send(answer, cut=fault == CUT)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def log_message(self, *_) -> None:
        pass

    def handle_expect_100(self) -> bool:
        accepted = super().handle_expect_100()
        self.wfile.flush()  # or the client waits for it a second long
        return accepted

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # TensorFlow's client, which names a length as well; of the two this counts (RFC 9112).
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> _Answer:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.command == "GET" and url.path.endswith("/o"):
            return self._page(url, query)
        if self.command == "PUT" and query.get("upload_id") in self.server.finished_uploads:
            # As the service does, and the emulator does not: an upload whose answer was lost.
            return self.server.finished_uploads[query["upload_id"]]
        # By the name of the host the emulator makes the address that an upload goes on to.
        headers = {**self.headers, "Host": self.server.url.removeprefix("http://")}
        headers.pop("Transfer-Encoding", None)
        answer = self.server.ask(self.command, self.path, body, headers)
        if answer.status == 308 and answer.headers.get("Range") == "bytes=0-0":
            del answer.headers["Range"]  # nothing has come; the emulator says one byte
        if self.command == "PUT" and answer.status == 200:
            self.server.finished_uploads[query["upload_id"]] = answer
        return answer

    def _page(self, url: urllib.parse.SplitResult, query: dict[str, str]) -> _Answer:
        start = int(query.pop("pageToken", 0))
        size = min(self.server.page, int(query.pop("maxResults", self.server.page)))
        whole = self.server.ask("GET", f"{url.path}?{urllib.parse.urlencode(query)}")
        if whole.status != 200:
            return whole
        content = json.loads(whole.body)
        names = [(item["name"], item) for item in content.get("items", [])]
        names += [(prefix, None) for prefix in content.get("prefixes", [])]
        names.sort(key=lambda pair: pair[0])
        here = names[start : start + size]
        page = {
            "items": [item for _, item in here if item],
            "prefixes": [name for name, item in here if not item],
        }
        if start + size < len(names):
            page["nextPageToken"] = str(start + size)
        return _Answer(200, {"Content-Type": "application/json"}, json.dumps(page).encode())

    def _send(self, answer: _Answer, cut: bool = False) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


@pytest.fixture(scope="session")
def storage_emulator() -> Iterator[int]:
    """Port of an emulator that lives as long as the tests do."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from tests.storage_emulator import serve; serve()"],
        cwd=os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        port = process.stdout.readline()
        assert port.strip().isdigit(), "the storage emulator did not start"
        yield int(port)
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def storage_proxy(storage_emulator, monkeypatch) -> Iterator[Proxy]:
    """The line to the emulator, which is empty but for one bucket; `fail` makes it a bad one."""
    proxy = Proxy(storage_emulator)
    assert proxy.ask("GET", "/wipe").status == 200
    made = json.dumps({"name": BUCKET}).encode()
    headers = {"Content-Type": "application/json"}
    assert proxy.ask("POST", "/storage/v1/b?project=test", made, headers).status == 200
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    monkeypatch.setenv(RETRY_SECONDS_VARIABLE, "60")
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


@pytest.fixture
def bucket(storage_proxy) -> str:
    """An empty bucket, as 'gs://NAME'."""
    return f"gs://{BUCKET}"


@pytest.fixture(params=FAULTS)
def faulty_bucket(bucket, storage_proxy, request) -> str:
    """The same, where every third request fails, in each of the ways in turn."""
    storage_proxy.fail(request.param, every=3)
    return bucket
