"""How quickly photos become shards: `python -m benchmarks.build_dataset --photos=DIRECTORY`.

The build beside three other things, in turns: reading and writing the same files in one process,
which is the least that any build does; the Beam pipeline that one would write first; and, for
`--validate=decode`, TensorFlow's decoding of the same photos with nothing around it.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.turns import ratios, spread, take_turns
from benchmarks.watch import Watched, watch_build
from common.command import flag, run
from common.errors import UsageError, UserError
from common.files import require_writable_file, write_json

RAW, BUILD, PLAIN = "read and write, one process", "build", "plain Beam pipeline"
DECODE, DECODING_BUILD = "tf.io.decode_jpeg", "build --validate=decode"

_TRAIN = "train"


@dataclasses.dataclass(frozen=True)
class BuildBenchmarkConfig:
    """Flags of the command."""

    photos: str = flag(help="directory of class folders; its photos are repeated")
    num_files: int = flag(20_000, help="photos that the build and the raw copy take")
    num_plain_files: int = flag(
        2_000, help="photos that the plain pipeline takes, which holds all of them in memory"
    )
    num_decoded_files: int = flag(10_000, help="photos that are decoded")
    num_shards: int = flag(32, help="shards of a build")
    num_workers: int = flag(2, help="processes of a build, and threads that decode")
    rounds: int = flag(5, help="how often each side is measured")
    work_dir: str | None = flag(
        None, help="where files are written, several GB of them; the system's place by default"
    )
    json: str = flag("", help="JSON file for the same figures; empty for none")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"--{field.name} must be at least 1, not {value}")


def measure_building(config: BuildBenchmarkConfig) -> None:
    """Compares the build's images per second with copying, a plain pipeline, and decoding."""
    if config.json:
        require_writable_file(config.json, "json")
    with tempfile.TemporaryDirectory(dir=config.work_dir) as directory:
        bench = _Bench(config, directory)
        sides = {
            RAW: bench.raw,
            BUILD: lambda: bench.build(BUILD, config.num_files, config.num_workers),
            PLAIN: bench.plain,
            DECODE: bench.decode,
            DECODING_BUILD: lambda: bench.build(
                DECODING_BUILD, config.num_decoded_files, config.num_workers, "--validate=decode"
            ),
        }
        rates = take_turns(sides, config.rounds)
        figures = summarize(rates, bench.watched)
        figures["in one process"] = bench.start_up()
        figures["worker MiB"] = bench.worker_memory()
    if config.json:
        write_json(config.json, figures)
    _print_tables(figures)


def summarize(rates: dict[str, list[float]], watched: dict[str, list[Watched]]) -> dict[str, Any]:
    """Images per second of each side, ratios, and seconds of the whole job."""
    return {
        "images per second": {name: spread(values) for name, values in rates.items()},
        "ratios": {
            f"{ours} / {theirs}": spread(ratios(rates[ours], rates[theirs]))
            for ours, theirs in ((BUILD, RAW), (BUILD, PLAIN), (DECODING_BUILD, DECODE))
        },
        "seconds of the whole job": {
            name: spread([one.seconds for one in runs]) for name, runs in watched.items()
        },
    }


