"""Runs a Beam pipeline elsewhere: on Flink, on Dataflow, on whatever a job server stands for.

What Beam lacks here: its notes are kept off the screen, an interrupted build takes its job with it,
a job server that was started for the build ends with it however that ends, and what went wrong is
told in one line.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from common.errors import first_line
from preprocessing.runners import leashed
from preprocessing.runners.config import RunnerConfig
from preprocessing.runners.names import DATAFLOW, FLINK
from preprocessing.runners.options import make_options
from preprocessing.runners.quiet_import import import_beam

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

_PYTHON_ERROR = re.compile(r"^\w[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*", re.MULTILINE)

# Dataflow takes a request to cancel within a second or two; Flink's job server at once.
_SECONDS_TO_CANCEL = 30.0


class JobFailed(Exception):
    """A job has not been done.

    Attributes:
        report: all that the runner says about it.
    """

    def __init__(self, message: str, report: str):
        super().__init__(message)
        self.report = report


def run_remotely(
    construct: Callable[[beam.Pipeline], None], config: RunnerConfig
) -> PipelineResult:
    """Runs the pipeline that `construct` builds, and returns when it is done.

    Raises:
        JobFailed: it failed, was cancelled, or could not even begin.
    """
    beam = import_beam(whole=True)
    last_words = _hush_beam(config)
    options = make_options(config.runner, config.beam_flags)
    if config.runner == FLINK:
        _leash_job_server(options)
    pipeline = beam.Pipeline(options=options)
    construct(pipeline)
    try:
        state, result = _run_to_the_end(pipeline)
    except Exception as error:
        reason = _reason(str(error)) or first_line(error)
        if last_words and "failed to start" in reason:
            reason = f"{reason}; the job server's last words: {last_words[-1]}"
        raise JobFailed(f"the job failed on {config.runner}: {reason}", str(error)) from error
    if state in ("FAILED", "CANCELLED", "UPDATED", "DRAINED"):
        raise JobFailed(f"the job on {config.runner} has ended as {state}", state)
    return result


def _run_to_the_end(pipeline: beam.Pipeline) -> tuple[str, PipelineResult]:
    # Where workers are threads of this process, what they raise is printed, and raised here again.
    with open(os.devnull, "w") as nothing, contextlib.redirect_stderr(nothing):
        result = pipeline.run()
        # Ctrl-C is raised in the main thread, wherever that happens to be. Within the client of the
        # job server it could leave a lock behind that nobody opens again: so a thread waits there.
        waiting = _Call(result.wait_until_finish)
        try:
            return waiting.outcome(), result
        except KeyboardInterrupt:
            with contextlib.suppress(Exception):
                _Call(result.cancel).outcome(_SECONDS_TO_CANCEL)
            raise


class _Call(threading.Thread):
    """Calls a function in a thread that does not keep the process alive."""

    def __init__(self, function: Callable[[], Any]):
        super().__init__(daemon=True)
        self._function = function
        self._returned: Any = None
        self._raised: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._returned = self._function()
        except BaseException as error:
            self._raised = error

    def outcome(self, seconds: float | None = None) -> Any:
        """What the function returns or raises; None if it is not done within `seconds`."""
        self.join(seconds)
        if self._raised is not None:
            raise self._raised
        return self._returned


def _leash_job_server(options: PipelineOptions) -> None:
    from apache_beam.options.pipeline_options import JobServerOptions

    server = options.view_as(JobServerOptions)
    server.job_server_jvm_properties = [
        leashed.__file__,
        server.job_server_java_launcher,
        *(server.job_server_jvm_properties or ()),
    ]
    server.job_server_java_launcher = sys.executable


def _reason(report: str) -> str:
    """The line of a report that says most: that of the innermost Python error, if there is one."""
    errors = _PYTHON_ERROR.findall(report)
    return errors[-1] if errors else ""


def _hush_beam(config: RunnerConfig) -> collections.deque[str]:
    """Keeps the log of Beam and of a job server off the screen, but for Dataflow's own.

    For good, since a job server speaks until the process ends, and Beam's threads that listen to it
    complain when it is gone.

    Returns:
        The last line of the job server, for the case that it does not even start.
    """
    last_words: collections.deque[str] = collections.deque(maxlen=1)

    def passes(record: logging.LogRecord) -> bool:
        if "apache_beam" not in record.pathname:
            return True
        if record.funcName == "log_stdout":
            last_words.append(record.getMessage())
        return config.runner == DATAFLOW and record.name.startswith("apache_beam.runners.dataflow")

    for handler in logging.getLogger().handlers:
        handler.addFilter(passes)
    hook_before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        frames = traceback.extract_tb(failure.exc_traceback)
        if not any("apache_beam" in frame.filename for frame in frames):
            hook_before(failure)

    threading.excepthook = hook
    return last_words
