"""Resources that the spiders of a process share: catalogue, image store, back-off and results."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from scrapy.crawler import Crawler
from scrapy.settings import BaseSettings

from dataset.catalogue import workers
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.errors import Failure
from dataset.images.store import ImageStore, open_store
from dataset.vocabulary import Vocabulary, load_vocabulary
from scraper.crawl.summary import SearchStats
from scraper.middlewares import HostBackoffs
from scraper.persistence.writer import CatalogueWriter

logger = logging.getLogger(__name__)


@dataclass
class CrawlContext:
    """An opened catalogue and image store, with this process as a worker.

    Attributes:
        vocabulary: Labels with their words.
        sessions: The catalogue.
        store: The image store.
        writer: Writes to the catalogue.
        file_threads: Threads that write files of the image store.
        worker: Id of this process in the catalogue.
        run_started: When the run started that this process takes part in.
        backoffs: Hosts that asked for a pause.
        searches: Results of all searches.
        problems: Why searches did not reach their end.
        is_complete: Whether no spider was interrupted.
        failure: What ended the crawl, such as a full disk.
    """

    vocabulary: Vocabulary
    sessions: Sessions
    store: ImageStore
    writer: CatalogueWriter
    file_threads: Executor
    worker: int
    run_started: datetime
    backoffs: HostBackoffs
    searches: list[SearchStats] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_complete: bool = True
    failure: Exception | None = None
    _stop_callbacks: list[Callable[[], object]] = field(default_factory=list)

    def on_failure(self, stop: Callable[[], object]) -> None:
        """Register a function that stops a spider if the crawl fails."""
        self._stop_callbacks.append(stop)

    def fail(self, error: Exception) -> None:
        """Stop all spiders because of an error that is not a site's."""
        if self.failure is None:
            logger.error("%s", error)
            self.failure = error
            for stop in self._stop_callbacks:
                stop()


class CrawlComponent:
    """A component of Scrapy that uses the resources of the crawl.

    Args:
        crawler: The crawler of the spider.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "CrawlComponent":
        """Create the component for a crawler."""
        return cls(crawler)

    @property
    def context(self) -> CrawlContext | None:
        """The resources of the crawl; None outside of one, as in `scrapy parse`."""
        return getattr(self._crawler.spider, "context", None)


@contextlib.contextmanager
def open_context(
    catalogue: str, images: Path | str, vocabulary: Vocabulary
) -> Iterator[CrawlContext]:
    """Open the catalogue and the image store, and register this process as a worker.

    Raises:
        Failure: One of them can't be used.
    """
    sessions, store = open_catalogue(catalogue), open_store(images)
    with store.in_use():
        with sessions.begin() as session:
            worker = workers.register(session)
            run_started = workers.run_started(session, worker)
        writer = CatalogueWriter(sessions, store)
        threads = ThreadPoolExecutor(store.max_concurrent_writes, thread_name_prefix="files")
        context = CrawlContext(
            vocabulary,
            sessions,
            store,
            writer,
            threads,
            worker,
            run_started,
            HostBackoffs(sessions),
        )
        is_complete = False
        try:
            yield context
            is_complete = context.is_complete and context.failure is None
        finally:
            writer.close()
            threads.shutdown()
            # If even this fails, the next process sees that this one is dead.
            with contextlib.suppress(Failure), sessions.begin() as session:
                workers.unregister(session, worker, is_complete)


def open_context_of(settings: BaseSettings) -> "contextlib.AbstractContextManager[CrawlContext]":
    """Open the context that the settings CATALOGUE, IMAGES and VOCABULARY name."""
    vocabulary = settings.get("VOCABULARY")
    return open_context(
        settings["CATALOGUE"],
        settings["IMAGES"],
        load_vocabulary(Path(vocabulary) if vocabulary else None),
    )
