"""The site made of README.md, docs/ and the READMEs of infra/: `make docs`.

Sources are read from the root of the repository, so that a link between two pages is the same file
on the site and where the repository is read. The pages know nothing of Sphinx; what they cannot
say in plain Markdown, the order of the navigation, is said here.
"""

from __future__ import annotations

import pathlib
import re

from docutils import nodes

DOCS = pathlib.Path(__file__).parent
_SETUP = (DOCS.parent / "setup.py").read_text(encoding="utf-8")

project = "mobilenet-pipeline"
copyright = ""
version = release = re.search(r'version="([^"]+)"', _SETUP)[1]
language = "en"  # en_GB comes with a catalogue that lacks the plurals the search needs

extensions = ["myst_parser", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = ["README.md", "docs/*.md", "infra/*/README.md", "pipeline/*/README.md"]
exclude_patterns = [".*", "build", "runs", "dist", "*.egg-info"]
suppress_warnings = ["myst.header"]  # pages of the repository may begin with a second level

myst_heading_anchors = 4
myst_links_external_new_tab = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = "mobilenet-pipeline"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_css_files = ["site.css"]
html_js_files = ["search_in_files.js"]
html_favicon = "_static/icon.svg"
html_additional_pages = {"index": "to_the_first_page.html"}
html_copy_source = False
html_show_copyright = False
html_use_index = False
html_domain_indices = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "color-brand-primary": "#2b5c9e",
        "color-brand-content": "#2b5c9e",
        "color-background-primary": "#fcfbf8",
        "color-background-secondary": "#f3f1ec",
        "color-foreground-primary": "#1d222b",
        "color-background-border": "#e2e0da",
        "color-code-background": "#f3f1ec",
        "color-inline-code-background": "#f3f1ec",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7fadea",
        "color-brand-content": "#7fadea",
        "color-background-primary": "#14171c",
        "color-background-secondary": "#1a1e25",
        "color-foreground-primary": "#e6e8ec",
        "color-background-border": "#2d333d",
        "color-code-background": "#1a1e25",
        "color-inline-code-background": "#20252d",
    },
}

linkcheck_timeout = 20

SHORT = 24  # characters; a line of a phone has some 40

# Heading, and pages under it: title where the page's own would not do, and document.
NAVIGATION = (
    ("", ("What it is </README>",)),
    (
        "From nothing to a model",
        ("laptop", "gpu_machine", "vertex", "tpu", "dataflow", "kubernetes"),
    ),
    (
        "Step by step",
        (
            "data_sets",
            "training",
            "recipes",
            "evaluating",
            "exporting",
            "parity",
            "publishing",
        ),
    ),
    (
        "Inside",
        (
            "architecture",
            "adding_a_model",
            "Data readers <data_readers>",
            "The demo's checkpoint </pipeline/demo_weights/README>",
        ),
    ),
    ("Files for the cloud", ("/infra/*/README",)),
)


def toctrees(navigation: tuple[tuple[str, tuple[str, ...]], ...]) -> str:
    """The navigation in MyST's words."""
    return "\n".join(
        "\n".join(
            (
                "",
                "```{toctree}",
                ":hidden:",
                ":glob:",
                *([f":caption: {heading}"] if heading else []),
                "",
                *pages,
                "```",
            )
        )
        for heading, pages in navigation
    )


def add_navigation(app, docname: str, source: list[str]) -> None:
    """Puts the navigation below the first page's text."""
    if docname == root_doc:
        source[0] += toctrees(NAVIGATION)


def keep_short_code_whole(app, doctree: nodes.document) -> None:
    """Marks words of code that no line needs to be broken in, as `--`."""
    for literal in doctree.findall(nodes.literal):
        if len(literal.astext()) <= SHORT:
            literal["classes"].append("short")


def setup(app) -> None:
    """What Sphinx calls."""
    app.connect("source-read", add_navigation)
    app.connect("doctree-read", keep_short_code_whole)
