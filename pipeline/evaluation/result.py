"""An evaluation as it is written to a file, and as it is shown."""

from __future__ import annotations

import dataclasses
import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.evaluation import statistics
from pipeline.evaluation.data_sets import DataSet, file_name_of

if TYPE_CHECKING:
    from pipeline.evaluation.diagnosis import Finding
    from pipeline.evaluation.predictors import Predictor
    from training.evaluation import Outcomes

_MOST_CLASSES_IN_CONFUSION = 200
_PAIRS_SHOWN = 3
_NAME_WIDTH = 28


def to_json(
    outcomes: Outcomes,
    data: DataSet,
    predictor: Predictor,
    published: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] | None = None,
) -> dict[str, Any]:
    """The evaluation as it is written to a file; `docs/evaluating.md` tells its keys."""
    classes, offset = data.shards.classes, predictor.reading.label_offset
    count = outcomes.num_examples
    matrix = None
    if len(classes) <= _MOST_CLASSES_IN_CONFUSION:
        matrix = statistics.confusion_matrix(outcomes, len(classes), predictor.num_outputs)

    def name(output: int) -> str:
        index = output - offset
        return classes[index] if 0 <= index < len(classes) else "background"

    counts, right = statistics.per_class(outcomes, len(classes))
    loss = outcomes.mean_loss
    return {
        "top_1": outcomes.top_1,
        "top_5": outcomes.top_5,
        # JSON has no NaN: a model that gives one has no loss.
        "loss": loss if math.isfinite(loss) else None,
        "num_examples": count,
        "num_correct_top_1": outcomes.num_correct_top_1,
        "num_correct_top_5": outcomes.num_correct_top_5,
        "interval_95": list(statistics.wilson_interval(outcomes.num_correct_top_1, count)),
        "interval_95_top_5": list(statistics.wilson_interval(outcomes.num_correct_top_5, count)),
        "checkpoint": predictor.path,
        "format": predictor.format,
        "weights": predictor.weights,
        "data_dir": data.data_dir,
        "split": data.split,
        "data_manifest_sha256": data.shards.fingerprint,
        "model": predictor.model,
        "resolution": list(predictor.reading.resolution),
        "input_range": list(predictor.reading.input_range),
        "preprocessing": predictor.reading.preprocessing,
        "label_offset": offset,
        "notes": list(predictor.notes),
        "published": dict(published) if published else None,
        "diagnosis": None
        if findings is None
        else [dataclasses.asdict(finding) for finding in findings],
        "classes": list(classes),
        "per_class": [
            {"class": classes[i], "num_examples": int(counts[i]), "num_correct": int(right[i])}
            for i in range(len(classes))
            if counts[i]
        ],
        "confusion": matrix[:, offset:].tolist() if matrix is not None else None,
        "confusion_pairs": [
            {"label": classes[index], "predicted": name(output), "count": number}
            for index, output, number in statistics.confusion_pairs(outcomes, offset)
        ],
        "calibration": statistics.calibration(outcomes),
        "mistakes": [
            {
                "example": int(outcomes.example[row]),
                "file_name": file_name_of(data.shards, int(outcomes.example[row])),
                "label": classes[int(outcomes.class_index[row])],
                "predicted": name(int(outcomes.predicted[row])),
                "probability": float(outcomes.probability[row]),
            }
            for row in statistics.worst_mistakes(outcomes)
        ],
    }


def print_table(results: Sequence[Mapping[str, Any]], compare: bool) -> None:
    """A row for each data set, then what is confused most often.

    Args:
        results: as `to_json` makes them.
        compare: whether to show the published figure beside ours.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("data", no_wrap=True)
    headings = ["images", "top-1", "95 %", "top-5", "loss", "ECE"]
    for heading in [*headings, *(["published top-1", "top-5"] if compare else [])]:
        table.add_column(heading, justify="right")
    for result in results:
        low, high = result["interval_95"]
        row = [
            plain(
                f"{os.path.basename(os.path.normpath(result['data_dir']))} {result['split']}", 40
            ),
            f"{result['num_examples']:,}",
            f"{100 * result['top_1']:.1f} %",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * result['top_5']:.1f} %",
            "none" if result["loss"] is None else f"{result['loss']:.3f}",
            f"{result['calibration']['ece']:.3f}",
        ]
        if compare:
            figures = result["published"] or {}
            row += [_percent(figures.get(key)) for key in ("top_1", "top_5")]
        table.add_row(*row)
    # Names come from files: no markup of theirs is obeyed.
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, 110)
    console.print(table)
    pairs = results[0]["confusion_pairs"][:_PAIRS_SHOWN]
    if pairs and pairs[0]["count"] > 1:
        shown = (
            f"{plain(pair['label'])} taken for {plain(pair['predicted'])} ({pair['count']})"
            for pair in pairs
        )
        console.print(f"most often: {', '.join(shown)}", soft_wrap=True)


def plain(name: str, width: int = _NAME_WIDTH) -> str:
    """A name without anything that a terminal would act upon, cut to `width`."""
    shown = "".join("?" if unicodedata.category(letter)[0] == "C" else letter for letter in name)
    return shown if len(shown) <= width else f"{shown[: width - 1]}…"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
