"""How long a training step takes beside timm and keras.applications.

    python -m benchmarks.step_speed --models=mobilenet_v2 --rounds=15

Forward, backward and update on random images in float32. Each side lives in a process of its own,
and the sides take turns step by step, so that what else the machine does hits all of them alike.
Half of the rounds are of processes that were started in the opposite order.
PyTorch and timm come from another environment, `--rivals_python`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from benchmarks.turns import ratios, spread, take_turns
from common.command import flag, run
from common.errors import UsageError, UserError
from common.files import require_writable_file, write_json

# The resolution at which each model is measured, in pixels.
RESOLUTIONS = {
    "mobilenet_v1": 128,
    "mobilenet_v2": 224,
    "mobilenet_v3_large": 224,
    "mobilenet_v3_small": 224,
}
_ALL_MODELS = tuple(RESOLUTIONS)
OURS = "ours"
# Name in the table: (side of `step_sides`, environment variables beside those of the shell).
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
SIDES: dict[str, tuple[str, dict[str, str]]] = {
    OURS: ("ours", {}),
    "timm, as installed": ("timm", {}),
    "timm, allocator tuned": ("timm", TUNED),
    "keras.applications": ("keras", {}),
}
# What makes a processor with AVX-512 compute as one without it: oneDNN (in TensorFlow and PyTorch),
# PyTorch's own kernels, XLA. On such a processor TensorFlow leaves oneDNN off by itself.
AVX2 = "avx2"
_AS_AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}
_BY_DEFAULT_ON_AVX2 = {"keras": {"TF_ENABLE_ONEDNN_OPTS": "0"}}
_QUIET = 0.7  # load average from which a warning is printed
_ROOT = pathlib.Path(__file__).parents[1]
# What a shell may have set, which none of the sides is to inherit.
_NOT_INHERITED = ("MALLOC_", "TF_ENABLE_ONEDNN_OPTS", "OMP_", "LD_PRELOAD", "GLIBC_TUNABLES")


@dataclasses.dataclass(frozen=True)
class StepSpeedConfig:
    """Flags of the command."""

    models: tuple[str, ...] = flag(_ALL_MODELS, help="which models")
    rounds: int = flag(6, help="steps of each side that are measured, in two sittings")
    batch_size: int = flag(32, help="images in a step")
    rivals_python: str = flag(
        ".venv-bench/bin/python", help="interpreter with torch and timm; empty leaves them out"
    )
    instruction_set: str = flag(
        "native",
        help="avx2 has all sides compute as on a processor without AVX-512",
        choices=("native", AVX2),
    )
    json: str = flag("", help="JSON file for the same figures; empty for none")

    def __post_init__(self):
        for name in ("rounds", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, not {getattr(self, name)}")
        unknown = [name for name in self.models if name not in RESOLUTIONS]
        if unknown:
            raise UsageError(f"--models knows {', '.join(RESOLUTIONS)}; not {', '.join(unknown)}")


def measure_step_speed(config: StepSpeedConfig) -> None:
    """Compares the time of a training step with that of timm and keras.applications."""
    if config.json:
        require_writable_file(config.json, "json")
    figures, load = {}, os.getloadavg()[0]
    if load > _QUIET:
        # PyTorch's threads wait for each other in a loop: on a busy machine its times are several
        # times as long, and no ratio to them says anything.
        print(f"The machine is busy (load {load:.1f}): the ratios are not to be relied on.")
    for model_name in config.models:
        figures[model_name] = summarize(_seconds(config, model_name))
        _print_table(model_name, figures[model_name])
    if config.json:
        write_json(config.json, {"load": load, "batch_size": config.batch_size, "models": figures})


def summarize(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Milliseconds of each side, and how many times as long as ours it takes, round by round."""
    return {
        name: {
            "milliseconds": spread([1000 * value for value in values]),
            "over_ours": spread(ratios(values, seconds[OURS])),
        }
        for name, values in seconds.items()
    }


def _seconds(config: StepSpeedConfig, model_name: str) -> dict[str, list[float]]:
    """Seconds of each side's steps, in two sittings that start the sides in opposite order.

    What starts later is the quicker, by up to a tenth: so three processes of one and the same side
    were, each time.
    """
    names = list(SIDES)
    first = _sitting(config, model_name, names, config.rounds - config.rounds // 2)
    second = _sitting(config, model_name, names[::-1], config.rounds // 2)
    return {name: first[name] + second.get(name, []) for name in first}


def _sitting(
    config: StepSpeedConfig, model_name: str, names: list[str], rounds: int
) -> dict[str, list[float]]:
    if not rounds:
        return {}
    with contextlib.ExitStack() as stack:
        sides = {}
        for name in names:
            side, variables = SIDES[name]
            interpreter = config.rivals_python if side == "timm" else sys.executable
            if interpreter:
                limits = _limits(config.instruction_set, side)
                process = stack.enter_context(
                    _side(interpreter, side, model_name, config.batch_size, variables | limits)
                )
                sides[name] = lambda process=process: float(_answer(process))
        return take_turns(sides, rounds)


def _limits(instruction_set: str, side: str) -> dict[str, str]:
    """The variables by which a side leaves newer instructions of the processor alone."""
    return _AS_AVX2 | _BY_DEFAULT_ON_AVX2.get(side, {}) if instruction_set == AVX2 else {}


@contextlib.contextmanager
def _side(
    interpreter: str, side: str, model_name: str, batch_size: int, variables: dict[str, str]
) -> Iterator[subprocess.Popen]:
    """A process that has warmed up and makes a step for each line it is sent."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
    environment = {**inherited, "PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    arguments = [side, model_name, str(RESOLUTIONS[model_name]), str(batch_size)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [interpreter, str(_ROOT / "benchmarks" / "step_sides.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            if process.stdout.readline() != "ready\n":
                process.wait()
                errors.seek(0)
                last = errors.read().strip().splitlines()[-1:]
                raise UserError(f"{side} of {model_name} cannot run: {''.join(last)}")
            yield process
        finally:
            process.kill()
            process.communicate()


def _answer(process: subprocess.Popen) -> str:
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def _print_table(model_name: str, figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{model_name} at {RESOLUTIONS[model_name]}: a training step")
    table.add_column("side")
    for heading in ("median ms", "min ms", "over ours", "from", "to"):
        table.add_column(heading, justify="right")
    for name, values in figures.items():
        times, over = values["milliseconds"], values["over_ours"]
        words = [f"{times[key]:.0f}" for key in ("median", "min")]
        table.add_row(name, *words, *(f"{over[key]:.2f}" for key in ("median", "min", "max")))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    run(measure_step_speed, StepSpeedConfig)
