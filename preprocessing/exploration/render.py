"""The page as HTML, and how it writes numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jinja2


def render(page: Mapping[str, Any]) -> str:
    """Fills the template."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(name) for name in ("preprocessing.exploration", "common")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "plural": _plural,
        "about": _about,
        "percent": _percent,
        "size": _size,
        "measure": _measure,
        "value": _value,
        # Of ImageNet's many words for a thing, those that fit under a picture.
        "first_words": lambda text: text.partition(",")[0],
    }
    return environment.get_template("explore.html.j2").render(page)


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def _about(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == round(number) else f"{number:.3g}"


def _percent(share: float) -> str:
    """A share as people read it: whole above 10 %, two digits below, never 0 for something."""
    percent = 100 * share
    digits = 0 if percent >= 10 or not percent else 1 - math.floor(math.log10(percent))
    text = f"{percent:.{min(digits, 4)}f}"
    # What is almost all is not all.
    text = "99.9" if text == "100" and share < 1 else text
    return f"{text}\N{NO-BREAK SPACE}%"


def _size(count: float) -> str:
    """Bytes as people read them, in powers of ten."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f}\N{NO-BREAK SPACE}{unit}"
    return f"{count:.0f}\N{NO-BREAK SPACE}bytes"


def _measure(number: float, kind: str) -> str:
    """A quantile of a measure in its unit."""
    if kind == "bytes":
        return _size(number)
    if kind in ("aspect", "megapixels"):
        return f"{number:.3g}"
    return f"{number:,.0f}"


def _value(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == "":
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "–"
    return str(value)
