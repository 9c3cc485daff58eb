"""How long an export takes for an image: `python -m benchmarks.latency --export_dir=DIR`.

The SavedModel and each LiteRT file, with one thread and with two. Each side lives in a process of
its own that knows nothing of the project, and the sides take turns of a few inferences, so that
what else the machine does hits all of them alike. `--beside=keras.applications` sets that
library's model of the same architecture beside it, exported in the same run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.turns import ratios, spread, take_turns
from common import files
from common.command import flag, run
from common.errors import UsageError, UserError
from pipeline import formats

if TYPE_CHECKING:
    from training.models import ModelRecord

OURS, KERAS = "ours", "keras.applications"
TIMED = (formats.SAVED_MODEL, *formats.LITERT)
_PERCENTILES = ("median", "p10", "p90")
_QUIET = 0.7  # load average from which a warning is printed
_ROOT = pathlib.Path(__file__).parents[1]
# What a shell or our own commands may have set, which none of the sides is to inherit.
_NOT_INHERITED = ("MALLOC_", "TF_ENABLE_ONEDNN_OPTS", "OMP_", "LD_PRELOAD", "GLIBC_TUNABLES")


@dataclasses.dataclass(frozen=True)
class LatencyConfig:
    """Flags of the command."""

    export_dir: str = flag(help="export of pipeline.export, local or gs://BUCKET/NAME")
    formats: tuple[str, ...] = flag((), help="which of its formats; by default all that are timed")
    threads: tuple[int, ...] = flag((1, 2), help="numbers of threads")
    batch_size: int = flag(1, help="images in an inference")
    rounds: int = flag(20, help="turns of each side that are measured")
    runs: int = flag(5, help="inferences in a turn")
    beside: str = flag("", help="what else is timed", choices=("", KERAS))
    json: str = flag("", help="JSON file for the same figures; empty for none")

    def __post_init__(self):
        for name in ("batch_size", "rounds", "runs"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, not {getattr(self, name)}")
        if not self.threads or min(self.threads) < 1:
            raise UsageError("--threads takes numbers from 1 on, such as 1,2")
        unknown = [name for name in self.formats if name not in TIMED]
        if unknown:
            raise UsageError(f"--formats knows {', '.join(TIMED)}; not {', '.join(unknown)}")


class Side(NamedTuple):
    """What is timed: whose, in which format, with how many threads."""

    owner: str
    format: str
    threads: int


@dataclasses.dataclass
class Times:
    """Seconds of all inferences of a side, on the clock and of the processor."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)


def measure_latency(config: LatencyConfig) -> None:
    """Times an export's SavedModel and LiteRT files, image by image."""
    if config.json:
        files.require_writable_file(config.json, "json")
    if not files.is_directory(config.export_dir):
        raise UsageError(f"--export_dir={config.export_dir} is no directory")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(files.local_copy(config.export_dir))
        ours = find_artifacts(directory, config.formats, config.export_dir)
        if any(name in formats.LITERT for name in ours):
            _require_litert()
        record = read_record(directory)
        paths = {OURS: ours}
        if config.beside:
            from benchmarks.keras_export import require_rival, write_rival
            from training import runtime

            require_rival(record)
            runtime.start()
            there = stack.enter_context(tempfile.TemporaryDirectory())
            paths[config.beside] = write_rival(record, ours, there)
        figures = summarize(*_time(config, paths, record.input_range), config.batch_size)
    figures["machine"] = describe_machine()
    if config.json:
        files.write_json(config.json, figures)
    _print_table(config, record, figures)


def find_artifacts(directory: str, wanted: tuple[str, ...], shown_as: str) -> dict[str, str]:
    """Path of each format that is there and is timed.

    Raises:
        UserError: a format that is wanted is not there, or none is at all.
    """
    paths = {name: os.path.join(directory, formats.PATHS[name]) for name in wanted or TIMED}
    found = {name: path for name, path in paths.items() if os.path.exists(path)}
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        what = f"no {', '.join(missing)}" if missing else "neither a SavedModel nor a LiteRT file"
        raise UserError(f"{shown_as} holds {what}: export it with pipeline.export --formats=all")
    return found


def read_record(directory: str) -> ModelRecord:
    """The record of an export, which older ones keep beside the SavedModel only."""
    from training.models import ModelRecord

    inner = os.path.join(directory, formats.PATHS[formats.SAVED_MODEL])
    is_outside = os.path.isfile(os.path.join(directory, "model.json"))
    return ModelRecord.read(directory if is_outside else inner)


