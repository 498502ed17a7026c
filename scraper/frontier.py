"""What is still to do, kept in the catalogue: searches with their cursors, images still wanted.

Each function is one step of a transaction that the caller commits: after a crash work is either
done and marked, or neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.tables import (
    OR,
    Cluster,
    Hashtag,
    ImageRow,
    PostHashtag,
    PostRow,
    Search,
    Sighting,
)
from dataset.duplicates.known import KnownPhotos, keep_new
from dataset.labels import normalise
from scraper.fetching import FINAL, Fetched, Refused
from scraper.posts import save_posts
from scraper.spiders.base import Page, Photo


@dataclass(frozen=True)
class Wanted:
    """A photo to fetch: its address and what to ask when it is not there; its post, and its key."""

    url: str
    fallbacks: tuple[str, ...]
    post: str
    key: str | None


def search_for(session: Session, site: str, hashtag: str) -> Search:
    """The search of SITE for HASHTAG, made when it is new; one that failed is opened again."""
    hashtag = normalise(hashtag)
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
            Hashtag.text.in_(search.hashtag.split(OR)),
        )
    )
    ids = {post.site_id for post in page.posts}
    return not ids or (session.scalar(found) or 0) < len(ids)


def retry_failed(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """Want photos again that were refused for what may have passed; returns how many."""
    found = session.execute(
        sa.update(Sighting)
        .where(
            Sighting.state == "refused",
            Sighting.reason.not_in(FINAL),
            Sighting.post_id.in_(_of_searches(site, hashtags)),
        )
        .values(state="wanted", reason=None, image_id=None)
        .execution_options(synchronize_session=False)
    )
    return int(getattr(found, "rowcount", 0))


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
        .where(Sighting.url == url, Sighting.state == "wanted")
        .values(url=photo.url, fallbacks="\n".join(photo.fallbacks))
        .execution_options(synchronize_session=False)
    )


def _of_searches(site: str, hashtags: Sequence[str]) -> sa.Select[Any]:
    """The ids of SITE's posts that were found under one of HASHTAGS."""
    return (
        sa.select(PostRow.id)
        .join(PostHashtag, PostHashtag.post_id == PostRow.id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .where(
            PostRow.site == site,
            PostHashtag.source == "search",
            Hashtag.text.in_([normalise(hashtag) for hashtag in hashtags]),
        )
    )


def claim(
    session: Session, site: str, hashtags: Sequence[str], limit: int, worker: int
) -> list[Wanted]:
    """At most LIMIT photos of SITE's posts found under HASHTAGS, for WORKER alone to fetch."""
    rows = session.execute(
        sa.select(
            Sighting.url,
            sa.func.max(Sighting.fallbacks),
            sa.func.min(PostRow.site_id),
            sa.func.min(Sighting.key),
        )
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(
            Sighting.state == "wanted",
            # A post that came later may show a photo that somebody is fetching.
            Sighting.url.not_in(sa.select(Sighting.url).where(Sighting.worker_id.is_not(None))),
            Sighting.post_id.in_(_of_searches(site, hashtags)),
        )
        .group_by(Sighting.url)
        .order_by(sa.func.min(Sighting.id))
        .limit(limit)
    )
    found = [
        Wanted(url, tuple(fallbacks.split("\n")) if fallbacks else (), post, key)
        for url, fallbacks, post, key in rows
    ]
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url.in_([one.url for one in found]), Sighting.state == "wanted")
        .values(worker_id=worker)
        .execution_options(synchronize_session=False)
    )
    return found


def in_hand(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """How many photos of SITE's posts found under HASHTAGS are being fetched by somebody."""
    return (
        session.scalar(
            sa.select(sa.func.count(Sighting.url.distinct())).where(
                Sighting.worker_id.is_not(None),
                Sighting.post_id.in_(_of_searches(site, hashtags)),
            )
        )
        or 0
    )


def stored_count(session: Session, site: str, hashtags: Sequence[str]) -> int:
    """How many different images are stored of SITE's posts found under HASHTAGS."""
    return (
        session.scalar(
            sa.select(sa.func.count(Sighting.image_id.distinct())).where(
                Sighting.state == "stored",
                Sighting.post_id.in_(_of_searches(site, hashtags)),
            )
        )
        or 0
    )


def room(session: Session, site: str, words: Sequence[str], max_images: int | None) -> int | None:
    """How many of MAX_IMAGES images the tag of WORDS still lacks; None where it may have any."""
    return None if max_images is None else max_images - stored_count(session, site, words)


def let_go(search: Search, worker: int) -> None:
    """SEARCH is anybody's to go on with, if it was WORKER's."""
    if search.worker_id == worker:
        search.worker_id = None


def refuse(session: Session, url: str, refused: Refused) -> None:
    """Mark the photo URL as refused, in every post that shows it."""
    image = None
    if refused.sha256 is not None:
        image = _image(session, refused.sha256)
        if image is None:
            image = ImageRow(
                sha256=refused.sha256, bytes=refused.bytes, state="refused", reason=refused.reason
            )
            session.add(image)
            session.flush()
    _settle(session, url, "refused", refused.reason, image.id if image else None)


def store(session: Session, url: str, fetched: Fetched, known: KnownPhotos) -> str:
    """Keep FETCHED as what URL shows; returns new, exact duplicate or near duplicate."""
    image, outcome = _image(session, fetched.sha256), "exact duplicate"
    if image is None or image.state != "stored":
        image = image or ImageRow(sha256=fetched.sha256)
        _fill(image, fetched)
        session.add(image)
        session.flush()
        near = keep_new(session, image, fetched.looks, known)
        outcome = "new" if near is None else "near duplicate"
        image.cluster_id = near if near is not None else _new_cluster(session)
    _settle(session, url, "stored", None, image.id)
    return outcome


def _image(session: Session, sha256: str) -> ImageRow | None:
    return session.scalar(sa.select(ImageRow).filter_by(sha256=sha256))


def _new_cluster(session: Session) -> int:
    cluster = Cluster()
    session.add(cluster)
    session.flush()
    return cluster.id


def _fill(image: ImageRow, fetched: Fetched) -> None:
    image.phash, image.format, image.bytes = fetched.phash, fetched.format, fetched.bytes
    image.width, image.height = fetched.width, fetched.height
    image.store_key, image.state, image.reason = fetched.store_key, "stored", None


def _settle(
    session: Session, url: str, state: str, reason: str | None, image_id: int | None
) -> None:
    session.execute(
        sa.update(Sighting)
        .where(Sighting.url == url, Sighting.state == "wanted")
        .values(state=state, reason=reason, image_id=image_id, worker_id=None)
        .execution_options(synchronize_session=False)
    )
