"""A training process that this one has started: its output, its end, and no life after ours."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from common import logs

_PR_SET_PDEATHSIG = 1
_BLOCK = 1 << 16
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

# Called with a line, and whether it came from standard error.
Sink = Callable[[str, bool], None]


class WorkerProcess:
    """One worker. To be made by a process of one thread: it forks, and runs Python before `exec`.

    Args:
        index: number of the worker.
        command: what is run.
        environment: all of its environment variables.
        address: (host, port) on which it serves the others once it has come up; None for a worker
            that works alone.
        sink: takes its lines.
    """

    def __init__(
        self,
        index: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        address: tuple[str, int] | None,
        sink: Sink,
    ):
        self.index = index
        self.last_error = ""
        self._address, self._sink = address, sink
        self._is_up = address is None
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A group of its own: Ctrl-C on the terminal reaches it once, through its supervisor.
            start_new_session=True,
            preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 -- of one thread
        )
        self._rests = {self._process.stdout: b"", self._process.stderr: b""}
        for pipe in self._rests:
            os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        return self._process.poll()

    def is_up(self) -> bool:
        """Whether it serves the other workers, or has done its work already."""
        if not self._is_up:
            self._is_up = self.exit_code == 0 or _answers(self._address)
        return self._is_up

    def send(self, number: int) -> None:
        """Sends a signal to it, and to what it may have started."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def register(self, selector: selectors.BaseSelector) -> None:
        """Has `selector` watch its pipes, with itself as their data."""
        for pipe in self._rests:
            selector.register(pipe, selectors.EVENT_READ, self)

    def forward(self, selector: selectors.BaseSelector, pipe) -> None:
        """Hands on what is there to be read from `pipe`, line by line."""
        try:
            content = os.read(pipe.fileno(), _BLOCK)
        except BlockingIOError:
            return
        if not content:
            self._end_of(selector, pipe)
            return
        *lines, self._rests[pipe] = (self._rests[pipe] + content).split(b"\n")
        for line in lines:
            self._hand_on(line, pipe)

    def close(self, selector: selectors.BaseSelector) -> None:
        """Hands on the rest of its output; it has ended."""
        for pipe in list(self._rests):
            # What a descendant still holds open is not waited for.
            while pipe in self._rests and _is_readable(pipe):
                self.forward(selector, pipe)
            if pipe in self._rests:
                self._end_of(selector, pipe)
        self._process.wait()

    def _end_of(self, selector: selectors.BaseSelector, pipe) -> None:
        rest = self._rests.pop(pipe)
        selector.unregister(pipe)
        if rest:
            self._hand_on(rest, pipe)
        pipe.close()

    def _hand_on(self, line: bytes, pipe) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        is_error = pipe is self._process.stderr
        if is_error and text.strip():
            self.last_error = logs.message_in(text) or text.strip()
        self._sink(text, is_error)


def signal_name(number: int) -> str:
    """What people call a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def free_ports(count: int) -> list[int]:
    """Ports of the loopback device that nobody uses just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def end_all(
    workers: Sequence[WorkerProcess], grace_seconds: float, pump: Callable[[float], None]
) -> None:
    """SIGTERM, and SIGKILL to those that are still there after `grace_seconds`.

    A worker that waits for others within TensorFlow does not heed SIGTERM.

    Args:
        workers: those that have ended already are left alone.
        grace_seconds: how long they may take.
        pump: handles their output for at most so many seconds.
    """
    for worker in workers:
        worker.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    while _running(workers) and time.monotonic() < deadline:
        pump(0.05)
    for worker in workers:
        worker.send(signal.SIGKILL)
    while _running(workers):
        pump(0.05)


def _running(workers: Sequence[WorkerProcess]) -> bool:
    return any(worker.exit_code is None for worker in workers)


def end_with(parent: int) -> Callable[[], None] | None:
    """What a child runs first, so that Linux kills it when its parent ends, however that ends."""
    if _libc is None:
        return None

    def leash() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the leash was on
            os._exit(1)

    return leash


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=1.0):
            return True
    except OSError:
        return False


def _is_readable(pipe) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        return bool(selector.select(0))
