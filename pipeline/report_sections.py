"""What the report says about configuration, training and evaluation, ready for the template."""

from __future__ import annotations

import base64
import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common import files, inline_svg
from common.errors import UserError
from pipeline import report_plots as plots
from pipeline.report_data import DataSet

MOST_CONFUSION_CLASSES = 30
MOST_CONFUSED_PAIRS = 20
MOST_MISTAKES = 24
WEAKEST_CLASSES = 20


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
        path = os.path.join(model_dir, "history.json")
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
        return cls(os.path.basename(os.path.abspath(model_dir)), start, points)


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


def describe_evaluation(
    evaluation: dict[str, Any], data: DataSet, names: Callable[[Any], str]
) -> dict[str, Any]:
    """Accuracies with their uncertainty, per-class figures, confusions and the worst mistakes."""
    if "missing" in evaluation:
        return evaluation
    count = evaluation.get("num_examples") or 0
    per_class = [row for row in evaluation.get("per_class") or [] if row.get("num_examples")]
    per_class.sort(key=lambda row: (row["num_correct"] / row["num_examples"], str(row["class"])))
    per_class = [row | {"name": names(row["class"])} for row in per_class]
    few = len(per_class) <= plots.MOST_BARS
    classes = [names(name) for name in evaluation.get("classes") or []]
    confusion = evaluation.get("confusion")
    drawn = bool(confusion) and len(confusion) <= MOST_CONFUSION_CLASSES
    split = str(evaluation.get("split", "validation"))
    mistakes = (evaluation.get("mistakes") or [])[:MOST_MISTAKES]
    wanted = [(str(row.get("label")), str(row.get("file_name"))) for row in mistakes]
    pictures = data.pictures(wanted, first_split=split)
    return evaluation | {
        "interval": accuracy_interval(evaluation.get("num_correct_top_1"), count),
        "same_data": data.same_as(evaluation.get("data_manifest_sha256"), split),
        "class_chart": _class_chart(per_class) if per_class else None,
        "weakest": [] if few else per_class[:WEAKEST_CLASSES],
        "confusion_chart": plots.confusion_matrix(classes, confusion) if drawn else None,
        "wide": len(classes) > plots.MOST_NUMBERED,
        "pairs": [] if drawn else confused_pairs(confusion or [], classes),
        "mistakes": [
            {
                "file_name": row.get("file_name"),
                "label": names(row.get("label")),
                "predicted": names(row.get("predicted")),
                "probability": row.get("probability"),
                "picture": picture,
            }
            for row, picture in zip(mistakes, pictures, strict=True)
        ],
    }


def confused_pairs(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[dict]:
    """The class pairs that are mixed up most often, most frequent first.

    Args:
        confusion: counts, rows are true and columns predicted classes.
        classes: names of rows and columns.
    """
    pairs = [
        {"label": classes[i], "predicted": classes[j], "count": count, "of": sum(row)}
        for i, row in enumerate(confusion)
        for j, count in enumerate(row)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: (-pair["count"], pair["label"], pair["predicted"]))
    return pairs[:MOST_CONFUSED_PAIRS]


def accuracy_interval(correct: int | None, count: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of an accuracy seen as `correct` of `count`; None without counts."""
    if correct is None or not count:
        return None
    z = 1.959964
    share, shrink = correct / count, 1 + z * z / count
    center = (share + z * z / (2 * count)) / shrink
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / shrink
    return max(0.0, center - reach), min(1.0, center + reach)


def zoo_picture() -> str:
    """The released models' accuracy over cost, as a data URI; see `loaders.zoo_plot`."""
    from loaders.zoo import load_zoo
    from loaders.zoo_plot import draw

    return "data:image/svg+xml;base64," + base64.b64encode(draw(load_zoo(), "svg")).decode()


def model_title(model: Mapping[str, Any]) -> str:
    """`mobilenet_v1 0.25` for a model's configuration."""
    name, width = model.get("name"), model.get("width_multiplier")
    return " ".join(str(word) for word in (name or "Unknown model", width) if word is not None)


def input_size(model: Mapping[str, Any]) -> int | None:
    shape = model.get("input_shape")
    return shape[0] if isinstance(shape, list) and shape and is_number(shape[0]) else None


def configuration_tables(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts = (
        ("Model", "model"),
        ("Optimisation", "optimization"),
        ("Data", "data"),
        ("Run", "run"),
    )
    return [
        {"title": title, "rows": list(_flattened(run[key]))}
        for title, key in parts
        if isinstance(run.get(key), dict) and run[key]
    ]


def _flattened(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows = []
    for key, value in settings.items():
        if isinstance(value, dict):
            rows += _flattened(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def versions_of(*parts: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Name to the versions seen, which are several where stages ran in different environments."""
    seen: dict[str, list[str]] = {}
    for part in parts:
        for name, version in (part.get("versions") or {}).items():
            known = seen.setdefault(str(name), [])
            if str(version) not in known:
                known.append(str(version))
    return sorted(seen.items())


def _class_chart(per_class: Sequence[Mapping[str, Any]]) -> Any:
    correct = [row["num_correct"] for row in per_class]
    totals = [row["num_examples"] for row in per_class]
    if len(per_class) <= plots.MOST_BARS:
        return plots.accuracy_bars([row["name"] for row in per_class], correct, totals)
    shares = [right / total for right, total in zip(correct, totals, strict=True)]
    return plots.profile({"": shares}, "classes, best first", "accuracy", percent=True)


def _median(values: Sequence[Any]) -> float | None:
    ordered = sorted(value for value in values if is_number(value))
    return ordered[len(ordered) // 2] if ordered else None


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
