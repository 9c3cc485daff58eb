"""The site as it is built: `make docs`."""

import collections
import functools
import html.parser
import http.server
import pathlib
import subprocess
import threading
import urllib.parse

import pytest

from tests.pipeline import browser as browsers

from .pages import PAGES, ROOT, name_of

pytestmark = pytest.mark.docs

PYTHON = ROOT / ".venv-docs" / "bin" / "python"
PHONE, DESKTOP = 390, 1280
# What people read, and a wide table and a long line of code among them.
LOOKED_AT = [page.relative_to(ROOT).with_suffix(".html").as_posix() for page in PAGES]


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> pathlib.Path:
    """The site, built anew; a warning fails it."""
    if not PYTHON.exists():
        pytest.skip("needs .venv-docs, which `make docs` sets up")
    directory = tmp_path_factory.mktemp("site")
    words = [PYTHON, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    words += ["-d", directory / "doctrees", "-c", "docs", ".", directory / "html"]
    done = subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory / "html"


class Page(html.parser.HTMLParser):
    """What a page of HTML points to, loads, and can be pointed to in."""

    def __init__(self, path: pathlib.Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: collections.Counter[str] = collections.Counter()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if values.get("id"):
            self.ids[values["id"]] += 1
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.loaded.append(values["src"])
        if tag == "link" and values.get("href"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="session")
def pages(site) -> dict[pathlib.Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_on_the_site_and_in_the_navigation(site, pages):
    first = site / "docs" / "index.html"
    reached = {(first.parent / link.partition("#")[0]).resolve() for link in pages[first].links}
    for page in PAGES:
        assert (site / page.relative_to(ROOT).with_suffix(".html")).resolve() in reached | {
            first.resolve()
        }, name_of(page)


def test_links_lead_to_what_is_there(pages):
    dead = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or link == "#":
                continue
            name, anchor = map(urllib.parse.unquote, (parts.path, parts.fragment))
            target = (path.parent / name).resolve() if name else path
            if not target.is_file() or (anchor and anchor not in pages[target].ids):
                dead.append((path.name, link))
    assert not dead


def test_nothing_is_loaded_from_elsewhere(pages):
    assert sum(len(page.loaded) for page in pages.values()) > len(pages)
    elsewhere = {link for page in pages.values() for link in page.loaded if "//" in link}
    assert not elsewhere


def test_no_id_is_given_twice(pages):
    twice = {
        (path.name, name)
        for path, page in pages.items()
        for name, number in page.ids.items()
        if number > 1
    }
    assert not twice


@pytest.fixture(scope="module")
def one_browser():
    with browsers.open_browser() as driver:
        yield driver


@pytest.fixture
def browser(one_browser):
    messages(one_browser)  # of the test before
    return one_browser


@pytest.fixture(scope="module")
def address(site):
    """The site as a web server gives it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    serve = functools.partial(Handler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(params=["file", "http"])
def base(request, site) -> str:
    """Where the site is opened: as files, and from a server."""
    return site.as_uri() if request.param == "file" else request.getfixturevalue("address")


def messages(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def wait_for(browser, script: str):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(f"return {script}")
    )


def test_the_first_page_is_found_from_the_root(browser, base):
    browser.get(f"{base}/index.html")
    wait_for(browser, "location.pathname.endsWith('/docs/index.html')")
    assert browser.title == "mobilenet-pipeline"
    assert not messages(browser)


def test_search_finds_a_word_of_a_page(browser, base):
    browsers.look_like(browser, DESKTOP)
    browser.get(f"{base}/docs/laptop.html")
    field = browser.find_element("css selector", ".sidebar-search")
    field.send_keys("reduction")
    field.submit()
    wait_for(browser, "document.querySelector('.search-summary')?.innerText.includes('found')")
    links = browser.execute_script(
        "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    )
    assert any("/docs/vertex.html" in link for link in links)
    if base.startswith("http"):
        wait_for(browser, "document.querySelector('#search-results .context')?.innerText.length")
    assert not messages(browser)


@pytest.mark.parametrize("page", LOOKED_AT)
def test_a_page_fits_a_phone(browser, site, page):
    browsers.look_like(browser, PHONE)
    browser.get((site / page).as_uri())
    # The theme hides what is too wide; only code and tables scroll by themselves.
    cut = browser.execute_script(
        "return [...document.querySelectorAll('article *')]"
        ".filter(e => !e.closest('pre, .table-wrapper, .headerlink'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML)"
    )
    assert not cut
    assert not messages(browser)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_dark_on_light_or_light_on_dark(browser, site, scheme):
    browsers.look_like(browser, DESKTOP, scheme)
    browser.get((site / "docs" / "vertex.html").as_uri())
    for selector in ("article p", "article a", "article td", "article th", "article pre"):
        assert browsers.contrast(browser, selector) >= 4.5, selector
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    darkness = sum(float(word) for word in background.strip("rgb()").split(","))
    assert (darkness < 3 * 128) == (scheme == "dark")


def test_a_button_changes_light_to_dark(browser, site):
    browsers.look_like(browser, DESKTOP, "light")
    browser.get((site / "docs" / "index.html").as_uri())
    browser.execute_script("localStorage.clear()")
    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    for _ in range(3):  # the button goes round: as the system says, light, dark
        browser.find_element("css selector", ".content-icon-container .theme-toggle").click()
        if browser.execute_script("return document.body.dataset.theme") == "dark":
            break
    assert browser.execute_script("return document.body.dataset.theme") == "dark"
    after = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert before != after
    browser.execute_script("localStorage.clear()")
