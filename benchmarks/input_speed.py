"""How quickly photos become training batches: `python -m benchmarks.input_speed --photos=DIR`.

Our input reads shards of the photos, originals and made smaller, 224 pixels, two threads. Beside
it, in turns: decoding alone, an unordered pipeline, and the loaders of others that are installed
(`benchmarks/requirements.txt`). Each side is a process of its own and idle while others have their
turn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.processes import Side, Turn
from benchmarks.rivals.serve import BATCH
from benchmarks.turns import ratios, spread, take_turns
from common.command import flag, run
from common.errors import UsageError, UserError
from common.files import require_writable_file, write_json

OURS, SMALLER, UNORDERED = "ours", "ours, shorter side 256", "ours, unordered"
BARE, BARE_IN_MEMORY = "records, tf.io.decode_jpeg", "tf.io.decode_jpeg of bytes in memory"

# Sides of others: their module, and the package that it needs.
RIVALS = {
    "DALI as its examples": ("dali", "nvidia.dali"),
    "DALI at its best": ("dali_at_its_best", "nvidia.dali"),
    "OpenCV": ("opencv", "cv2"),
    "torchvision": ("torchvision_loader", "torchvision"),
    "timm": ("timm_loader", "timm"),
}
# Least ratios that count as good: of the first to the second, images per second. To decode bytes
# that are in memory is no goal, since all others read: it is what decoding itself takes.
GOALS = {
    (OURS, BARE): 1.0,
    (OURS, BARE_IN_MEMORY): None,
    (OURS, "DALI as its examples"): 1.4,
    (OURS, "DALI at its best"): 1.2,
    (OURS, "OpenCV"): 1.0,
    (OURS, "torchvision"): 2.3,
    (OURS, "timm"): 2.3,
    (SMALLER, OURS): 1.6,
    (OURS, UNORDERED): 0.97,
}

_ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class InputSpeedConfig:
    """Flags of the command."""

    photos: str = flag(help="directory of class folders; its photos are repeated")
    num_records: int = flag(2_000, help="records of the shards, and files that others read")
    num_batches: int = flag(40, help=f"batches of {BATCH} that a side makes in a turn")
    rounds: int = flag(5, help="how often each side is measured, after one time unmeasured")
    rivals_python: str = flag(
        str(_ROOT / ".venv-bench" / "bin" / "python"), help="Python that has the others' packages"
    )
    work_dir: str | None = flag(
        None, help="where shards are written; the system's place for such files by default"
    )
    json: str = flag("", help="JSON file for the same figures; empty for none")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"--{field.name} must be at least 1, not {value}")


def measure_input(config: InputSpeedConfig) -> None:
    """Compares the images per second of our training input with those of others."""
    if config.json:
        require_writable_file(config.json, "json")
    with tempfile.TemporaryDirectory(dir=config.work_dir) as directory, contextlib.ExitStack() as s:
        tree = _repeated_photos(config, directory)
        original, smaller = (_shards(tree, directory, side) for side in (0, 256))
        places = {
            OURS: (sys.executable, "ours", original),
            SMALLER: (sys.executable, "ours", smaller),
            UNORDERED: (sys.executable, "unordered", original),
            BARE: (sys.executable, "bare_decode", original),
            BARE_IN_MEMORY: (sys.executable, "bare_decode_in_memory", original),
        }
        for name, (module, package) in RIVALS.items():
            if _has(config.rivals_python, package):
                places[name] = (config.rivals_python, module, tree)
            else:
                print(f"{name}: left out, {config.rivals_python} has no package {package}")
        sides = {
            name: s.enter_context(
                contextlib.closing(Side(python, f"benchmarks.rivals.{module}", source))
            )
            for name, (python, module, source) in places.items()
        }
        turns: dict[str, list[Turn]] = take_turns(
            {name: lambda side=side: side.turn(config.num_batches) for name, side in sides.items()},
            config.rounds,
            warm_up=1,
        )
    figures = summarize(turns, config.num_batches * BATCH)
    if config.json:
        write_json(config.json, figures)
    _print_tables(figures)


def summarize(turns: dict[str, list[Turn]], num_images: int) -> dict[str, Any]:
    """Images per second, processor time and cores of each side, and ratios, round by round.

    Args:
        turns: of each side, round by round.
        num_images: images of a turn.
    """
    rates = {name: [num_images / turn.seconds for turn in of] for name, of in turns.items()}
    costs = {
        name: [1000 * turn.cpu_seconds / num_images for turn in of] for name, of in turns.items()
    }
    compared = {
        f"{one} / {other}": (one, other, goal)
        for (one, other), goal in GOALS.items()
        if one in turns and other in turns
    }
    return {
        "images per second": {name: spread(values) for name, values in rates.items()},
        "CPU milliseconds per image": {name: spread(values) for name, values in costs.items()},
        "cores": {
            name: spread([turn.cpu_seconds / turn.seconds for turn in of])
            for name, of in turns.items()
        },
        "ratios": {
            name: {**spread(ratios(rates[one], rates[other])), "goal": goal}
            for name, (one, other, goal) in compared.items()
        },
        # The same of the inverse of processor time: steadier where other programs run beside.
        "ratios by CPU": {
            name: {**spread(ratios(costs[other], costs[one])), "goal": goal}
            for name, (one, other, goal) in compared.items()
        },
    }


def _repeated_photos(config: InputSpeedConfig, directory: str) -> str:
    """A tree of links to the photos, which so are in memory once."""
    paths = sorted(p for p in pathlib.Path(config.photos).glob("*/*") if p.is_file())
    if not paths:
        raise UserError(f"--photos={config.photos}: there are no files in folders there")
    tree = os.path.join(directory, "photos")
    repeated = itertools.islice(itertools.cycle(paths), config.num_records)
    for number, path in enumerate(repeated):
        folder = os.path.join(tree, path.parent.name)
        os.makedirs(folder, exist_ok=True)
        os.symlink(path.resolve(), os.path.join(folder, f"{number:06d}-{path.name}"))
    return tree


def _shards(tree: str, directory: str, shorter_side: int) -> str:
    """Builds shards of the photos; returns their directory."""
    output = os.path.join(directory, f"shards-{shorter_side}")
    command = [
        *(sys.executable, "-m", "preprocessing.build_dataset"),
        *(f"--source={tree}", f"--output_dir={output}", f"--shorter_side={shorter_side}"),
    ]
    done = subprocess.run(command, check=False, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the shards could not be built: {done.stderr.strip()}")
    return output


def _has(python: str, package: str) -> bool:
    """Whether a Python is there and can import a package."""
    try:
        done = subprocess.run([python, "-c", f"import {package}"], check=False, capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def _print_tables(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(title="training input, 224 pixels, two threads")
    table.add_column("side")
    for heading in ("images/s", "min", "max", "CPU ms/image", "cores"):
        table.add_column(heading, justify="right")
    for name, rates in figures["images per second"].items():
        words = [f"{rates[key]:,.0f}" for key in ("median", "min", "max")]
        cpu = figures["CPU milliseconds per image"][name]["median"]
        table.add_row(name, *words, f"{cpu:.2f}", f"{figures['cores'][name]['median']:.2f}")
    console.print(table)
    table = Table(title="ratios, round by round")
    table.add_column("")
    for heading in ("median", "min", "max", "by CPU", "goal"):
        table.add_column(heading, justify="right")
    for name, values in figures["ratios"].items():
        words = [f"{values[key]:.2f}" for key in ("median", "min", "max")]
        by_cpu = figures["ratios by CPU"][name]["median"]
        table.add_row(name, *words, f"{by_cpu:.2f}", f"{values['goal'] or ''}")
    console.print(table)


if __name__ == "__main__":
    run(measure_input, InputSpeedConfig)
