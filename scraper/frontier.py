"""The open and finished work of a crawl, stored in the catalogue: searches and pages.

Each function is one step of a transaction that the caller commits: after a crash, work is either
done and recorded, or neither. `Paging` detects cursors that repeat pages.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    HASHTAG_SEPARATOR,
    Hashtag,
    PostHashtag,
    PostRow,
    Search,
    Sighting,
)
from dataset.vocabulary import normalize_word
from scraper.posts import save_posts
from scraper.spiders.base import Page, Photo, Post


def search_for(session: Session, site: str, hashtag: str) -> Search:
    """The search of SITE for HASHTAG, made when it is new; one that failed is opened again."""
    hashtag = normalize_word(hashtag)
    found = session.scalar(sa.select(Search).filter_by(site=site, hashtag=hashtag))
    if found is None:
        found = Search(site=site, hashtag=hashtag)
        session.add(found)
        session.flush()
    elif found.state == "failed":
        found.state, found.reason = "open", None
    return found


def renew(session: Session, site: str, hashtag: str, begun: datetime, full: bool) -> None:
    """Open a search again that was finished before BEGUN, where a later run begins.

    FULL: look through all of it, and not only until nothing new comes.
    """
    search = search_for(session, site, hashtag)
    if search.state == "finished" and search.changed < begun:
        search.state, search.cursor, search.again = "open", search.later, not full


def brings_new(session: Session, search: Search, page: Page) -> bool:
    """Whether PAGE holds a post that SEARCH has not found before, or none at all."""
    found = (
        sa.select(sa.func.count(PostRow.id.distinct()))
        .join(PostHashtag, PostHashtag.post_id == PostRow.id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .where(
            PostRow.site == search.site,
            PostRow.site_id.in_([post.site_id for post in page.posts]),
            PostHashtag.source == "search",
            Hashtag.text.in_(search.hashtag.split(HASHTAG_SEPARATOR)),
        )
    )
    ids = {post.site_id for post in page.posts}
    return not ids or (session.scalar(found) or 0) < len(ids)


def save_page(session: Session, search: Search, page: Page) -> None:
    """Keep PAGE's posts, their photos as wanted, and the cursor behind it."""
    save_posts(session, search, page.posts, page.reason)
    search.pages += 1
    search.posts += len(page.posts)
    search.total = page.total if page.total is not None else search.total
    if page.next_cursor is None or page.next_cursor == search.cursor:
        search.state, search.worker_id, search.again = "finished", None, False
    search.cursor = page.next_cursor
    search.later = page.later_cursor or search.later


def move(session: Session, url: str, photo: Photo) -> None:
    """The wanted photo at URL is now at PHOTO's address."""
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url == url, Sighting.state == "pending")
        .values(url=photo.url, fallbacks="\n".join(photo.fallbacks))
        .execution_options(synchronize_session=False)
    )


def let_go(search: Search, worker: int) -> None:
    """SEARCH is anybody's to go on with, if it was WORKER's."""
    if search.worker_id == worker:
        search.worker_id = None


# Consecutive repeated pages after which the cursor counts as circular.
SEEN_BEFORE = 5
# Consecutive pages without a new post that end a search. Lists of a site may overlap, and archives
# have periods without posts, so the number is high.
NOTHING_NEW = 100
# Consecutive pages with only posts older than --since that end a search.
OLD_PAGES = 2
OLDER = "older than --since"


@dataclass
class Paging:
    """What one run of one search has seen."""

    cursors: set[str | None] = field(default_factory=set)
    pages: set[frozenset[str]] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    again: int = 0
    barren: int = 0
    old: int = 0
    circle: bool = False

    def checked(self, page: Page, cursor: str | None) -> Page:
        """PAGE, which came for CURSOR; without its next cursor where paging has come to repeat.

        `circle` says then that this was no natural end.
        """
        self.cursors.add(cursor)
        ids = frozenset(post.site_id for post in page.posts)
        self.again = self.again + 1 if ids in self.pages and ids else 0
        self.barren = 0 if ids - self.posts else self.barren + 1
        self.pages.add(ids)
        self.posts |= ids
        over = self.again >= SEEN_BEFORE or self.barren >= NOTHING_NEW
        self.circle = page.next_cursor is not None and (page.next_cursor in self.cursors or over)
        return page.as_last() if self.circle else page

    def not_older(self, page: Page, since: datetime | None) -> Page:
        """PAGE without posts that are known to be older than SINCE; the last one after a few such.

        Posts come newest first where they have a date, but for some that are pinned.
        """
        new = tuple(post for post in page.posts if not _is_older(post, since))
        left_out = len(page.posts) - len(new)
        self.old = self.old + 1 if page.posts and not new else 0
        if left_out:
            skipped = {**page.skipped, OLDER: left_out}
            page = replace(page, posts=new, skipped=skipped)
        return page.as_last() if self.old >= OLD_PAGES else page


def _is_older(post: Post, since: datetime | None) -> bool:
    return since is not None and post.posted is not None and post.posted < since