class _Bench:
    """The photos, repeated, and the sides, each of which returns images per second."""

    def __init__(self, config: BuildBenchmarkConfig, directory: str):
        self._config, self._directory = config, directory
        self._output = os.path.join(directory, "out")
        self._sizes: dict[int, str] = {}
        self.watched: dict[str, list[Watched]] = {}

    def raw(self) -> float:
        paths = [
            os.path.join(folder, name)
            for folder, _, names in os.walk(self._photos(self._config.num_files))
            for name in sorted(names)
        ]
        start = time.perf_counter()
        with open(os.path.join(self._empty_output(), "all"), "wb") as out:
            for path in paths:
                with open(path, "rb") as file:
                    out.write(file.read())
        return len(paths) / (time.perf_counter() - start)

    def build(self, name: str, num_files: int, num_workers: int, *flags: str) -> float:
        watched = self._watch(num_files, num_workers, *flags)
        self.watched.setdefault(name, []).append(watched)
        return num_files / watched.seconds_of_shards

    def plain(self) -> float:
        num_files = self._config.num_plain_files
        command = [
            *(sys.executable, "-m", "benchmarks.plain_beam"),
            f"--source={self._photos(num_files)}",
            f"--output={os.path.join(self._empty_output(), _TRAIN)}",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return num_files / (time.perf_counter() - start)

    def decode(self) -> float:
        contents = self._contents(self._config.num_decoded_files)
        command = [
            *(sys.executable, "-m", "benchmarks.decode_jpeg"),
            f"--file={contents}",
            f"--num_threads={self._config.num_workers}",
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])

    def start_up(self) -> dict[str, Any]:
        """Seconds from the start of the command to the first shard, in one process."""
        watched = [self._watch(self._config.num_plain_files, 1) for _ in range(3)]
        return {"seconds to the first shard": spread([w.seconds_to_first_shard for w in watched])}

    def worker_memory(self) -> dict[str, float]:
        """Most memory of a worker process by number of images, with shards of one size."""
        per_shard = self._config.num_files // self._config.num_shards
        return {
            f"{num_files} images": self._watch(
                num_files, self._config.num_workers, num_shards=max(1, num_files // per_shard)
            ).worker_mib
            for num_files in (self._config.num_plain_files, self._config.num_files)
        }

    def _watch(
        self, num_files: int, num_workers: int, *flags: str, num_shards: int | None = None
    ) -> Watched:
        num_shards = num_shards or self._config.num_shards
        output = self._empty_output()
        command = [
            *(sys.executable, "-m", "preprocessing.build_dataset"),
            f"--source={self._photos(num_files)}",
            f"--output_dir={output}",
            f"--split={_TRAIN}",
            f"--num_shards={num_shards}",
            f"--num_workers={num_workers}",
            *flags,
        ]
        return watch_build(command, output, _TRAIN, num_shards)

    def _photos(self, num_files: int) -> str:
        """A tree of `num_files` photos: links to copies, so that they are in memory once."""
        if num_files not in self._sizes:
            tree = os.path.join(self._directory, f"photos-{num_files}")
            for number, path in enumerate(
                itertools.islice(itertools.cycle(self._copies()), num_files)
            ):
                folder = os.path.join(tree, os.path.basename(os.path.dirname(path)))
                os.makedirs(folder, exist_ok=True)
                os.link(path, os.path.join(folder, f"{number:06d}-{os.path.basename(path)}"))
            self._sizes[num_files] = tree
        return self._sizes[num_files]

    def _copies(self) -> list[str]:
        copies = os.path.join(self._directory, "photos")
        if not os.path.isdir(copies):
            try:
                shutil.copytree(self._config.photos, copies)
            except OSError as error:
                raise UserError(f"--photos={self._config.photos}: {error}") from None
        return sorted(
            os.path.join(folder, name) for folder, _, names in os.walk(copies) for name in names
        )

    def _contents(self, num_files: int) -> str:
        """A file with a path per line."""
        path = os.path.join(self._directory, f"paths-{num_files}")
        if not os.path.exists(path):
            names = itertools.islice(itertools.cycle(self._copies()), num_files)
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in names)
        return path

    def _empty_output(self) -> str:
        """What a side has written is gone before the next begins, on the disk too."""
        shutil.rmtree(self._output, ignore_errors=True)
        os.makedirs(self._output)
        os.sync()
        return self._output


def _print_tables(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    for title, rows, form in (
        ("images per second", figures["images per second"], "{:,.0f}"),
        ("ratios, round by round", figures["ratios"], "{:.2f}"),
        ("seconds of the whole job", figures["seconds of the whole job"], "{:.2f}"),
        ("in one process", figures["in one process"], "{:.2f}"),
    ):
        table = Table(title=title)
        table.add_column("")
        for heading in ("median", "min", "max"):
            table.add_column(heading, justify="right")
        for name, values in rows.items():
            table.add_row(name, *(form.format(values[key]) for key in ("median", "min", "max")))
        console.print(table)
    memory = ", ".join(f"{name}: {mib:.0f} MiB" for name, mib in figures["worker MiB"].items())
    console.print(f"most memory of a worker: {memory}")


if __name__ == "__main__":
    run(measure_building, BuildBenchmarkConfig)
