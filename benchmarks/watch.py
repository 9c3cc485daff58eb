"""What a build does from outside: when its shards come, and how much memory its workers take."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import subprocess
import threading
import time
from collections.abc import Sequence

_SECONDS_BETWEEN_LOOKS = 0.005
_LOOKS_PER_MEMORY_CHECK = 20


@dataclasses.dataclass(frozen=True)
class Watched:
    """A build that has ended well.

    Attributes:
        seconds: from the start of its process to its end.
        seconds_to_first_shard: from the start of its process until a shard was begun.
        seconds_of_shards: from the begin of the first shard to the end of the last.
        worker_mib: most memory that any of its worker processes held (0 if it had none).
    """

    seconds: float
    seconds_to_first_shard: float
    seconds_of_shards: float
    worker_mib: float


def watch_build(command: Sequence[str], data_dir: str, split: str, num_shards: int) -> Watched:
    """Runs a build into an empty directory and looks at the directory meanwhile.

    Raises:
        subprocess.CalledProcessError: the build failed.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output: list[bytes] = []
    reader = threading.Thread(target=lambda: output.append(process.stdout.read()), daemon=True)
    reader.start()
    first = last = None
    peak, look = 0.0, 0
    shard = re.compile(rf"{re.escape(split)}-\d+-of-\d+")
    while process.poll() is None:
        now = time.perf_counter() - start
        names = os.listdir(data_dir) if os.path.isdir(data_dir) else []
        if first is None and any(shard.search(name) for name in names):
            first = now
        if last is None and sum(bool(shard.fullmatch(name)) for name in names) == num_shards:
            last = now
        if look % _LOOKS_PER_MEMORY_CHECK == 0:
            peak = max([peak, *map(_peak_mib, _workers_of(process.pid))])
        look += 1
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    seconds = time.perf_counter() - start
    reader.join()
    if process.returncode or first is None or last is None:
        raise subprocess.CalledProcessError(process.returncode, command, output[0])
    return Watched(seconds, first, last - first, peak)


def _workers_of(pid: int) -> list[int]:
    """All processes below one; any of its threads may have started them."""
    direct = []
    with contextlib.suppress(OSError):  # it has just ended
        for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
            direct += map(int, (thread / "children").read_text().split())
    return [*direct, *(inner for child in direct for inner in _workers_of(child))]


def _peak_mib(pid: int) -> float:
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024
    except (OSError, AttributeError):
        return 0.0
