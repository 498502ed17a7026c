"""A Scrapy scheduler over the catalogue, from which an interrupted crawl continues.

The catalogue holds what a crawl has still to do: searches with the cursor of their next page, and
pending images. The scheduler creates requests from it and keeps nothing else on disk, so a crawl
survives `kill -9` and power failures:

- A page's posts are committed together with the cursor of the next page, an image after its file
  was synced. A page or image without a commit is requested again by the next run.
- At most MAX_ACTIVE_IMAGES images per site are between request and commit; no more are repeated
  after a kill. Images in the catalogue are never requested again.
- Several processes, on several machines with PostgreSQL, share a catalogue: each claims images and
  pages before it requests them. Claims of a process that is dead, or has sent no heartbeat for the
  lease (see `dataset.catalogue.workers`), are released; if such a process continues, its commits of
  pages are discarded and those of images are accepted once.

Scrapy's JOBDIR keeps requests in queues that are valid only after a clean shutdown:
https://docs.scrapy.org/en/latest/topics/jobs.html
"""

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urldefrag

import click
from scrapy import Request, signals
from scrapy.core.scheduler import BaseScheduler
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.spiders import Spider
from scrapy.utils.httpobj import urlparse_cached
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure as TwistedFailure

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.errors import BadInput, Failure, replace_control_characters
from dataset.maintenance import takedown
from scraper.crawl.preflight import estimate, format_estimate
from scraper.crawl.process import start_task
from scraper.crawl.runner import open_context_of
from scraper.crawl.searches import Search, SearchAction, SearchPlanner
from scraper.crawl.summary import SearchStats
from scraper.credentials import redact
from scraper.decoding.inspection import RejectedImage
from scraper.errors import (
    CircularPaging,
    LayoutChanged,
    SiteRefused,
    TemporarilyEmpty,
    UnexpectedError,
)
from scraper.items import ImageItem, PageItem
from scraper.middlewares import MAX_WAIT_SECONDS
from scraper.persistence.claims import PendingImage, takedown_names
from scraper.spiders.base import HashtagSpider

