"""The files that the browser gets: one page, its style and its script."""

from __future__ import annotations

import jinja2

from pipeline.reporting.wording import FILTERS
from pipeline.serving.classifier import NUM_BEST, Classifier
from pipeline.serving.photo import FORMATS

_TYPES = {
    "try.html.j2": ("/", "text/html; charset=utf-8"),
    "try.css": ("/try.css", "text/css; charset=utf-8"),
    "try.js": ("/try.js", "text/javascript; charset=utf-8"),
}


def draw_page(classifier: Classifier, max_megabytes: float) -> dict[str, tuple[str, bytes]]:
    """Content type and content by path.

    Args:
        classifier: what answers.
        max_megabytes: size of the largest photo that is taken.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in ("pipeline", "common")]),
        # The style sheet and the script take nothing from the model.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    told = {
        "title": classifier.title,
        "facts": classifier.facts,
        "num_classes": len(classifier.labels),
        "num_best": min(NUM_BEST, len(classifier.labels)),
        "max_megabytes": max_megabytes,
        "types": ",".join(f"image/{name.lower()}" for name in FORMATS),
    }
    return {
        path: (kind, environment.get_template(name).render(told).encode())
        for name, (path, kind) in _TYPES.items()
    }
