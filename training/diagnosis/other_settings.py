"""How fast the step would be under settings that stand before TensorFlow is started.

Each is tried in a process of its own: neither oneDNN nor the precision can be changed later.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile

from common.command import flag, parse, to_flags
from common.errors import UserError, first_line
from training.config import FLAG_GROUPS, Recipe
from training.models.record import ModelRecord

_CODE = "import sys; from training.diagnosis.other_settings import main; sys.exit(main(sys.argv))"
_MARK = "images a second: "
# Of processors that multiply bfloat16 themselves; elsewhere it is emulated, and slow.
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")


@dataclasses.dataclass(frozen=True)
class Setting:
    """Something to try.

    Attributes:
        name: what a user would have to set, as on a command line.
        environment: variables of the process.
        precision: of the arithmetic; empty for the recipe's.
    """

    name: str
    environment: dict[str, str]
    precision: str = ""


def settings_to_try(recipe: Recipe, cpu_flags: frozenset[str], has_gpu: bool) -> list[Setting]:
    """What could make the step faster on this machine, apart from what is set already."""
    found = []
    if not has_gpu:
        is_on = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
        other = "0" if is_on else "1"
        name = f"TF_ENABLE_ONEDNN_OPTS={other}"
        found.append(Setting(name, {"TF_ENABLE_ONEDNN_OPTS": other}))
    if recipe.distribution.precision == "float32" and (
        has_gpu or cpu_flags.intersection(_BFLOAT16_FLAGS)
    ):
        found.append(Setting("--precision=bfloat16", {}, "bfloat16"))
    if recipe.distribution.precision != "float32":
        found.append(Setting("--precision=float32", {}, "float32"))
    return found


def rate_under(setting: Setting, recipe: Recipe, record: ModelRecord, seconds: float) -> float:
    """Images a second of the step under a setting.

    Args:
        setting: what is tried.
        recipe: all other flags.
        record: the model that they make of the data.
        seconds: how long it is measured.

    Raises:
        UserError: it does not run at all; the message says why.
    """
    from training.strategies import without_cluster  # TensorFlow's, which the process sets up first

    distribution = recipe.distribution
    if setting.precision:
        distribution = dataclasses.replace(distribution, precision=setting.precision)
    recipe = dataclasses.replace(recipe, distribution=distribution)
    words = [word for group in recipe.groups for word in to_flags(group)]
    with tempfile.TemporaryDirectory() as directory:
        record.write(directory)
        done = subprocess.run(
            [sys.executable, "-c", _CODE, f"--seconds={seconds}", f"--record={directory}", *words],
            env={**without_cluster(os.environ), **setting.environment},
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"with {setting.name} the step does not run here: {reason}")
    return json.loads(lines[-1].removeprefix(_MARK))


def cpu_flags() -> frozenset[str]:
    """What the processor can do, in Linux' words; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return frozenset()
    return frozenset(line.partition(":")[2].split())


@dataclasses.dataclass(frozen=True)
class _Task:
    record: str = flag(help="directory of the model's record")
    seconds: float = flag(5.0, help="how long to measure")


def main(argv: list[str]) -> None:
    """What the process does: measures the step on made-up batches, and prints the rate."""
    *groups, task = parse(argv, *FLAG_GROUPS, _Task)
    try:
        rate = _measure(Recipe(*groups), ModelRecord.read(task.record), task.seconds)
    except Exception as error:  # whatever it is, it is the reason why the setting is of no use
        sys.exit(first_line(error))
    print(f"{_MARK}{json.dumps(rate)}")


def _measure(recipe: Recipe, record: ModelRecord, seconds: float) -> float:
    from training import runtime

    runtime.start()
    from training.strategies import choose_devices

    devices = choose_devices(recipe.distribution, os.environ)
    runtime.set_precision(recipe.distribution.precision)
    from training.diagnosis.rates import StepRates, make_teacher

    teacher = make_teacher(recipe, record, devices)
    # How large an epoch is changes the learning rate only.
    num_examples = recipe.optimization.batch_size
    rates = StepRates(recipe, record, devices, num_examples, teacher)
    return rates.of_made_up_batches(seconds)
