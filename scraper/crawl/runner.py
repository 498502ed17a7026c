"""Run a crawl of several sites, and report its results.

`CrawlContext` holds what the spiders of a process share: catalogue, image store, back-off and
results.
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from scrapy.crawler import Crawler
from scrapy.settings import BaseSettings, Settings
from sqlalchemy.orm import Session

from dataset.catalogue import workers
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.errors import Failure
from dataset.images.store import ImageStore, open_store
from dataset.selection.candidates import Exclusions
from dataset.selection.labeling import label_photos
from dataset.utils.files import write_atomically
from dataset.vocabulary import Vocabulary, load_vocabulary
from scraper.crawl.process import run_spiders
from scraper.crawl.searches import CrawlLimits
from scraper.crawl.summary import (
    GOOD_ENDS,
    LabelShortage,
    SearchStats,
    format_results,
    label_shortage,
)
from scraper.middlewares import HostBackoffs
from scraper.persistence.writer import CatalogueWriter

if TYPE_CHECKING:
    from scraper.spiders.base import HashtagSpider

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrawlResult:
    """The results of a crawl.

    Attributes:
        searches: Result of each search.
        problems: Why searches did not reach their end.
        is_complete: Whether the crawl was not interrupted.
        sizes: Tag -> number of its photos in the catalogue.
        seconds: Duration.
    """

    searches: list[SearchStats]
    problems: list[str]
    is_complete: bool
    sizes: dict[str, int]
    seconds: float


def crawl(
    spiders: "Sequence[HashtagSpider]",
    tags: Sequence[str],
    limits: CrawlLimits,
    vocabulary: Vocabulary,
    settings: Settings,
) -> CrawlResult:
    """Crawl sites into the catalogue and image store that the settings name.

    Raises:
        BadInput: A setting must not be changed.
        Failure: The catalogue or the image store can't be used.
    """
    start = time.monotonic()
    words = {tag: vocabulary.words_of(tag) for tag in tags}
    with open_context(settings["CATALOGUE"], settings["IMAGES"], vocabulary) as context:
        shared = {"tags": words, "limits": limits, "context": context}
        jobs = [(type(spider), {**spider.arguments, **shared}) for spider in spiders]
        is_complete = run_spiders(jobs, settings)
        context.is_complete = context.is_complete and is_complete
        if context.failure is not None:
            raise context.failure
        with context.sessions() as session:
            sizes = {tag: _count_photos(session, vocabulary, tag) for tag in tags}
    seconds = time.monotonic() - start
    return CrawlResult(context.searches, context.problems, context.is_complete, sizes, seconds)


def _count_photos(session: Session, vocabulary: Vocabulary, tag: str) -> int:
    """Return how many photos `catalogue stats` and a build have of the label of a tag."""
    photos = label_photos(session, vocabulary, Exclusions(), vocabulary.words_of(tag))
    return sum(photo.label == vocabulary.label_or_hashtag(tag) for photo in photos)


def report(result: CrawlResult, minimum: int, file: Path | None, is_verbose: bool) -> None:
    """Print the results of a crawl and write them to a file.

    Args:
        result: The results.
        minimum: Number of photos that each tag should have.
        file: JSON file to write.
        is_verbose: Print one row per search instead of one per tag.

    Raises:
        Failure: A search did not reach its end or a limit, or the file can't be written.
    """
    shortages = [
        label_shortage(tag, size, minimum, result.seconds, result.searches)
        for tag, size in result.sizes.items()
    ]
    for line in (*format_results(result.searches, is_verbose), *shortages):
        click.echo(line)
    if file:
        _write(file, as_json(result, shortages))
    _check_complete(result)


def as_json(result: CrawlResult, shortages: list[LabelShortage]) -> dict[str, Any]:
    """Return the results as JSON values."""
    return {
        "searches": [
            {**stats.columns(), "rejected": dict(stats.rejected), "skipped": dict(stats.skipped)}
            for stats in result.searches
        ],
        "labels": [asdict(shortage) for shortage in shortages],
        "problems": result.problems,
        "ended": result.is_complete,
        "seconds": round(result.seconds, 1),
    }


def _write(file: Path, value: Mapping[str, Any]) -> None:
    try:
        write_atomically(file, json.dumps(value, ensure_ascii=False, indent=2).encode())
    except OSError as error:
        raise Failure(f"--json {file} can't be written: {error.strerror}") from error


def _check_complete(result: CrawlResult) -> None:
    if not result.is_complete:
        raise Failure("interrupted; repeat the command to continue")
    if result.problems:
        raise Failure("\nError: ".join(result.problems))
    if any(stats.ended not in GOOD_ENDS for stats in result.searches):
        raise Failure("not every search reached its end; repeat the command to continue")


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
            # If even this fails, the next process finds this one dead.
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
