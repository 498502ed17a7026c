"""Run one search: its pages in order, each committed with its cursor, and their photos.

Includes the weekly limit of hashtags per account that some sites have.
"""

import asyncio
import hashlib
from dataclasses import replace
from enum import Enum
from functools import partial

import click
from sqlalchemy.orm import Session

from dataset.catalogue import workers
from dataset.catalogue.models import RequestedHashtag
from dataset.catalogue.stats import WEEK, requested_this_week
from dataset.maintenance.takedown import AUTHOR, REASON, URL, TakedownList
from dataset.vocabulary import normalize_word
from scraper import claims, frontier
from scraper.asking import read_page
from scraper.credentials import is_account
from scraper.download import Download
from scraper.errors import CircleOfPages, SiteRefused
from scraper.frontier import Paging
from scraper.photos import Photos, rooms_of
from scraper.report import Tally
from scraper.spiders.base import HashtagSpider, Page
from scraper.stopping import all_of
from scraper.work import Work

# Remaining hashtags of the weekly quota at which a warning is shown.
FEW = 5


def claim(session: Session, site: str, spider: HashtagSpider, hashtag: str) -> None:
    """Count HASHTAG as asked of SITE today, unless it was asked in the last seven days.

    Raises:
        SiteRefused: the account has asked for as many as it may.
    """
    if spider.weekly_hashtags is None:
        return
    allowed, account, text = spider.weekly_hashtags, account_of(spider), normalize_word(hashtag)
    rows = requested_this_week(session, site, account)
    if text in {row.hashtag for row in rows}:
        return
    if len(rows) >= allowed:
        free = rows[0].requested + WEEK
        raise SiteRefused(
            f"{spider.title} lets an account ask for {allowed} different hashtags in 7 days, and"
            f" {len(rows)} were asked for: {text!r} has to wait until {free:%Y-%m-%d %H:%M} UTC"
        )
    session.add(RequestedHashtag(site=site, account=account, hashtag=text, allowed=allowed))
    left = allowed - len(rows) - 1
    if left <= FEW:
        click.echo(
            f"{spider.title}: {left} of {allowed} different hashtags are left for these 7 days",
            err=True,
        )


def account_of(spider: HashtagSpider) -> str:
    """A name for whose credentials these are, from which they can't be told."""
    told = "\n".join(value for name, value in sorted(spider.secrets.items()) if is_account(name))
    return hashlib.sha256(told.encode()).hexdigest()[:12]


# Seconds until the claims of other processes are checked again.
LOOK_AGAIN = 1


class Next(Enum):
    """What a search needs next."""

    PAGE = "a page"
    PHOTOS = "photos that another process has let go"
    WAIT = "claims of other processes"
    FINISHED = "finished"
    LIMIT = "limit"


async def crawl_search(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...]
) -> None:
    """One search from where it stands to its end or the limit of the tag of WORDS.

    Raises:
        SiteRefused, LayoutChanged, CircleOfPages: it can't go on.
    """
    photos = Photos(work, download, tally)
    await work.means.keeper.write(partial(_begin, work=work, tally=tally))
    turning = asyncio.ensure_future(_turn_all(work, download, tally, words, photos))
    await asyncio.wait([turning])
    # Whatever ended it: what is under way comes to its end, and may have a graver reason.
    await all_of([turning, photos.landed()])


async def _turn_all(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...], photos: Photos
) -> None:
    """Page after page with their PHOTOS, of which the last come while the next page is turned."""
    paging = Paging()
    while True:
        await photos.fetch()
        needed, cursor = await work.means.keeper.write(
            partial(_next, work=work, tally=tally, words=words)
        )
        if needed is Next.PAGE:
            await turn_page(work, download, tally, cursor, paging)
            if paging.circle:
                await photos.fetch()
                await photos.landed()
                raise CircleOfPages(tally.hashtag, tally.pages)
        elif photos.under_way:
            await photos.landed()
        elif needed is Next.WAIT:
            await work.means.pace.stop.sleep(LOOK_AGAIN)
        elif needed is not Next.PHOTOS:
            before = needed is Next.FINISHED and not tally.pages
            tally.ended = "finished before" if before else needed.value
            return


