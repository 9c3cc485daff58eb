"""Whether a model is as often right as it says: the reliability diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.ticker import PercentFormatter

from common.inline_svg import ACCENT, LINE, MUTED, QUIET, SECOND, chart, styled, to_markup
from pipeline.reporting.wording import is_number

_LARGEST_DOT, _SMALLEST_DOT = 110.0, 16.0  # square points
# A handful of images in a bin says little about how often they are right.
FEW_IMAGES = 10


def describe_calibration(calibration: Any) -> dict[str, Any] | None:
    """The expected calibration error and its chart; None without a calibration.

    Args:
        calibration: `{"ece", "bins": [{"low", "high", "count", "confidence", "accuracy"}]}`, all
            shares of one.
    """
    bins = [
        row
        for row in (calibration or {}).get("bins") or []
        if row.get("count") and is_number(row.get("confidence")) and is_number(row.get("accuracy"))
    ]
    if not bins:
        return None
    total = sum(row["count"] for row in bins)
    gap = sum(row["count"] * (row["confidence"] - row["accuracy"]) for row in bins) / total
    return {"ece": calibration.get("ece"), "gap": gap, "chart": reliability_diagram(bins)}


def reliability_diagram(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Accuracy over confidence, a dot a bin, with the share of the images as bars behind it."""
    total = sum(row["count"] for row in bins)
    with styled({}):
        figure, axes = chart(440, 330)
        axes.set_axisbelow(True)
        axes.grid(color=LINE, linewidth=0.7)
        for row in bins:
            low, high = row["low"], row["high"]
            axes.bar(
                (low + high) / 2, row["count"] / total, (high - low) * 0.88, color=QUIET, alpha=0.35
            )
        axes.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1)
        for row in bins:
            confidence, accuracy = row["confidence"], row["accuracy"]
            alpha = 1.0 if row["count"] >= FEW_IMAGES else 0.4
            gap = [confidence, accuracy]
            axes.plot([confidence] * 2, gap, color=SECOND, linewidth=1.6, alpha=alpha)
            axes.scatter(
                confidence,
                accuracy,
                _SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * (row["count"] / total) ** 0.5,
                color=ACCENT,
                alpha=alpha,
                linewidths=0,
                zorder=3,
                clip_on=False,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        return to_markup(figure, "calibration")
