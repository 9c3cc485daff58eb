"""The Markdown pages that people read: in the repository as they are, and on the site."""

import dataclasses
import pathlib
import re

from markdown_it import MarkdownIt

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("infra/*/README.md")],
)


def name_of(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclasses.dataclass(frozen=True)
class Contents:
    """Where a page points to, and what may be pointed to in it."""

    links: tuple[str, ...]
    pictures: tuple[tuple[str, str], ...]  # source, and the words for who cannot see it
    anchors: frozenset[str]


def contents_of(text: str) -> Contents:
    links, pictures, anchors, heading = [], [], [], False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        heading = token.type == "heading_open" or (heading and token.type == "inline")
        if heading and token.type == "inline":
            words = "".join(child.content for child in token.children)
            anchors.append(_anchor(words, anchors))
        for child in token.children or ():
            if child.type == "link_open":
                links.append(child.attrGet("href"))
            elif child.type == "image":
                pictures.append((child.attrGet("src"), child.content))
    return Contents(tuple(links), tuple(pictures), frozenset(anchors))


def _anchor(heading: str, taken: list[str]) -> str:
    """GitHub's name of a heading: small letters and digits, hyphens for blanks, then a number."""
    name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    again = sum(re.fullmatch(rf"{re.escape(name)}(-\d+)?", other) is not None for other in taken)
    return f"{name}-{again}" if again else name


def table_rows(text: str, header: str) -> list[list[str]]:
    """Cells of all rows of all tables with that header."""
    rows, inside = [], False
    for line in text.splitlines():
        if line.strip() == header:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not set(line) <= set("|-: "):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
