"""The entry point of a container: runs one command, and starts it again when it asks for that.

    python -m pipeline.job training.train --data_dir=gs://BUCKET/data --model_dir=gs://BUCKET/run

The first word is a command of this project, the rest are its flags; flags before it are this
module's own. A training process ends with exit code 75 when it was asked to end, and when it has
lost another worker. In the first case so does this one, for the scheduler to start the job
elsewhere; in the second it starts the command again, which waits for the others and goes on from
the last checkpoint. That is quicker than a new machine, and uses up no restart of the scheduler's.

Exit codes are the command's own: 0 done; 1 the run failed; 2 the command line is wrong; 75 the same
command goes on; 128 + N it was ended by signal N. Vertex AI starts a worker again in its machine
after any code but 0, up to five times, and then the job up to three times; Kubernetes by the rules
of `infra/kubernetes/`: 75 again, 1 and 2 never.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from common import command, logs
from common.command import flag
from common.errors import UsageError
from training.stopping import RESUME_ME
from training.worker_process import end_with, signal_name

_IS_COMMAND = '\nif __name__ == "__main__":'
_PACKAGES = ("benchmarks", "loaders", "pipeline", "preprocessing", "training")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_MOST_CRASHES = 2  # by signals such as SIGSEGV, which are seldom anybody's but the command's
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
        if self.healthy_seconds <= 0:
            raise UsageError(f"--healthy_seconds must be above 0, not {self.healthy_seconds:g}")


_OWN_FLAGS = tuple(field.name for field in dataclasses.fields(JobFlags))


def run_job(flags: JobFlags, words: Sequence[str] = ()) -> int:
    """Runs a command of this project in a child process, and starts it again when it asks."""
    child_command = _command(words)
    restarts = crashes = 0
    with _Supervisor() as supervisor:
        while True:
            start = time.monotonic()
            code = supervisor.run(child_command)
            if supervisor.was_asked:
                return RESUME_ME if code == -signal.SIGTERM else _exit_code(code)
            if time.monotonic() - start >= flags.healthy_seconds:
                restarts = crashes = 0
            crashes += _is_crash(code)
            if not _may_go_on(code):
                return _exit_code(code)
            if restarts == flags.max_restarts or crashes > _MOST_CRASHES:
                logging.error("%s; it was started again %d times", _ending(code), restarts)
                return _exit_code(code)
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
    # A module that is none would do nothing, and be taken for done.
    if spec is None or not spec.origin or _IS_COMMAND not in pathlib.Path(spec.origin).read_text():
        raise UsageError(
            f"{module!r} is no command: the first word must be one, as pipeline.run or"
            " training.train, and its flags follow"
        )
    return [sys.executable, "-m", *words]


def _may_go_on(code: int) -> bool:
    """Whether the command, which nobody asked to end, may go on when it is started again."""
    return code == RESUME_ME or code < 0


def _is_crash(code: int) -> bool:
    """Whether it ended by a signal that does not come from elsewhere.

    SIGKILL does, most often from the kernel, for lack of memory.
    """
    return code < 0 and code != -signal.SIGKILL


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


def _ending(code: int) -> str:
    if code < 0:
        return f"the command was ended by {signal_name(-code)}"
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
            env={**os.environ, logs.VARIABLE: logs.JSON if logs.is_json() else logs.TEXT},
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
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):  # it may have ended a moment ago
                os.kill(self._child.pid, number)


def own_and_behind(argv: Sequence[str]) -> list[str]:
    """The command line with a bare `--` before the first word that is no flag, nor its value."""
    place = 1
    while place < len(argv) and argv[place].startswith("-"):
        takes_next = argv[place].lstrip("-") in {"log_format", *_OWN_FLAGS}
        place += 2 if takes_next else 1
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
