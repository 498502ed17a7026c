"""A page's posts on their way into the catalogue, in a few statements for all of them.

Without the mapper: it takes longer for a post than to fetch its photo.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from scraper.fetching import GONE
from scraper.hashtags import as_hashtag, hashtags_in
from scraper.spiders.base import Photo, Post

# Made once: to make a statement takes longer than to run it.
_POSTS, _SIGHTINGS, _TAGS, _HASHTAGS = map(table_of, (PostRow, Sighting, PostHashtag, Hashtag))
_KNOWN_POSTS = sa.select(_POSTS.c.site_id, _POSTS.c.id).where(
    _POSTS.c.site == sa.bindparam("site"),
    _POSTS.c.site_id.in_(sa.bindparam("values", expanding=True)),
)
_KEEP_POSTS = sa.insert(_POSTS).returning(_POSTS.c.site_id, _POSTS.c.id)
_SHOWN = sa.select(
    *(_SIGHTINGS.c.post_id, _SIGHTINGS.c.id, _SIGHTINGS.c.url),
    *(_SIGHTINGS.c.key, _SIGHTINGS.c.state, _SIGHTINGS.c.reason),
).where(_SIGHTINGS.c.post_id.in_(sa.bindparam("values", expanding=True)))
_KEEP_PHOTOS = sa.insert(_SIGHTINGS)
_RENEW = sa.update(_SIGHTINGS).where(_SIGHTINGS.c.id == sa.bindparam("at"))
_KNOWN_TAGS = sa.select(_TAGS.c.post_id, _TAGS.c.hashtag_id, _TAGS.c.source).where(
    _TAGS.c.post_id.in_(sa.bindparam("values", expanding=True))
)
_KNOWN_HASHTAGS = sa.select(_HASHTAGS.c.text, _HASHTAGS.c.id).where(
    _HASHTAGS.c.text.in_(sa.bindparam("values", expanding=True))
)
_KEEP_HASHTAGS = sa.insert(_HASHTAGS).returning(_HASHTAGS.c.text, _HASHTAGS.c.id)
_REFUSED = sa.select(
    _SIGHTINGS.c.url, _SIGHTINGS.c.state, _SIGHTINGS.c.reason, _SIGHTINGS.c.image_id
).where(
    _SIGHTINGS.c.url.in_(sa.bindparam("values", expanding=True)), _SIGHTINGS.c.state == "rejected"
)


@dataclass
class _Shown:
    """The photos of a post, by what they are known again; how many there are."""

    urls: set[str]
    keys: dict[str, sa.Row[Any]]
    count: int = 0


def save_posts(
    session: Session, search: Search, posts: Sequence[Post], reason: str | None = None
) -> None:
    """Keep POSTS of SEARCH with their hashtags, their photos as wanted or refused for REASON."""
    ids = _ids(session, search.site, posts)
    tags = (
        (ids[post.site_id], text, source)
        for post in posts
        for text, source in _hashtags(search.hashtag, post)
        if text
    )
    _save_hashtags(session, dict.fromkeys(tags))
    urls = [photo.url for post in posts for photo in post.photos]
    refused = {"state": "rejected", "reason": reason, "image_id": None}
    known = dict.fromkeys(urls, refused) if reason else _refusals(session, urls)
    shown = _shown(session, ids.values())
    rows = [
        {"post_id": ids[post.site_id], **row}
        for post in posts
        for row in _new_photos(session, shown[ids[post.site_id]], post, known)
    ]
    if rows:
        session.connection().execute(_KEEP_PHOTOS, rows)


def _ask(
    session: Session, question: sa.Select[Any], values: Iterable[Any], **more: str
) -> Iterator[sa.Row[Any]]:
    """Return the rows of a query for values, each of which is looked up once."""
    for part in in_batches(dict.fromkeys(values)):
        yield from session.connection().execute(question, {"values": part, **more}).all()


def _ids(session: Session, site: str, posts: Sequence[Post]) -> dict[str, int]:
    """The number of each post by its id on SITE; a row is made where it is new."""
    known = _ask(session, _KNOWN_POSTS, (post.site_id for post in posts), site=site)
    ids: dict[str, int] = dict(map(tuple, known))
    new = {post.site_id: _new_post(site, post) for post in posts if post.site_id not in ids}
    if new:
        made = session.connection().execute(_KEEP_POSTS, list(new.values()))
        ids |= dict(map(tuple, made))
    return ids


def _new_post(site: str, post: Post) -> dict[str, Any]:
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
        "record": zlib.compress(_as_json(post.record).encode()),
    }


def _as_json(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, sort_keys=True, default=str)
    except RecursionError:
        # Nested so deep that it could only just be read.
        return "{}"


def _hashtags(query: str, post: Post) -> Iterator[tuple[str, str]]:
    """Each hashtag of POST, normalised, with where it comes from."""
    in_text = [normalize_word(tag) for tag in (*post.hashtags, *hashtags_in(post.title))]
    yield from ((tag, "search") for tag in map(normalize_word, _found_under(query, in_text)))
    yield from ((tag, "caption") for tag in in_text)
    yield from ((tag, "attribute") for tag in map(normalize_word, post.attributes))


def _found_under(query: str, hashtags: Sequence[str]) -> list[str]:
    """The words of QUERY among HASHTAGS; all where none is, as a site may see more than we do."""
    words, tags = query.split(HASHTAG_SEPARATOR), {as_hashtag(tag) for tag in hashtags}
    return [word for word in words if as_hashtag(word) in tags] or words


def _save_hashtags(session: Session, wanted: Mapping[tuple[int, str, str], None]) -> None:
    """Keep each post's id, hashtag and source in WANTED."""
    ids = _hashtag_ids(session, [text for _, text, _ in wanted])
    known = set(map(tuple, _ask(session, _KNOWN_TAGS, (post for post, _, _ in wanted))))
    rows = [
        {"post_id": post, "hashtag_id": ids[text], "source": source}
        for post, text, source in wanted
        if (post, ids[text], source) not in known
    ]
    if rows:
        session.connection().execute(sa.insert(_TAGS), rows)


