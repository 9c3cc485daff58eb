"""The Beam graph that writes shards, and how it is run on one machine.

What crosses Beam is shard numbers, so the graph is of one size for ten images or a million; images
never pass through a shuffle.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence

import apache_beam as beam

from common.errors import UserError
from common.progress import Progress
from preprocessing import images, layout
from preprocessing.local_runner import WorkerDied, run_locally
from preprocessing.plan import Plan
from preprocessing.shard_writer import write_shard

_FAILURE = re.compile(r"shard failed: (\"(?:[^\"\\]|\\.)*\")")


class WriteShard(beam.DoFn):
    """Writes the shard of a number, and passes the number on."""

    def __init__(self, input_dir: str, data_dir: str, plan: Plan):
        self._input_dir, self._data_dir, self._plan = input_dir, data_dir, plan

    def process(self, index: int) -> Iterator[int]:
        try:
            result = write_shard(self._input_dir, self._data_dir, self._plan, index)
        except UserError as error:
            # Runners hand on the text of an error, not its type.
            raise RuntimeError(f"shard failed: {json.dumps(str(error))}") from None
        counter = beam.metrics.Metrics.counter
        counter("shards", "bytes").inc(result.num_bytes)
        for row in result.rows:
            name = row.action if row.action != images.REJECTED else f"rejected: {row.reason}"
            counter("images", name).inc()
        yield index


def write_shards(
    input_dir: str, data_dir: str, plan: Plan, todo: Sequence[int], num_workers: int
) -> None:
    """Writes the shards `todo` on this machine, in this process or in `num_workers` others.

    Raises:
        UserError: a shard could not be written, or a worker died.
    """

    def construct(pipeline: beam.Pipeline) -> None:
        _ = (
            pipeline
            | "Shard numbers" >> beam.Create(todo)
            | "Deal to workers" >> beam.Reshuffle()
            | "Write shards" >> beam.ParDo(WriteShard(input_dir, data_dir, plan))
            # The local runner notices that a worker has died only where it waits for output.
            | "Count shards" >> beam.combiners.Count.Globally()
        )

    with _progress(data_dir, plan, todo):
        try:
            run_locally(construct, min(num_workers, len(todo)))
        except WorkerDied:
            raise UserError(
                "a worker process died, perhaps for lack of memory: run the same command again,"
                " with a smaller --num_workers (finished shards are kept)"
            ) from None
        except RuntimeError as error:
            found = _FAILURE.search(str(error))
            if not found:
                raise
            raise UserError(json.loads(found.group(1))) from None


@contextlib.contextmanager
def _progress(data_dir: str, plan: Plan, todo: Sequence[int]) -> Iterator[None]:
    """Counts the images of finished shards, by their row files, while the block runs."""
    done, total = sum(plan.num_images), sum(plan.num_images[index] for index in todo)
    waiting = {index: layout.row_file(data_dir, plan.split, index) for index in todo}
    for path in waiting.values():
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
    stop = threading.Event()

    def watch(progress: Progress) -> None:
        while not stop.wait(0.5):
            finished = [index for index, path in waiting.items() if os.path.exists(path)]
            for index in finished:
                del waiting[index]
            progress.update(
                sum(plan.num_images[index] for index in finished),
                f"{len(todo) - len(waiting)}/{len(todo)} shards",
            )

    with Progress(done, "img", "writing shards", initial=done - total) as progress:
        thread = threading.Thread(target=watch, args=(progress,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
