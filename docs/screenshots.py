"""Take the screenshots of the documentation from crawls of the sample shop.

    python docs/screenshots.py

Needs Chromium, and playwright of the `dev` extra. The pictures show drawn people only.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from playwright.sync_api import Browser, ViewportSize, sync_playwright

import fashion_tagger
from scraper.sample_shop.drawing.product import LABELS as DRAWN
from scraper.sample_shop.server import ShopOptions, serve

IMAGES = Path(__file__).parent / "images"
LABELS = "coat,dress,jeans"
# Queue -> file name of the screenshot.
PICTURES = {"conflicts": "review-conflicts.png", "crops": "review-crops.png"}
SIZE = ViewportSize(width=1280, height=880)


def command(folder: Path, *arguments: str) -> None:
    """Run a command in a folder, and stop if it fails."""
    click.echo(f"$ {' '.join(arguments)}")
    subprocess.run([sys.executable, fashion_tagger.__file__, *arguments], cwd=folder, check=True)


def crawl(folder: Path, options: ShopOptions, labels: str = LABELS) -> None:
    """Crawl a sample shop with some options, and build the splits."""
    with serve(options) as shop:
        address = ("--site-url", shop.url, "--image-url", shop.url)
        command(folder, "crawl", "lamoda", "--tags", labels, *address)
    command(folder, "build-dataset", "--min-per-class", "5")


@contextlib.contextmanager
def reviewing(folder: Path) -> Iterator[str]:
    """Yield the address of a review server on the folder's catalogue."""
    file = folder / "url"
    arguments = ("review", "--who", "anna", "--url-file", str(file))
    server = subprocess.Popen([sys.executable, fashion_tagger.__file__, *arguments], cwd=folder)
    try:
        while not (file.exists() and file.read_text(encoding="utf-8")):
            if server.poll() is not None:
                sys.exit("the page was not served")
            time.sleep(0.1)
        yield file.read_text(encoding="utf-8")
    finally:
        server.terminate()
        server.wait()


def shoot_queues(browser: Browser, folder: Path) -> None:
    """Take a screenshot of a label conflict and of an uncertain crop."""
    crawl(folder, ShopOptions(per_label=12, double_tagged=0.2))
    with reviewing(folder) as url:
        for queue, name in PICTURES.items():
            tab = browser.new_page(viewport=SIZE)
            tab.goto(f"{url}queue/{queue}", wait_until="networkidle")
            tab.screenshot(path=IMAGES / name)


def train_and_check(folder: Path) -> None:
    """Train on a shop with wrong tags, and check the tags."""
    crawl(folder, ShopOptions(double_tagged=0, wrong_tagged=0.04), ",".join(DRAWN))
    options = ("--weights", "garments", "--fine-tune", "0", "--out", "runs/first")
    command(folder, "train-model", *options)
    command(folder, "check-tags", "--model", "runs/first")


def shoot_story(browser: Browser, folder: Path) -> None:
    """Take screenshots of a mistake in the report and on its review page."""
    tab = browser.new_page(viewport=ViewportSize(width=1280, height=630))
    tab.goto((folder / "checked" / "report.html").as_uri(), wait_until="networkidle")
    # The heading of the first photos, below the links to all headings.
    tab.locator("h2:has(+ p + .grid)").first.evaluate("heading => heading.scrollIntoView()")
    tab.screenshot(path=IMAGES / "story-report.png")
    with reviewing(folder) as url:
        tab = browser.new_page(viewport=SIZE)
        tab.goto(f"{url}queue/mistakes", wait_until="networkidle")
        tab.screenshot(path=IMAGES / "story-review.png")
        # Take the model's suggestion.
        with tab.expect_navigation():
            tab.keyboard.press("s")
    command(folder, "build-dataset", "--min-per-class", "5", "--out", "second")


def main() -> None:
    """Crawl, build, train, check and take the screenshots."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--keep", type=Path, help="new working folder, which is kept")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or sys.exit("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        folder = arguments.keep or Path(temporary)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name in ("queues", "story"):
            (folder / name).mkdir(parents=True)
        shoot_queues(browser, folder / "queues")
        train_and_check(folder / "story")
        shoot_story(browser, folder / "story")
        browser.close()


if __name__ == "__main__":
    main()
