"""Item pipelines: inspect, deduplicate and store images, and write items to the catalogue."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from scrapy.exceptions import DropItem

from dataset.errors import Failure
from dataset.maintenance.takedown import REASON
from scraper.crawl.runner import CrawlComponent
from scraper.crawl.searches import Search
from scraper.decoding.inspection import AcceptedImage, RejectedImage
from scraper.decoding.pool import DecoderPool
from scraper.errors import UnexpectedError
from scraper.items import ImageItem, Page, PageItem
from scraper.persistence.claims import takedown_names

logger = logging.getLogger(__name__)


class CrawlPipeline(CrawlComponent):
    """Base class of the pipelines. Without a catalogue (`scrapy parse`), items pass unchanged."""

    @contextlib.contextmanager
    def failures_end_crawl(self) -> Iterator[None]:
        """End the crawl if the catalogue or the image store fails.

        Raises:
            DropItem: It has failed.
        """
        try:
            yield
        except Failure as failure:
            assert self.context is not None
            self.context.fail(failure)
            raise DropItem(failure.message) from failure


class InspectionPipeline(CrawlPipeline):
    """Set the outcome of images: accepted, with hashes, or rejected with a reason."""

    _pool: DecoderPool | None = None

    async def open_spider(self) -> None:
        """Start the first decoder process in the background, while the first page is requested."""
        if self.context is not None:
            self._pool = DecoderPool.acquire()
            self._starting = asyncio.ensure_future(self._start(self._pool))

    async def _start(self, pool: DecoderPool) -> None:
        with contextlib.suppress(DropItem), self.failures_end_crawl():
            await pool.start()

    async def close_spider(self) -> None:
        """End the decoder processes."""
        if self._pool is not None:
            await self._starting
            await self._pool.release()

    async def process_item(self, item: Any) -> Any:
        """Inspect an image that was downloaded."""
        if isinstance(item, ImageItem) and item.outcome is None:
            assert self._pool is not None
            with self.failures_end_crawl():
                item.outcome = await self._pool.inspect(item.body)
        return item


class TakedownPipeline(CrawlPipeline):
    """Reject copies of images that were taken down."""

    async def process_item(self, item: Any) -> Any:
        """Reject an accepted image that matches a committed takedown."""
        if isinstance(item, ImageItem) and isinstance(item.outcome, AcceptedImage):
            assert self.context is not None
            takedowns = self.context.writer.takedowns
            if takedowns.has_image(item.outcome.sha256, item.outcome.fingerprint):
                item.outcome = RejectedImage(REASON)
        return item


class StoragePipeline(CrawlPipeline):
    """Write the files of accepted images in threads; the catalogue pipeline syncs them."""

    async def process_item(self, item: Any) -> Any:
        """Write the file of an image."""
        if isinstance(item, ImageItem) and isinstance(item.outcome, AcceptedImage):
            assert self.context is not None
            store, key = self.context.store, item.outcome.store_key
            loop = asyncio.get_running_loop()
            with self.failures_end_crawl():
                await loop.run_in_executor(self.context.file_threads, store.put, item.body, key)
        return item


class CataloguePipeline(CrawlPipeline):
    """Commit a page with the cursor of the next one, and images in batches."""

    async def process_item(self, item: Any) -> Any:
        """Write an item, and return it once it is committed."""
        if isinstance(item, PageItem) and item.page is not None and item.search is not None:
            with self.failures_end_crawl():
                try:
                    await self._save_page(item.page, item.search, item.cursor)
                    item.is_saved = True
                except Failure:
                    raise
                except Exception as error:  # ends the search of the page, not the crawl
                    logger.exception("a page of %r can't be saved", item.search.hashtag)
                    item.error = UnexpectedError("saving a page", error)
        elif isinstance(item, ImageItem) and item.error is None and item.outcome is not None:
            assert self.context is not None
            image, spider = item.image, self._crawler.spider
            with self.failures_end_crawl():
                item.result = await self.context.writer.save(
                    image.url,
                    item.outcome,
                    takedown_names(image, spider.name),
                    spider.planner.may_store,
                )
            self._count_image(item)
        return item

    async def _save_page(self, page: Page, search: Search, cursor: str | None) -> None:
        spider: Any = self._crawler.spider
        context, planner = spider.context, spider.planner
        page = search.guard.check_page(page, cursor)
        page = search.guard.without_old_posts(page, spider.limits.since)
        page = page.with_licenses(spider.limits.licenses)
        saved = await context.writer.write(
            lambda session: planner.save_page(
                session, search, cursor, page, context.writer.takedowns
            )
        )
        if saved is not None:
            search.stats.add(saved)

    def _count_image(self, item: ImageItem) -> None:
        """Count an image in the summary of its search, and in Scrapy's statistics."""
        stats = self._crawler.stats
        if isinstance(item.result, RejectedImage):
            item.search.stats.rejected[item.result.reason] += 1
            stats.inc_value(f"images/rejected/{item.result.reason}")
        elif item.result is not None:
            item.search.stats.outcomes[item.result] += 1
            stats.inc_value(f"images/{item.result}")
