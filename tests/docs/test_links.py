"""Links between pages lead somewhere where the repository is read, without any site."""

import subprocess

import pytest

from .pages import PAGES, ROOT, contents_of, name_of

TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
each_page = pytest.mark.parametrize("page", PAGES, ids=map(name_of, PAGES))


def is_elsewhere(link: str) -> bool:
    return link.startswith(("https://", "http://", "mailto:"))


@each_page
def test_links_lead_to_what_is_there(page):
    dead = []
    for link in contents_of(TEXTS[page]).links:
        if is_elsewhere(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        text = TEXTS.get(target)
        if not target.exists() or (
            anchor and (text is None or anchor not in contents_of(text).anchors)
        ):
            dead.append(link)
    assert not dead


@each_page
def test_pictures_are_there_and_have_words_for_who_cannot_see_them(page):
    for source, words in contents_of(TEXTS[page]).pictures:
        assert (page.parent / source).is_file(), source
        assert words


@each_page
def test_nothing_is_linked_that_git_would_not_bring(page):
    """A path that is ignored is there on one machine, and on no other."""
    linked = [
        (page.parent / link.partition("#")[0]).resolve()
        for link in contents_of(TEXTS[page]).links
        if not is_elsewhere(link) and link.partition("#")[0]
    ]
    if not linked or not (ROOT / ".git").exists():
        return
    asked = subprocess.run(
        ["git", "check-ignore", *map(str, linked)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (asked.returncode, asked.stdout) == (1, "")


@each_page
def test_a_page_begins_with_its_only_title(page):
    titles = [line for line in without_code(TEXTS[page]) if line.startswith("# ")]
    assert len(titles) == 1
    assert TEXTS[page].startswith(titles[0])


def without_code(text: str) -> list[str]:
    lines, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return lines


def test_dead_links_are_seen():
    """The tests above can fail."""
    found = contents_of(
        "# One\n\n## A `b_c`, d!\n\n## One\n\n[x](gone.md#a) `[y](code.md)`\n\n"
        "```\n# no heading\n[z](code.md)\n```\n\n| t |\n|---|\n| [in a table](table.md) |\n"
    )
    assert found.links == ("gone.md#a", "table.md")
    assert found.anchors == {"one", "a-b_c-d", "one-1"}
