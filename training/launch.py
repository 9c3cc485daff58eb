"""Trains in several processes of this machine, and starts them again when one of them is lost.

    python -m training.launch --num_workers=4 -- --data_dir=... --model_dir=...

The words behind the bare `--` are the flags of `training.train`. Each process gets its TF_CONFIG.
When one is lost the others cannot go on, so all are ended and started again, and resume from the
newest checkpoint. None of them outlives this command, even if that is killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from common import logs
from common.command import flag, run
from common.errors import UsageError, UserError
from training.stopping import RESUME_ME
from training.worker_process import Sink, WorkerProcess, end_all, free_ports, signal_name

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.1
_WRONG_COMMAND_LINE = 2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class LaunchFlags:
    """How many processes train, and how patient their supervisor is."""

    num_workers: int = flag(help="processes that train together")
    max_restarts: int = flag(10, help="how often all are started again when one is lost")
    port: int = flag(0, help="first of consecutive ports on loopback; 0 for any free ones")
    start_timeout: float = flag(300.0, help="seconds in which every worker must have come up")
    grace_seconds: float = flag(30.0, help="seconds from SIGTERM to SIGKILL")
    all_output: bool = flag(False, help="show all that every worker prints, not only its errors")
    module: str = flag("training.train", help="command that each worker runs")

    def __post_init__(self):
        for name, least in (("num_workers", 1), ("max_restarts", 0), ("port", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("start_timeout", "grace_seconds"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name} must be above 0, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Loss:
    """Why the workers of one attempt cannot go on.

    Attributes:
        worker: the first of them that was lost.
        exit_code: its exit code, or the negative number of the signal that ended it; None when it
            never came up.
        last_error: the last line that it wrote to standard error.
        was_asked: whether a signal had asked all of them to end before.
    """

    worker: int
    exit_code: int | None
    last_error: str = ""
    was_asked: bool = False

    def __str__(self) -> str:
        if self.exit_code is None:
            return f"worker {self.worker} did not come up"
        if self.exit_code == RESUME_ME:
            return f"worker {self.worker} asked to be resumed"
        if self.exit_code < 0:
            return f"worker {self.worker} was ended by {signal_name(-self.exit_code)}"
        said = f": {self.last_error}" if self.last_error else ""
        return f"worker {self.worker} ended with exit code {self.exit_code}{said}"


def launch(flags: LaunchFlags, words: Sequence[str] = ()) -> int:
    """Trains in several processes of this machine, and restarts them when one is lost.

    Exit codes: 0 all have finished; 75 stopped by a signal, the same command goes on; 1 they cannot
    go on.
    """
    with _noting_signals() as heard:
        before: Loss | None = None
        for restarts in range(flags.max_restarts + 1):
            loss = _Attempt(flags, words, heard).run()
            if loss is None:
                return 0
            if loss.was_asked and loss.exit_code != RESUME_ME:
                raise UserError(f"stopped by a signal, but {loss}; the same command goes on")
            if not loss.was_asked and (reason := why_to_give_up(loss, before)):
                raise UserError(f"{loss}; {reason}")
            if heard:
                name = signal_name(heard[0])
                print(f"stopped by {name}: the same command goes on", file=sys.stderr)
                return RESUME_ME
            if restarts < flags.max_restarts:
                logging.warning(
                    "%s: starting all %d again (%d of at most %d times)",
                    *(loss, flags.num_workers, restarts + 1, flags.max_restarts),
                )
            before = loss
        raise UserError(
            f"{before}; all were started again {flags.max_restarts} times (--max_restarts): the"
            " same command goes on"
        )


def why_to_give_up(loss: Loss, before: Loss | None) -> str:
    """Why another start would not help; empty if it may."""
    if loss.exit_code == _WRONG_COMMAND_LINE:
        return "starting it again would not help"
    if loss.exit_code is None:
        return "look at its output with --all_output, or allow more with --start_timeout"
    by_itself = loss.exit_code > 0 and loss.exit_code != RESUME_ME
    if by_itself and before and loss.last_error and before.last_error == loss.last_error:
        return "it ended in the same way before, so starting it again would not help"
    return ""


def worker_environments(
    environment: Mapping[str, str], ports: Sequence[int]
) -> list[dict[str, str]]:
    """The environment of each worker: TF_CONFIG says who they are; one alone needs none."""
    common = {k: v for k, v in environment.items() if k not in ("TF_CONFIG", "CLUSTER_SPEC")}
    common["PYTHONUNBUFFERED"] = "1"
    if len(ports) == 1:
        return [common]
    cluster = {"worker": [f"{_HOST}:{port}" for port in ports]}
    tasks = [{"type": "worker", "index": index} for index in range(len(ports))]
    return [
        {**common, "TF_CONFIG": json.dumps({"cluster": cluster, "task": task})} for task in tasks
    ]


class _Attempt:
    """All workers, from their start to the end of the last of them."""

    def __init__(self, flags: LaunchFlags, words: Sequence[str], heard: list[int]):
        self._flags, self._words, self._heard = flags, words, heard
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> Loss | None:
        """Returns the first loss, or None when all have finished."""
        try:
            self._start()
            loss = self._watch()
            if not (loss and loss.was_asked):  # then they have had their time
                end_all(self._workers, self._flags.grace_seconds, self._pump)
            return loss
        finally:
            # Also when nobody reads our own output any more: no worker is left behind.
            for worker in self._workers:
                worker.send(signal.SIGKILL)
            for worker in self._workers:
                worker.close(self._selector)
            self._selector.close()

    def _start(self) -> None:
        flags = self._flags
        count = flags.num_workers
        ports = list(range(flags.port, flags.port + count)) if flags.port else free_ports(count)
        command = [sys.executable, "-m", flags.module, *self._words]
        for index, environment in enumerate(worker_environments(os.environ, ports)):
            worker = WorkerProcess(
                index,
                command,
                environment,
                address=(_HOST, ports[index]) if count > 1 else None,
                sink=_sink(index, everything=index == 0 or flags.all_output),
            )
            self._workers.append(worker)
            worker.register(self._selector)

    def _watch(self) -> Loss | None:
        """Returns when all have ended or one is lost; passes signals on."""
        deadline = time.monotonic() + self._flags.start_timeout
        passed_on = 0
        while not self._heard:
            self._pump(_POLL_SECONDS)
            codes = [worker.exit_code for worker in self._workers]
            # What tells most is a worker that did not merely follow another one's end.
            lost = [w for w, code in zip(self._workers, codes, strict=True) if code]
            if lost:
                first = next((w for w in lost if w.exit_code != RESUME_ME), lost[0])
                return Loss(first.index, first.exit_code, first.last_error)
            if None not in codes:
                return None
            late = [worker for worker in self._workers if not worker.is_up()]
            if late and time.monotonic() > deadline:
                return Loss(late[0].index, None)
        deadline = time.monotonic() + self._flags.grace_seconds
        while any(w.exit_code is None for w in self._workers) and time.monotonic() < deadline:
            for number in self._heard[passed_on:]:
                for worker in self._workers:
                    worker.send(number)
            passed_on = len(self._heard)
            self._pump(_POLL_SECONDS)
        return self._loss_after_signal()

    def _loss_after_signal(self) -> Loss | None:
        # One that the signal itself has ended had not begun to listen for it, nor to train.
        agreed = (RESUME_ME, *(-number for number in self._heard))
        ended = {worker: worker.exit_code for worker in self._workers}
        if all(code == 0 for code in ended.values()):
            return None
        for worker, code in ended.items():
            if code is None:
                return Loss(worker.index, -signal.SIGKILL, was_asked=True)  # it is about to be
            if code != 0 and code not in agreed:
                return Loss(worker.index, code, worker.last_error, was_asked=True)
        return Loss(0, RESUME_ME, was_asked=True)

    def _pump(self, seconds: float) -> None:
        """Hands on output, for at most so long."""
        if not self._selector.get_map():  # all have closed their pipes
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            key.data.forward(self._selector, key.fileobj)


def _sink(index: int, everything: bool) -> Sink:
    def show(line: str, is_error: bool) -> None:
        if everything or is_error:
            # An entry of a JSON log names its task itself.
            named = line if logs.message_in(line) else f"[worker {index}] {line}"
            print(named, file=sys.stderr if is_error else sys.stdout)
            (sys.stderr if is_error else sys.stdout).flush()

    return show


@contextlib.contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """The signals that ask this process to end, in the order in which they come."""
    heard: list[int] = []
    before = {s: signal.signal(s, lambda number, _: heard.append(number)) for s in _SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    run(launch, LaunchFlags, passthrough="flags of training.train")
