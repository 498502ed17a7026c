"""Run `crawl` on a sample shop as a user does."""

import faulthandler
import importlib
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
from scrapy.cmdline import execute
from scrapy.settings import default_settings

import fashion_tagger
from scraper import settings
from scraper.decoding import pool
from scraper.sample_shop.server import SampleShop
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import catalogue_of, fast_catalogues, new_catalogue
from tests.support.photo_site import PhotoSite

PROGRAM = Path(fashion_tagger.__file__)
# The state of a listening socket in /proc/net/tcp.
LISTEN_STATE = "0A"


def class_folder(
    root: Path, label: str, count: int, first: int = 0, size: tuple[int, int] = (200, 260)
) -> Path:
    """Create a folder of drawn images for a label."""
    folder = root / label
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:03}.jpg").write_bytes(photo_bytes(first + number, size))
    return root


class CrawlProcess:
    """A process that crawls, with the interface of `subprocess.Popen` where tests need it."""

    def __init__(self, work: Callable[..., None], *arguments: object) -> None:
        self._output = Path(tempfile.mkdtemp(prefix="output-"))
        arguments = (new_catalogue(), work, self._output, *arguments)
        self._process = CONTEXT.Process(target=_run_fast, args=arguments)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Return the exit status; None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""
        return self.returncode

    def output(self, stream: str = "err") -> str:
        """Return the output so far."""
        path = self._output / stream
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def is_stopped(self) -> bool:
        """Return whether all threads have stopped after SIGSTOP."""
        assert self._process.pid is not None
        return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED

    def children(self) -> list[int]:
        """Return the child processes, if the system lists them."""
        paths = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return [int(pid) for path in paths for pid in path.read_text().split()]

    def listening_addresses(self) -> list[str]:
        """Return the local addresses, in hexadecimal, on which the process listens."""
        process = Path(f"/proc/{self._process.pid}")
        rows = [line.split() for line in (process / "net/tcp").read_text().splitlines()[1:]]
        listening = {f"socket:[{row[9]}]": row[1] for row in rows if row[3] == LISTEN_STATE}
        files = [str(path.readlink()) for path in process.glob("fd/*") if path.is_symlink()]
        return [listening[file] for file in files if file in listening]

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end and return both output streams."""
        self._process.join(timeout)
        if self.returncode is None:
            # The process writes the stacks of its threads.
            self.send_signal(signal.SIGUSR1)
            time.sleep(1)
            output = f"no end after {timeout} seconds:\n{self.output('out')}\n{self.output()}"
            self.kill()
            raise AssertionError(output)
        streams = self.output("out"), self.output("err")
        shutil.rmtree(self._output)
        return streams


def _create_context() -> ForkServerContext:
    """Return a multiprocessing context whose processes have imported the crawler already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *PRELOADED])
    return context


# Modules that a crawl imports, mostly on demand; importing them has no side effects.
SCRAPY_COMPONENTS = (
    *default_settings.EXTENSIONS_BASE,
    *default_settings.DOWNLOADER_MIDDLEWARES_BASE,
    *default_settings.SPIDER_MIDDLEWARES_BASE,
)
PRELOADED = (
    *("scraper.cli", "scraper.crawl.runner", "scraper.crawl.process", "scraper.scheduler"),
    *("scraper.extensions", "scraper.pipelines", "scraper.download_handler", "alembic.command"),
    *("scraper.spiders.base", "scraper.spiders.lamoda", "sqlalchemy.dialects.sqlite"),
    *("scrapy.core.engine", "scrapy.commands.crawl", "scrapy.extensions.httpcache"),
    *("scrapy.core.downloader", "scrapy.resolver"),
    *(name.rpartition(".")[0] for name in SCRAPY_COMPONENTS),
)
CONTEXT = _create_context()
# The second in which the last crawl into a folder ended.
LAST_ENDS: dict[Path, int] = {}


def _run_fast(statements: Sequence[str], work: Callable[..., None], *arguments: object) -> None:
    """Run a function in the new process, where new catalogues need no migrations."""
    with fast_catalogues(statements):
        work(*arguments)


def _enter(
    output: Path,
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    before: Callable[[], None] | None,
) -> None:
    """Run the command in the new process."""
    _redirect(output, folder, environment)
    _set_small_crawls()
    if before:
        before()
    sys.argv = [str(PROGRAM), *arguments]
    runpy.run_path(str(PROGRAM), run_name="__main__")


def _redirect(output: Path, folder: Path, environment: Mapping[str, str]) -> None:
    """Write the output of this process to files, and enter a folder and an environment."""
    for number, stream in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / stream, os.O_WRONLY | os.O_CREAT), number)
    faulthandler.register(signal.SIGUSR1, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


def _set_small_crawls() -> None:
    """Set a request rate that is only acceptable on loopback, and start one decoder process.

    Starting a second decoder process takes longer than the few images of a test.
    """
    settings.AUTOTHROTTLE_START_DELAY = 0.02
    pool.MAX_PROCESSES = 1


def start(
    shop: SampleShop | PhotoSite,
    folder: Path,
    *options: str,
    site: str = "lamoda",
    secrets: Mapping[str, str] | None = None,
    address: Sequence[str] = (),
    before: Callable[[], None] | None = None,
) -> CrawlProcess:
    """Start `crawl SITE OPTIONS` in a folder with its catalogue."""
    address = address or ("--site-url", shop.url, "--image-url", shop.url)
    environment = {
        **os.environ,
        "FASHION_TAGGER_CATALOGUE": catalogue_of(folder),
        **(secrets or {}),
    }
    return CrawlProcess(_enter, ("crawl", site, *address, *options), folder, environment, before)


def crawl(
    shop: SampleShop | PhotoSite,
    folder: Path,
    *options: str,
    site: str = "lamoda",
    secrets: Mapping[str, str] | None = None,
    address: Sequence[str] = (),
) -> tuple[int, str]:
    """Run a crawl and return its exit status and output."""
    if int(time.time()) == LAST_ENDS.get(folder):
        # The catalogue stores times in seconds, so a later run must start in a later second.
        time.sleep(1 - time.time() % 1)
    process = start(shop, folder, *options, site=site, secrets=secrets, address=address)
    out, err = process.communicate(timeout=120)
    LAST_ENDS[folder] = int(time.time())
    assert process.returncode is not None
    return process.returncode, out + err


def _enter_scrapy(
    output: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> None:
    """Run a command of Scrapy in the new process."""
    _redirect(output, folder, environment)
    # The settings depend on the environment, and users' components are in the folder.
    importlib.reload(settings)
    sys.path.insert(0, str(folder))
    execute(["scrapy", *arguments])


def run_scrapy(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Scrapy in a folder, with this project's settings and its catalogue."""
    environment = {
        **os.environ,
        "SCRAPY_SETTINGS_MODULE": "scraper.settings",
        "FASHION_TAGGER_CATALOGUE": catalogue_of(folder),
    }
    process = CrawlProcess(_enter_scrapy, arguments, folder, environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of fashion-tagger in a folder."""
    process = CrawlProcess(_enter, arguments, folder, dict(os.environ), None)
    out, err = process.communicate(timeout=120)
    assert process.returncode is not None
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
