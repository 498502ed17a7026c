"""Download the photos of a feed with `fetch-photos`, in a process of its own.

The process starts with the first URL, downloads several photos at once under the rules of a crawl,
and saves them in a folder, where later runs find them.
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
from dataset.images.store import UrlImageCache

# The program of the process. It has this process's import path, whatever the working directory.
PROGRAM = (
    "import sys; count = int(sys.argv[1]); sys.path[:] = sys.argv[2 : 2 + count];"
    " del sys.argv[1 : 2 + count]; from scraper.cli import fetch_photos;"
    " fetch_photos(prog_name='fetch-photos')"
)
# URLs whose results are remembered, so that a dead URL in many rows is requested once.
MAX_KNOWN_URLS = 10_000


@dataclass(frozen=True)
class FetchOptions:
    """Options of `fetch-photos`.

    Attributes:
        fetched: Folder of downloaded photos.
        contact: Contact address in the user agent.
        timeout: Seconds for a response.
        allow_private: Also request hosts of private networks.
    """

    fetched: Path = Path("fetched")
    contact: str | None = None
    timeout: float = 60
    allow_private: bool = False

    @property
    def arguments(self) -> list[str]:
        """Arguments of the command line."""
        contact = ["--contact", self.contact] if self.contact else []
        private = ["--allow-private-hosts"] if self.allow_private else []
        return [
            *("--fetched", str(self.fetched), "--timeout", str(self.timeout)),
            *contact,
            *private,
        ]


def read_fetched(photos: UrlImageCache, url: str, problem: str = "") -> bytes:
    """Read a downloaded photo.

    Args:
        photos: The folder of downloaded photos.
        url: The photo's URL.
        problem: Why it was not downloaded, for the error.

    Raises:
        DownloadFailed: It was not downloaded.
        OSError: It can't be read.
    """
    path = photos.find(url)
    if path is None:
        raise DownloadFailed(problem or "the downloaded file was removed")
    return path.read_bytes()


class ImageFetcher:
    """Downloads photos in a process that ends with the context.

    Args:
        options: Options of `fetch-photos`.
    """

    def __init__(self, options: FetchOptions) -> None:
        self._options, self._photos = options, UrlImageCache(options.fetched)
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Future[str]] = OrderedDict()
        self._process: subprocess.Popen[str] | None = None

    @property
    def folder(self) -> Path:
        """Folder of downloaded photos."""
        return self._options.fetched

    def __enter__(self) -> "ImageFetcher":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        # Pending downloads are no longer needed.
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def prefetch(self, url: str) -> None:
        """Start to download a photo, unless it is known already.

        Raises:
            Failure: The process has ended.
        """
        # The process reads one URL per line.
        if not url.isprintable():
            return
        with self._lock:
            if url in self._known or self._photos.find(url):
                return
            while len(self._known) >= MAX_KNOWN_URLS:
                self._known.popitem(last=False)
            self._known[url] = Future()
            process = self._start_process()
        try:
            assert process.stdin is not None
            process.stdin.write(f"{url}\n")
            process.stdin.flush()
        except OSError as error:
            raise _process_ended(process.wait()) from error

    def read(self, url: str) -> bytes:
        """Return the bytes of a photo, when it is downloaded.

        Raises:
            DownloadFailed: The download failed.
            OSError: The downloaded file can't be read.
            Failure: The process has ended.
        """
        path = self._photos.find(url)
        if path is None:
            self.prefetch(url)
            with self._lock:
                future = self._known.get(url)
            problem = future.result() if future else "the URL has unprintable characters"
            return read_fetched(self._photos, url, problem)
        return path.read_bytes()

    def _start_process(self) -> "subprocess.Popen[str]":
        if self._process is None:
            import_path = [str(len(sys.path)), *sys.path]
            arguments = [*import_path, "-", *self._options.arguments]
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                # Ctrl-C is handled by this process, which ends the other one.
                start_new_session=True,
            )
            threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()
        return self._process

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            result = json.loads(line)
            with self._lock:
                future = self._known.get(result["url"])
            if future is not None and not future.done():
                future.set_result(result["problem"])
        status = process.wait()
        with self._lock:
            pending = [future for future in self._known.values() if not future.done()]
        for future in pending:
            future.set_exception(_process_ended(status))


def _process_ended(status: int) -> Failure:
    return Failure(
        f"fetch-photos ended with status {status}, see above; repeat the command to continue"
    )
