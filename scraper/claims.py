"""Photos still wanted: who fetches which, and how many a tag may still have.

A photo may be shown by posts of several tags. It is claimed where each of them has room, so that
none comes to more images than it was asked for. Each function is one step of a transaction that the
caller commits.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.queries import in_parts
from dataset.catalogue.tables import Hashtag, PostHashtag, PostRow, Sighting
from dataset.labels import normalise
from scraper.fetching import FINAL, GONE


@dataclass(frozen=True)
class Wanted:
    """A photo to fetch: its address and what to ask when it is not there; its post, and its key.

    `came`: whether it may have come already, for a process that died.
    """

    url: str
    fallbacks: tuple[str, ...]
    post: str
    key: str | None
    came: bool = True


@dataclass
class Room:
    """How many more images a tag may have; `words`: what it is searched under."""

    words: frozenset[str]
    left: int


def retry_failed(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """Want photos again that were refused for what may have passed; returns how many."""
    passing = (Sighting.state == "refused", Sighting.reason.not_in(FINAL))
    urls = sa.select(Sighting.url).where(*passing, _found_under(site, hashtags))
    found = session.execute(
        sa.update(Sighting)
        # In all posts that show it: what one of them knows is taken for the others'.
        .where(*passing, Sighting.url.in_(urls))
        .values(state="wanted", reason=None, image_id=None)
        .execution_options(synchronize_session=False)
    )
    return int(getattr(found, "rowcount", 0))


def _found_under(site: str, hashtags: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether a sighting is of a post of SITE that was found under one of HASHTAGS.

    It is asked of each sighting in question, and not of all that were ever found.
    """
    return (
        sa.exists()
        .where(
            PostRow.id == Sighting.post_id,
            PostRow.site == site,
            PostHashtag.post_id == PostRow.id,
            PostHashtag.source == "search",
            PostHashtag.hashtag_id == Hashtag.id,
            Hashtag.text.in_([normalise(hashtag) for hashtag in hashtags]),
        )
        .correlate(Sighting)
    )


def stored(session: Session, site: str, words: Sequence[str], most: int) -> int:
    """How many images the tag of WORDS has; MOST where it has more."""
    images = (
        sa.select(Sighting.image_id)
        .join(PostHashtag, PostHashtag.post_id == Sighting.post_id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(Hashtag.text.in_(map(normalise, words)), PostHashtag.source == "search")
        .where(Sighting.state == "stored", PostRow.site == site)
        .distinct()
        # More need not be counted.
        .limit(most)
    )
    return session.scalar(sa.select(sa.func.count()).select_from(images.subquery())) or 0


def in_hand(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """How many wanted photos of SITE's posts found under HASHTAGS are being fetched by somebody."""
    fetched = session.scalars(sa.select(Sighting.url).where(Sighting.worker_id > 0).distinct())
    shown = session.execute(
        sa.select(Sighting.url, Sighting.state)
        .where(Sighting.url.in_(fetched.all()), _found_under(site, hashtags))
        .distinct()
    )
    return sum(state == "wanted" for _, state in shown)


def are_wanted(
    session: Session, site: str, hashtags: Sequence[str], rooms: Sequence[Room] = ()
) -> bool:
    """Whether `claim` would find photos, as long as ROOMS have place."""
    wanted = sa.select(Sighting.id).where(*_free(site, hashtags, rooms)).limit(1)
    return session.scalar(wanted) is not None


def room(session: Session, site: str, words: Sequence[str], most: int) -> Room:
    """What the tag of WORDS still lacks to MOST images; what is in hand counts as had."""
    lacking = most - stored(session, site, words, most) - in_hand(session, site, words)
    return Room(frozenset(map(normalise, words)), lacking)


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
    rows = session.execute(
        sa.select(
            Sighting.url,
            sa.func.max(Sighting.fallbacks),
            sa.func.min(PostRow.site_id),
            sa.func.min(Sighting.key),
        )
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(*_free(site, hashtags, rooms))
        .group_by(Sighting.url)
        .order_by(sa.func.min(Sighting.id))
        .limit(limit)
    )
    found = {
        url: Wanted(url, tuple(fallbacks.split("\n")) if fallbacks else (), post, key)
        for url, fallbacks, post, key in rows
    }
    urls = _within(session, site, list(found), rooms)
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url.in_(urls), Sighting.state == "wanted")
        .values(worker_id=worker)
        .execution_options(synchronize_session=False)
    )
    return [found[url] for url in urls]


def _free(
    site: str, hashtags: Sequence[str], rooms: Sequence[Room]
) -> Iterator[sa.ColumnElement[bool]]:
    """What a sighting must be to be claimed."""
    yield Sighting.state == "wanted"
    # A post that came later may show a photo that somebody is fetching.
    yield Sighting.url.not_in(sa.select(Sighting.url).where(Sighting.worker_id > 0))
    yield _found_under(site, hashtags)
    full = [word for room in rooms if room.left <= 0 for word in room.words]
    if full:
        shown = sa.select(Sighting.url).where(Sighting.state == "wanted", _found_under(site, full))
        yield Sighting.url.not_in(shown)


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
        .where(Sighting.url.in_(urls), Sighting.state == "wanted", PostRow.site == site)
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
    """Settle wanted photos that came for other posts; what was gone then is asked for again."""
    came = aliased(Sighting)
    settled = sa.or_(came.state == "stored", (came.state == "refused") & came.reason.not_in(GONE))
    rows = session.execute(
        sa.select(Sighting.url, came.state, came.reason, came.image_id)
        .join(came, came.url == Sighting.url)
        .where(*_free(site, hashtags, rooms), settled)
        .order_by(Sighting.id)
    )
    known = {url: outcome for url, *outcome in rows}
    for part in in_parts(known):
        for url in _within(session, site, part, rooms):
            state, reason, image = known[url]
            session.execute(
                sa.update(Sighting)
                .where(Sighting.url == url, Sighting.state == "wanted")
                .values(state=state, reason=reason, image_id=image)
                .execution_options(synchronize_session=False)
            )


def give_back(session: Session, urls: Sequence[str], worker: int) -> None:
    """The photos at URLS that WORKER had in hand and did not fetch are anybody's again."""
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url.in_(urls), Sighting.worker_id == worker)
        .values(worker_id=None)
        .execution_options(synchronize_session=False)
    )
