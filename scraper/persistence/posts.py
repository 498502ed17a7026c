"""Save the posts of a page in the catalogue, in a few statements per page.

The statements use SQLAlchemy Core: the ORM would take longer per post than the download of an
image.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from scraper.items import MAX_INDEXED_BYTES, Photo, Post
from scraper.parsing.hashtags import find_hashtags, to_hashtag
from scraper.rejections import GONE

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
