"""Every released checkpoint as data, and `python -m loaders.zoo`: published figures beside ours.

The table `zoo.csv` holds what the tables of the release say, printed digits and errors included.
The command counts parameters and multiply-adds of each model anew and says of each published figure
how it comes about.
"""

from __future__ import annotations

import csv
import dataclasses
import decimal
import difflib
import os
import typing
from decimal import Decimal
from typing import Any

from common.command import flag, run
from common.errors import UsageError
from common.files import write_json
from training.models.complexity import count_macs, count_parameters
from training.models.configs import MobileNetConfig, make_config

TABLE = os.path.join(os.path.dirname(__file__), "zoo.csv")

NUM_OUTPUTS = 1001  # the 1000 ImageNet classes behind a background class

# What the table of each family counts as parameters: a field of `complexity.Parameters`.
_COUNTED = {"mobilenet_v1": "three_of_four_batch_norm", "mobilenet_v2": "without_batch_norm"}
_COUNTED_ELSEWHERE = "trainable"

_COLUMNS = ("checkpoint", "top-1", "top-5", "M MACs", "ours", "", "M par.", "ours", "", "counted")
_WORDS = (0, 5, 8, 9)  # columns of words, not figures
_TABLE_WIDTH = 144

# Why a published figure is neither ours rounded nor ours truncated.
REASONS = {
    "stem_left_out": "exactly ours without the multiply-adds of the first convolution",
    "one_up": "ours is just below 149.5 and would be printed as 149, as in the paper",
    "misprint": "does not go with 41, 21 and 14 at the other resolutions, as 30 would",
    "first_paper": "figures of the V3 paper's first version; its later ones have 56 and 2.5",
    "wider_head": "both figures fit 1280 features before the logits; the model has 1024",
    "unexplained": "no way of counting gives it; the parameters agree",
}


@dataclasses.dataclass(frozen=True)
class ZooRow:
    """A released checkpoint and what was published about it.

    Attributes:
        name: of the archive.
        label: in the tables of the release.
        model_name: architecture.
        width_multiplier: of the architecture.
        resolution: height and width of the input in pixels.
        quantized: the accuracy is that of an 8-bit model.
        macs_millions: multiply-adds as printed.
        parameters_millions: parameters as printed.
        top_1: accuracy on ImageNet's validation set in percent, None where none was published.
        top_5: likewise.
        pixel1_ms: latency on a phone's large core; None where none was published, as below.
        pixel2_ms: likewise.
        pixel3_ms: likewise.
        pixel4_edgetpu_ms: latency on the phone's Edge TPU.
        pixel4_cpu_ms: latency on its processor.
        url: of the archive.
        weights: the set to use. EdgeTPU's averages are worse than the weights themselves
            (tensorflow/models issue 7820).
        reason: key of `REASONS` where a published figure differs from ours, else empty.
    """

    name: str
    label: str
    model_name: str
    width_multiplier: float
    resolution: int
    quantized: bool
    macs_millions: Decimal
    parameters_millions: Decimal
    top_1: float | None
    top_5: float | None
    pixel1_ms: float | None
    pixel2_ms: float | None
    pixel3_ms: float | None
    pixel4_edgetpu_ms: float | None
    pixel4_cpu_ms: float | None
    url: str
    weights: str
    reason: str

    def config(self) -> MobileNetConfig:
        """The configuration of the float model that the checkpoint fills."""
        return make_config(
            self.model_name,
            num_classes=NUM_OUTPUTS,
            width_multiplier=self.width_multiplier,
            input_shape=(self.resolution, self.resolution, 3),
        )

    @property
    def counted(self) -> str:
        """What the published parameters count: a field of `complexity.Parameters`."""
        return _COUNTED.get(self.model_name, _COUNTED_ELSEWHERE)


def load_zoo() -> tuple[ZooRow, ...]:
    """All rows, in the order of the published tables."""
    kinds = typing.get_type_hints(ZooRow)
    with open(TABLE, encoding="utf-8", newline="") as file:
        return tuple(
            ZooRow(**{name: _parse(word, kinds[name]) for name, word in row.items()})
            for row in csv.DictReader(file)
        )


def find_row(name: str) -> ZooRow:
    """The row of a name or of a label of the published tables.

    Raises:
        UsageError: there is none; the message lists the nearest names.
    """
    rows = load_zoo()
    for row in rows:
        if name in (row.name, row.label):
            return row
    near = difflib.get_close_matches(name, [row.name for row in rows], n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`python -m loaders.zoo` lists them"
    raise UsageError(f"no released checkpoint is called {name!r}: {hint}")


def agreement(printed: Decimal, exact: int) -> str:
    """How a figure printed in millions follows from the exact one.

    Returns:
        'rounded', 'truncated' or 'differs'.
    """
    millions = Decimal(exact) / 10**6
    if millions.quantize(printed, decimal.ROUND_HALF_UP) == printed:
        return "rounded"
    return "truncated" if millions.quantize(printed, decimal.ROUND_DOWN) == printed else "differs"


def compare(row: ZooRow) -> dict[str, Any]:
    """All fields of `row`, our figures, and how the published ones follow from them."""
    config = row.config()
    macs, parameters = count_macs(config), dataclasses.asdict(count_parameters(config))
    return {
        **dataclasses.asdict(row),
        "macs_millions": float(row.macs_millions),
        "parameters_millions": float(row.parameters_millions),
        "reason": REASONS.get(row.reason),
        "macs": macs,
        "macs_agreement": agreement(row.macs_millions, macs),
        "parameters": parameters,
        "parameters_counted": row.counted,
        "parameters_agreement": agreement(row.parameters_millions, parameters[row.counted]),
    }


@dataclasses.dataclass(frozen=True)
class ZooConfig:
    """Flags of the command."""

    output: str | None = flag(None, help="JSON file for the same figures")


def show_zoo(config: ZooConfig) -> None:
    """Prints every released checkpoint with its published figures and ours."""
    if config.output and not config.output.endswith(".json"):
        raise UsageError(f"--output={config.output} must end in .json")
    rows = load_zoo()
    compared = [compare(row) for row in rows]
    if config.output:
        write_json(config.output, compared)
    _print_table(rows, compared)


def _print_table(rows: tuple[ZooRow, ...], compared: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.width = max(console.width, _TABLE_WIDTH)  # cut-off figures would be worse than wrapped
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(_COLUMNS):
        justify = "left" if number in _WORDS else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    for row, found in zip(rows, compared, strict=True):
        table.add_row(
            row.name,
            _shown(row.top_1),
            _shown(row.top_5),
            str(row.macs_millions),
            f"{found['macs'] / 1e6:.3f}",
            _mark(found["macs_agreement"], row.reason),
            str(row.parameters_millions),
            f"{found['parameters'][row.counted] / 1e6:.3f}",
            _mark(found["parameters_agreement"], row.reason),
            row.counted.replace("_", " "),
        )
    console.print(table)
    console.print("Million multiply-adds and parameters as published, and ours beside them.")
    for code, text in REASONS.items():
        console.print(f"! {code}: {text}")


def _mark(how: str, reason: str) -> str:
    """Nothing for a rounded figure."""
    return {"rounded": "", "truncated": "truncated"}.get(how, f"! {reason}")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _parse(word: str, kind: Any) -> Any:
    """A field of the table as its type; only fields that may be None may be empty."""
    if kind is bool:
        return {"yes": True, "no": False}[word]
    if kind == float | None:
        return float(word) if word else None
    return kind(word)


if __name__ == "__main__":
    run(show_zoo, ZooConfig)
