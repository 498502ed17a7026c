"""The crawl frontier in the catalogue: searches, their cursors, and the posts of the read pages.

Each function is one step of a transaction that the caller commits, so that a crash never leaves
work done but not recorded. `PagingGuard` detects cursors that repeat pages. The statements that
save posts use SQLAlchemy Core: the ORM would take longer per post than the download of an image.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

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
from dataset.catalogue.queries import in_batches, table_of
from dataset.vocabulary import normalize_word
from scraper.items import GONE, MAX_INDEXED_BYTES, Page, Photo, Post
from scraper.parsing.hashtags import find_hashtags, to_hashtag

# The statements are built once, because building one takes longer than running it.
_POSTS, _SIGHTINGS, _TAGS, _HASHTAGS = map(table_of, (PostRow, Sighting, PostHashtag, Hashtag))
_SELECT_POSTS = sa.select(_POSTS.c.site_id, _POSTS.c.id).where(
    _POSTS.c.site == sa.bindparam("site"),
    _POSTS.c.site_id.in_(sa.bindparam("values", expanding=True)),
)
_INSERT_POSTS = sa.insert(_POSTS).returning(_POSTS.c.site_id, _POSTS.c.id)
_SELECT_SIGHTINGS = sa.select(
    *(_SIGHTINGS.c.post_id, _SIGHTINGS.c.id, _SIGHTINGS.c.url),
    *(_SIGHTINGS.c.key, _SIGHTINGS.c.state, _SIGHTINGS.c.reason),
).where(_SIGHTINGS.c.post_id.in_(sa.bindparam("values", expanding=True)))
_INSERT_SIGHTINGS = sa.insert(_SIGHTINGS)
_UPDATE_SIGHTING = sa.update(_SIGHTINGS).where(_SIGHTINGS.c.id == sa.bindparam("updated_id"))
_SELECT_POST_HASHTAGS = sa.select(_TAGS.c.post_id, _TAGS.c.hashtag_id, _TAGS.c.source).where(
    _TAGS.c.post_id.in_(sa.bindparam("values", expanding=True))
)
_SELECT_HASHTAGS = sa.select(_HASHTAGS.c.text, _HASHTAGS.c.id).where(
    _HASHTAGS.c.text.in_(sa.bindparam("values", expanding=True))
)
_INSERT_HASHTAGS = sa.insert(_HASHTAGS).returning(_HASHTAGS.c.text, _HASHTAGS.c.id)
_SELECT_REJECTED = sa.select(
    _SIGHTINGS.c.url, _SIGHTINGS.c.state, _SIGHTINGS.c.reason, _SIGHTINGS.c.image_id
).where(
    _SIGHTINGS.c.url.in_(sa.bindparam("values", expanding=True)), _SIGHTINGS.c.state == "rejected"
)


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


@dataclass
class _SavedPhotos:
    """The photos of a post that are in the catalogue.

    Attributes:
        urls: Their URLs.
        rows: Key -> row of the photos with a key.
        count: Their number.
    """

    urls: set[str]
    rows: dict[str, sa.Row[Any]]
    count: int = 0


def save_posts(
    session: Session, search: Search, posts: Sequence[Post], reason: str | None = None
) -> None:
    """Save the posts of a search with their hashtags and their photos.

    Args:
        session: The session.
        search: The search that found the posts.
        posts: The posts of a page.
        reason: Why all new photos are rejected; None saves them as pending, unless their URL was
            rejected in another post.
    """
    ids = _save_post_rows(session, search.site, posts)
    tags = (
        (ids[post.site_id], text, source)
        for post in posts
        for text, source in _hashtags_with_source(search.hashtag, post)
        if text and len(text.encode()) <= MAX_INDEXED_BYTES
    )
    _save_hashtags(session, dict.fromkeys(tags))
    urls = [photo.url for post in posts for photo in post.photos]
    rejected = {"state": "rejected", "reason": reason, "image_id": None}
    outcomes = dict.fromkeys(urls, rejected) if reason else _select_rejected(session, urls)
    saved_photos = _select_photos(session, ids.values())
    rows = [
        {"post_id": ids[post.site_id], **row}
        for post in posts
        for row in _new_photo_rows(session, saved_photos[ids[post.site_id]], post, outcomes)
    ]
    if rows:
        session.connection().execute(_INSERT_SIGHTINGS, rows)


def _select(
    session: Session, query: sa.Select[Any], values: Iterable[Any], **parameters: str
) -> Iterator[sa.Row[Any]]:
    """Yield the rows of a query with the bound parameter `values`, in batches of unique values."""
    for batch in in_batches(dict.fromkeys(values)):
        yield from session.connection().execute(query, {"values": batch, **parameters}).all()


def _save_post_rows(session: Session, site: str, posts: Sequence[Post]) -> dict[str, int]:
    """Insert rows for new posts; return the row id of each post by its id on the site."""
    known = _select(session, _SELECT_POSTS, (post.site_id for post in posts), site=site)
    ids: dict[str, int] = dict(map(tuple, known))
    rows = {post.site_id: _post_values(site, post) for post in posts if post.site_id not in ids}
    if rows:
        inserted = session.connection().execute(_INSERT_POSTS, list(rows.values()))
        ids |= dict(map(tuple, inserted))
    return ids


def _post_values(site: str, post: Post) -> dict[str, Any]:
    return {
        "site": site,
        "site_id": post.site_id,
        "url": post.url,
        "title": post.title,
        "brand": post.brand,
        "price": post.price,
        "currency": post.currency,
        "author": post.author,
        "posted": post.posted,
        "record": zlib.compress(_to_json(post.record).encode()),
    }


def _to_json(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)
    except (RecursionError, TypeError, ValueError):
        # Too deep to be serialized, although it was parsed, or not JSON.
        return "{}"


def _hashtags_with_source(query: str, post: Post) -> Iterator[tuple[str, str]]:
    """Yield each hashtag of a post, normalized, with its source: search, caption or attribute."""
    in_text = [normalize_word(hashtag) for hashtag in (*post.hashtags, *find_hashtags(post.title))]
    yield from ((word, "search") for word in map(normalize_word, _matching_words(query, in_text)))
    yield from ((hashtag, "caption") for hashtag in in_text)
    yield from ((word, "attribute") for word in map(normalize_word, post.attributes))


def _matching_words(query: str, hashtags: Sequence[str]) -> list[str]:
    """Return the words of a query that are among the hashtags of a post.

    If no word is, return all words: the site may search text that its response does not contain.
    """
    words = query.split(HASHTAG_SEPARATOR)
    post_hashtags = {to_hashtag(hashtag) for hashtag in hashtags}
    return [word for word in words if to_hashtag(word) in post_hashtags] or words


def _save_hashtags(session: Session, tags: Mapping[tuple[int, str, str], None]) -> None:
    """Save the hashtags of posts.

    Args:
        session: The session.
        tags: Keys are post id, hashtag and source.
    """
    ids = _save_hashtag_rows(session, [text for _, text, _ in tags])
    known = set(map(tuple, _select(session, _SELECT_POST_HASHTAGS, (post for post, _, _ in tags))))
    rows = [
        {"post_id": post, "hashtag_id": ids[text], "source": source}
        for post, text, source in tags
        if (post, ids[text], source) not in known
    ]
    if rows:
        session.connection().execute(sa.insert(_TAGS), rows)


def _save_hashtag_rows(session: Session, texts: Sequence[str]) -> dict[str, int]:
    """Insert rows for new hashtags; return the row id of each hashtag."""
    ids: dict[str, int] = dict(map(tuple, _select(session, _SELECT_HASHTAGS, texts)))
    rows = [{"text": text} for text in dict.fromkeys(texts) if text not in ids]
    if rows:
        inserted = session.connection().execute(_INSERT_HASHTAGS, rows)
        ids |= dict(map(tuple, inserted))
    return ids


def _select_rejected(session: Session, urls: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the outcome of photos that were rejected in any post, by URL.

    Stored photos are not included: `claims.claim_images` assigns them within the tag's quota.
    """
    return {
        row.url: {"state": row.state, "reason": row.reason, "image_id": row.image_id}
        for row in _select(session, _SELECT_REJECTED, urls)
    }


