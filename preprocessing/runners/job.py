"""The Beam graph that writes shards.

What crosses Beam is shard numbers, and what a worker needs it reads from the plan beside the
shards: so the graph is of one size for ten images or a million, and images never pass through a
shuffle.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from common.errors import UserError
from preprocessing.plan import Plan, load_plan
from preprocessing.runners.config import RunnerConfig, require_reachable
from preprocessing.runners.counters import describe
from preprocessing.runners.local import WorkerDied, run_locally
from preprocessing.runners.names import DATAFLOW, DIRECT
from preprocessing.runners.progress import shard_progress
from preprocessing.runners.quiet_import import import_beam
from preprocessing.runners.remote import JobFailed, run_remotely
from preprocessing.shard_writer import write_shard

if TYPE_CHECKING:
    from apache_beam.runners.runner import PipelineResult

beam = import_beam()

_FAILURE = re.compile(r"shard failed: (\"(?:[^\"\\]|\\.)*\")")


class WriteShard(beam.DoFn):
    """Writes the shard of a number, and passes the number on.

    Args:
        source_root: what the paths of the plan are relative to.
        data_dir: where plan and shards lie.
        split: whose plan it is.
        body_sha256: which plan it must be; a bucket cannot keep another build out.
        read_threads: threads that read ahead; None leaves it to the kind of source.
    """

    def __init__(
        self,
        source_root: str,
        data_dir: str,
        split: str,
        body_sha256: str,
        read_threads: int | None,
    ):
        self._source_root, self._data_dir, self._split = source_root, data_dir, split
        self._body_sha256, self._read_threads = body_sha256, read_threads

    def setup(self) -> None:
        with _errors_as_text():
            self._plan = load_plan(self._data_dir, self._split)
            if self._plan is None:
                raise UserError(
                    f"a worker does not find the plan in {self._data_dir}: --output_dir must be"
                    " where every worker sees it, in a bucket or on a shared disk"
                )
            if self._plan.body_sha256 != self._body_sha256:
                raise UserError(
                    f"another build has put its plan into {self._data_dir}: use another"
                    " --output_dir"
                )

    def process(self, index: int) -> Iterator[int]:
        start = time.monotonic()
        with _errors_as_text():
            result = write_shard(
                self._source_root, self._data_dir, self._plan, index, self._read_threads
            )
        counter = beam.metrics.Metrics.counter
        for name, count in result.counts.items():
            counter("images", name).inc(count)
        counter("shards", "written").inc()
        counter("bytes", "written").inc(result.num_bytes)
        milliseconds = round(1000 * (time.monotonic() - start))
        beam.metrics.Metrics.distribution("shards", "milliseconds").update(milliseconds)
        yield index


def write_shards(
    source_root: str,
    data_dir: str,
    plan: Plan,
    todo: Sequence[int],
    runner: RunnerConfig,
    read_threads: int | None = None,
) -> None:
    """Writes the shards `todo` of a saved plan, and returns when they are there.

    Raises:
        UserError: a shard could not be written, a worker died, or the job failed.
    """
    if runner.runner == DATAFLOW:
        require_reachable(source_root, "source")
        require_reachable(data_dir, "output_dir")
    do_fn = WriteShard(source_root, data_dir, plan.split, plan.body_sha256, read_threads)

    def construct(pipeline: beam.Pipeline) -> None:
        _ = (
            pipeline
            | "Shard numbers" >> beam.Create(todo)
            | "Deal to workers" >> beam.Reshuffle()
            | "Write shards" >> beam.ParDo(do_fn)
            # The local runner notices that a worker has died only where it waits for output.
            | "Count shards" >> beam.combiners.Count.Globally()
        )

    with shard_progress(data_dir, plan, todo):
        result = _run(construct, runner, len(todo))
    if counters := describe(result):
        logging.info(counters)


def _run(
    construct: Callable[[beam.Pipeline], None], runner: RunnerConfig, num_shards: int
) -> PipelineResult:
    try:
        if runner.runner == DIRECT:
            return run_locally(construct, min(runner.num_workers, num_shards), runner)
        return run_remotely(construct, runner)
    except WorkerDied:
        raise UserError(
            "a worker process died, perhaps for lack of memory: run the same command again,"
            " with a smaller --num_workers (finished shards are kept)"
        ) from None
    except JobFailed as error:
        raise UserError(
            _failed_shard(error.report) or f"{error} (finished shards are kept)"
        ) from error
    except RuntimeError as error:
        if reason := _failed_shard(str(error)):
            raise UserError(reason) from None
        raise


def _failed_shard(report: str) -> str | None:
    """What `_errors_as_text` has put into an error, out of all that a runner adds."""
    found = _FAILURE.search(report)
    return json.loads(found.group(1)) if found else None


@contextlib.contextmanager
def _errors_as_text() -> Iterator[None]:
    """Runners hand on the text of an error, not its type."""
    try:
        yield
    except UserError as error:
        raise RuntimeError(f"shard failed: {json.dumps(str(error))}") from None
