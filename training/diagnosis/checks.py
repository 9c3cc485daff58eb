"""What can be found wrong before a long run: disk, data, batch, memory, decays too slow."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from common import files
from common.errors import UserError
from training.config import OptimizationFlags, Recipe
from training.dry_run import num_steps, run_bytes, step_bytes
from training.models.configs import MobileNetConfig
from training.readers.memory import buffer_bytes
from training.words import bytes_in_words

if TYPE_CHECKING:
    from training.shards import Shards
    from training.strategies import Devices

OK, WARNING, ERROR = "ok", "warning", "error"

# So much of what a run starts with may be left in its last statistics.
_MUCH_OF_THE_START = 0.1
_READ_AT_ONCE = 64

# TensorFlow and its libraries in a process that does nothing yet.
_PROCESS_BYTES = 600_000_000


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was looked at.
        level: `OK`, `WARNING` or `ERROR`.
        text: for people.
    """

    check: str
    level: str
    text: str


def check_disk(model_dir: str, recipe: Recipe, config: MobileNetConfig) -> Finding:
    """Whether the checkpoints of a run fit where it is to live."""
    need = run_bytes(recipe, config)
    if not model_dir or files.is_remote(model_dir):
        return Finding("disk", OK, f"the run needs {bytes_in_words(need)}")
    free = shutil.disk_usage(_existing_parent(model_dir)).free
    return disk_finding(need, free, model_dir)


def disk_finding(need: int, free: int, model_dir: str) -> Finding:
    text = f"checkpoints need {bytes_in_words(need)}, {bytes_in_words(free)} are free"
    if need > free:
        return Finding("disk", ERROR, f"{text}: choose another --model_dir than {model_dir}")
    if 2 * need > free:
        return Finding("disk", WARNING, f"{text}: it is tight")
    return Finding("disk", OK, text)


def check_split(
    shards: Shards, num_sampled: int, deep: bool = False, what: str = ""
) -> Iterator[Finding]:
    """Whether the files of a split are whole, and records drawn from them, or all of them, too.

    Args:
        shards: the split.
        num_sampled: records that are decoded.
        deep: whether the checksums of all are compared as well.
        what: whose files they are, before the names of the checks.
    """
    findings = [check_sizes(shards)]
    if findings[0].level == OK:
        if deep:
            findings.append(check_all_records(shards))
        findings.append(check_records(shards, sample_of(shards.num_examples, num_sampled)))
    for finding in findings:
        yield dataclasses.replace(finding, check=f"{what} {finding.check}".strip())


