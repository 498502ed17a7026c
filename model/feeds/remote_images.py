"""Photos at a feed's addresses: a process beside ours asks for them under the crawl's rules.

That process is `fetch-photos`, which starts with the first address. It asks for
those that are announced side by side, and leaves them in a folder, where a later run finds them.
"""

import contextlib
import json
import subprocess
import sys
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from dataset.errors import DownloadFailed, Failure
from dataset.images.url_cache import UrlImageCache

# What it runs; it finds modules where this process does, and not where it is called.
PROGRAM = (
    "import sys; count = int(sys.argv[1]); sys.path[:] = sys.argv[2 : 2 + count];"
    " del sys.argv[1 : 2 + count]; from scraper.fetch_cli import fetch_photos;"
    " fetch_photos(prog_name='fetch-photos')"
)
# What came of so many addresses is known, so that a dead one in many rows is asked for once.
KNOWN = 10_000


@dataclass(frozen=True)
class FetchOptions:
    """Where fetched photos are kept, and how the network is used; see `scraper.settings.Manners`.

    `timeout`: seconds for one answer.
    """

    fetched: Path = Path("fetched")
    contact: str | None = None
    timeout: float = 60
    allow_private: bool = False

    @property
    def words(self) -> list[str]:
        """As the command has them."""
        contact = ["--contact", self.contact] if self.contact else []
        private = ["--allow-private-hosts"] if self.allow_private else []
        return [
            *("--fetched", str(self.fetched), "--timeout", str(self.timeout)),
            *contact,
            *private,
        ]


def fetched(photos: UrlImageCache, url: str, problem: str = "") -> bytes:
    """What PHOTOS have of URL.

    Raises:
        NotFetched: nothing, because of PROBLEM.
        OSError: it can't be read.
    """
    path = photos.find(url)
    if path is None:
        raise DownloadFailed(problem or "it is gone again")
    return path.read_bytes()


class Fetcher:
    """Fetches as OPTIONS say; a context manager, at whose end its process is gone."""

    def __init__(self, options: FetchOptions) -> None:
        self._options, self._photos = options, UrlImageCache(options.fetched)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Future[str]] = OrderedDict()
        self._process: subprocess.Popen[str] | None = None

    @property
    def folder(self) -> Path:
        """Where photos are that came."""
        return self._options.fetched

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        # What is still asked for is of no use any more.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def announce(self, url: str) -> None:
        """Begin to fetch URL, unless that has been done.

        Raises:
            Failure: the process that fetches has ended.
        """
        # Whose line would be another address, or none, for the process.
        if not url.isprintable():
            return
        with self._lock:
            if url in self._known or self._photos.find(url):
                return
            while len(self._known) >= KNOWN:
                self._known.popitem(last=False)
            self._known[url] = Future()
            process = self._started()
        try:
            assert process.stdin is not None
            process.stdin.write(f"{url}\n")
            process.stdin.flush()
        except OSError as error:
            raise _ended(process.wait()) from error

    def read(self, url: str) -> bytes:
        """The photo at URL, once it is there.

        Raises:
            NotFetched: it can't be had.
            OSError: what was fetched can't be read.
            Failure: the process that fetches has ended.
        """
        path = self._photos.find(url)
        if path is None:
            self.announce(url)
            with self._lock:
                coming = self._known.get(url)
            problem = coming.result() if coming else "an address with signs that none has"
            return fetched(self._photos, url, problem)
        return path.read_bytes()

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            found = [str(len(sys.path)), *sys.path]
            asked = [sys.executable, "-c", PROGRAM, *found, "-", *self._options.words]
            self._process = subprocess.Popen(
                asked,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C is for us, who end it.
                start_new_session=True,
            )
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return self._process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            with self._lock:
                coming = self._known.get(said["url"])
            if coming is not None and not coming.done():
                coming.set_result(said["problem"])
        status = process.wait()
        with self._lock:
            waiting = [one for one in self._known.values() if not one.done()]
        for one in waiting:
            one.set_exception(_ended(status))


def _ended(status: int) -> Failure:
    return Failure(
        f"what fetches the feed's photos ended ({status}), see above; repeat the command to go on"
    )
