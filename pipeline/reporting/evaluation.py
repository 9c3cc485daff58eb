"""What the report says about an evaluation: accuracies, confusions, calibration, mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.reporting import plots
from pipeline.reporting.calibration import describe_calibration
from pipeline.reporting.data import DataSet
from pipeline.reporting.wording import is_number

MOST_CONFUSION_CLASSES = 30
MOST_CONFUSED_PAIRS = 20
MOST_MISTAKES = 24
WEAKEST_CLASSES = 20


def describe_evaluation(
    evaluation: dict[str, Any], data: DataSet, names: Callable[[Any], str]
) -> dict[str, Any]:
    """Accuracies with their uncertainty, per-class figures, confusions and the worst mistakes."""
    if "missing" in evaluation:
        return evaluation
    per_class = [row for row in evaluation.get("per_class") or [] if row.get("num_examples")]
    per_class.sort(key=lambda row: (row["num_correct"] / row["num_examples"], str(row["class"])))
    per_class = [row | {"name": names(row["class"])} for row in per_class]
    few = len(per_class) <= plots.MOST_BARS
    confusion = evaluation.get("confusion") or []
    drawn = 0 < len(confusion) <= MOST_CONFUSION_CLASSES
    classes = [names(name) for name in evaluation.get("classes") or []]
    return evaluation | {
        "interval": _interval(evaluation, "1"),
        "interval_top_5": _interval(evaluation, "5"),
        "same_data": data.same_as(evaluation.get("data_manifest_sha256"), _split_of(evaluation)),
        "class_chart": _class_chart(per_class) if per_class else None,
        "weakest": [] if few else per_class[:WEAKEST_CLASSES],
        "confusion_chart": plots.confusion_matrix(classes, confusion) if drawn else None,
        "wide": len(classes) > plots.MOST_NUMBERED,
        "pairs": _pairs(evaluation, names),
        "calibration": describe_calibration(evaluation.get("calibration")),
        "diagnosis": _diagnosis(evaluation.get("diagnosis")),
        "mistakes": _mistakes(evaluation, data, names),
    }


def _split_of(evaluation: Mapping[str, Any]) -> str:
    """The split that was evaluated, whole or in part: `validation` of `validation[:1000]`."""
    return str(evaluation.get("split") or "validation").partition("[")[0]


def _mistakes(
    evaluation: Mapping[str, Any], data: DataSet, names: Callable[[Any], str]
) -> list[dict[str, Any]]:
    rows = (evaluation.get("mistakes") or [])[:MOST_MISTAKES]
    wanted = [
        (str(row.get("label")), str(row.get("file_name")), row.get("example")) for row in rows
    ]
    pictures = data.pictures(wanted, first_split=_split_of(evaluation))
    return [
        {
            "file_name": row.get("file_name"),
            "label": names(row.get("label")),
            "predicted": names(row.get("predicted")),
            "probability": row.get("probability"),
            "picture": picture,
        }
        for row, picture in zip(rows, pictures, strict=True)
    ]


def _pairs(evaluation: Mapping[str, Any], names: Callable[[Any], str]) -> list[dict[str, Any]]:
    """Most confused pairs as the evaluation tells them, else from its confusion matrix."""
    told = evaluation.get("confusion_pairs")
    if told is None:
        classes = evaluation.get("classes") or []
        told = confused_pairs(evaluation.get("confusion") or [], classes)
    totals = {
        str(row.get("class")): row.get("num_examples") for row in evaluation.get("per_class") or []
    }
    return [
        {
            "label": names(pair["label"]),
            "predicted": names(pair["predicted"]),
            "count": pair["count"],
            "of": pair.get("of", totals.get(str(pair["label"]))),
        }
        for pair in told[:MOST_CONFUSED_PAIRS]
    ]


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


def _interval(evaluation: Mapping[str, Any], k: str) -> tuple[float, float] | None:
    """The 95 % interval of top-k accuracy: as told, else from the counts."""
    told = evaluation.get("interval_95" if k == "1" else f"interval_95_top_{k}")
    if isinstance(told, list) and len(told) == 2 and all(map(is_number, told)):
        return told[0], told[1]
    count = evaluation.get("num_examples") or 0
    return accuracy_interval(evaluation.get(f"num_correct_top_{k}"), count)


def accuracy_interval(correct: int | None, count: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval of an accuracy seen as `correct` of `count`; None without counts."""
    if correct is None or not count:
        return None
    z = 1.959964
    share, shrink = correct / count, 1 + z * z / count
    center = (share + z * z / (2 * count)) / shrink
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / shrink
    return max(0.0, center - reach), min(1.0, center + reach)


def _diagnosis(findings: Any) -> list[dict[str, Any]] | None:
    """What was found to be wrong with a model that is far off; None if nothing was sought."""
    if findings is None:
        return None
    keys = ("cause", "explanation", "top_1", "top_1_before", "num_examples")
    return [{key: finding.get(key) for key in keys} for finding in findings]


def _class_chart(per_class: Sequence[Mapping[str, Any]]) -> Any:
    correct = [row["num_correct"] for row in per_class]
    totals = [row["num_examples"] for row in per_class]
    if len(per_class) <= plots.MOST_BARS:
        return plots.accuracy_bars([row["name"] for row in per_class], correct, totals)
    shares = [right / total for right, total in zip(correct, totals, strict=True)]
    return plots.profile({"": shares}, "classes, best first", "accuracy", percent=True)
