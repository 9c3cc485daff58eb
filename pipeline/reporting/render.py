"""The report as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2

from pipeline.reporting.wording import FILTERS


def render(sections: Mapping[str, Any]) -> str:
    """Fills the template; whatever comes from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in ("pipeline", "common")]),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment.get_template("report.html.j2").render(sections)