def _hashtag_ids(session: Session, texts: Sequence[str]) -> dict[str, int]:
    ids: dict[str, int] = dict(map(tuple, _ask(session, _KNOWN_HASHTAGS, texts)))
    new = [{"text": text} for text in dict.fromkeys(texts) if text not in ids]
    if new:
        made = session.connection().execute(_KEEP_HASHTAGS, new)
        ids |= dict(map(tuple, made))
    return ids


def _refusals(session: Session, urls: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Why photos at URLS were refused where any post, of whatever search, showed them before.

    Those that were stored are taken when they are claimed, as long as the tag may have them.
    """
    return {
        row.url: {"state": row.state, "reason": row.reason, "image_id": row.image_id}
        for row in _ask(session, _REFUSED, urls)
    }


def _shown(session: Session, posts: Iterable[int]) -> dict[int, _Shown]:
    """The photos of POSTS that are known."""
    found = {post: _Shown(set(), {}) for post in posts}
    for row in _ask(session, _SHOWN, list(found)):
        one = found[row.post_id]
        one.urls.add(row.url)
        one.count += 1
        if row.key:
            one.keys[row.key] = row
    return found


def _new_photos(
    session: Session, shown: _Shown, post: Post, known: Mapping[str, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Rows of the photos of POST that are not SHOWN; addresses that changed are renewed."""
    wanted = {"state": "pending", "reason": None, "image_id": None}
    for photo in post.photos:
        if photo.key in shown.keys:
            _renew_address(session, shown.keys[photo.key], photo)
        elif photo.url not in shown.urls:
            yield {
                "url": photo.url,
                "key": photo.key,
                "fallbacks": "\n".join(photo.fallbacks),
                "position": shown.count,
                **known.get(photo.url, wanted),
            }
            shown.urls.add(photo.url)
            shown.count += 1


def _renew_address(session: Session, sighting: sa.Row[Any], photo: Photo) -> None:
    """A signed address is fresh when it is seen again; one that ran out has another chance."""
    if sighting.state == "pending" or sighting.reason in GONE:
        renewed = {"url": photo.url, "fallbacks": "\n".join(photo.fallbacks)}
        session.connection().execute(
            _RENEW.values(**renewed, state="pending", reason=None), {"at": sighting.id}
        )