def _select_photos(session: Session, posts: Iterable[int]) -> dict[int, _SavedPhotos]:
    """Return the photos of posts that are in the catalogue, by post id."""
    photos_of_posts = {post: _SavedPhotos(set(), {}) for post in posts}
    for row in _select(session, _SELECT_SIGHTINGS, list(photos_of_posts)):
        saved = photos_of_posts[row.post_id]
        saved.urls.add(row.url)
        saved.count += 1
        if row.key:
            saved.rows[row.key] = row
    return photos_of_posts


def _new_photo_rows(
    session: Session, saved: _SavedPhotos, post: Post, outcomes: Mapping[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield rows for the photos of a post that are not in the catalogue; update changed URLs.

    Args:
        session: The session.
        saved: The photos of the post in the catalogue; the new ones are added.
        post: The post.
        outcomes: URL -> outcome of photos that are already rejected.
    """
    pending = {"state": "pending", "reason": None, "image_id": None}
    for photo in post.photos:
        if photo.key in saved.rows:
            _update_url(session, saved.rows[photo.key], photo)
        elif photo.url not in saved.urls:
            yield {
                "url": photo.url,
                "key": photo.key,
                "fallbacks": "\n".join(photo.fallbacks),
                "position": saved.count,
                **asdict(photo.credit),
                **outcomes.get(photo.url, pending),
            }
            saved.urls.add(photo.url)
            saved.count += 1


def _update_url(session: Session, sighting: sa.Row[Any], photo: Photo) -> None:
    """Replace the URL of a photo that is pending or was missing at its old URL.

    Signed URLs expire, so the photo may exist at the URL of a later response.
    """
    if sighting.state == "pending" or sighting.reason in GONE:
        urls = {"url": photo.url, "fallbacks": "\n".join(photo.fallbacks)}
        session.connection().execute(
            _UPDATE_SIGHTING.values(**urls, state="pending", reason=None),
            {"updated_id": sighting.id},
        )
