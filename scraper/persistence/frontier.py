"""The crawl frontier in the catalogue: searches, their cursors and the pages read so far.

Each function is one step of a transaction that the caller commits, so that a crash never leaves
work done but not recorded. `PagingGuard` detects cursors that repeat pages.
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
from scraper.items import Page, Photo, Post
from scraper.persistence.posts import save_posts


def get_or_create_search(session: Session, site: str, hashtag: str) -> Search:
    """Return the search of a site for a hashtag; create a missing one, reopen a failed one."""
    hashtag = normalize_word(hashtag)
    search = session.scalar(sa.select(Search).filter_by(site=site, hashtag=hashtag))
    if search is None:
        search = Search(site=site, hashtag=hashtag)
        session.add(search)
        session.flush()
    elif search.state == "failed":
        search.state, search.reason = "open", None
    return search


def reopen_finished(
    session: Session, site: str, hashtag: str, run_started: datetime, full: bool
) -> None:
    """Reopen a search that an earlier run finished.

    Args:
        session: The session.
        site: The site.
        hashtag: The searched hashtag.
        run_started: Start of this run, in UTC; a search that finished later stays finished.
        full: Read all pages again, instead of stopping at the first page without new posts.
    """
    search = get_or_create_search(session, site, hashtag)
    if search.state == "finished" and search.changed < run_started:
        search.state, search.cursor, search.again = "open", search.later, not full


def has_new_posts(session: Session, search: Search, page: Page) -> bool:
    """Return whether a page has posts that the search has not found before, or no posts at all."""
    count_known = (
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
    return not ids or (session.scalar(count_known) or 0) < len(ids)


def save_page(session: Session, search: Search, page: Page, has_all_posts: bool = True) -> None:
    """Save the posts of a page, their images as pending, and the cursor of the next page.

    The search finishes if there is no next page, or if the cursor does not change.

    Args:
        session: The session.
        search: The search.
        page: The page.
        has_all_posts: Whether no post was left out. Otherwise the page is requested again when the
            search continues.
    """
    save_posts(session, search, page.posts, page.reason)
    if not has_all_posts:
        return
    search.pages += not page.is_lookup
    search.posts += len(page.posts)
    search.total = page.total if page.total is not None else search.total
    if page.next_cursor is None or page.next_cursor == search.cursor:
        search.state, search.worker_id, search.again = "finished", None, False
    search.cursor = page.next_cursor
    search.later = page.later_cursor or search.later


def update_image_url(session: Session, url: str, photo: Photo) -> None:
    """Replace the URLs of a pending image.

    Args:
        session: The session.
        url: The URL so far.
        photo: The image with its new URLs.
    """
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url == url, Sighting.state == "pending")
        .values(url=photo.url, fallbacks="\n".join(photo.fallbacks))
        .execution_options(synchronize_session=False)
    )


def release_search(search: Search, worker: int) -> None:
    """Release a search that the worker has claimed, so that any worker may continue it."""
    if search.worker_id == worker:
        search.worker_id = None


# Consecutive repeated pages after which the cursor counts as circular.
MAX_REPEATED_PAGES = 5
# Consecutive pages without a new post that end a search. Lists of a site may overlap, and archives
# have periods without posts, so the number is high.
MAX_PAGES_WITHOUT_NEW_POSTS = 100
# Consecutive pages with only posts older than --since that end a search.
MAX_OLD_PAGES = 2
TOO_OLD = "older than --since"


@dataclass
class PagingGuard:
    """Detects, within one run of one search, paging that does not end.

    Attributes:
        cursors: Cursors of the pages read so far.
        pages: Sets of post ids of the pages read so far.
        posts: Ids of the posts read so far.
        repeated_pages: Number of consecutive pages equal to an earlier page.
        pages_without_new_posts: Number of consecutive pages with only known posts.
        old_pages: Number of consecutive pages with only posts that are too old.
        is_circular: Whether the last page's cursor leads back to known pages.
    """

    cursors: set[str | None] = field(default_factory=set)
    pages: set[frozenset[str]] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    repeated_pages: int = 0
    pages_without_new_posts: int = 0
    old_pages: int = 0
    is_circular: bool = False

    def check_page(self, page: Page, cursor: str | None) -> Page:
        """Return the page, without its next cursor if paging repeats; set `is_circular`.

        Args:
            page: The page.
            cursor: The cursor that the page was requested with.
        """
        self.cursors.add(cursor)
        ids = frozenset(page.listed_ids or (post.site_id for post in page.posts))
        self.repeated_pages = self.repeated_pages + 1 if ids in self.pages and ids else 0
        if not page.is_lookup:
            is_new = bool(ids - self.posts)
            self.pages_without_new_posts = 0 if is_new else self.pages_without_new_posts + 1
        self.pages.add(ids)
        self.posts |= ids
        has_too_many_repeats = (
            self.repeated_pages >= MAX_REPEATED_PAGES
            or self.pages_without_new_posts >= MAX_PAGES_WITHOUT_NEW_POSTS
        )
        self.is_circular = page.next_cursor is not None and (
            page.next_cursor in self.cursors or has_too_many_repeats
        )
        return page.as_last() if self.is_circular else page

    def without_old_posts(self, page: Page, since: datetime | None) -> Page:
        """Return a page without posts from before a date.

        A search whose posts are listed newest first ends after MAX_OLD_PAGES, because the first
        ones may be pinned. Posts without a date are kept.

        Args:
            page: The page.
            since: Date of the oldest posts to keep; None keeps all.
        """
        recent_posts = tuple(post for post in page.posts if not _is_older(post, since))
        old_count = len(page.posts) - len(recent_posts)
        self.old_pages = self.old_pages + 1 if page.posts and not recent_posts else 0
        if old_count:
            skipped = {**page.skipped, TOO_OLD: old_count}
            page = replace(page, posts=recent_posts, skipped=skipped)
        has_ended = page.is_by_date and self.old_pages >= MAX_OLD_PAGES
        return page.as_last() if has_ended else page


def _is_older(post: Post, since: datetime | None) -> bool:
    return since is not None and post.posted is not None and post.posted < since
