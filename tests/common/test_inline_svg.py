"""Charts inside pages: their colours, ids and words."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import common
from common import inline_svg

ROOT = Path(common.__file__).parents[1]
DRAW = """
from common import inline_svg as svg
with svg.styled({"lines.linewidth": 3}):
    figure, axes = svg.chart(200, 100)
    axes.fill_between([1, 2], [1, 3], color=svg.THIRD)
    axes.plot([1, 2], [1, 2], color=svg.ACCENT)
    axes.plot([1, 2], [2, 1], color="#123456")
    axes.set_title("$1 <b>漢字</b>", color=svg.PAPER)
    axes.set_xlabel("of all")
    drawn = svg.to_markup(figure, TITLE)
"""


def drawn(title="A title"):
    names = {"TITLE": title}
    exec(DRAW, names)
    return str(names["drawn"])


def styles(text):
    return " ".join(re.findall(r'style="([^"]*)"', text))


def test_a_chart_has_the_colours_of_the_page_and_no_other():
    found = styles(drawn())
    used = set(re.findall(r"var\(--(\w+)\)", found))
    assert used == {"muted", "line", "third", "accent", "paper"}
    assert not re.search(r"#[0-9a-f]{3}", found)
    sheet = (ROOT / "common" / "templates" / "page.css").read_text(encoding="utf-8")
    light, _, dark = sheet.partition("prefers-color-scheme: dark")
    for color in (*inline_svg.SERIES, inline_svg.INK, inline_svg.PAPER):
        name = re.fullmatch(r"var\((--\w+)\)", inline_svg.css_color(color))[1]
        assert f" {name}: #" in light and f" {name}: #" in dark


def test_a_chart_is_sound_and_keeps_its_words():
    root = ElementTree.fromstring(drawn('<i> & "x"').replace("xlink:href", "href"))
    assert root.attrib["viewBox"] == "0 0 200 100"
    assert root.attrib["aria-label"] == '<i> & "x"'
    words = [part.text for part in root.iter("text")]
    assert "$1 <b>漢字</b>" in words and "of all" in words


def test_own_settings_of_a_page_count():
    assert "stroke-width: 3" in styles(drawn())


def test_two_charts_of_a_page_share_no_id():
    first, second = (set(re.findall(r' id="([^"]*)"', drawn(title))) for title in ("a", "b"))
    assert first and second
    assert not first & second
    targets = re.findall(r'(?:url\(|href=")#([^")]+)', drawn("a"))
    assert targets and set(targets) <= first


def test_equal_numbers_give_equal_bytes_in_another_process():
    code = f"TITLE = 'A title'\n{DRAW}\nimport sys; sys.stdout.buffer.write(drawn.encode())"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
    ).stdout
    assert other.decode() == drawn()


def test_a_long_or_unprintable_label_is_made_to_fit():
    assert inline_svg.shortened("pony") == "pony"
    assert inline_svg.shortened("a\nb\x00") == "a?b?"
    assert inline_svg.shortened("x" * 26) == "x" * 26
    assert inline_svg.shortened("x" * 27) == "x" * 25 + "…"
