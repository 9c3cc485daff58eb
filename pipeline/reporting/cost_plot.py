"""Accuracy against multiply-adds: the released models, and this one among them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from common.inline_svg import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    QUIET,
    SECOND,
    THIRD,
    chart,
    shortened,
    styled,
    to_markup,
)
from loaders.zoo import ZooRow
from training.models.complexity import count_macs

# Name, colour, marker, and where the label stands: points to the right of the last blob and up.
_FAMILIES = {
    "mobilenet_v1": ("V1", MUTED, "o"),
    "mobilenet_v2": ("V2", THIRD, "s"),
    "mobilenet_v3_large": ("V3 large", SECOND, "^"),
    "mobilenet_v3_small": ("V3 small", SECOND, "v"),
    "mobilenet_v3_large_minimalistic": ("V3 large minimalistic", QUIET, "^"),
    "mobilenet_v3_small_minimalistic": ("V3 small minimalistic", QUIET, "v"),
    "mobilenet_edgetpu": ("EdgeTPU", INK, "D"),
}
_TICKS = [n * 10**power for power in range(-1, 5) for n in (1, 2, 5)]


@dataclasses.dataclass(frozen=True)
class Mark:
    """The model of the report, on the chart.

    Attributes:
        name: what it is called.
        macs: multiply-adds for one image.
        top_1: share of one.
        interval: of `top_1`, or None.
    """

    name: str
    macs: int
    top_1: float
    interval: tuple[float, float] | None = None


def accuracy_over_macs(
    rows: Sequence[ZooRow], own: Mark | None, kin: Sequence[ZooRow] = ()
) -> Markup:
    """Top-1 accuracy in percent over millions of multiply-adds, on a logarithmic axis.

    Args:
        rows: released models with a published accuracy; a line joins one width's resolutions.
        own: this model, or None.
        kin: those of `rows` that have this model's architecture, which get a ring.
    """
    with styled({}):
        figure, axes = chart(880, 430)
        axes.set_xscale("log")
        axes.set_axisbelow(True)
        axes.grid(color=LINE, linewidth=0.7)
        for family, group in itertools.groupby(rows, key=lambda row: row.model_name):
            _draw_family(axes, family, list(group))
        rings = [row for row in kin if row.top_1]
        if rings:
            axes.scatter(
                [count_macs(row.config()) / 1e6 for row in rings],
                [row.top_1 for row in rings],
                130,
                "none",
                edgecolors=ACCENT,
                linewidths=1.4,
                label="released, of this width",
            )
        if own:
            _draw_own(axes, own)
        axes.margins(x=0.06, y=0.08)
        axes.set_ylim(top=min(axes.get_ylim()[1], 101))
        axes.xaxis.set_major_locator(FixedLocator(_TICKS))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.set(xlabel="million multiply-adds", ylabel="top-1 accuracy")
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, labelcolor=INK, fontsize=9
        )
        return to_markup(figure, "accuracy over multiply-adds")


def _draw_family(axes: Axes, family: str, rows: Sequence[ZooRow]) -> None:
    name, color, marker = _FAMILIES[family]
    points = [(count_macs(row.config()) / 1e6, row.top_1, row.width_multiplier) for row in rows]
    points.sort(key=lambda point: (point[2], point[0]))
    for _, series in itertools.groupby(points, key=lambda point: point[2]):
        costs, accuracies, _ = zip(*series, strict=True)
        axes.plot(costs, accuracies, color=color, linewidth=1, alpha=0.5)
    costs, accuracies, _ = zip(*points, strict=True)
    axes.scatter(costs, accuracies, 34, color, marker=marker, linewidths=0, label=name, zorder=3)


def _draw_own(axes: Axes, own: Mark) -> None:
    cost, accuracy = own.macs / 1e6, 100 * own.top_1
    if own.interval:
        low, high = (100 * bound for bound in own.interval)
        axes.plot([cost, cost], [low, high], color=ACCENT, linewidth=2.2, solid_capstyle="butt")
    axes.scatter(cost, accuracy, 120, ACCENT, marker="D", linewidths=0, zorder=5)
    axes.annotate(
        f"{shortened(own.name)}, {accuracy:.1f} %",
        (cost, accuracy),
        xytext=(11, 0),
        textcoords="offset points",
        va="center",
        color=ACCENT,
        fontsize=11,
        fontweight="bold",
    )