def check_sizes(shards: Shards) -> Finding:
    """Whether every shard is there, as long as the list of its records says."""
    wrong = []
    to_their_ends = _read_to_the_end(shards)
    for path, bounds in zip(shards.paths, shards.bounds, strict=True):
        size, end = _size_or_none(path), int(bounds[-1])
        if size is None:
            wrong.append(f"{path} is missing")
        elif size < end or (size > end and path in to_their_ends):
            wrong.append(f"{path} has {size:,} bytes instead of {end:,}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Finding("shards", ERROR, f"{wrong[0]}{more}: build or copy it anew")
    return Finding("shards", OK, f"all {len(shards.paths)} files are there and whole")


def check_records(shards: Shards, examples: Sequence[int]) -> Finding:
    """Whether these records (places in the split) are whole, and their photos can be decoded."""
    for shard, record in (_locate(shards, place) for place in examples):
        try:
            reason = shards.check(shard, record)
        except UserError as error:
            reason = str(error)
        if reason:
            return Finding("records", ERROR, reason)
    return Finding("records", OK, f"{len(examples)} records drawn at random are whole")


def check_all_records(shards: Shards) -> Finding:
    """Whether the checksums of all records are right; it reads the whole split."""
    for shard, first, count in shards.windows(_READ_AT_ONCE).tolist():
        try:
            shards.read(shard, first, count)
        except UserError as error:
            return Finding("records", ERROR, str(error))
    return Finding("records", OK, f"the checksums of all {shards.num_examples:,} are right")


def sample_of(num_examples: int, count: int, seed: int = 0) -> list[int]:
    """Places of so many records, spread over the split."""
    count = min(count, num_examples)
    edges = np.linspace(0, num_examples, count + 1).astype(np.int64)
    rng = np.random.default_rng(seed)
    return [int(rng.integers(edges[i], max(edges[i] + 1, edges[i + 1]))) for i in range(count)]


def check_batch(recipe: Recipe, devices: Devices, num_examples: int) -> Finding:
    """Whether the global batch can be shared by the replicas, by the rule of training."""
    from training.strategies import share_batch

    batch = recipe.optimization.batch_size
    try:
        share = share_batch(recipe, devices)
    except UserError as error:
        return Finding("batch", ERROR, str(error))
    if batch > num_examples:
        text = f"--batch_size={batch} is more than the {num_examples} examples there are"
        return Finding("batch", WARNING, text)
    return Finding("batch", OK, f"{share} on each of {devices.num_replicas} replicas")


def check_memory(
    recipe: Recipe,
    config: MobileNetConfig,
    mean_record_bytes: float,
    local_replicas: int,
    share: int,
    teacher: MobileNetConfig | None = None,
) -> Finding:
    """Whether step and buffers fit into the memory that is free now; of a GPU's nothing is said.

    Args:
        recipe: all flags.
        config: the model.
        mean_record_bytes: of the data.
        local_replicas: those of this machine.
        share: examples of a batch that each of them gets.
        teacher: the model whose outputs are learnt, if there is one.
    """
    data = recipe.data
    batch = share * local_replicas
    buffers = sum(
        buffer_bytes(
            data.num_streams, data.shuffle_window, mean_record_bytes, batch, config.resolution
        )
    )
    steps = step_bytes(config, recipe.optimization, share, teacher) * local_replicas
    need = _PROCESS_BYTES + buffers + steps
    free = available_memory()
    return memory_finding(need, free)


def memory_finding(need: int, free: int | None) -> Finding:
    text = f"training takes about {bytes_in_words(need)}"
    if free is None:
        return Finding("memory", OK, text)
    text += f", {bytes_in_words(free)} are free"
    if need > free:
        remedy = "lower --batch_size, or raise --gradient_accumulation"
        return Finding("memory", ERROR, f"{text}: {remedy}")
    return Finding("memory", WARNING if 1.25 * need > free else OK, text)


def check_decays(
    config: MobileNetConfig, optimization: OptimizationFlags, num_examples: int
) -> Iterator[Finding]:
    """Whether moving statistics forget what they start with before the run ends."""
    steps = num_steps(optimization, num_examples)
    left = config.batch_norm_decay**steps
    text = f"{left:.1%} of the first statistics are left after {steps:,} steps"
    if left > _MUCH_OF_THE_START:
        best = _decay_for(steps)
        text += f": evaluation would be wrong; take --batch_norm_decay={best:g} or less"
    yield Finding("batch norm decay", WARNING if left > _MUCH_OF_THE_START else OK, text)
    if optimization.ma_decay_rate:
        left = start_in_averages(optimization.ma_decay_rate, steps)
        text = f"{left:.1%} of the first weights are left in the averages"
        if left > _MUCH_OF_THE_START:
            text += ": take --ma_decay_rate=0 for a run so short"
        yield Finding("averages", WARNING if left > _MUCH_OF_THE_START else OK, text)


def start_in_averages(decay: float, steps: int) -> float:
    """Part of the first weights in the averages; early averages follow quickly, as in slim."""
    step = np.arange(1, min(steps, 10_000_000) + 1)
    return float(np.exp(np.sum(np.log(np.minimum(decay, (1.0 + step) / (10.0 + step))))))


def available_memory() -> int | None:
    """Bytes that processes can still take; None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            rows = dict(line.split(":", 1) for line in file)
        free = int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return min([free, *_room_in_container()])


def _room_in_container() -> list[int]:
    """What a container's limit leaves, if it has one."""
    try:
        limits = [
            int(files.read_bytes(f"/sys/fs/cgroup/memory.{name}")) for name in ("max", "current")
        ]
    except (OSError, ValueError):  # there is none, or it is "max"
        return []
    return [max(0, limits[0] - limits[1])]


def _decay_for(steps: int) -> float:
    """The slowest usual decay that leaves little of the start after so many steps."""
    for decay in (0.9997, 0.999, 0.997, 0.99, 0.97, 0.9):
        if decay**steps <= _MUCH_OF_THE_START / 10:
            return decay
    return round(math.pow(_MUCH_OF_THE_START / 10, 1.0 / steps), 2)


def _locate(shards: Shards, place: int) -> tuple[int, int]:
    """Shard and record of the example at a place of the split."""
    firsts = np.asarray(shards.first_examples) - shards.first_example
    shard = int(np.searchsorted(firsts, place, side="right")) - 1
    return shard, place - int(firsts[shard])


def _read_to_the_end(shards: Shards) -> set[str]:
    """The files of which a split, or a part of one, takes all records, as far as that is known."""
    if shards.manifest is None:
        return set()
    counts = {shard.name: shard.num_examples for shard in shards.manifest.shards}
    return {
        path
        for path, size in zip(shards.paths, shards.sizes, strict=True)
        if counts.get(os.path.basename(path)) == size
    }


def _size_or_none(path: str) -> int | None:
    try:
        return files.file_size(path)
    except OSError:
        return None


def _existing_parent(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
