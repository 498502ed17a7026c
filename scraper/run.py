"""A crawl on one page: plan, ask, read, commit, fetch, report.

Scrapy downloads (robots.txt, pace, retries, size caps); what is to be done stands in the catalogue.
A page's posts and the cursor behind it are committed together, an image when its file is synced.
"""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.session import open_catalogue
from dataset.catalogue.tables import OR
from dataset.duplicates.known import KnownPhotos
from dataset.errors import Failure
from dataset.images import ImageStore
from dataset.labels import Vocabulary
from scraper import expired, frontier, weekly
from scraper.asking import read_page
from scraper.check import estimate, show_estimate
from scraper.credentials import hide
from scraper.download import Download, run_with_downloader
from scraper.errors import LayoutChanged, NotNow, SiteRefused
from scraper.fetching import GONE, Fetched, Refused, fetch_image
from scraper.paging import Paging
from scraper.report import Tally
from scraper.settings import AT_ONCE
from scraper.spiders.base import Answer, HashtagSpider, Photo

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
    asked_again: dict[str, dict[str, Photo]] = field(default_factory=dict)
    ended: bool = False

    def __post_init__(self) -> None:
        with self.sessions() as session:
            self.known = KnownPhotos(session)


def crawl(options: CrawlOptions, spider: HashtagSpider, vocabulary: Vocabulary) -> Work:
    """Crawl what OPTIONS ask for, and return what it came to.

    Raises:
        Failure: the catalogue or the image store can't be used.
    """
    sessions = open_catalogue(options.catalogue)
    work = Work(options, spider, vocabulary, sessions, ImageStore(options.images))

    async def main(download: Download) -> None:
        await crawl_all(work, download)

    work.ended = run_with_downloader(main, spider, options.verbose)
    return work


async def crawl_all(work: Work, download: Download) -> None:
    """Every search of every tag, one after the other; a site that refuses ends it."""
    await set_up(work, download)
    if work.spider.charged and not await cost_shown(work, download):
        return
    with tqdm(desc=work.options.site, unit=" images", disable=None) as bar:
        for tag in work.options.tags:
            words = work.vocabulary.words_of(tag)
            for group in work.spider.queries(words):
                tally = Tally(tag, OR.join(group))
                work.tallies.append(tally)
                try:
                    await crawl_search(work, download, tally, words, bar)
                except (LayoutChanged, NotNow) as problem:
                    _fail(work, tally, problem)
                except SiteRefused as refusal:
                    _fail(work, tally, refusal)
                    return


async def cost_shown(work: Work, download: Download) -> bool:
    """Print how many posts will be read and charged; whether the site could say."""
    groups = [
        group
        for tag in work.options.tags
        for group in work.spider.queries(work.vocabulary.words_of(tag))
    ]
    try:
        counts = await estimate(work.spider, download, [OR.join(group) for group in groups])
    except (SiteRefused, LayoutChanged) as problem:
        work.problems.append(Failure(hide(problem.message, work.spider.secrets)))
        return False
    click.echo(show_estimate(work.spider, counts))
    return True


async def set_up(work: Work, download: Download) -> None:
    """What the spider wants to know first; without an answer it uses what it has built in."""
    ask = work.spider.set_up_request()
    answer = await download(ask) if ask else None
    if isinstance(answer, tuple) and answer[1].status == 200:
        work.spider.set_up(answer[1].body)


def _fail(work: Work, tally: Tally, problem: Failure) -> None:
    message = hide(problem.message, work.spider.secrets)
    work.problems.append(Failure(message))
    reasons = {LayoutChanged: "layout changed", NotNow: "not yet answered"}
    tally.ended = reasons.get(type(problem), "refused")
    with work.sessions.begin() as session:
        search = frontier.search_for(session, work.options.site, tally.hashtag)
        search.state, search.reason = "failed", message


async def crawl_search(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...], bar: Any
) -> None:
    """One search from where it stands to its end or the tag's limit."""
    paging = Paging()
    if work.spider.renews:
        with work.sessions.begin() as session:
            frontier.renew(session, work.options.site, tally.hashtag)
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
            weekly.claim(session, work.options.site, work.spider, tally.hashtag)
        await turn_page(work, download, tally, cursor, paging)


async def turn_page(
    work: Work, download: Download, tally: Tally, cursor: str | None, paging: Paging
) -> None:
    """Ask for the page at CURSOR and commit its posts and the cursor behind it."""
    page = paging.checked(await read_page(work.spider, download, tally.hashtag, cursor), cursor)
    with work.sessions.begin() as session:
        search = frontier.search_for(session, work.options.site, tally.hashtag)
        frontier.save_page(session, search, page)
    tally.pages += 1
    tally.posts += len(page.posts)
    tally.skipped.update(page.skipped)


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
    hashtags = tally.hashtag.split(OR)
    while True:
        with work.sessions() as session:
            limit = min(BATCH, _room(session, work, words))
            batch = (
                frontier.wanted(session, work.options.site, hashtags, limit) if limit > 0 else []
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
        if isinstance(outcome, Refused) and outcome.reason in GONE and wanted.key:
            fresh = await expired.photo_again(work.spider, download, wanted, work.asked_again)
            if fresh is not None:
                with work.sessions.begin() as session:
                    frontier.move(session, wanted.url, fresh)
                wanted = replace(wanted, url=fresh.url)
                outcome = await fetch_image(get, (fresh.url, *fresh.fallbacks), work.store)
        _commit(work, tally, wanted.url, outcome)
    bar.update()
    bar.set_postfix(tag=tally.hashtag, refresh=False)


def _commit(work: Work, tally: Tally, url: str, outcome: Fetched | Refused) -> None:
    with work.sessions.begin() as session:
        if isinstance(outcome, Fetched):
            tally.outcomes[frontier.store(session, url, outcome, work.known)] += 1
        else:
            frontier.refuse(session, url, outcome)
            tally.refused[outcome.reason] += 1