# Tags of a site that are searched concurrently; the request rate of the site stays the same.
CONCURRENT_TAGS = 4
# Images per site between request and commit, at most; requests among them are limited by Scrapy.
MAX_ACTIVE_IMAGES = 32
# Seconds until the claims of other processes are checked again.
CLAIM_CHECK_SECONDS = 0.1
# How a search ends, by the error that ended it.
ENDS: dict[type[Failure], str] = {
    LayoutChanged: "layout changed",
    CircularPaging: "pagination loop",
    TemporarilyEmpty: "temporarily empty",
    UnexpectedError: "error",
}
# Key of a request's meta: whether its image counts as active.
ACTIVE = "is_active_image"
DROPPED = "dropped by an item pipeline"

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class CatalogueScheduler(BaseScheduler):
    """Schedule the requests of searches and images from the catalogue.

    Requests of middlewares and callbacks, such as redirects and retries, are kept in memory. A
    spider without tags, as in `scrapy shell` and `scrapy parse`, has only these.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._queue: deque[Request] = deque()
        # Host -> requests that wait until it may be requested, and their timers.
        self._delayed: defaultdict[str, list[Request]] = defaultdict(list)
        self._timers: list[asyncio.TimerHandle] = []
        self._runs: dict[int, SearchRun] = {}
        # URL -> lock of a list that several searches read, which one of them downloads.
        self.page_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._active_images = 0
        self._is_refused = False
        self._resources = contextlib.ExitStack()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CatalogueScheduler":
        """Create the scheduler of a crawler."""
        return cls(crawler)

    # Scrapy's interface.

    def open(self, spider: Spider) -> None:
        """Prepare the searches of a spider, which start when it is opened."""
        if not (isinstance(spider, HashtagSpider) and spider.tags):
            return
        self.spider = spider
        connect = self._crawler.signals.connect
        try:
            self._open_context(spider)
        except (BadInput, Failure) as error:
            spider.logger.error("%s", error.message)
            connect(self._close_spider, signals.spider_opened)
            return
        connect(self._start_searches, signals.spider_opened)
        connect(self._on_item, signals.item_scraped)
        connect(self._on_dropped_item, signals.item_dropped)
        connect(self._on_dropped_item, signals.item_error)
        connect(self._on_spider_error, signals.spider_error)

    def has_pending_requests(self) -> bool:
        """Return whether searches are unfinished or requests are queued."""
        is_searching = self._task is not None and not self._task.done()
        return is_searching or bool(self._queue or self._delayed)

    def enqueue_request(self, request: Request) -> bool:
        """Queue a request: images at the end; pages, redirects and retries at the front."""
        if is_new_image(request):
            self._queue.append(request)
        else:
            self._queue.appendleft(request)
        return True

    def next_request(self) -> Request | None:
        """Return the next request whose host may be requested; None if there is none."""
        while self._queue:
            request = self._queue[0]
            is_new = is_new_image(request)
            if is_new and self._active_images >= MAX_ACTIVE_IMAGES:
                return None
            self._queue.popleft()
            if self._delay(request):
                continue
            if is_new:
                request.meta[ACTIVE] = True
                self._active_images += 1
                self.run_of(request).on_image_requested()
            return request
        return None

    def close(self, reason: str) -> "Deferred[None]":  # noqa: ARG002
        """Release what was claimed and not requested."""
        return Deferred.fromFuture(asyncio.ensure_future(self._close()))

    # Requests.

    def push(self, requests: Sequence[Request]) -> None:
        """Queue requests, and let the engine ask for them."""
        self._queue.extend(requests[:-1])
        assert self._crawler.engine is not None
        self._crawler.engine.crawl(requests[-1])

    def _delay(self, request: Request) -> bool:
        """Keep a request until its host may be requested; return whether it has to wait."""
        backoffs = getattr(self._crawler.spider, "backoffs", None)
        seconds = backoffs.seconds_left(request.url) if backoffs is not None else 0
        if not 0 < seconds <= MAX_WAIT_SECONDS:
            # The back-off middleware refuses requests that would have to wait longer.
            return False
        host = urlparse_cached(request).netloc
        if host not in self._delayed:
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(seconds, self._resume, host))
        self._delayed[host].append(request)
        return True

    def _resume(self, host: str) -> None:
        requests = self._delayed.pop(host, [])
        if requests:
            self._queue.extendleft(reversed(requests[1:]))
            assert self._crawler.engine is not None
            self._crawler.engine.crawl(requests[0])

    def drop_queued(self, search: Search) -> None:
        """Remove the requests of a search that were not sent."""
        self._queue = deque(_without(self._queue, search))
        for host in list(self._delayed):
            self._delayed[host] = _without(self._delayed[host], search)
            if not self._delayed[host]:
                del self._delayed[host]

    def run_of(self, request: Request) -> "SearchRun":
        """Return the running search that a request belongs to."""
        return self._runs[id(request.cb_kwargs["search"])]

    # Results, which Scrapy reports by signals.

    def _on_item(self, item: Any) -> None:
        if isinstance(item, PageItem) and item.search is not None:
            if item.error is None and not item.is_saved:
                # Without an error, the same page would be requested again and again.
                item.error = SiteRefused("an item pipeline did not save a page of the search")
            self._runs[id(item.search)].on_page(item.error)
        elif isinstance(item, ImageItem):
            run = self._runs[id(item.search)]
            if item.error is not None:
                run.fail(item.error)
            self.on_image_finished(run, item)

    def _on_dropped_item(self, item: Any) -> None:
        """Handle an item that a pipeline drops or fails on."""
        if isinstance(item, PageItem) and item.search is not None:
            error = SiteRefused("an item pipeline dropped a page of the search")
            self._runs[id(item.search)].on_page(error)
        elif isinstance(item, ImageItem):
            start_task(self._reject(item))

    async def _reject(self, item: ImageItem) -> None:
        with contextlib.suppress(Failure):
            await self.context.writer.save(item.image.url, RejectedImage(DROPPED))
            item.search.stats.rejected[DROPPED] += 1
        self.on_image_finished(self._runs[id(item.search)], item)

    def on_image_finished(self, run: "SearchRun", item: ImageItem) -> None:
        """Count an image as committed, rejected or left pending."""
        self._active_images -= 1
        run.on_image_finished(item)

    def _on_spider_error(self, failure: TwistedFailure, response: Response) -> None:
        """End a search whose response a callback can't handle: a defect of the spider."""
        arguments = response.request.cb_kwargs if response.request is not None else {}
        if "search" not in arguments or failure.value is None:
            return
        error = UnexpectedError("reading a response", failure.value)
        run = self._runs[id(arguments["search"])]
        if "image" in arguments:
            item = ImageItem(arguments["image"], arguments["search"], error=error)
            run.fail(error)
            self.on_image_finished(run, item)
        else:
            run.on_page(error)

    # Searches.

    def _open_context(self, spider: HashtagSpider) -> None:
        """Open the catalogue unless the `crawl` command has, and read the spider's tags.

        Raises:
            Failure: The catalogue or the image store can't be used, or an argument is invalid.
        """
        spider.check_arguments()
        if not self._crawler.settings["CONTACT"]:
            spider.check_contact()
        if spider.context is None:
            context = open_context_of(self._crawler.settings)
            spider.context = self._resources.enter_context(context)
            spider.backoffs = spider.context.backoffs
        if spider.request_interval and spider.requested_url == spider.server_url:
            spider.context.backoffs.set_interval(spider.requested_url, spider.request_interval)
        self.context = spider.context
        self.context.on_failure(self._stop)
        if isinstance(spider.tags, str):
            vocabulary = self.context.vocabulary
            tags = filter(None, map(str.strip, spider.tags.split(",")))
            spider.tags = {tag: vocabulary.words_of(tag) for tag in vocabulary.unique_tags(tags)}
        self.tags = dict(spider.tags)
        self.planner = spider.planner = SearchPlanner(
            spider, self.context.worker, self.context.run_started, self.tags, spider.limits
        )

    def _stop(self) -> None:
        start_task(self._crawler.stop_async())

    def _start_searches(self) -> None:
        self._task = asyncio.ensure_future(self._run_searches())
        self._task.add_done_callback(self._on_searches_finished)

    async def _run_searches(self) -> None:
        """Run all searches, several tags concurrently."""
        await self.spider.run_setup()
        if self.spider.pricing and not await self._print_costs():
            return
        slots = asyncio.Semaphore(CONCURRENT_TAGS)
        # Two tags may have a word in common, whose search runs once at a time.
        locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        await asyncio.gather(*(self._run_tag(tag, slots, locks) for tag in self.tags))

    async def _print_costs(self) -> bool:
        """Print how many posts the site will charge for; return whether it could report that."""
        queries = [
            HASHTAG_SEPARATOR.join(group)
            for words in self.tags.values()
            for group in self.spider.queries(words)
        ]
        try:
            counts = await estimate(self.spider, queries)
        except (SiteRefused, LayoutChanged) as error:
            self.context.problems.append(self._message(error))
            return False
        click.echo(format_estimate(self.spider, counts))
        return True

    async def _run_tag(
        self, tag: str, slots: asyncio.Semaphore, locks: Mapping[str, asyncio.Lock]
    ) -> None:
        """Run the searches of a tag one after the other."""
        for group in self.spider.queries(self.tags[tag]):
            hashtag = HASHTAG_SEPARATOR.join(group)
            async with slots, locks[hashtag]:
                if self._is_refused or self.context.failure is not None:
                    return
                stats = SearchStats(self.spider.name, tag, hashtag)
                self.context.searches.append(stats)
                await self._run_search(Search(stats))

    async def _run_search(self, search: Search) -> None:
        run = self._runs[id(search)] = SearchRun(self, search)
        try:
            await run.run()
        except (SiteRefused, LayoutChanged, CircularPaging, UnexpectedError) as error:
            is_permanent = isinstance(error, SiteRefused) and not isinstance(
                error, TemporarilyEmpty
            )
            self._is_refused = self._is_refused or is_permanent
            await self._record_failure(search, error)
        except Failure as failure:
            # The catalogue can't be used.
            self.context.fail(failure)

    async def _record_failure(self, search: Search, error: Failure) -> None:
        message = self._message(error)
        self.context.problems.append(message)
        search.stats.ended = ENDS.get(type(error), "refused")
        await self.context.writer.write(lambda session: self.planner.fail(session, search, message))

    def _message(self, error: Failure) -> str:
        return replace_control_characters(redact(error.message, self.spider.secrets))

    def _on_searches_finished(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Failure):
            self.context.fail(error)
        elif error is not None:
            self.context.problems.append(self._message(UnexpectedError("the crawl", error)))
        if not self._queue:
            # Otherwise the engine would notice this only at its next check, up to 5 seconds later.
            self._close_spider()

    def _close_spider(self) -> None:
        assert self._crawler.engine is not None
        start_task(self._crawler.engine.close_spider_async(reason="finished"))

    async def _close(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._task is not None and not self._task.done():
            self.context.is_complete = False
            self._task.cancel()
            await asyncio.wait([self._task])
            with contextlib.suppress(Failure):
                for run in self._runs.values():
                    await run.release()
        self._resources.close()


class SearchRun:
    """A search from its stored cursor to its end or a limit.

    Args:
        scheduler: The scheduler.
        search: The search.
    """

    def __init__(self, scheduler: CatalogueScheduler, search: Search) -> None:
        self._scheduler, self._search = scheduler, search
        self._planner, self._spider = scheduler.planner, scheduler.spider
        # Images that are queued, that are between request and commit, and that are not committed.
        self._queued, self._active = 0, 0
        self._uncommitted: set[str] = set()
        self._page: asyncio.Future[None] | None = None
        self._error: Failure | None = None
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Run the search; active images are finished before an error is raised.

        Raises:
            SiteRefused, LayoutChanged, CircularPaging, UnexpectedError: The search can't continue.
        """
        await self._write(self._planner.begin, self._search)
        try:
            await self._run_steps()
        except Exception as error:
            failure = error if isinstance(error, Failure) else UnexpectedError("a search", error)
            if failure is not error:
                logger.exception("the search for %r failed", self._search.hashtag)
            self.fail(failure)
            await self._wait_until(lambda: not self._active)
            # Others may retry later, and wait for nothing until then.
            await self.release()
            raise failure from error

    async def _run_steps(self) -> None:
        """Request page after page; the last images of one are downloaded during the next."""
        while True:
            await self._request_images()
            action, cursor = await self._write(self._planner.next_action, self._search)
            self._raise_error()
            if action is SearchAction.PAGE:
                await self._request_page(cursor)
                if self._search.guard.is_circular:
                    await self._request_images()
                    raise CircularPaging(self._search.hashtag, self._search.stats.pages)
            elif self._active:
                count = self._active
                await self._wait_until(lambda: self._active < count)  # noqa: B023
            elif action is SearchAction.WAIT:
                await asyncio.sleep(CLAIM_CHECK_SECONDS)
            elif action is not SearchAction.IMAGES:
                was_finished = action is SearchAction.FINISHED and not self._search.stats.pages
                self._search.stats.ended = "finished before" if was_finished else action.value
                return

    async def _request_images(self) -> None:
        """Request images until no more can be claimed; the last are active then.

        Raises:
            SiteRefused: Their host asks for a long pause.
        """
        while images := await self._write(self._planner.claim, self._search):
            self._uncommitted.update(image.url for image in images)
            self._raise_error()
            requests = [
                self._spider.claimed_image_request(image, self._search)
                for image in images
                if not await self._reject_taken_down(image)
            ]
            if requests:
                self._queued += len(requests)
                self._scheduler.push(requests)
                await self._wait_until(lambda: not self._queued)

    async def _reject_taken_down(self, image: PendingImage) -> bool:
        """Reject an image if one of its URLs was taken down; return whether it was."""
        writer = self._scheduler.context.writer
        names = (image.url, *takedown_names(image, self._spider.name))
        if not writer.takedowns.has_name(takedown.URL, names):
            return False
        await writer.save(image.url, RejectedImage(takedown.REASON))
        self._uncommitted.discard(image.url)
        self._search.stats.rejected[takedown.REASON] += 1
        return True

    async def _request_page(self, cursor: str | None) -> None:
        """Request a page and wait until it is committed.

        Raises:
            SiteRefused, LayoutChanged: There is none.
        """
        request = self._spider.page_request(self._search, cursor)
        url = urldefrag(request.url).url
        is_shared = self._spider.shares_lists
        async with self._scheduler.page_locks[url] if is_shared else contextlib.nullcontext():
            self._raise_error()
            self._page = asyncio.get_running_loop().create_future()
            self._scheduler.push([request])
            await self._page

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition of the images, which `fail` makes true as well."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def _write(self, step: Callable[..., Result], *arguments: Any) -> Result:
        self._raise_error()
        writer = self._scheduler.context.writer
        return await writer.write(lambda session: step(session, *arguments))

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    # Called by the scheduler.

    def on_image_requested(self) -> None:
        """Count a queued image as active."""
        self._queued -= 1
        self._active += 1
        self._changed.set()

    def on_image_finished(self, item: ImageItem) -> None:
        """Count an active image as committed, or as left pending because of an error."""
        self._active -= 1
        if item.error is None:
            self._uncommitted.discard(item.image.url)
        self._changed.set()

    def on_page(self, error: Failure | None) -> None:
        """Continue after a committed page, or after an error in its place."""
        if self._page is None or self._page.done():
            return
        if error is None:
            self._page.set_result(None)
        else:
            self._page.set_exception(error)

    def fail(self, error: Failure) -> None:
        """End the search with an error once its active images are finished."""
        self._error = self._error or error
        self._scheduler.drop_queued(self._search)
        self._queued = 0
        self.on_page(error)
        self._changed.set()

    async def release(self) -> None:
        """Release the claims of images that were not committed."""
        urls = list(self._uncommitted)
        await self._scheduler.context.writer.write(
            lambda session: self._planner.release(session, urls)
        )


def is_new_image(request: Request) -> bool:
    """Return whether a request is the first one of a claimed image."""
    arguments = request.cb_kwargs
    if "search" not in arguments or "image" not in arguments or ACTIVE in request.meta:
        return False
    return not (arguments["index"] or arguments["image"].is_renewed)


def _without(requests: Iterable[Request], search: Search) -> list[Request]:
    return [request for request in requests if request.cb_kwargs.get("search") is not search]
