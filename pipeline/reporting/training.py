"""What the report says about training: learning curves, and another run's beside."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from common import files, inline_svg
from common.errors import UserError
from pipeline.reporting import plots
from pipeline.reporting.inputs import last_name
from pipeline.reporting.wording import is_number


@dataclasses.dataclass(frozen=True)
class OtherRun:
    """A run that is drawn beside the report's own, for comparison.

    Attributes:
        name: of its directory.
        start: where it started: `from`, and `validation_top_1` before the first step.
        points: (epoch, validation top-1) of the epochs that were evaluated.
    """

    name: str
    start: dict[str, Any]
    points: list[tuple[int, float]]

    @classmethod
    def read(cls, model_dir: str) -> OtherRun:
        """Reads `history.json` in `model_dir`.

        Raises:
            UserError: it is missing, damaged, or holds no validation top-1.
        """
        path = files.join(model_dir, "history.json")
        history = files.read_json(path)
        try:
            points = [
                (row["epoch"], row["validation_top_1"])
                for row in history["epochs"]
                if is_number(row.get("validation_top_1"))
            ]
            start = dict(history["start"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path} was not written by training.train") from None
        if not points:
            raise UserError(
                f"--compare={model_dir}: its history.json holds no validation top-1 to draw"
            )
        return cls(last_name(model_dir), start, points)


def describe_history(history: dict[str, Any], other: OtherRun | None = None) -> dict[str, Any]:
    """Learning curves and the table behind them, and another run's validation curve beside."""
    epochs = [row for row in history.get("epochs") or [] if "epoch" in row]
    if not epochs:
        return history | {"missing": history.get("missing") or "history.json names no epoch yet."}

    def series(**wanted: tuple[str, str, str]) -> dict[str, tuple]:
        rows = {key: [row for row in epochs if is_number(row.get(key))] for key in wanted}
        return {
            name: ([r["epoch"] for r in rows[key]], [r[key] for r in rows[key]], color, style)
            for key, (name, color, style) in wanted.items()
            if rows[key]
        }

    losses = series(
        loss=("training", inline_svg.QUIET, "-"),
        validation_loss=("validation", inline_svg.ACCENT, "-"),
    )
    accuracies = series(
        accuracy=("training", inline_svg.QUIET, "-"),
        validation_top_1_raw=("validation, raw weights", inline_svg.THIRD, "--"),
        validation_top_1=("validation, averaged weights", inline_svg.ACCENT, "-"),
    )
    rates = series(learning_rate=("learning rate", inline_svg.ACCENT, "-"))
    speeds = series(images_per_second=("images a second", inline_svg.ACCENT, "-"))
    start = history.get("start") or {}
    mark = _start_mark(start)
    beside = (other.points, _start_mark(other.start)) if other else None
    charts = [
        (
            "Accuracy",
            accuracies,
            lambda: plots.curves(accuracies, "top-1", start=mark, other=beside, percent=True),
        ),
        ("Loss", losses, lambda: plots.curves(losses, "loss")),
        ("Learning rate", rates, lambda: plots.curves(rates, "learning rate")),
        ("Speed", speeds, lambda: plots.curves(speeds, "images a second")),
    ]
    return history | {
        "epochs": epochs,
        "start": start,
        "other": other,
        "charts": [
            {
                "title": title,
                "svg": draw(),
                "legend": [
                    {"name": name, "color": inline_svg.css_color(color), "dashed": style == "--"}
                    for name, (_, _, color, style) in lines.items()
                ],
                "start": title == "Accuracy" and mark is not None,
                "other": other if title == "Accuracy" else None,
            }
            for title, lines, draw in charts
            if lines
        ],
        "images_per_second": _median([row.get("images_per_second") for row in epochs]),
    }


def _start_mark(start: Mapping[str, Any]) -> tuple[int, float] | None:
    """Where a run's start is drawn, if its accuracy was measured."""
    first = start.get("validation_top_1")
    return (0, first) if is_number(first) else None


def _median(values: Sequence[Any]) -> float | None:
    ordered = sorted(value for value in values if is_number(value))
    return ordered[len(ordered) // 2] if ordered else None
