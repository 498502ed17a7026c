"""Run a crawl: plan, request, parse, commit, download images, and report the results.

Scrapy downloads (robots.txt, rate limits, retries, size limits); the open work is in the catalogue.
A page's posts are committed together with the next cursor, an image after its file is synced.
Several processes share the work: each claims its images in the catalogue.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue import workers
from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.catalogue.session import open_catalogue
from dataset.catalogue.stats import label_size
from dataset.errors import Failure, replace_control_characters
from dataset.images.store import open_store
from dataset.utils.cli_options import format_table
from dataset.utils.files import write_atomically
from dataset.vocabulary import Vocabulary
from scraper import frontier
from scraper.check import estimate, show_estimate
from scraper.credentials import hide
from scraper.download import Download, run_side_by_side
from scraper.errors import CircleOfPages, LayoutChanged, NotNow, SiteRefused
from scraper.keeping import Keeper
from scraper.pace import Pace
from scraper.readers import Readers
from scraper.report import GOOD_ENDS, HEAD, Missing, Tally, missing, reasons, rows
from scraper.searching import crawl_search
from scraper.spiders.base import HashtagSpider
from scraper.stopping import Stop, Stopped, all_of
from scraper.work import CrawlOptions, Means, Work

# Tags of a site that are searched side by side; the site's pace is the same for one or many.
TAGS_AT_ONCE = 4


@dataclass(frozen=True)
class Crawled:
    """What a crawl came to: the work of each site, and whether all was done.

    `sizes`: tag -> its photos now; `seconds`: how long it took.
    """

    works: list[Work]
    ended: bool
    sizes: dict[str, int]
    seconds: float

    @property
    def tallies(self) -> list[Tally]:
        """What each search came to."""
        return [tally for work in self.works for tally in work.tallies]

    @property
    def problems(self) -> list[str]:
        """What kept searches from their end."""
        return [problem.message for work in self.works for problem in work.problems]


def crawl(
    options: CrawlOptions, spiders: Mapping[str, HashtagSpider], vocabulary: Vocabulary
) -> Crawled:
    """Crawl what OPTIONS ask for of SPIDERS, by site, and return what it came to.

    Raises:
        Failure: the catalogue or the image store can't be used.
    """
    began = time.monotonic()
    with at_work(options, vocabulary) as means:
        works = [Work(options, site, spider, means) for site, spider in spiders.items()]
        jobs = [(partial(crawl_all, work), work.spider) for work in works]
        ended = run_side_by_side(jobs, options.manners, means.pace)
        sizes = _sizes(means, options.tags)
        with means.sessions.begin() as session:
            workers.unregister(session, means.worker, ended)
    return Crawled(works, ended, sizes, time.monotonic() - began)


@contextlib.contextmanager
def at_work(options: CrawlOptions, vocabulary: Vocabulary) -> Iterator[Means]:
    """This process as a worker of the catalogue, with its image store in use."""
    with contextlib.closing(Readers()) as readers:
        # It takes as long to begin as it does to open a catalogue.
        readers.begin()
        sessions, store = open_catalogue(options.catalogue), open_store(options.images)
        with store.in_use(), tqdm(unit=" images", disable=None) as bar:
            with sessions.begin() as session:
                worker = workers.register(session)
            keeper, pace = Keeper(sessions, store), Pace(Stop(), sessions)
            try:
                files = ThreadPoolExecutor(store.max_concurrent_writes, thread_name_prefix="files")
                yield Means(vocabulary, sessions, store, readers, files, keeper, worker, pace, bar)
            except BaseException:
                # Where even this fails, the next process sees that this one is dead.
                with contextlib.suppress(Failure), sessions.begin() as session:
                    workers.unregister(session, worker, is_complete=False)
                raise


def _sizes(means: Means, tags: Sequence[str]) -> dict[str, int]:
    with means.sessions() as session:
        return {tag: label_size(session, means.vocabulary.words_of(tag)) for tag in tags}


async def crawl_all(work: Work, download: Download) -> None:
    """Every search of every tag, some tags side by side; a site that refuses ends it."""
    await set_up(work, download)
    if work.spider.charged and not await cost_shown(work, download):
        return
    life, places = asyncio.ensure_future(_beat(work)), asyncio.Semaphore(TAGS_AT_ONCE)
    try:
        await all_of(crawl_tag(work, download, tag, places) for tag in work.options.tags)
    finally:
        life.cancel()


async def _beat(work: Work) -> None:
    """Give a sign of life, again and again."""
    while True:
        await asyncio.sleep(workers.HEARTBEAT_SECONDS)
        await work.means.keeper.write(partial(workers.record_heartbeat, worker_id=work.worker))


async def crawl_tag(work: Work, download: Download, tag: str, places: asyncio.Semaphore) -> None:
    """The searches of TAG, one after the other."""
    words = work.means.vocabulary.words_of(tag)
    for group in work.spider.queries(words):
        tally = Tally(work.site, tag, HASHTAG_SEPARATOR.join(group))
        async with places, work.turns[tally.hashtag]:
            if work.refused:
                return
            work.tallies.append(tally)
            try:
                await crawl_search(work, download, tally, words)
            except SiteRefused as refusal:
                work.refused = work.refused or not isinstance(refusal, NotNow)
                await _fail(work, tally, refusal)
            except (LayoutChanged, CircleOfPages) as problem:
                await _fail(work, tally, problem)
            except Stopped:
                raise
            except Exception:
                # The others need not go on for long.
                work.means.pace.stop.ask()
                raise


async def cost_shown(work: Work, download: Download) -> bool:
    """Print how many posts will be read and charged; whether the site could say."""
    groups = [
        group
        for tag in work.options.tags
        for group in work.spider.queries(work.means.vocabulary.words_of(tag))
    ]
    try:
        counts = await estimate(
            work.spider, download, [HASHTAG_SEPARATOR.join(group) for group in groups]
        )
    except (SiteRefused, LayoutChanged) as problem:
        work.problems.append(
            Failure(replace_control_characters(hide(problem.message, work.spider.secrets)))
        )
        return False
    click.echo(show_estimate(work.spider, counts))
    return True


async def set_up(work: Work, download: Download) -> None:
    """What the spider wants to know first; without an answer it uses what it has built in."""
    ask = work.spider.set_up_request()
    answer = await download(ask) if ask else None
    if isinstance(answer, tuple) and answer[1].status == 200:
        work.spider.set_up(answer[1].body)


async def _fail(work: Work, tally: Tally, problem: Failure) -> None:
    message = replace_control_characters(hide(problem.message, work.spider.secrets))
    work.problems.append(Failure(message))
    reasons = {
        LayoutChanged: "layout changed",
        CircleOfPages: "circle of pages",
        NotNow: "not yet answered",
    }
    tally.ended = reasons.get(type(problem), "refused")

    def mark(session: Session) -> None:
        search = frontier.search_for(session, work.site, tally.hashtag)
        search.state, search.reason = "failed", message
        frontier.let_go(search, work.worker)

    await work.means.keeper.write(mark)


def conclude(crawled: Crawled, minimum: int, file: Path | None) -> None:
    """Print the results of a crawl and write them to a file.

    Raises:
        Failure: A search did not reach its end or a limit, or the file can't be written.
    """
    tallies = crawled.tallies
    lacking = [
        missing(tag, size, minimum, crawled.seconds, tallies) for tag, size in crawled.sizes.items()
    ]
    if tallies:
        click.echo(format_table(HEAD, rows(tallies)))
    for line in (*reasons(tallies), *lacking):
        click.echo(line)
    if file:
        _write(file, as_json(crawled, lacking))
    _refuse_unfinished(crawled)


def as_json(crawled: Crawled, lacking: list[Missing]) -> dict[str, Any]:
    """Return the results for JSON."""
    return {
        "searches": [
            {**one.columns(), "rejected": dict(one.rejected), "skipped": dict(one.skipped)}
            for one in crawled.tallies
        ],
        "labels": [asdict(one) for one in lacking],
        "problems": crawled.problems,
        "ended": crawled.ended,
        "seconds": round(crawled.seconds, 1),
    }


def _write(file: Path, value: dict[str, Any]) -> None:
    try:
        write_atomically(file, json.dumps(value, ensure_ascii=False, indent=2).encode())
    except OSError as error:
        raise Failure(f"--json {file} can't be written: {error.strerror}") from error


def _refuse_unfinished(crawled: Crawled) -> None:
    if not crawled.ended:
        raise Failure("interrupted; repeat the command to continue")
    if crawled.problems:
        raise Failure("\nError: ".join(crawled.problems))
    if any(tally.ended not in GOOD_ENDS for tally in crawled.tallies):
        raise Failure("not every search reached its end; repeat the command to continue")
