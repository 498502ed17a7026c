"""Download images at given URLs, such as those of a product feed, by the rules of a crawl."""

import asyncio
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import scrapy
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import DropItem
from scrapy.http import Response
from twisted.python.failure import Failure as TwistedFailure

from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, shorten_for_display
from dataset.feeds.cells import URL_SCHEME
from dataset.feeds.product_feed import FEED_SUFFIXES, ProductFeed, open_feed
from dataset.images.io import EXTENSIONS
from dataset.images.store import UrlImageCache
from scraper.crawl.process import project_settings, run_spiders, start_task
from scraper.decoding.inspection import RejectedImage
from scraper.decoding.pool import DecoderPool
from scraper.items import image_error_reason
from scraper.middlewares import IS_IMAGE, HostBackoffs, host_and_port

# Active requests: many, so that one slow host does not hold up the others; Ctrl-C waits for them.
CONCURRENT_REQUESTS = 32
MAX_URL_CHARACTERS = 8_000
INVALID_URL = "invalid URL"
# File in the cache with the pauses that hosts requested.
BACKOFFS_FILE = "hosts.sqlite"
PURPOSE = "looks at photos of a product feed; obeys robots.txt"
# Maximum number of remembered URLs, so that each is requested once, and of shown reasons.
MAX_RECENT_URLS, MAX_SHOWN_REASONS = 100_000, 10
# Called with a URL and why it has no image: empty if it has one.
Report = Callable[[str, str], None]


def open_url_feed(
    path: Path, columns: Mapping[str, str], encoding: str | None, *, is_feed: bool
) -> ProductFeed | None:
    """Open a file as a feed, unless it is a list with one URL per line.

    Args:
        path: The file.
        columns: Names of the feed's columns, see `open_feed`.
        encoding: Encoding of the feed.
        is_feed: Whether the file must be a feed.

    Raises:
        BadInput: The file is not a feed, although its suffix or `is_feed` says so.
    """
    # A pipe can be read only once.
    if path.exists() and not path.is_file():
        return None
    suffix = path.suffix.lower()
    must_be_feed = is_feed or (suffix in FEED_SUFFIXES and suffix != ".txt")
    try:
        return open_feed(path, columns, None, encoding, required=("image",))
    except BadInput:
        if must_be_feed and not _starts_with_url(path):
            raise
        return None


