"""A crawl on one page: plan, ask, read, commit, fetch, report.

Scrapy downloads (robots.txt, pace, retries, size caps); what is to be done stands in the catalogue.
A page's posts and the cursor behind it are committed together, an image when its file is synced.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.session import open_catalogue
from dataset.errors import Failure
from dataset.images import ImageStore
from dataset.labels import Vocabulary
from scraper import frontier
from scraper.errors import LayoutChanged, SiteRefused
from scraper.fetching import Answer, Fetched, Refused, fetch_image
from scraper.report import Tally
from scraper.settings import AT_ONCE, crawl_settings
from scraper.spiders.base import Ask, HashtagSpider

BATCH = 32


@dataclass(frozen=True)
class CrawlOptions:
    """What `crawl` was asked for. `max_images`: stored images a tag, over all runs."""

    site: str
    tags: tuple[str, ...]
    catalogue: str
    images: Path
    max_images: int | None = None
    verbose: bool = False


@dataclass
class Work:
    """One crawl under way: what it has at hand, and what it came to."""

    options: CrawlOptions
    spider: HashtagSpider
    vocabulary: Vocabulary
    sessions: sessionmaker[Session]
    store: ImageStore
    tallies: list[Tally] = field(default_factory=list)
    problems: list[Failure] = field(default_factory=list)
    crash: BaseException | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        with self.sessions() as session:
            self.index = frontier.hash_index(session)


def crawl(options: CrawlOptions, spider: HashtagSpider, vocabulary: Vocabulary) -> Work:
    """Crawl what OPTIONS ask for, and return what it came to.

    Raises:
        Failure: the catalogue or the image store can't be used.
    """
    sessions = open_catalogue(options.catalogue)
    work = Work(options, spider, vocabulary, sessions, ImageStore(options.images))
    process = CrawlerProcess(crawl_settings(options.verbose))
    process.crawl(Crawl, work=work)
    process.start()
    if work.crash is not None:
        raise work.crash
    return work


class Crawl(scrapy.Spider):
    """Scrapy's side of a crawl: it lends its downloader to `crawl_all`."""

    name = "fashion-tagger"

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    async def start(self) -> AsyncIterator[Any]:
        """Do the whole crawl; it yields no request, since each is awaited where it is made."""
        try:
            await crawl_all(self.work, self.download)
            self.work.ended = True
        except Exception as error:  # noqa: BLE001 - Scrapy would only log it; `crawl` raises it
            self.work.crash = error
        return
        yield

    async def download(self, ask: Ask) -> tuple[str, Answer] | Refused:
        """Where ASK led to and what it answered, or why there is no answer."""
        request = scrapy.Request(ask.url, headers=dict(ask.headers), dont_filter=True)
        try:
            response = await self.crawler.engine.download_async(request)
        except IgnoreRequest as error:
            return Refused(
                "robots.txt" if "robots" in str(error) else str(error) or "too many redirects"
            )
        except Exception as error:  # noqa: BLE001 - whatever broke on the network is a reason
            return Refused(_network_reason(error))
        headers = {
            name.decode("latin-1").lower(): b",".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
        return response.url, Answer(response.status, response.body, headers)


def _network_reason(error: Exception) -> str:
    name = type(error).__name__
    if "Timeout" in name:
        return "timeout"
    if "Cancel" in name or "DataLoss" in name:
        return "too large or cut off"
    return f"no connection ({name})"


Download = Callable[[Ask], Any]


async def crawl_all(work: Work, download: Download) -> None:
    """Every word of every tag, one after the other; a site that refuses ends it."""
    with tqdm(desc=work.options.site, unit=" images", disable=None) as bar:
        for tag in work.options.tags:
            words = work.vocabulary.words_of(tag)
            for word in words:
                tally = Tally(tag, word)
                work.tallies.append(tally)
                try:
                    await crawl_search(work, download, tally, words, bar)
                except SiteRefused as refusal:
                    _fail(work, tally, refusal)
                    return
                except LayoutChanged as changed:
                    _fail(work, tally, changed)


def _fail(work: Work, tally: Tally, problem: Failure) -> None:
    work.problems.append(problem)
    tally.ended = "layout changed" if isinstance(problem, LayoutChanged) else "refused"
    with work.sessions.begin() as session:
        search = frontier.search_for(session, work.options.site, tally.hashtag)
        search.state, search.reason = "failed", problem.message


async def crawl_search(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...], bar: Any
) -> None:
    """One search from where it stands to its end or the tag's limit."""
    while True:
        await fetch_wanted(work, download, tally, words, bar)
        with work.sessions.begin() as session:
            search = frontier.search_for(session, work.options.site, tally.hashtag)
            if search.state == "finished":
                tally.ended = "finished" if tally.pages else "finished before"
                return
            if _room(session, work, words) <= 0:
                tally.ended = "limit"
                return
            cursor = search.cursor
        await turn_page(work, download, tally, cursor)


