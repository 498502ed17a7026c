"""Report pages in Chromium."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's Chromium (apt-get install chromium); .ci/run has it"
)
# Widths of a laptop and of a phone in pixels.
WIDTHS = (1280, 390)
# Elements with text that stick out of the page and of every region that scrolls.
OUTSIDE = """() => [...document.querySelectorAll("main *")].filter((element) => {
  if (element.closest(".scroll, .contents, .skip")) return false;
  const box = element.getBoundingClientRect();
  return box.width && (box.right > innerWidth + 1 || box.left < -1);
}).map((element) => element.outerHTML.slice(0, 100))"""


def find_overflow(page: Path) -> list[str]:
    """Return the elements of a page that are wider than the window, at any of WIDTHS.

    The `details` of the page are opened first.
    """
    found = []
    with sync_playwright() as driver:
        # Without its sandbox it also runs as root, as in containers.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in WIDTHS:
            tab = chromium.new_page(viewport={"width": width, "height": 800})
            tab.goto(page.as_uri())
            tab.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true })")
            found += [f"{width}: {element}" for element in tab.evaluate(OUTSIDE)]
            if (wide := tab.evaluate("document.documentElement.scrollWidth")) > width:
                found.append(f"the page is {wide} pixels wide at {width}")
        chromium.close()
    return found