def _starts_with_url(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(100).lstrip().lower().startswith((b"http://", b"https://"))
    except OSError:
        return False


class FeedUrls:
    """The URLs of a feed, each once; counts the photos that have none.

    Args:
        feed: The feed.
    """

    def __init__(self, feed: ProductFeed) -> None:
        self._feed, self._skipped = feed, Counter[str]()
        self._notes: list[str] = []

    def __iter__(self) -> Iterator[str]:
        recent: OrderedDict[str, None] = OrderedDict()
        for row in self._feed.rows():
            if row.problem:
                self._skipped[row.problem] += 1
                continue
            if row.note and len(self._notes) < MAX_SHOWN_REASONS:
                self._notes.append(row.note)
            for image in row.images:
                if not URL_SCHEME.match(image):
                    self._skipped["a path, which needs no download"] += 1
                elif image not in recent:
                    recent[image] = None
                    if len(recent) > MAX_RECENT_URLS:
                        recent.popitem(last=False)
                    yield image

    def summary(self) -> Iterator[str]:
        """Yield notes on repaired rows and on photos that were not requested, for users."""
        yield from map(shorten_for_display, self._notes)
        for reason, count in self._skipped.most_common(MAX_SHOWN_REASONS):
            yield f"not requested: {count}: {shorten_for_display(reason)}"


def fetch(
    urls: Iterable[str],
    folder: Path,
    report: Report,
    *,
    contact: str | None,
    timeout: float,
    allow_private: bool,
    verbose: bool,
) -> bool:
    """Download the images at URLs into a folder, and report each result.

    Args:
        urls: The URLs; may be a stream whose sender waits for results.
        folder: Folder of the cache of images by URL.
        report: Called for each URL; may raise BrokenPipeError, which ends the process.
        contact: E-mail address or URL for site owners.
        timeout: Seconds for a response.
        allow_private: Whether hosts may have private addresses.
        verbose: Log every request.

    Returns:
        Whether all were requested: Ctrl-C ends the download after the active requests. A closed
        output ends the process at once.

    Raises:
        Failure: The folder can't be written.
    """
    from scraper.settings import user_agent

    settings = project_settings(
        {
            "USER_AGENT": user_agent(contact, PURPOSE),
            "DOWNLOAD_TIMEOUT": timeout,
            "ALLOW_PRIVATE_HOSTS": allow_private,
            "LOG_LEVEL": "INFO" if verbose else "CRITICAL",
            "CONCURRENT_REQUESTS": CONCURRENT_REQUESTS,
            "ITEM_PIPELINES": {UrlImagePipeline: 100},
            "EXTENSIONS": {},
            # This spider limits the length itself.
            "URLLENGTH_LIMIT": 0,
        }
    )
    cache = UrlImageCache(folder)
    with cache.in_use():
        download = Download(
            cache, HostBackoffs(open_catalogue(str(folder / BACKOFFS_FILE))), report
        )
        arguments = {"urls": urls, "download": download}
        is_complete = run_spiders([(UrlSpider, arguments)], settings)
    if download.failure is not None:
        raise download.failure
    return is_complete


@dataclass
class Download:
    """The state of a download of URLs.

    Attributes:
        cache: Where images are stored.
        backoffs: Pauses that hosts asked for.
        report: Called for each result.
        failure: Why the cache can't be written.
    """

    cache: UrlImageCache
    backoffs: HostBackoffs
    report: Report
    failure: Failure | None = None


@dataclass
class UrlImageItem:
    """A downloaded image.

    Attributes:
        url: Its URL.
        body: The downloaded bytes; None if the image is cached already.
        problem: Why there is no image; empty if there is one.
    """

    url: str
    body: bytes | None = None
    problem: str = ""


class UrlSpider(scrapy.Spider):
    """Request images at URLs."""

    name = "fetch-photos"

    def __init__(self, urls: Iterable[str], download: Download) -> None:
        super().__init__()
        self._urls, self.download, self.backoffs = urls, download, download.backoffs

    async def start(self) -> AsyncIterator[Any]:
        """Yield a request per URL, or an item if its image is cached or the URL is invalid."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | None] = asyncio.Queue(CONCURRENT_REQUESTS)

        def read_urls() -> None:
            for url in chain(self._urls, [None]):
                asyncio.run_coroutine_threadsafe(queue.put(url), loop).result()

        # A daemon: the sender may pause for long, and the end does not wait for it.
        threading.Thread(target=read_urls, daemon=True).start()
        while (url := await queue.get()) is not None:
            yield UrlImageItem(url) if self.download.cache.find(url) else self._request(url)

    def _request(self, url: str) -> Request | UrlImageItem:
        try:
            # Scrapy drops requests without a host or with a long URL, and would report nothing.
            host_and_port(url)
            if len(url) > MAX_URL_CHARACTERS:
                return UrlImageItem(
                    url, problem=f"a URL of more than {MAX_URL_CHARACTERS:,} characters"
                )
            request = Request(
                url,
                errback=self.handle_error,
                cb_kwargs={"url": url},
                meta={"dont_merge_cookies": True, IS_IMAGE: True},
                dont_filter=True,
            )
        except ValueError:
            return UrlImageItem(url, problem=INVALID_URL)
        return request

    def parse(self, response: Response, url: str) -> Iterator[UrlImageItem]:
        """Yield the image of a response."""
        problem = "" if response.status == 200 else f"HTTP {response.status}"
        yield UrlImageItem(url, response.body, problem)

    def handle_error(self, failure: TwistedFailure) -> Iterator[UrlImageItem]:
        """Yield the reason of a failed download."""
        assert failure.value is not None
        request: Request = failure.request
        reason = image_error_reason(failure.value)
        self.logger.info("%s %s", reason, request.url)
        yield UrlImageItem(request.cb_kwargs["url"], problem=reason)


class UrlImagePipeline:
    """Inspect images, put them into the cache, and report the results."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "UrlImagePipeline":
        """Create the pipeline for a crawler."""
        return cls(crawler)

    async def open_spider(self) -> None:
        """Prepare decoder processes and a thread that writes files."""
        self._pool, self._threads = DecoderPool.acquire(), ThreadPoolExecutor(1)
        assert isinstance(self._crawler.spider, UrlSpider)
        self._download = self._crawler.spider.download

    async def close_spider(self) -> None:
        """End the processes and the thread."""
        await self._pool.release()
        self._threads.shutdown()

    async def process_item(self, item: Any) -> Any:
        """Process an image; the download ends if it can't be stored or reported."""
        try:
            if item.body is not None and not item.problem:
                item.problem = await self._store(item.url, item.body)
            self._download.report(item.url, item.problem)
        except Failure as failure:
            self._download.failure = failure
            self._stop()
            raise DropItem(failure.message) from failure
        except BrokenPipeError:
            # Nobody reads the results of the active requests. Images in the cache are complete.
            os._exit(1)
        return item

    async def _store(self, url: str, body: bytes) -> str:
        """Put an image into the cache; return why it is rejected."""
        outcome = await self._pool.inspect(body)
        if isinstance(outcome, RejectedImage):
            return outcome.reason
        loop, extension = asyncio.get_running_loop(), EXTENSIONS[outcome.format]
        await loop.run_in_executor(self._threads, self._download.cache.keep, url, body, extension)
        return ""

    def _stop(self) -> None:
        start_task(self._crawler.stop_async())
