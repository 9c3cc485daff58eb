"""The web server of the try page: four addresses, for one machine."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import json
import logging
import socket
import socketserver
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from common.errors import UserError
from pipeline.serving.photo import BadPhotoError

if TYPE_CHECKING:
    from pipeline.serving.classifier import Classifier

PREDICT = "/predict"

_HEADERS = {
    # Nothing from elsewhere, and no script but ours, whatever a class is called.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self';"
    " img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 30  # with a client that sends nothing
# A sender that is cut off never hears why: what it still sends is read for a while.
_LINGER_SECONDS = 2
_LINGER_MULTIPLE = 4  # of the largest photo
_READ_BYTES = 1 << 16


class _IdleError(Exception):
    """Nobody has asked for anything in a while."""


class TryServer(ThreadingHTTPServer):
    """Serves the page and answers photos, each request in a thread of its own."""

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        classifier: Classifier,
        pages: Mapping[str, tuple[str, bytes]],
        *,
        max_bytes: int,
        stop_after_idle: float = 0.0,
    ):
        """Binds the address.

        Args:
            address: host and port; port 0 for any that is free.
            classifier: what answers.
            pages: content type and content by path.
            max_bytes: size of the largest photo that is taken.
            stop_after_idle: seconds without a request after which serving ends; 0 for never.

        Raises:
            UserError: the address cannot be listened at.
        """
        self.classifier, self.pages, self.max_bytes = classifier, pages, max_bytes
        self.host = address[0]
        self._stop_after_idle = stop_after_idle
        self._last_request = time.monotonic()
        if ":" in self.host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            hint = "; give another --port, or 0" if error.errno == errno.EADDRINUSE else ""
            raise UserError(
                f"--host={address[0]} --port={address[1]} cannot be listened at:"
                f" {error.strerror}{hint}"
            ) from None
        except OverflowError:
            raise UserError(f"--port={address[1]} is no port") from None

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks a name server what this machine is called.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    def serve_until_idle(self) -> None:
        """Serves until nobody has asked for anything for `stop_after_idle` seconds."""
        self.note_request()
        try:
            self.serve_forever(_POLL_SECONDS)
        except _IdleError:
            return

    def note_request(self) -> None:
        self._last_request = time.monotonic()

    def service_actions(self) -> None:
        idle = time.monotonic() - self._last_request
        if self._stop_after_idle and idle > self._stop_after_idle:
            raise _IdleError

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection once the other side has, or has sent enough."""
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(_LINGER_SECONDS)
            left = _LINGER_MULTIPLE * self.max_bytes
            while left > 0 and (block := request.recv(_READ_BYTES)):
                left -= len(block)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logging.debug("a request ended early", exc_info=True)  # the browser has gone


class _Handler(BaseHTTPRequestHandler):
    server: TryServer
    timeout = _PATIENCE_SECONDS
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def do_GET(self) -> None:
        self.server.note_request()
        if refusal := self._refusal():
            self._answer_error(HTTPStatus.FORBIDDEN, refusal)
        elif page := self.server.pages.get(urlsplit(self.path).path):
            self._answer(HTTPStatus.OK, *page)
        else:
            self._answer_error(HTTPStatus.NOT_FOUND, "there is nothing here: the page is at /")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.note_request()
        if refusal := self._refusal():
            self._answer_error(HTTPStatus.FORBIDDEN, refusal)
        elif urlsplit(self.path).path != PREDICT:
            self._answer_error(HTTPStatus.NOT_FOUND, f"photos are sent to {PREDICT}")
        else:
            self._predict()
        self.server.note_request()

    def _predict(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._answer_error(
                HTTPStatus.LENGTH_REQUIRED, "send a photo as the body, with its Content-Length"
            )
            return
        most = self.server.max_bytes
        if int(length) > most:
            self._answer_error(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the photo has {int(length) / 1e6:.1f} MB: send one of at most {most / 1e6:g} MB",
            )
            return
        content = self.rfile.read(int(length))
        start = time.perf_counter()
        try:
            answers = self.server.classifier.best(content)
        except BadPhotoError as error:
            self._answer_error(HTTPStatus.BAD_REQUEST, str(error))
            return
        milliseconds = 1000 * (time.perf_counter() - start)
        self._answer_json(
            HTTPStatus.OK,
            {
                "predictions": [dataclasses.asdict(answer) for answer in answers],
                "milliseconds": round(milliseconds, 2),
            },
        )

    def _refusal(self) -> str:
        """Why a request is refused that another site had a browser send; empty for none."""
        host = self.headers.get("Host", "")
        if _is_loopback(self.server.host) and not _is_loopback(urlsplit(f"//{host}").hostname):
            return "this page is served to this machine alone"
        origin = self.headers.get("Origin")
        if origin and urlsplit(origin).netloc != host:
            return "photos are taken from this page alone"
        return ""

    def _answer_json(self, status: HTTPStatus, value: Any) -> None:
        self._answer(status, "application/json", json.dumps(value).encode() + b"\n")

    def _answer_error(self, status: HTTPStatus, message: str) -> None:
        self._answer_json(status, {"error": message})

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        return "mobilenet-pipeline"

    def log_message(self, format: str, *args: Any) -> None:
        logging.debug(format, *args)


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
