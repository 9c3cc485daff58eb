"""`python -m loaders.zoo_plot`: what the released models cost and how often they are right.

One panel sets top-1 accuracy against multiply-adds, with parameters as the area of the blobs, one
against the latency on a Pixel 1, and one compares the phones that were measured, as far as figures
were published. Multiply-adds and parameters are ours (see `loaders.zoo` on the published ones). The
same table always gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from common.command import flag, run
from common.errors import UsageError
from common.files import write_bytes
from loaders.zoo import ZooRow, load_zoo
from training.models.complexity import count_macs, count_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")

# Colours of Okabe and Ito, which colour-blind readers can tell apart.
_FAMILIES = {
    "mobilenet_v1": ("V1", "#0072b2"),
    "mobilenet_v2": ("V2", "#d58a00"),
    "mobilenet_v3_large": ("V3 large", "#d55e00"),
    "mobilenet_v3_small": ("V3 small", "#cc79a7"),
    "mobilenet_v3_large_minimalistic": ("V3 large minimalistic", "#009e73"),
    "mobilenet_v3_small_minimalistic": ("V3 small minimalistic", "#56b4e9"),
    "mobilenet_edgetpu": ("EdgeTPU", "#4d4d4d"),
}
# Column of the table, what it is called, and its marker.
_DEVICES = (
    ("pixel1_ms", "Pixel 1", "o"),
    ("pixel2_ms", "Pixel 2", "s"),
    ("pixel3_ms", "Pixel 3", "^"),
    ("pixel4_cpu_ms", "Pixel 4, CPU", "D"),
    ("pixel4_edgetpu_ms", "Pixel 4, Edge TPU", "*"),
)
# Where the first blob of a series has room for its label: steps to the right and up.
_LABEL_SIDES = {
    "mobilenet_v1": (1, -1),
    "mobilenet_v2": (1, -1),
    "mobilenet_v3_large_minimalistic": (1, 0),
    "mobilenet_edgetpu": (1, -1),
}
_USUAL_LABEL_SIDE = (-1, 1)
_INK, _MUTED, _GRID = "#222222", "#666666", "#dddddd"
_CAPTION = (
    "Full blobs are float models, rings 8-bit ones. Numbers are width multipliers; a line joins the"
    " resolutions of one width: 224, 192, 160 and 128 pixels, of V2 also 96."
)
_AREA_OF_A_MILLION = 48.0  # square points
_SETTINGS = {
    "svg.hashsalt": "zoo",
    "font.family": "DejaVu Sans",  # comes with matplotlib: the picture is the same everywhere
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
}


@dataclasses.dataclass(frozen=True)
class PlotConfig:
    """Flags of the command."""

    output: str = flag(help="picture to write, .svg or .png")


def plot_zoo(config: PlotConfig) -> None:
    """Draws the accuracy of the released models over multiply-adds and latency."""
    kind = config.output.rpartition(".")[-1]
    if kind not in FORMATS:
        raise UsageError(f"--output={config.output} must end in .svg or .png")
    write_bytes(config.output, draw(load_zoo(), kind))


def draw(rows: Sequence[ZooRow], kind: str) -> bytes:
    """The picture of those of `rows` with a published accuracy, as an 'svg' or 'png' file."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.top_1]
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(13, 8.4), layout="constrained")
        grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1), height_ratios=(1.15, 1))
        left = figure.add_subplot(grid[:, 0])
        right = figure.add_subplot(grid[0, 1], sharey=left)
        phones = figure.add_subplot(grid[1, 1])
        _draw_panel(left, rows, lambda row: count_macs(row.config()) / 1e6)
        _draw_panel(right, [row for row in rows if row.pixel1_ms], lambda row: row.pixel1_ms)
        _draw_phones(phones, rows)
        left.set(xlabel="million multiply-adds", ylabel="ImageNet top-1 accuracy, %")
        right.set(xlabel="latency on a Pixel 1, one large core, ms")
        left.set_title("Accuracy and size", loc="left")
        right.set_title("Accuracy and speed (none published for V1)", loc="left")
        figure.supxlabel(_CAPTION, fontsize=9, color=_MUTED)
        _add_legends(left, rows)
        return _encode(figure, kind)


