"""`MODEL_CARD.md`: what an export is, for the people who get it."""

from __future__ import annotations

import os
import re
from typing import Any

import jinja2

from pipeline import formats
from pipeline.formats.labels import label_lines, one_line
from training.models import ModelRecord
from training.models.complexity import count_macs, count_parameters

_SHOWN_NAMES = 20
_PREPROCESSING = {
    "inception": "takes the central 87.5 % of each side of a photo and resizes it bilinearly",
    "bicubic": "resizes a photo bicubically, keeping its shape, and takes the centre: 87.5 % of the"
    " shorter side",
}


def model_card(record: ModelRecord, summary: dict[str, Any]) -> str:
    """The card, in Markdown; names of classes and paths cannot break out of it.

    Args:
        record: the exported model's.
        summary: what `export.json` says.
    """
    height, width = record.config.resolution
    written = [artifact["format"] for artifact in summary["artifacts"]]
    lines = label_lines(record)
    return _template().render(
        title=f"{record.config.name} {record.config.width_multiplier:g}, {height} x {width} pixels",
        record=record,
        summary=summary,
        height=height,
        width=width,
        parameters=count_parameters(record.config),
        macs=count_macs(record.config),
        origin=os.path.basename(summary["exported_from"]),
        preprocessing=_PREPROCESSING[record.evaluation_preprocessing],
        names=lines[:_SHOWN_NAMES],
        more_names=len(lines) - len(lines[:_SHOWN_NAMES]),
        formats=written,
        paths=formats.PATHS,
        takes_pixels=set(written) - {formats.CHECKPOINT, formats.SAVED_MODEL},
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "code": _code,
        "text": _text,
        "percent": lambda part: f"{part:.2%}",
        "interval": _interval,
    }
    return environment.get_template("model_card.md.j2")


def _code(words: str) -> str:
    """A code span: nothing in it is Markdown or HTML, and it stays within its line."""
    words = one_line(str(words))
    longest = max(map(len, re.findall("`+", words)), default=0)
    fence = "`" * (longest + 1)
    inner = f" {words} " if longest or words != words.strip() or not words else words
    return f"{fence}{inner}{fence}".replace("|", "\\|")


def _text(words: str) -> str:
    """Plain words: what Markdown or HTML would take for its own is escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|&])", r"\\\1", one_line(str(words)))


def _interval(ends: Any) -> str:
    if jinja2.is_undefined(ends) or not ends:
        return ""
    low, high = ends
    return f" (95 % interval {low:.1%} to {high:.1%})"