def _begin(session: Session, work: Work, tally: Tally) -> None:
    begun = workers.run_started(session, work.worker)
    frontier.renew(session, work.site, tally.hashtag, begun, work.options.full)
    if work.options.retry_failed:
        claims.retry_failed(session, work.site, tally.words)


def _next(
    session: Session, work: Work, tally: Tally, words: tuple[str, ...]
) -> tuple[Next, str | None]:
    """What the search needs next; a page, at the cursor beside it, is this worker's to turn."""
    site = work.site
    workers.release_dead(session, work.worker)
    search = frontier.search_for(session, site, tally.hashtag)
    most = work.options.max_images
    had = 0 if most is None else claims.stored(session, site, words, most)
    full = most is not None and had >= most
    turned = work.options.max_pages is not None and tally.pages >= work.options.max_pages
    if full or (turned and search.state != "finished"):
        frontier.let_go(search, work.worker)
        return Next.LIMIT, None
    if search.state == "finished":
        return _behind_the_last_page(session, work, tally), None
    held_up = most is not None and had + claims.in_hand(session, site, words) >= most
    if search.worker_id not in (None, work.worker) or held_up:
        return Next.WAIT, None
    claim(session, site, work.spider, tally.hashtag)
    search.worker_id = work.worker
    return Next.PAGE, search.cursor


def _behind_the_last_page(session: Session, work: Work, tally: Tally) -> Next:
    """What a search needs whose pages were all turned."""
    site, words = work.site, tally.words
    if claims.in_hand(session, site, words):
        return Next.WAIT
    if not claims.are_wanted(session, site, words):
        return Next.FINISHED
    if claims.are_wanted(session, site, words, rooms_of(session, work)):
        return Next.PHOTOS
    # They also belong to another tag, which has reached its limit or will with the claimed images.
    tags = (work.means.vocabulary.words_of(tag) for tag in work.options.tags)
    busy = any(claims.in_hand(session, site, words) for words in tags)
    return Next.WAIT if busy else Next.LIMIT


async def turn_page(
    work: Work, download: Download, tally: Tally, cursor: str | None, paging: Paging
) -> None:
    """Ask for the page at CURSOR and commit its posts and the cursor behind it."""
    page = paging.checked(await read_page(work.spider, download, tally.hashtag, cursor), cursor)
    page = paging.not_older(page, work.options.since)
    kept = await work.means.keeper.write(
        partial(_keep_page, work=work, tally=tally, cursor=cursor, page=page, circle=paging.circle)
    )
    if kept is not None:
        tally.add(kept)


def _keep_page(
    session: Session, work: Work, tally: Tally, cursor: str | None, page: Page, circle: bool
) -> Page | None:
    """What is kept of PAGE; None where another process went on from CURSOR meanwhile."""
    search = frontier.search_for(session, work.site, tally.hashtag)
    if search.worker_id != work.worker or search.cursor != cursor:
        # We were taken for dead.
        return None
    work.means.keeper.forgotten.catch_up(session)
    page = without_forgotten(page, work.means.keeper.forgotten)
    if search.again and not work.spider.renews:
        page = page if frontier.brings_new(session, search, page) else page.as_last()
    frontier.save_page(session, search, page)
    if circle:
        search.state = "failed"
    return page


def without_forgotten(page: Page, forgotten: TakedownList) -> Page:
    """PAGE without posts and photos that were taken down; they are counted as left out."""
    posts = [
        post
        for post in page.posts
        if not forgotten.has_name(AUTHOR, [post.author]) and not forgotten.has_name(URL, [post.url])
    ]
    kept = tuple(
        replace(
            post,
            photos=tuple(
                one for one in post.photos if not forgotten.has_name(URL, [one.url, *one.fallbacks])
            ),
        )
        for post in posts
    )
    left_out = len(page.posts) - len(kept)
    skipped = {**page.skipped, REASON: left_out} if left_out else page.skipped
    return replace(page, posts=kept, skipped=skipped)
