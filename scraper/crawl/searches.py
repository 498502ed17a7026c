"""Searches of a crawl: what each needs next, and the limits that apply to it.

Includes the weekly limit of hashtags per account that some sites have.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING

import click
from sqlalchemy.orm import Session

from dataset.catalogue import workers
from dataset.catalogue.models import RequestedHashtag
from dataset.catalogue.queries import WEEK, requested_this_week
from dataset.maintenance.takedown import REASON, TakedownList
from dataset.vocabulary import normalize_word
from scraper.crawl.summary import SearchStats
from scraper.credentials import is_account
from scraper.errors import SiteRefused
from scraper.items import Page, Post
from scraper.persistence import claims, frontier
from scraper.persistence.frontier import PagingGuard

if TYPE_CHECKING:
    from scraper.spiders.base import HashtagSpider

# Remaining hashtags of the weekly quota at which a warning is shown.
WARN_REMAINING_HASHTAGS = 5
# Images that are claimed at a time: few, so that processes share the images of a page.
CLAIM_IMAGES = 16


@dataclass(frozen=True)
class CrawlLimits:
    """Limits of a crawl.

    Attributes:
        max_images: Stored images per tag and site, over all runs.
        max_pages: Pages per search in this run.
        since: Older posts are skipped.
        licenses: Codes of licenses; photos with others are skipped. Empty: all photos.
        retry_failed: Request images again that were rejected with a temporary error.
        full: Read finished searches to their end again.
    """

    max_images: int | None = None
    max_pages: int | None = None
    since: datetime | None = None
    licenses: tuple[str, ...] = ()
    retry_failed: bool = False
    full: bool = False


class SearchAction(Enum):
    """What a search needs next."""

    PAGE = "a page"
    IMAGES = "images that another process has released"
    WAIT = "claims of other processes"
    FINISHED = "finished"
    LIMIT = "limit"


@dataclass
class Search:
    """A running search of a site for words of a tag.

    Attributes:
        stats: What the search has found; names the site, the tag and the words.
        guard: Detects pages that repeat.
        is_full: Whether posts were left out because their images would exceed the limit of the tag.
    """

    stats: SearchStats
    guard: PagingGuard = field(default_factory=PagingGuard)
    is_full: bool = False

    @property
    def hashtag(self) -> str:
        """The query of the search, as the catalogue stores it."""
        return self.stats.hashtag


class SearchPlanner:
    """Decide what a search needs next; each method is a step of a transaction.

    Args:
        spider: The spider of the site.
        worker: Id of this process in the catalogue.
        run_started: When the run started that this process takes part in.
        tags: Tag -> its words, of all tags of the crawl.
        limits: Limits of the crawl.
    """

    def __init__(
        self,
        spider: "HashtagSpider",
        worker: int,
        run_started: datetime,
        tags: dict[str, tuple[str, ...]],
        limits: CrawlLimits,
    ) -> None:
        self._spider, self._worker, self._tags, self._limits = spider, worker, tags, limits
        self._run_started = run_started
        self._site = spider.name

    def begin(self, session: Session, search: Search) -> None:
        """Reopen a search that an earlier run has finished, and failed images if asked for."""
        # The catalogue has an earlier time if this process resumes the work of another one, and a
        # later time if others took this process for dead; they may have finished searches since.
        self._run_started = min(self._run_started, workers.run_started(session, self._worker))
        frontier.reopen_finished(
            session, self._site, search.hashtag, self._run_started, self._limits.full
        )
        if self._limits.retry_failed:
            claims.retry_failed(session, self._site, search.stats.words)

    def claim(self, session: Session, search: Search) -> list[claims.PendingImage]:
        """Claim the next images of a search, as far as the limits of all tags allow."""
        workers.ensure_registered(session, self._worker)
        quotas, count = self._quotas(session), CLAIM_IMAGES
        if quotas:
            count = min(count, quotas[list(self._tags).index(search.stats.tag)].left)
        if count <= 0:
            return []
        return claims.claim_images(
            session, self._site, search.stats.words, count, self._worker, quotas
        )

    def next_action(self, session: Session, search: Search) -> tuple[SearchAction, str | None]:
        """Return what a search needs next; for a page, with its cursor.

        The page is reserved for this worker.

        Raises:
            SiteRefused: The weekly quota of hashtags is used up.
        """
        workers.release_dead(session, self._worker)
        row = frontier.get_or_create_search(session, self._site, search.hashtag)
        limit, words = self._limits.max_images, self._tags[search.stats.tag]
        stored = 0 if limit is None else claims.count_stored(session, self._site, words, limit)
        max_pages = self._limits.max_pages
        has_all_pages = max_pages is not None and search.stats.pages >= max_pages
        is_full = search.is_full or (limit is not None and stored >= limit)
        if is_full or (has_all_pages and row.state != "finished"):
            frontier.release_search(row, self._worker)
            return SearchAction.LIMIT, None
        if row.state == "finished":
            return self._action_after_last_page(session, search), None
        is_held_up = (
            limit is not None and stored + claims.count_claimed(session, self._site, words) >= limit
        )
        if row.worker_id not in (None, self._worker) or is_held_up:
            return SearchAction.WAIT, None
        use_hashtag_quota(session, self._site, self._spider, search.hashtag)
        row.worker_id = self._worker
        return SearchAction.PAGE, row.cursor

    def _action_after_last_page(self, session: Session, search: Search) -> SearchAction:
        """Return the next action of a search whose pages have all been read."""
        site, words = self._site, search.stats.words
        if claims.count_claimed(session, site, words):
            return SearchAction.WAIT
        if not claims.has_claimable(session, site, words):
            return SearchAction.FINISHED
        if claims.has_claimable(session, site, words, self._quotas(session)):
            return SearchAction.IMAGES
        # They also belong to another tag, which has reached its limit, or will with claimed images.
        is_busy = any(claims.count_claimed(session, site, tag) for tag in self._tags.values())
        return SearchAction.WAIT if is_busy else SearchAction.LIMIT

    def _quotas(self, session: Session) -> list[claims.Quota]:
        """Return the remaining quota of each tag; none if there is no limit."""
        limit = self._limits.max_images
        if limit is None:
            return []
        return [
            claims.remaining_quota(session, self._site, words, limit)
            for words in self._tags.values()
        ]

    def save_page(
        self,
        session: Session,
        search: Search,
        cursor: str | None,
        page: Page,
        takedowns: TakedownList,
    ) -> Page | None:
        """Save a page with the cursor of the next one.

        Returns:
            The saved part of the page; None if another process has continued from the cursor,
            because it took this one for dead.
        """
        row = frontier.get_or_create_search(session, self._site, search.hashtag)
        if row.worker_id != self._worker or row.cursor != cursor:
            return None
        takedowns.catch_up(session)
        page = without_taken_down(page, self._site, takedowns)
        if row.again and not self._spider.renews and not frontier.has_new_posts(session, row, page):
            page = page.as_last()
        posts = self._posts_within_limit(session, search, page.posts)
        search.is_full = len(posts) < len(page.posts)
        page = replace(page, posts=posts)
        frontier.save_page(session, row, page, has_all_posts=not search.is_full)
        if search.guard.is_circular:
            row.state = "failed"
        return page

    def _posts_within_limit(
        self, session: Session, search: Search, posts: tuple[Post, ...]
    ) -> tuple[Post, ...]:
        """Return the posts whose stored images, found under other tags, fit into the tag's limit.

        Images that are pending count when they are claimed.
        """
        limit, words = self._limits.max_images, self._tags[search.stats.tag]
        if limit is None:
            return posts
        ids = [post.site_id for post in posts]
        counts = claims.images_by_post(session, self._site, ids, words)
        left = claims.remaining_quota(session, self._site, words, limit).left if counts else 0
        kept = []
        for post in posts:
            count = counts.get(post.site_id, 0)
            if count <= left or not count:
                left -= count
                kept.append(post)
        return tuple(kept)

    def may_store(self, session: Session, url: str) -> bool:
        """Return whether an image may be stored whose claim this worker has lost.

        It took so long that others took this process for dead; they may have reached the limits.
        """
        return claims.has_quota_for(session, self._site, url, self._quotas(session))

    def fail(self, session: Session, search: Search, reason: str) -> None:
        """Record why a search failed, and release it."""
        row = frontier.get_or_create_search(session, self._site, search.hashtag)
        row.state, row.reason = "failed", reason
        frontier.release_search(row, self._worker)

    def release(self, session: Session, urls: list[str]) -> None:
        """Release claimed images that were not downloaded."""
        claims.release_images(session, urls, self._worker)


def use_hashtag_quota(session: Session, site: str, spider: "HashtagSpider", hashtag: str) -> None:
    """Count a hashtag as requested today, unless it was requested in the last seven days.

    Raises:
        SiteRefused: The account has used its quota.
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
            f"{spider.title} allows an account {allowed} different hashtags in 7 days, and"
            f" {len(rows)} were requested: {text!r} has to wait until {free:%Y-%m-%d %H:%M} UTC"
        )
    session.add(RequestedHashtag(site=site, account=account, hashtag=text, allowed=allowed))
    remaining = allowed - len(rows) - 1
    if remaining <= WARN_REMAINING_HASHTAGS:
        click.echo(
            f"{spider.title}: {remaining} of {allowed} different hashtags are left for these 7"
            " days",
            err=True,
        )


def account_of(spider: "HashtagSpider") -> str:
    """Return a hash of the spider's account, which does not reveal the account."""
    accounts = (value for name, value in sorted(spider.secrets.items()) if is_account(name))
    return hashlib.sha256("\n".join(accounts).encode()).hexdigest()[:12]


def without_taken_down(page: Page, site: str, takedowns: TakedownList) -> Page:
    """Return a page without posts and photos that were taken down; posts count as skipped."""
    posts = [
        replace(
            post,
            photos=tuple(
                photo
                for photo in post.photos
                if not takedowns.has_photo(site, photo.key, [photo.url, *photo.fallbacks])
            ),
        )
        for post in page.posts
        if not takedowns.has_post(site, post.site_id, post.url, post.author)
    ]
    count = len(page.posts) - len(posts)
    skipped = {**page.skipped, REASON: count} if count else page.skipped
    return replace(page, posts=tuple(posts), skipped=skipped)
