"""The same work on many files: in threads for a bucket, in processes where it is enough."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from typing import Any

from common.errors import UserError
from common.progress import Progress

REMOTE_THREADS = 16

# Bytes that are hopped through in about the time that processes take to start.
PROCESSES_FROM_BYTES = 2 << 30


def map_files(
    work: Callable[[Any], Any],
    tasks: Sequence[Any],
    num_bytes: int,
    is_remote: bool,
    unit: str,
    description: str,
) -> Iterator[Any]:
    """Yields `work(task)` for each task, in order, with progress.

    It may start processes, so a script that calls it needs the usual `if __name__ == "__main__"`.

    Args:
        work: a function of a module, since processes find it by its name.
        tasks: one for each file.
        num_bytes: of all files.
        is_remote: whether they lie in a bucket.
        unit: what one task is called.
        description: what is going on.

    Raises:
        UserError: a process was killed, or what `work` raises.
    """
    with Progress(len(tasks), unit, description) as progress:
        workers = min(os.cpu_count() or 1, len(tasks))
        pool: Executor | None = None
        if is_remote:
            pool = ThreadPoolExecutor(REMOTE_THREADS)
        elif workers > 1 and len(tasks) > 4 and num_bytes >= PROCESSES_FROM_BYTES:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, context, _leave_interrupts_to_the_parent)
        try:
            for result in (pool.map if pool else map)(work, tasks):
                progress.update(1)
                yield result
        except BrokenProcessPool:
            raise UserError(
                "a process that lists was killed, perhaps for lack of memory: run it again"
            ) from None
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
