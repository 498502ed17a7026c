"""Photos still wanted: who fetches which, and how many a tag may still have.

A photo may be shown by posts of several tags. It is claimed where each of them has room, so that
none comes to more images than it was asked for. Each function is one step of a transaction that the
caller commits.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Hashtag, PostHashtag, PostRow, Sighting
from dataset.catalogue.queries import in_batches, table_of
from dataset.vocabulary import normalize_word
from scraper.fetching import FINAL, GONE


@dataclass(frozen=True)
class Wanted:
    """A pending image: its URL, fallback URLs, the site's id of its post, and its key."""

    url: str
    fallbacks: tuple[str, ...]
    post: str
    key: str | None


@dataclass
class Room:
    """How many more images a tag may have; `words`: what it is searched under."""

    words: frozenset[str]
    left: int


def _found_under(words: str = "words") -> sa.ColumnElement[bool]:
    """Whether a sighting is of a post of `site` that was found under the hashtags of WORDS.

    Both are parameters. It is evaluated for each sighting in question, not for all of them.
    """
    return (
        sa.exists()
        .where(
            _POSTS.c.id == _SIGHTINGS.c.post_id,
            _POSTS.c.site == sa.bindparam("site"),
            _TAGS.c.post_id == _POSTS.c.id,
            _TAGS.c.source == "search",
            _TAGS.c.hashtag_id == _HASHTAGS.c.id,
            _HASHTAGS.c.text.in_(sa.bindparam(words, expanding=True)),
        )
        .correlate(_SIGHTINGS)
    )


# Made once: to make a statement takes longer than to run it.
_SIGHTINGS, _POSTS, _TAGS, _HASHTAGS = map(table_of, (Sighting, PostRow, PostHashtag, Hashtag))
_WANTED = _SIGHTINGS.c.state == "pending"
_URLS = _SIGHTINGS.c.url.in_(sa.bindparam("urls", expanding=True))
_HELD = sa.select(_SIGHTINGS.c.url).where(_SIGHTINGS.c.worker_id > 0)
# What a sighting must be to be claimed: a post that came later may show a photo that somebody is
# fetching.
_FREE = (_WANTED, _SIGHTINGS.c.url.not_in(_HELD), _found_under())
# And where tags are full, besides: none of theirs.
_NOT_FULL = _SIGHTINGS.c.url.not_in(
    sa.select(_SIGHTINGS.c.url).where(_WANTED, _found_under("full"))
)
_ARE_WANTED = sa.select(_SIGHTINGS.c.id).where(*_FREE).limit(1)
_FIRST = (
    sa.select(
        _SIGHTINGS.c.url,
        sa.func.max(_SIGHTINGS.c.fallbacks),
        sa.func.min(_POSTS.c.site_id),
        sa.func.min(_SIGHTINGS.c.key),
    )
    .join(_POSTS, _POSTS.c.id == _SIGHTINGS.c.post_id)
    .where(*_FREE)
    .group_by(_SIGHTINGS.c.url)
    .order_by(sa.func.min(_SIGHTINGS.c.id))
    .limit(sa.bindparam("limit"))
)
_CAME = _SIGHTINGS.alias()
# Images that were missing then are requested again.
_SETTLED = sa.or_(
    _CAME.c.state == "stored", (_CAME.c.state == "rejected") & _CAME.c.reason.not_in(GONE)
)
_KNOWN = (
    sa.select(_SIGHTINGS.c.url, _CAME.c.state, _CAME.c.reason, _CAME.c.image_id)
    .join(_CAME, _CAME.c.url == _SIGHTINGS.c.url)
    .where(*_FREE, _SETTLED)
    .order_by(_SIGHTINGS.c.id)
)
_CLAIM = sa.update(_SIGHTINGS).where(_URLS, _WANTED).values(worker_id=sa.bindparam("worker"))
_IN_HAND = sa.select(_SIGHTINGS.c.url, _SIGHTINGS.c.state).where(_URLS, _found_under()).distinct()
_PASSING = (_SIGHTINGS.c.state == "rejected", _SIGHTINGS.c.reason.not_in(FINAL))
_RETRY = (
    sa.update(_SIGHTINGS)
    # In all posts that show it: what one of them knows is taken for the others'.
    .where(
        *_PASSING,
        _SIGHTINGS.c.url.in_(sa.select(_SIGHTINGS.c.url).where(*_PASSING, _found_under())),
    )
    .values(state="pending", reason=None, image_id=None)
)


def _words(site: str, hashtags: Iterable[str]) -> dict[str, object]:
    return {"site": site, "words": [normalize_word(hashtag) for hashtag in hashtags]}


