"""Charts that stand inside a page and follow its light and dark colours.

A chart is drawn by matplotlib in the marker colours below, which become the CSS variables of
templates/page.css. Text stays text: it takes the page's font and can be searched. Equal numbers
give equal bytes.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, MUTED, LINE = "#0a0b01", "#0a0b02", "#0a0b03"
ACCENT, SECOND, THIRD, QUIET = "#0a0b04", "#0a0b05", "#0a0b06", "#0a0b07"
PAPER = "#0a0b08"
SERIES = (ACCENT, SECOND, THIRD, QUIET)

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
    QUIET: "var(--quiet)",
    PAPER: "var(--paper)",
}

_UNITS_PER_INCH = 72
_LONGEST_LABEL = 26
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",  # it comes with matplotlib: one layout on every machine
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$1 notes"
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.unicode_minus": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


def css_color(color: str) -> str:
    """The CSS variable that a marker colour becomes, for legends outside the charts."""
    return _VARIABLES[color]


@contextlib.contextmanager
def styled(own: Mapping[str, Any]) -> Iterator[None]:
    """Within it, matplotlib draws as pages want it, with one page's `own` settings besides."""
    with matplotlib.rc_context({**_STYLE, **own}), warnings.catch_warnings():
        # The browser's fonts draw the text; what matplotlib's own lacks does not matter.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        yield


def chart(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of that many units with one bare pair of axes."""
    figure = Figure(
        figsize=(width / _UNITS_PER_INCH, height / _UNITS_PER_INCH),
        layout="constrained",
        facecolor="none",
    )
    FigureCanvasSVG(figure)
    axes = figure.add_subplot(facecolor="none")
    axes.spines[["top", "left", "right"]].set_visible(False)
    axes.tick_params(which="both", length=0, pad=5)
    return figure, axes


def to_markup(figure: Figure, title: str) -> Markup:
    """The figure as an `svg` element that is as wide as its place."""
    out = io.StringIO()
    # Ids are hashes; each chart salts its own, since all share a page.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    inside = out.getvalue().partition("<svg")[2].partition(">")[2]
    inside = re.sub(r"<!--.*?-->|<style.*?</style>|<metadata.*?</metadata>", "", inside, flags=re.S)
    inside = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", inside)  # counters, to which nothing refers
    inside = re.sub(r'style="[^"]*"', lambda found: _in_colours_of_page(found[0]), inside)
    inside = re.sub(r">\s+<", "><", inside)
    width, height = figure.get_size_inches() * _UNITS_PER_INCH
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}').format(
        width, height, escape(title), Markup(inside)
    )


def shortened(label: str) -> str:
    """A label that fits beside a chart, without signs that cannot be drawn."""
    label = "".join(sign if sign.isprintable() else "?" for sign in label)
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _in_colours_of_page(style: str) -> str:
    style = re.sub(r"font:\s*([\d.]+px)[^;\"]*", r"font-size: \1", style)
    style = re.sub(r"font-family:[^;\"]*;?\s*", "", style)
    return re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], "none"), style)
