"""Tests of the example site of docs/adding-a-site.md, as shown there."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import fashion_tagger
from tests.support.catalogue_data import photo_bytes

ROOT = Path(fashion_tagger.__file__).parent
PARTS = ("scraper", "dataset", "model", "migrations", "tests")
# A step names its file; the next code block has the content.
STEP = re.compile(
    r"^\d\\\. .*?`((?:tests|scraper)/[\w/]+\.\w+)`.*?^```\w+\n(.*?)^```$", re.M | re.S
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project with the three files of the example."""
    root = tmp_path_factory.mktemp("project")
    for part in PARTS:
        # With the cached bytecode, which belongs to the copied modification times.
        shutil.copytree(ROOT / part, root / part)
    for name in ("fashion_tagger.py", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, root / name)
    files = STEP.findall((ROOT / "docs" / "adding-a-site.md").read_text(encoding="utf-8"))
    assert [name for name, _ in files] == [
        "tests/recorded/newshop/polo.json",
        "scraper/spiders/newshop.py",
        "tests/scraper/spiders/test_newshop.py",
    ]
    for name, text in files:
        path = root / name
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def run(project: Path, *command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd or project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_example_passes_its_tests_and_the_contract(project: Path) -> None:
    folder = "tests/scraper/spiders"
    output = run(
        project,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *(f"{folder}/test_newshop.py", f"{folder}/test_contract.py", "-k", "newshop"),
    )
    passed = re.search(r"(\d+) passed", output)
    # The contract has at least one test per rule.
    assert passed and int(passed.group(1)) > 10


def test_example_passes_the_linters(project: Path) -> None:
    files = ("scraper/spiders/newshop.py", "tests/scraper/spiders/test_newshop.py")
    run(project, "-m", "ruff", "check", "--no-cache", *files)
    run(project, "-m", "ruff", "format", "--no-cache", "--check", *files)


class NewshopHandler(BaseHTTPRequestHandler):
    """The pages and images of the example site, on loopback."""

    def do_GET(self) -> None:
        if self.path.startswith("/search?q=polo&"):
            page = int(self.path.rpartition("=")[2])
            self._send(json.dumps({"pages": 3, "products": [product(page)]}).encode())
        elif self.path.startswith("/search?"):
            self._send(b'{"pages": 0, "products": []}')
        elif self.path.startswith("/l/"):
            self._send(photo_bytes(int(self.path[3:7]), (200, 260)))
        else:
            self.send_error(404)

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def product(page: int) -> dict[str, object]:
    photos = [f"https://img.newshop.example/l/{7000 + page}_1.jpg"]
    return {"id": 7000 + page, "name": "Polo #classic", "photos": photos}


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NewshopHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_example_site_is_listed_and_crawled(project: Path, address: str, tmp_path: Path) -> None:
    program = str(project / "fashion_tagger.py")
    assert "newshop\n  Newshop, https://newshop.example" in run(project, program, "crawl", "--list")
    options = ("--site-url", address, "--image-url", address, "--catalogue", "c.sqlite")
    run(
        project,
        program,
        "crawl",
        "newshop",
        "--tags",
        "polo",
        "--max-images",
        "9",
        *options,
        cwd=tmp_path,
    )
    connection = sqlite3.connect(tmp_path / "c.sqlite")
    stored = connection.execute("SELECT count(*) FROM images WHERE state = 'stored'").fetchall()
    tags = connection.execute("SELECT text FROM hashtags ORDER BY text").fetchall()
    connection.close()
    assert stored == [(3,)]
    assert ("classic",) in tags