async def turn_page(work: Work, download: Download, tally: Tally, cursor: str | None) -> None:
    """Ask for the page at CURSOR and commit its posts and the cursor behind it."""
    ask = work.spider.search_request(tally.hashtag, cursor)
    answer = await download(ask)
    url, body = _page_body(work, ask, answer)
    page = work.spider.read(body, url)
    with work.sessions.begin() as session:
        search = frontier.search_for(session, work.options.site, tally.hashtag)
        frontier.save_page(session, search, page)
    tally.pages += 1
    tally.posts += len(page.posts)


def _page_body(work: Work, ask: Ask, answer: tuple[str, Answer] | Refused) -> tuple[str, bytes]:
    if isinstance(answer, Refused):
        if answer.reason == "robots.txt":
            raise SiteRefused(
                f"{ask.url}: the site's robots.txt forbids it, so it is not asked for"
            )
        raise SiteRefused(f"{ask.url}: {answer.reason}; repeat the command to go on from here")
    url, page = answer
    if page.status != 200:
        said = work.spider.refusal(page.status, page.body) or f"HTTP {page.status}"
        raise SiteRefused(f"{url}: {said}; repeat the command to go on from here")
    return url, page.body


def _room(session: Session, work: Work, words: tuple[str, ...]) -> int:
    """How many images the tag of WORDS may still have."""
    limit = work.options.max_images
    if limit is None:
        return BATCH
    return limit - frontier.stored_count(session, work.options.site, words)


async def fetch_wanted(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...], bar: Any
) -> None:
    """Fetch the photos that the search has found, until none is wanted or the tag is full."""
    while True:
        with work.sessions() as session:
            limit = min(BATCH, _room(session, work, words))
            batch = (
                frontier.wanted(session, work.options.site, tally.hashtag, limit)
                if limit > 0
                else []
            )
        if not batch:
            return
        # A place is held until the commit: a kill loses at most AT_ONCE photos that came.
        places = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(
            *(fetch_one(work, download, tally, wanted, places, bar) for wanted in batch)
        )


async def fetch_one(
    work: Work,
    download: Download,
    tally: Tally,
    wanted: frontier.Wanted,
    places: asyncio.Semaphore,
    bar: Any,
) -> None:
    """Fetch one photo and commit what became of it, as soon as one of PLACES is free."""

    async def get(address: str) -> Answer | Refused:
        answer = await download(work.spider.image_request(address))
        return answer if isinstance(answer, Refused) else answer[1]

    async with places:
        outcome = await fetch_image(get, (wanted.url, *wanted.fallbacks), work.store)
        _commit(work, tally, wanted.url, outcome)
    bar.update()
    bar.set_postfix(tag=tally.hashtag, refresh=False)


def _commit(work: Work, tally: Tally, url: str, outcome: Fetched | Refused) -> None:
    with work.sessions.begin() as session:
        if isinstance(outcome, Fetched):
            tally.outcomes[frontier.store(session, url, outcome, work.index)] += 1
        else:
            frontier.refuse(session, url, outcome)
            tally.refused[outcome.reason] += 1
