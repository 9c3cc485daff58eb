"""How far a job is that writes shards, told by the row files that it leaves behind."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from common.errors import UserError
from common.files import is_remote, list_directory, remove
from common.progress import Progress
from preprocessing import layout
from preprocessing.plan import Plan

_SECONDS = 0.5
_SECONDS_FOR_BUCKETS = 10.0


@contextlib.contextmanager
def shard_progress(data_dir: str, plan: Plan, todo: Sequence[int]) -> Iterator[None]:
    """Counts the images of finished shards while the block runs.

    Whatever runs the job, and wherever it does, a shard's row file is written last.
    """
    done, total = sum(plan.num_images), sum(plan.num_images[index] for index in todo)
    paths = {index: layout.row_file(data_dir, plan.split, index) for index in todo}
    waiting = {os.path.basename(path): index for index, path in paths.items()}
    folder = os.path.dirname(paths[todo[0]])
    for name in waiting.keys() & _names(folder):
        remove(paths[waiting[name]])
    stop = threading.Event()

    def watch(progress: Progress) -> None:
        while not stop.wait(_SECONDS_FOR_BUCKETS if is_remote(data_dir) else _SECONDS):
            # One listing less does no harm; the job itself says what is wrong with the bucket.
            with contextlib.suppress(OSError, UserError):
                finished = [waiting.pop(name) for name in waiting.keys() & _names(folder)]
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


def _names(folder: str) -> set[str]:
    try:
        return {entry.name for entry in list_directory(folder)}
    except FileNotFoundError:  # nothing has been written yet
        return set()
