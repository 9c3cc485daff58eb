"""The entry point of a container: runs one command, and starts it again when it asks for that.

    python -m pipeline.job training.train --data_dir=gs://BUCKET/data --model_dir=gs://BUCKET/run

The first word is a command of this project, the rest are its flags; flags before it are this
module's own. A training process ends with exit code 75 when it was asked to end, and when it has
lost another worker. In the first case so does this one, for the scheduler to start the job
elsewhere; in the second it starts the command again, which waits for the others and goes on from
the last checkpoint. That is quicker than a new machine, and uses up no restart of the scheduler's.

Exit codes are the command's own: 0 done; 1 the run failed; 2 the command line is wrong; 75 the same
command goes on; 128 + N it was ended by signal N.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from common import command
from common.command import flag
from common.errors import UsageError
from training.stopping import RESUME_ME
from training.worker_process import end_with

_PACKAGES = ("benchmarks", "loaders", "pipeline", "preprocessing", "training")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_MOST_SECONDS_BEFORE_A_START = 60.0


@dataclasses.dataclass(frozen=True)
class JobFlags:
    """How often the command is started again."""

    max_restarts: int = flag(20, help="how often the command is started again, without progress")
    healthy_seconds: float = flag(
        600.0, help="a command that ran for so long has made progress: restarts are counted anew"
    )

    def __post_init__(self):
        if self.max_restarts < 0:
            raise UsageError(f"--max_restarts must be at least 0, not {self.max_restarts}")


def run_job(flags: JobFlags, words: Sequence[str] = ()) -> int:
    """Runs a command of this project in a child process, and starts it again when it asks."""
    child_command = _command(words)
    restarts = 0
    with _Supervisor() as supervisor:
        while True:
            start = time.monotonic()
            code = supervisor.run(child_command)
            if supervisor.was_asked or not _may_go_on(code):
                return code if code >= 0 else 128 - code
            if time.monotonic() - start >= flags.healthy_seconds:
                restarts = 0
            if restarts == flags.max_restarts:
                logging.error("%s; it was started again %d times", _ending(code), restarts)
                return code if code >= 0 else 128 - code
            seconds = min(2.0**restarts, _MOST_SECONDS_BEFORE_A_START)
            restarts += 1
            logging.warning(
                "%s: starting it again in %g s (%d of at most %d times)",
                *(_ending(code), seconds, restarts, flags.max_restarts),
            )
            if supervisor.wait(seconds):
                return RESUME_ME


def _command(words: Sequence[str]) -> list[str]:
    """What the child runs.

    Raises:
        UsageError: the first word is no command of this project.
    """
    module = words[0] if words else ""
    try:
        spec = importlib.util.find_spec(module) if module.split(".")[0] in _PACKAGES else None
    except ImportError:
        spec = None
    if spec is None or spec.submodule_search_locations is not None:  # a package is no command
        raise UsageError(
            f"{module!r} is no command: the first word must be one, as pipeline.run or"
            " training.train, and its flags follow"
        )
    return [sys.executable, "-m", *words]


def _may_go_on(code: int) -> bool:
    """Whether the command, which nobody asked to end, may go on when it is started again.

    A signal that comes from elsewhere is most often the kernel's, for lack of memory.
    """
    return code == RESUME_ME or code < 0


def _ending(code: int) -> str:
    if code < 0:
        return f"the command was ended by {signal.Signals(-code).name}"
    return "the command asks to be started again"


class _Supervisor:
    """Runs children, and hands on to them what asks this process to end."""

    def __init__(self):
        self._child: subprocess.Popen | None = None
        self._asked = threading.Event()

    @property
    def was_asked(self) -> bool:
        """Whether a signal has asked this process to end."""
        return self._asked.is_set()

    def run(self, child_command: Sequence[str]) -> int:
        """Runs a child to its end; its exit code, or the negative number of a signal."""
        # A group of its own: what a terminal sends to ours reaches it once, through this process.
        self._child = subprocess.Popen(
            child_command,
            start_new_session=True,
            preexec_fn=end_with(os.getpid()),  # noqa: PLW1509 -- of one thread
        )
        if self.was_asked:  # while it was being started
            self._child.send_signal(signal.SIGTERM)
        return self._child.wait()

    def wait(self, seconds: float) -> bool:
        """Waits, for as long or until a signal comes; whether one did."""
        return self._asked.wait(seconds)

    def __enter__(self) -> _Supervisor:
        self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _) -> None:
        self._asked.set()
        if self._child is not None and self._child.poll() is None:
            os.kill(self._child.pid, number)


def own_and_behind(argv: Sequence[str]) -> list[str]:
    """The command line with a bare `--` before the first word that is no flag."""
    place = next((n for n, word in enumerate(argv[1:], 1) if not word.startswith("-")), len(argv))
    if "--" in argv[:place]:
        return list(argv)
    return [*argv[:place], "--", *argv[place:]]


if __name__ == "__main__":
    command.run(
        run_job,
        JobFlags,
        argv=own_and_behind(sys.argv),
        passthrough="a command of this project, as training.train, and its flags (the -- may go)",
    )
