"""Debian's chromium, driven by its own driver."""

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from testcluster.errors import CannotRunHere
from testcluster.progress import say
from testcluster.toolchain import Need, ensure
from tests.support.cannot_run import cannot_run

_CHROMIUM: Final = Path("/usr/bin/chromium")
_DRIVER: Final = Path("/usr/bin/chromedriver")
_NEEDS: Final = (
    Need("chromium", "chromium", _CHROMIUM.exists),
    Need("chromedriver", "chromium-driver", _DRIVER.exists),
)

PICTURES: Final = "GALLEY_PICTURES"
"""The variable with a folder for pictures of all pages, at three widths."""

WIDTHS: Final = (1280, 768, 390)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """Run a browser without a window for as long as the block."""
    try:
        ensure(_NEEDS, say)
    except CannotRunHere as error:
        cannot_run("tests of the dashboard in a browser", str(error))
    options = Options()
    options.binary_location = str(_CHROMIUM)
    for word in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-dev-shm-usage"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, Service(str(_DRIVER)))
    browser.set_page_load_timeout(30)
    try:
        yield browser
    finally:
        browser.quit()


def resize(browser: webdriver.Chrome, width: int) -> None:
    """Give the page a width, narrower than a window may be, too."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def picture(browser: webdriver.Chrome, name: str) -> None:
    """Keep a picture of the page at the present width, if a folder for them is named."""
    if folder := os.environ.get(PICTURES):
        taken: dict[str, Any] = {"captureBeyondViewport": True}
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", taken)
        (Path(folder) / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


CONTRAST: Final = """
const parse = (text) => { const m = text.match(/[\\d.]+/g).map(Number);
  return m.length < 4 ? [...m, 1] : m; };
const light = ([r, g, b]) => { const f = [r, g, b].map((v) => { v /= 255;
  return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
const behind = (element) => { for (let e = element; e; e = e.parentElement) {
  const color = parse(getComputedStyle(e).backgroundColor); if (color[3] > 0.99) return color; }
  return [255, 255, 255, 1]; };
const weak = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest(".hidden, .skip")) continue;
  const a = light(parse(getComputedStyle(element).color)), b = light(behind(element));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const told = `${element.tagName}.${element.className} ${ratio.toFixed(2)}: ${element.textContent.trim()}`;
  if (ratio < 4.5) weak.push(told.slice(0, 80));
}
return weak;
"""
"""Returns the texts of a page whose contrast is less than WCAG AA asks for."""
