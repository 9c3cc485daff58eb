"""A headless Chromium, for tests of what a page looks like and does."""

import contextlib
import shutil
from collections.abc import Iterator

import pytest

_FLAGS = ("headless=new", "no-sandbox", "hide-scrollbars", "disable-gpu", "disable-dev-shm-usage")


@contextlib.contextmanager
def open_browser() -> Iterator:
    """Starts Chromium; skips the test where there is none.

    It fetches nothing but what the page asks for, and ends with the block.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (pip)")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and its driver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in _FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.set_page_load_timeout(60)
        yield browser
    finally:
        browser.quit()


def look_like(browser, width: int, scheme: str = "light") -> None:
    """From now on the window has that many pixels, and the user likes it `light` or `dark`."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def overflow(browser) -> int:
    """By how many pixels the page is wider than the window."""
    return browser.execute_script("return document.documentElement.scrollWidth - innerWidth")


def contrast(browser, selector: str) -> float:
    """WCAG's contrast of the text of an element with the page behind it."""
    colors = browser.execute_script(
        "const e = document.querySelector(arguments[0]);"
        "return [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    light, dark = sorted(map(_luminance, colors), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    """WCAG's relative luminance of `rgb(r, g, b)`."""
    parts = [float(word) / 255 for word in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