def summarize(
    turns: dict[Side, list[float]], times: dict[Side, Times], batch_size: int
) -> dict[str, Any]:
    """Rows of milliseconds, and ratios of ours over the other's, turn by turn.

    Args:
        turns: median seconds of each turn, by side.
        times: those of all inferences.
        batch_size: images in an inference.
    """
    rows = [
        {
            "side": side.owner,
            "artifact": side.format,
            "threads": side.threads,
            "batch": batch_size,
            "median_ms": 1000 * statistics.median(times[side].seconds),
            "p10_ms": 1000 * percentile(times[side].seconds, 10),
            "p90_ms": 1000 * percentile(times[side].seconds, 90),
            "processor_ms": 1000 * statistics.median(times[side].processor),
        }
        for side in turns
    ]
    over = []
    for side, theirs in turns.items():
        if side.owner == OURS:
            continue
        other = side._replace(owner=OURS)
        processor = [statistics.median(times[each].processor) for each in (other, side)]
        over.append(
            {
                "artifact": side.format,
                "threads": side.threads,
                "over": side.owner,
                "ratio": spread(ratios(turns[other], theirs)),
                "processor_ratio": processor[0] / processor[1],
            }
        )
    return {"rows": rows, "ratios": over}


def percentile(values: list[float], percent: float) -> float:
    """The value below which `percent` of them lie, between neighbours in proportion."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def describe_machine() -> dict[str, Any]:
    """What the figures hang on."""
    versions = {}
    for name in ("tensorflow", "keras", "ai-edge-litert"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": _processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "load": os.getloadavg()[0],
        "versions": versions,
    }


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _require_litert() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise UserError("LiteRT files need their interpreter: pip install ai-edge-litert")


def _time(
    config: LatencyConfig, paths: dict[str, dict[str, str]], input_range: tuple[float, float]
) -> tuple[dict[Side, list[float]], dict[Side, Times]]:
    """Median seconds of each turn, and all seconds, by side."""
    times: dict[Side, Times] = {}
    with contextlib.ExitStack() as stack:
        calls = {}
        for name in paths[OURS]:
            for threads in config.threads:
                for owner, artifacts in paths.items():
                    if name not in artifacts:
                        continue
                    side = Side(owner, name, threads)
                    process = stack.enter_context(
                        _process(side, artifacts[name], config.batch_size, input_range)
                    )
                    times[side] = Times()
                    calls[side] = _caller(process, side, config.runs, times[side])
        for call in calls.values():  # warm again: the first ones have waited for the last
            call()
        for each in times.values():
            each.seconds.clear()
            each.processor.clear()
        return take_turns(calls, config.rounds), times


def _caller(process: subprocess.Popen, side: Side, runs: int, times: Times):
    def turn() -> float:
        process.stdin.write(f"{runs}\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise UserError(f"{side.format} of {side.owner} has ended with {process.wait()}")
        seconds, processor = json.loads(answer)
        times.seconds += seconds
        times.processor += processor
        return statistics.median(seconds)

    return turn


@contextlib.contextmanager
def _process(
    side: Side, path: str, batch_size: int, input_range: tuple[float, float]
) -> Iterator[subprocess.Popen]:
    """A process that has warmed up and makes inferences when it is asked."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    kind = "litert" if side.format in formats.LITERT else "saved_model"
    words = [kind, path, side.threads, batch_size, *input_range]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(_ROOT / "benchmarks" / "latency_sides.py"), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**inherited, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        try:
            if process.stdout.readline() != "ready\n":
                process.wait()
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:]
                raise UserError(f"{side.format} of {side.owner} cannot run: {''.join(last)}")
            yield process
        finally:
            process.kill()
            process.communicate()


def _print_table(config: LatencyConfig, record: ModelRecord, figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    load = figures["machine"]["load"]
    if load > _QUIET:
        print(f"The machine is busy (load {load:.1f}): take the ratios, not the times.")
    model = f"{record.config.name} {record.config.width_multiplier}"
    size = "{}x{}".format(*record.config.resolution)
    table = Table(title=f"{escape(model)} at {size}: milliseconds, batch {config.batch_size}")
    over = {(each["artifact"], each["threads"]): each for each in figures["ratios"]}
    ours = [row for row in figures["rows"] if row["side"] == OURS]
    others = {(r["artifact"], r["threads"]): r for r in figures["rows"] if r["side"] != OURS}
    table.add_column("artifact", min_width=max(map(len, TIMED)))
    headings = ("ours", "other", "ratio", "p10", "p90", "CPU ratio") if over else _PERCENTILES
    for heading in ("threads", *headings):
        table.add_column(heading, justify="right")
    for row in ours:
        key = (row["artifact"], row["threads"])
        words = [f"{row['median_ms']:.2f}"]
        if not over:
            words += [f"{row['p10_ms']:.2f}", f"{row['p90_ms']:.2f}"]
        elif key in over:
            turns = over[key]["ratio"]["all"]
            words.append(f"{others[key]['median_ms']:.2f}")
            words += [f"{percentile(turns, percent):.2f}" for percent in (50, 10, 90)]
            words.append(f"{over[key]['processor_ratio']:.2f}")
        table.add_row(row["artifact"], f"{row['threads']}", *words)
    if over:
        table.caption = f"other: {KERAS}; ratio: ours over it, turn by turn"
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run(measure_latency, LatencyConfig)
