"""The report as Chromium shows it, and from a bucket."""

import json
import pathlib

import pytest

from common import files
from pipeline.report import ReportConfig, write_report
from tests.pipeline.browser import contrast, look_like, open_browser, overflow
from tests.pipeline.report_pages import write_run

pytest_plugins = ["tests.storage_emulator"]

BINS = [{"low": 0.8, "high": 1.0, "count": 70, "confidence": 0.9, "accuracy": 0.8}]
LATENCY = {"rows": [{"artifact": "saved_model", "threads": 1, "batch": 1, "median_ms": 4.0}]}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The flags of a report with all its parts."""
    root = tmp_path_factory.mktemp("run")
    flags = write_run(root)
    evaluation = pathlib.Path(flags["evaluation"])
    value = json.loads(evaluation.read_text()) | {"calibration": {"ece": 0.1, "bins": BINS}}
    evaluation.write_text(json.dumps(value))
    (root / "latency.json").write_text(json.dumps(LATENCY))
    return flags | {"latency": str(root / "latency.json"), "experiment": "demo"}


@pytest.fixture(scope="module")
def report(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(ReportConfig(output=str(path), **run))
    return path


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (360, "light")])
def test_it_can_be_read_on_desk_and_phone_in_light_and_dark(browser, report, width, scheme):
    look_like(browser, width, scheme)
    browser.get(report.as_uri())
    assert overflow(browser) <= 0
    for selector in ("h1", ".lead", ".note", ".legend li", "td", "thead th", "footer", "nav a"):
        assert contrast(browser, selector) >= 4.5, selector
    # Charts have their words and their shapes; a word that is not black follows the page's colours.
    charts = browser.execute_script(
        "return [...document.querySelectorAll('svg[role=img]')].map(svg => [svg.ariaLabel,"
        " svg.querySelectorAll('text').length, svg.getBoundingClientRect().height,"
        " getComputedStyle(svg.querySelector('text')).fill])"
    )
    assert {"calibration", "accuracy over multiply-adds"} <= {name for name, *_ in charts}
    for name, words, height, fill in charts:
        assert words > 3 and height > 60, name
        assert fill not in ("none", "rgb(0, 0, 0)"), name


def test_pictures_are_shown_and_nothing_is_fetched_or_run(browser, report):
    browser.get_log("browser")
    browser.get(report.as_uri())
    shown = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth)"
    )
    assert len(shown) > 12 and set(shown) == {96}
    fetched = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert [name for name in browser.execute_script(fetched) if not name.startswith("data:")] == []
    # The policy in the page keeps even a script out that somebody might get into it.
    browser.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        "document.body.append(script)"
    )
    assert browser.execute_script("return window.ran") is None
    (refused,) = browser.get_log("browser")
    assert "Content Security Policy" in refused["message"]


def test_a_run_in_a_bucket_gives_the_same_page(run, report, bucket, storage_proxy):
    root = pathlib.Path(run["data_dir"]).parent
    for name, _ in files.list_tree(str(root)):
        if content := (root / name).read_bytes():
            storage_proxy.put(f"run/{name}", content)
    there = {name: value.replace(str(root), f"{bucket}/run") for name, value in run.items()}
    assert sum(value.startswith("gs://") for value in there.values()) == 6
    write_report(ReportConfig(output=f"{bucket}/pages/report.html", **there))
    page = storage_proxy.objects()["pages/report.html"].decode()
    assert page.replace(f"{bucket}/run", str(root)) == report.read_text(encoding="utf-8")
