"""The report's charts, each a piece of SVG that follows the page's colour scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from common.inline_svg import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    PAPER,
    SECOND,
    SERIES,
    chart,
    shortened,
    styled,
    to_markup,
)

MOST_BARS = 40  # More classes than this are a profile instead of a bar each.
MOST_NUMBERED = 16  # A larger confusion matrix has no room for numbers in its cells.

_STYLE = {"lines.linewidth": 1.8}


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float], str, str]],
    y_label: str,
    *,
    start: tuple[float, float] | None = None,
    other: tuple[Sequence[tuple[float, float]], tuple[float, float] | None] | None = None,
    percent: bool = False,
) -> Markup:
    """Lines over epochs.

    Args:
        series: name to (epochs, values, colour, line style).
        y_label: what the values are.
        start: (epoch, value) of a mark for where training started from.
        other: another run's (epoch, value) pairs, drawn as a thinner line, and its own start.
        percent: values are fractions of one.
    """
    with styled(_STYLE):
        figure, axes = chart(440, 270)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=LINE, linewidth=0.7)
        for epochs, values, color, style in series.values():
            marker = "o" if len(epochs) < 2 else ""
            axes.plot(epochs, values, style, color=color, marker=marker, markersize=4)
        if other is not None:
            points, other_start = other
            marker = "o" if len(points) < 2 else ""
            axes.plot(
                *zip(*points, strict=True), color=SECOND, linewidth=1, marker=marker, markersize=3
            )
            if other_start:
                axes.plot(*other_start, "D", color=SECOND, markersize=4.5, clip_on=False)
        if start is not None:
            axes.plot(*start, "D", color=ACCENT, markersize=6, clip_on=False)
        axes.set_xlabel("epoch")
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.margins(x=0.02)
        if percent:
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        elif all(value >= 0 for _, values, _, _ in series.values() for value in values):
            axes.set_ylim(bottom=0)
        return to_markup(figure, y_label)


def stacked_bars(labels: Sequence[str], series: Mapping[str, Sequence[int]], title: str) -> Markup:
    """One horizontal bar a label, made of one part for each of `series`."""
    with styled(_STYLE):
        figure, axes = chart(440, _height_of_rows(len(labels)))
        rows, left = np.arange(len(labels)), np.zeros(len(labels))
        for color, values in zip(SERIES * len(series), series.values(), strict=False):
            axes.barh(rows, values, left=left, height=0.64, color=color)
            left = left + values
        room = max(left.max(initial=0), 1) * 0.015
        for row, total in zip(rows, left, strict=True):
            axes.text(total + room, row, f"{int(total):,}", va="center", color=MUTED, fontsize=9)
        _name_rows(axes, labels)
        axes.set_xlim(0, max(left.max(initial=0), 1) * 1.12)
        axes.xaxis.set_visible(False)
        return to_markup(figure, title)


def profile(
    series: Mapping[str, Sequence[float]], x_label: str, y_label: str, *, percent: bool = False
) -> Markup:
    """Each series from its largest value to its smallest: the bar chart of very many labels."""
    with styled(_STYLE):
        figure, axes = chart(440, 270)
        for color, values in zip(SERIES * len(series), series.values(), strict=False):
            steps = np.append(np.sort(values)[::-1], 0)
            axes.fill_between(np.arange(len(steps)), steps, step="post", color=color, alpha=0.25)
            axes.step(np.arange(len(steps)), steps, where="post", color=color)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        if percent:
            axes.set_ylim(0, 1.02)
            axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        else:
            _count_pictures(axes)
        return to_markup(figure, y_label)


def accuracy_bars(labels: Sequence[str], correct: Sequence[int], totals: Sequence[int]) -> Markup:
    """One bar a class on a track from 0 to 100 %, with the counts behind it."""
    with styled(_STYLE):
        figure, axes = chart(440, _height_of_rows(len(labels)))
        rows = np.arange(len(labels))
        values = np.asarray(correct) / np.maximum(totals, 1)
        axes.barh(rows, np.ones(len(rows)), height=0.64, color=LINE, alpha=0.5)
        axes.barh(rows, values, height=0.64, color=ACCENT)
        for row, right, total in zip(rows, correct, totals, strict=True):
            axes.text(1.02, row, f"{right:,} / {total:,}", va="center", color=MUTED, fontsize=9)
        _name_rows(axes, labels)
        axes.set_xlim(0, 1.2)
        axes.xaxis.set_visible(False)
        return to_markup(figure, "accuracy of each class")


def histogram(
    values: np.ndarray, x_label: str, *, mark: float | None = None, ratio: bool = False
) -> Markup:
    """How often values occur.

    Args:
        values: positive numbers.
        x_label: what they are.
        mark: a value to point out by a line.
        ratio: values are width / height, drawn on a logarithmic axis.
    """
    with styled(_STYLE):
        figure, axes = chart(440, 230)
        values = np.asarray(values, dtype=np.float64)
        shown = [*values, mark] if mark else values
        if ratio:
            reach = max(1.5, *np.exp(np.abs(np.log(values)))) * 1.05
            axes.set_xscale("log")
            bins = np.geomspace(1 / reach, reach, 30)
            ticks = {1 / 3: "1:3", 1 / 2: "1:2", 3 / 4: "3:4", 1: "1:1"}
            ticks |= {4 / 3: "4:3", 2: "2:1", 3: "3:1"}
            inside = {at: text for at, text in ticks.items() if 1 / reach <= at <= reach}
            axes.set_xticks(list(inside), list(inside.values()))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            low, high = min(shown), max(shown)
            bins = np.linspace(low - 0.5, high + 0.5, 31) if high > low else [low - 5, low + 5]
        axes.hist(values, bins=bins, color=ACCENT, rwidth=0.88)
        if mark:
            axes.axvline(mark, color=SECOND, linewidth=1.4)
        axes.set_xlabel(x_label)
        axes.set_ylabel("pictures")
        _count_pictures(axes)
        return to_markup(figure, x_label)


def confusion_matrix(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Counts [true, predicted] as a square of cells, each shaded by its share of the true class."""
    with styled(_STYLE):
        size = len(labels)
        counts = np.asarray(counts)
        side = max(440, 60 + 26 * size)
        figure, axes = chart(side, side)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for true, predicted in np.argwhere(counts > 0):
            share = shares[true, predicted]
            color = ACCENT if true == predicted else SECOND
            axes.add_patch(
                # A single mistake among many would be invisible without the floor.
                Rectangle(
                    (predicted - 0.47, true - 0.47),
                    0.94,
                    0.94,
                    color=color,
                    alpha=0.14 + 0.86 * share,
                    linewidth=0,
                )
            )
            if size <= MOST_NUMBERED:
                axes.text(
                    predicted,
                    true,
                    f"{counts[true, predicted]}",
                    ha="center",
                    va="center",
                    fontsize=8.5,
                    color=PAPER if share > 0.5 else INK,
                )
        axes.set_xlim(-0.5, size - 0.5)
        axes.set_ylim(size - 0.5, -0.5)
        axes.set_aspect("equal")
        names = [shortened(label) for label in labels]
        axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), names)
        axes.tick_params(labelcolor=INK, labelsize=9)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(False)
        return to_markup(figure, "confusion matrix")


def _count_pictures(axes: Axes) -> None:
    """Labels the upright axis with whole numbers."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _height_of_rows(count: int) -> float:
    """Few bars are given room, many are set close."""
    return 30 + count * min(36, max(22, 380 / max(count, 1)))


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Puts class names beside horizontal bars, the first at the top."""
    axes.set_yticks(range(len(labels)), [shortened(label) for label in labels])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.spines["bottom"].set_visible(False)
