"""Makes the README's pictures of the review page, from a crawl of the sample shop.

python docs/screenshots.py (needs Chromium, and playwright of the `dev` extra)
"""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

import fashion_tagger
from scraper.sample_shop.server import ShopOptions, serve

HERE = Path(__file__).parent
LABELS = "coat,dress,jeans"
# queue -> picture
PICTURES = {"conflicts": "review-conflicts.png", "crops": "review-crops.png"}
SIZE = ViewportSize(width=1280, height=860)


def command(folder: Path, *arguments: str) -> None:
    """Run a command of ours in FOLDER, and stop where it fails."""
    subprocess.run([sys.executable, fashion_tagger.__file__, *arguments], cwd=folder, check=True)


def crawl(folder: Path) -> None:
    """A catalogue with items that the shop tags twice, and crops of its drawn people."""
    with serve(ShopOptions(per_label=12, double_tagged=0.2)) as shop:
        address = ("--site-url", shop.url, "--image-url", shop.url)
        command(folder, "crawl", "lamoda", "--tags", LABELS, *address)
    command(folder, "build-dataset", "--min-per-class", "5")


@contextlib.contextmanager
def reviewing(folder: Path) -> Iterator[str]:
    """The address of the page on FOLDER's catalogue."""
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


def shoot(url: str) -> None:
    """A picture of each queue."""
    chromium = shutil.which("chromium") or sys.exit("needs Chromium: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for queue, name in PICTURES.items():
            tab = browser.new_page(viewport=SIZE)
            tab.goto(f"{url}queue/{queue}", wait_until="networkidle")
            tab.screenshot(path=HERE / name)
        browser.close()


def main() -> None:
    """Crawl, build, and shoot."""
    with tempfile.TemporaryDirectory() as made:
        crawl(Path(made))
        with reviewing(Path(made)) as url:
            shoot(url)


if __name__ == "__main__":
    main()
