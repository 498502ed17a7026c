"""The state of a crawl: its options, resources and results."""

import asyncio
from collections import defaultdict
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dataset.catalogue.session import Sessions
from dataset.errors import Failure
from dataset.images.store import ImageStore
from dataset.vocabulary import Vocabulary
from scraper.keeping import Keeper
from scraper.pace import Pace
from scraper.readers import Readers
from scraper.report import Tally
from scraper.settings import AT_ONCE, Manners
from scraper.spiders.base import HashtagSpider, Photo

# Images in flight, which Ctrl-C waits for; and all that are in progress, those that are decoded,
# hashed and written too: what is committed together costs little each.
ASKED, PLACES = 2 * AT_ONCE, 4 * AT_ONCE


@dataclass(frozen=True)
class CrawlOptions:
    """What `crawl` was asked for.

    `max_images`: stored images a tag and site, over all runs; `max_pages`: pages a search, of this
    run; `since`: older posts are skipped; `retry_failed`: images rejected because of temporary
    errors are requested again; `full`: finished searches are read to their end again.
    """

    tags: tuple[str, ...]
    catalogue: str
    images: Path | str
    manners: Manners
    max_images: int | None = None
    max_pages: int | None = None
    since: datetime | None = None
    retry_failed: bool = False
    full: bool = False


@dataclass(frozen=True)
class Means:
    """What all sites of a crawl share.

    `files`: threads that write to the store; `worker`: its number in the catalogue; `bar`: its
    photos.
    """

    vocabulary: Vocabulary
    sessions: Sessions
    store: ImageStore
    readers: Readers
    files: Executor
    keeper: Keeper
    worker: int
    pace: Pace
    bar: Any


@dataclass
class Work:
    """A crawl of one site."""

    options: CrawlOptions
    site: str
    spider: HashtagSpider
    means: Means
    tallies: list[Tally] = field(default_factory=list)
    problems: list[Failure] = field(default_factory=list)
    asked_again: dict[str, dict[str, Photo]] = field(default_factory=dict)
    refused: bool = False

    def __post_init__(self) -> None:
        self.worker = self.means.worker
        # A place is held until the commit: after a kill at most PLACES downloads are repeated.
        self.places = asyncio.Semaphore(PLACES)
        self.asking = asyncio.Semaphore(ASKED)
        # Two tags may have a word in common: its search runs once at a time.
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