def _draw_panel(axes: Axes, rows: Sequence[ZooRow], cost: Callable[[ZooRow], float]) -> None:
    """Blobs of all rows; a line joins one width's resolutions and is labelled at its end."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_axisbelow(True)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)

    def series_of(row: ZooRow) -> tuple[str, float, bool]:
        return row.model_name, row.width_multiplier, row.quantized

    for (model, width, quantized), group in itertools.groupby(
        sorted(rows, key=series_of), key=series_of
    ):
        series = sorted(group, key=lambda row: -row.resolution)
        costs, accuracies = [cost(row) for row in series], [row.top_1 for row in series]
        color = _FAMILIES[model][1]
        axes.plot(costs, accuracies, color=color, linewidth=1, alpha=0.6)
        areas = [_area(row) for row in series]
        faces, edges = ("none", color) if quantized else (color, "white")
        axes.scatter(costs, accuracies, areas, faces, alpha=0.75, edgecolors=edges, zorder=3)
        if quantized and model != "mobilenet_edgetpu":
            continue  # its float model beside it has the label
        right, up = _LABEL_SIDES.get(model, _USUAL_LABEL_SIDE)
        distance = 0.35 * areas[0] ** 0.5 + (1 if up else 4)
        axes.annotate(
            f"{width:g}",
            (costs[0], accuracies[0]),
            xytext=(right * distance, up * distance),
            textcoords="offset points",
            ha="left" if right > 0 else "right",
            va={-1: "top", 0: "center", 1: "bottom"}[up],
            color=color,
            fontsize=9,
        )
    axes.margins(x=0.1)
    ticks = [n * 10**power for power in range(4) for n in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def _draw_phones(axes: Axes, rows: Sequence[ZooRow]) -> None:
    """Latencies of the models that were measured on several phones, one line a model."""
    measured = [row for row in rows if row.pixel2_ms or row.pixel4_cpu_ms]
    names = [
        f"{_FAMILIES[row.model_name][0]} {row.width_multiplier:g}"
        + (", 8-bit" if row.quantized else "")
        for row in measured
    ]
    places = range(len(measured), 0, -1)
    for column, device, marker in _DEVICES:
        points = [
            (getattr(row, column), place)
            for row, place in zip(measured, places, strict=True)
            if getattr(row, column)
        ]
        axes.scatter(*zip(*points, strict=True), 38, marker=marker, alpha=0.8, label=device)
    axes.set_yticks(list(places), names, fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="both", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlim(left=0)
    axes.set_xlabel("latency, ms")
    axes.set_title("From phone to phone", loc="left")
    axes.legend(loc="lower right", frameon=False, fontsize=8.5)


def _add_legends(axes: Axes, rows: Sequence[ZooRow]) -> None:
    """Colours of the families, and blobs of round numbers of parameters."""
    drawn = {row.model_name for row in rows}
    families = [
        axes.scatter([], [], 60, color, label=name)
        for model, (name, color) in _FAMILIES.items()
        if model in drawn
    ]
    sizes = [
        axes.scatter(
            [], [], _AREA_OF_A_MILLION * millions, _MUTED, alpha=0.5, label=f"{millions} M"
        )
        for millions in (1, 2, 4, 6)
    ]
    legend = axes.legend(handles=families, loc="lower right", frameon=False)
    axes.add_artist(legend)
    axes.legend(
        handles=sizes, title="parameters", loc="lower center", frameon=False, labelspacing=0.9
    )


def _area(row: ZooRow) -> float:
    return _AREA_OF_A_MILLION * count_parameters(row.config()).trainable / 1e6


def _encode(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    # A date would make each file another.
    figure.savefig(file, format=kind, dpi=100, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()


if __name__ == "__main__":
    run(plot_zoo, PlotConfig)
