"""The charts of the page about a data set. What they draw is bounded, whatever the data set is."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from common.inline_svg import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    SECOND,
    SERIES,
    chart,
    css_color,
    shortened,
    styled,
    to_markup,
)

MOST_BARS = 40  # more classes than this are drawn by rank

_STYLE = {"axes.labelpad": 9}  # a phone shows the text larger
_WIDTH = 440
_BINS = 36
_MAP_BINS = 40
_MAP_SHADES = 8
# A few strays would press all others into one bin; the outermost bins hold them.
_STRAYS = 0.001
_STEPS = (1, 2, 5, 10)
_TICK_ROOM = 0.11  # of an axis, so that labels do not meet on a phone
# A most frequent class so far above the middle one hides all others on a linear axis.
_STEEP = 20


@dataclasses.dataclass(frozen=True)
class Scale:
    """A logarithmic axis: its label, and the ticks it may have with their texts, dearest first."""

    label: str
    ticks: Mapping[float, str]


_SIDES = (224, 500, 1000, 128, 2000, 64, 5000, 32, 10000, 16, 20000, 8, 350, 700, 160, 90, 1400, 1)
PIXELS = {side: f"{side:,}" for side in _SIDES}
SIDE = Scale("shorter side, pixels", PIXELS)
ASPECT = Scale(
    "width : height",
    {1: "1:1", 4 / 3: "4:3", 3 / 4: "3:4", 2: "2:1", 1 / 2: "1:2", 3: "3:1", 1 / 3: "1:3"}
    | {6: "6:1", 1 / 6: "1:6", 20: "20:1", 1 / 20: "1:20", 100: "100:1", 1 / 100: "1:100"},
)
MEGAPIXELS = Scale(
    "megapixels",
    {
        10.0**power * digit: f"{10.0**power * digit:,.4g}"
        for digit in (1, 3, 2, 5)
        for power in range(-6, 4)
    },
)
BYTES = Scale(
    "size of the file",
    {
        10**power * digit: f"{10 ** (power % 3) * digit} {('bytes', 'kB', 'MB', 'GB')[power // 3]}"
        for digit in (1, 3, 2, 5)
        for power in range(1, 10)
    },
)


def legend(names: Sequence[str]) -> list[dict[str, str]]:
    """The colour of each split, for a legend outside the charts."""
    colors = [css_color(color) for color in SERIES * len(names)]
    return [{"name": name, "color": color} for name, color in zip(names, colors, strict=False)]


def class_bars(labels: Sequence[str], counts: Mapping[str, np.ndarray]) -> Markup:
    """A bar for each class, made of a part for each split."""
    with styled(_STYLE):
        number = len(labels)
        figure, axes = chart(_WIDTH, 24 + number * min(36, max(20, 380 / number)))
        rows, left = np.arange(number), np.zeros(number)
        for color, values in zip(SERIES * len(counts), counts.values(), strict=False):
            axes.barh(rows, values, left=left, height=0.64, color=color)
            left = left + values
        longest = max(left.max(), 1)
        for row, total in enumerate(left):
            axes.text(
                total + longest / 70, row, f"{total:,.0f}", va="center", color=MUTED, fontsize=9
            )
        axes.set_yticks(rows, [shortened(label) for label in labels])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(number - 0.4, -0.6)
        axes.set_xlim(0, longest * 1.14)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        return to_markup(figure, "Pictures of each class")


def class_ranks(counts: Mapping[str, np.ndarray]) -> Markup:
    """Pictures by the rank of their class, from the most frequent class to the least."""
    with styled(_STYLE):
        figure, axes = chart(_WIDTH, 360)
        for color, values in zip(SERIES * len(counts), counts.values(), strict=False):
            ordered = np.sort(values)[::-1]
            # Steps only where the height changes: as many corners as there are different counts.
            corner = np.flatnonzero(np.diff(ordered, prepend=-1))
            x, y = np.append(corner, len(ordered)), np.append(ordered[corner], 0)
            axes.fill_between(x, y, step="post", color=color, alpha=0.18, linewidth=0)
            axes.step(x, y, where="post", color=color, linewidth=1.6)
        axes.set_xlabel("classes, most frequent first")
        axes.set_ylabel("pictures")
        axes.margins(x=0)
        if _is_steep(counts.values()):
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.8)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(bottom=0)
            _whole_numbers(axes.yaxis)
        _whole_numbers(axes.xaxis)
        return to_markup(figure, "Pictures by the rank of their class")


def histogram(series: Mapping[str, np.ndarray], scale: Scale) -> Markup:
    """How the pictures of each split spread over a logarithmic axis, in shares of the split."""
    with styled(_STYLE):
        figure, axes = chart(_WIDTH, 230)
        edges = np.geomspace(*_reach(series.values()), _BINS + 1)
        for number, values in enumerate(series.values()):
            inside = np.clip(values, edges[0], edges[-1])
            shares = 100 * np.histogram(inside, edges)[0] / max(len(values), 1)
            color = SERIES[number % len(SERIES)]
            if number == 0:
                widths = np.diff(edges)
                axes.bar(edges[:-1], shares, widths * 0.88, align="edge", color=color)
            else:
                axes.stairs(shares, edges, color=color, linewidth=1.6)
        _scale(axes.xaxis, axes.set_xscale, scale.ticks, edges[0], edges[-1])
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel(scale.label)
        axes.set_ylabel("% of the pictures")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS))
        return to_markup(figure, f"Histogram: {scale.label}")


def size_map(width: np.ndarray, height: np.ndarray) -> Markup:
    """Where pictures lie by width and height; deeper: more of them."""
    with styled(_STYLE):
        figure, axes = chart(_WIDTH, 400)
        low, high = _reach([width, height])
        edges = np.geomspace(low, high, _MAP_BINS + 1)
        inside = (np.clip(values, low, high) for values in (width, height))
        counts = np.histogram2d(*inside, (edges, edges))[0]
        shades = np.ceil(_MAP_SHADES * np.log1p(counts) / np.log1p(counts.max())).astype(int)
        axes.plot([low, high], [low, high], color=LINE, linewidth=1)
        for shade in range(1, _MAP_SHADES + 1):
            cells = np.argwhere(shades == shade)
            if len(cells):
                axes.add_patch(_cells(cells, edges, (shade / _MAP_SHADES) ** 0.8))
        for name, setter in (("x", axes.set_xscale), ("y", axes.set_yscale)):
            _scale(getattr(axes, f"{name}axis"), setter, PIXELS, low, high)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel("width, pixels")
        axes.set_ylabel("height, pixels")
        return to_markup(figure, "Width and height of the pictures")


def shard_sizes(split: str, sizes: np.ndarray) -> Markup:
    """The size of each shard in their order, and the mean as a line."""
    with styled(_STYLE):
        figure, axes = chart(_WIDTH, 190)
        unit, name = next((u, n) for u, n in _UNITS if u <= max(sizes.max(), 1))
        if len(sizes) <= 2 * MOST_BARS:
            axes.bar(np.arange(len(sizes)), sizes / unit, 0.8, color=ACCENT)
        else:
            # Neighbours share a step once there are more shards than the chart has room for.
            steps = np.array_split(sizes / unit, min(len(sizes), _WIDTH // 2))
            edges = np.append(0, np.cumsum([len(step) for step in steps])) - 0.5
            axes.stairs([step.max() for step in steps], edges, fill=True, color=ACCENT)
        axes.axhline(sizes.mean() / unit, color=SECOND, linewidth=1.2)
        axes.set_xlabel("number of the shard")
        axes.set_ylabel(name)
        axes.margins(x=0.01)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=_STEPS))
        _whole_numbers(axes.xaxis)
        return to_markup(figure, f"Sizes of the shards of {split}")


_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "bytes"))


def _is_steep(counts: Iterable[np.ndarray]) -> bool:
    present = [values[values > 0] for values in counts]
    return any(len(one) and one.max() > _STEEP * np.median(one) for one in present)


def _reach(series: Iterable[np.ndarray]) -> tuple[float, float]:
    """From where to where a logarithmic axis goes."""
    values = np.concatenate([np.asarray(one, np.float64) for one in series])
    values = np.maximum(values, 1e-6)
    low, high = np.quantile(values, (_STRAYS, 1 - _STRAYS), method="nearest")
    # Pictures of one size are a bar in the middle.
    return (low / 1.04, high * 1.04) if high > low * 1.05 else (low / 1.5, high * 1.5)


def _scale(axis, set_scale, ticks: Mapping[float, str], low: float, high: float) -> None:
    set_scale("log")
    shown: dict[float, str] = {}
    for at, text in ticks.items():
        room = all(abs(np.log(at / other)) >= _TICK_ROOM * np.log(high / low) for other in shown)
        if low <= at <= high and room:
            shown[at] = text
    if len(shown) < 2:
        shown |= {at: f"{at:,.3g}" for at in (low, high)}
    axis.set_ticks(list(shown), list(shown.values()))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _cells(cells: np.ndarray, edges: np.ndarray, alpha: float) -> PathPatch:
    """Cells of a grid of one shade, as one path."""
    corners, codes = [], []
    for column, row in cells:
        left, right, bottom, top = *edges[column : column + 2], *edges[row : row + 2]
        corners += [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
        codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return PathPatch(Path(corners, codes), facecolor=ACCENT, alpha=alpha, linewidth=0)


def _whole_numbers(axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=5, steps=_STEPS, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