def retry_failed(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """Retry images whose download failed with a temporary error; return their number."""
    return session.connection().execute(_RETRY, _words(site, hashtags)).rowcount


def stored(session: Session, site: str, words: Sequence[str], most: int) -> int:
    """How many images the tag of WORDS has; MOST where it has more."""
    images = (
        sa.select(Sighting.image_id)
        .join(PostHashtag, PostHashtag.post_id == Sighting.post_id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(Hashtag.text.in_(map(normalize_word, words)), PostHashtag.source == "search")
        .where(Sighting.state == "stored", PostRow.site == site)
        .distinct()
        # More need not be counted.
        .limit(most)
    )
    return session.scalar(sa.select(sa.func.count()).select_from(images.subquery())) or 0


def in_hand(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """How many wanted photos of SITE's posts found under HASHTAGS are being fetched by somebody."""
    connection = session.connection()
    # Each once, but not by the database, which would look through all addresses for that.
    held = sorted(set(connection.execute(_HELD).scalars()))
    if not held:
        return 0
    shown = connection.execute(_IN_HAND, {**_words(site, hashtags), "urls": held})
    return sum(state == "pending" for _, state in shown)


def are_wanted(
    session: Session, site: str, hashtags: Sequence[str], rooms: Sequence[Room] = ()
) -> bool:
    """Whether `claim` would find photos, as long as ROOMS have place."""
    return bool(_ask(session, _ARE_WANTED, site, hashtags, rooms))


def room(session: Session, site: str, words: Sequence[str], most: int) -> Room:
    """Return how many images a tag is short of its limit; claimed images count as stored."""
    lacking = most - stored(session, site, words, most) - in_hand(session, site, words)
    return Room(frozenset(map(normalize_word, words)), lacking)


def claim(
    session: Session,
    site: str,
    hashtags: Sequence[str],
    limit: int,
    worker: int,
    rooms: Sequence[Room] = (),
) -> list[Wanted]:
    """At most LIMIT photos of SITE's posts found under HASHTAGS, for WORKER alone to fetch.

    Photos that came for other posts are settled here. ROOMS: of all tags that have a limit.
    """
    _settle_known(session, site, hashtags, rooms)
    rows = _ask(session, _FIRST, site, hashtags, rooms, limit=limit)
    found = {
        url: Wanted(url, tuple(fallbacks.split("\n")) if fallbacks else (), post, key)
        for url, fallbacks, post, key in rows
    }
    urls = _within(session, site, list(found), rooms)
    session.connection().execute(_CLAIM, {"urls": urls, "worker": worker})
    return [found[url] for url in urls]


def _ask(
    session: Session,
    query: sa.Select[Any],
    site: str,
    hashtags: Sequence[str],
    rooms: Sequence[Room],
    **more: object,
) -> Sequence[Any]:
    """The rows of QUERY, one of those of `_FREE`, as long as ROOMS have place."""
    full = [word for room in rooms if room.left <= 0 for word in room.words]
    if full:
        query, more = query.where(_NOT_FULL), {**more, "full": full}
    return session.connection().execute(query, {**_words(site, hashtags), **more}).all()


def _within(session: Session, site: str, urls: Sequence[str], rooms: Sequence[Room]) -> list[str]:
    """Those of URLS for which every tag that shows them has room, which they take up."""
    if not rooms:
        return list(urls)
    words = defaultdict[str, set[str]](set)
    for url, word in session.execute(
        sa.select(Sighting.url, Hashtag.text)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .join(PostHashtag, PostHashtag.post_id == PostRow.id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .where(Sighting.url.in_(urls), Sighting.state == "pending", PostRow.site == site)
        .where(PostHashtag.source == "search")
    ):
        words[url].add(word)
    return [url for url in urls if _take_up([one for one in rooms if one.words & words[url]])]


def _take_up(rooms: Sequence[Room]) -> bool:
    """Whether each of ROOMS has place for one more, which has it then."""
    if any(room.left <= 0 for room in rooms):
        return False
    for room in rooms:
        room.left -= 1
    return True


def _settle_known(
    session: Session, site: str, hashtags: Sequence[str], rooms: Sequence[Room]
) -> None:
    """Settle wanted photos that came for other posts."""
    rows = _ask(session, _KNOWN, site, hashtags, rooms)
    known = {url: outcome for url, *outcome in rows}
    for part in in_batches(known):
        for url in _within(session, site, part, rooms):
            state, reason, image = known[url]
            session.execute(
                sa.update(Sighting)
                .where(Sighting.url == url, Sighting.state == "pending")
                .values(state=state, reason=reason, image_id=image)
                .execution_options(synchronize_session=False)
            )


def give_back(session: Session, urls: Sequence[str], worker: int) -> None:
    """Release claimed images that a worker did not download."""
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url.in_(urls), Sighting.worker_id == worker)
        .values(worker_id=None)
        .execution_options(synchronize_session=False)
    )
