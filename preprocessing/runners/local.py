"""Runs a Beam pipeline on this machine, in this process or in several worker processes.

Beam's own local runner does the work; this is what it lacks: workers get the pipeline's options and
can import the project, their chatter is left out, and a worker that dies ends the run instead of
leaving it waiting for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from preprocessing.runners.config import RunnerConfig
from preprocessing.runners.options import make_options
from preprocessing.runners.quiet_import import import_beam

beam = import_beam()

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.runner import PipelineResult

# Where Beam notices a dead worker by itself, it does so within a second.
_SECONDS_FOR_BEAM_TO_NOTICE = 5.0


class WorkerDied(Exception):
    """A worker process ended before its work did."""


def run_locally(
    construct: Callable[[beam.Pipeline], None], num_workers: int, config: RunnerConfig
) -> PipelineResult:
    """Runs the pipeline that `construct` builds, in `num_workers` processes (1: in this one).

    Raises:
        WorkerDied: a worker process was killed or could not start.
        RuntimeError: a step failed; the text holds the traceback of its error.
    """
    from apache_beam.runners.portability.fn_api_runner import fn_runner

    options = make_options(
        config.runner,
        config.beam_flags,
        direct_num_workers=num_workers,
        default_sdk_harness_log_level="CRITICAL",
    )
    with _quiet_beam():
        if num_workers == 1:
            return _run(construct, options, fn_runner.FnApiRunner())
        with _importable_by_workers(), _leash() as leash, _watch_over_workers(leash):
            return _run(construct, options, _runner(options, leash))


def _run(
    construct: Callable[[beam.Pipeline], None],
    options: PipelineOptions,
    runner: fn_runner.FnApiRunner,
) -> PipelineResult:
    # Given by the name DirectRunner, Beam may choose one that ignores the number of workers.
    pipeline = beam.Pipeline(runner=runner, options=options)
    construct(pipeline)
    result = pipeline.run()
    result.wait_until_finish()
    return result


@contextlib.contextmanager
def _leash() -> Iterator[str]:
    """Path of a file without which worker processes end."""
    with tempfile.TemporaryDirectory() as directory:
        leash = os.path.join(directory, "leash")
        with open(leash, "w"):
            pass
        yield leash


def _runner(options: PipelineOptions, leash: str) -> fn_runner.FnApiRunner:
    """A runner with worker processes, which get the options only if the runner is given them."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    python, path = shlex.quote(sys.executable), shlex.quote(leash)
    command = f"exec {python} -m preprocessing.runners.worker {path}"
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    return fn_runner.FnApiRunner(
        default_environment=SubprocessSDKEnvironment.from_command_string(command),
        provision_info=fn_runner.ExtendedProvisionInfo(
            beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
        ),
    )


@contextlib.contextmanager
def _watch_over_workers(leash: str) -> Iterator[None]:
    """Ends the block, which must run in the main thread, with `WorkerDied` when a worker dies.

    Beam has a thread for each worker, which fails when the worker does, and nobody listens. Beam
    itself notices only if the worker was writing output. Where it does not, the other workers are
    let go and the main thread, which waits for a lock, is woken by a signal.
    """
    died = threading.Event()
    timers = []

    def give_up() -> None:
        os.remove(leash)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def on_failure(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is not None and failure.thread.name == "run_worker" and not died.is_set():
            died.set()
            timers.append(threading.Timer(_SECONDS_FOR_BEAM_TO_NOTICE, give_up))
            timers[0].start()

    def on_signal(*_) -> None:
        raise WorkerDied

    thread_hook, threading.excepthook = threading.excepthook, on_failure
    signal_handler = signal.signal(signal.SIGUSR1, on_signal)
    try:
        yield
    except RuntimeError:
        if not died.is_set():
            raise
        raise WorkerDied from None
    finally:
        for timer in timers:
            timer.cancel()
        signal.signal(signal.SIGUSR1, signal_handler)
        threading.excepthook = thread_hook


@contextlib.contextmanager
def _quiet_beam() -> Iterator[None]:
    """Beam logs every failing step with its traceback; the one that matters is raised."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _importable_by_workers() -> Iterator[None]:
    """Worker processes find this package by PYTHONPATH, wherever the build was started."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
