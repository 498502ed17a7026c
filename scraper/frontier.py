"""What is still to do and what was done, kept in the catalogue: searches, pages, photos.

Each function is one step of a transaction that the caller commits: after a crash work is either
done and marked, or neither.
"""

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
    now,
)
from dataset.duplicates.known import KnownPhotos, cluster_of, keep_new
from dataset.labels import normalise
from scraper.fetching import Fetched, Refused
from scraper.posts import save_posts
from scraper.spiders.base import Page, Photo


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


def let_go(search: Search, worker: int) -> None:
    """SEARCH is anybody's to go on with, if it was WORKER's."""
    if search.worker_id == worker:
        search.worker_id = None


def refuse(session: Session, url: str, refused: Refused) -> None:
    """Mark the photo URL as refused, in every post that shows it."""
    number = None
    if refused.sha256 is not None:
        image = _known(session, refused.sha256)
        columns = {"state": "refused", "reason": refused.reason, "fetched": now()}
        told = {"sha256": refused.sha256, "bytes": refused.bytes, **columns}
        number = image.id if image else _insert(session, ImageRow, told)
    _settle(session, url, "refused", refused.reason, number)


def store(session: Session, url: str, fetched: Fetched, known: KnownPhotos) -> str:
    """Keep FETCHED as what URL shows; returns new, exact duplicate or near duplicate."""
    image, outcome = _known(session, fetched.sha256), "exact duplicate"
    if image is None or image.state != "stored":
        alike = known.alike(session, fetched.looks)
        near = cluster_of(session, alike)
        outcome = "new" if near is None else "near duplicate"
        cluster = near if near is not None else _insert(session, Cluster, {"made": now()})
        number = _put(session, image.id if image else None, _columns(fetched, cluster))
        keep_new(session, number, fetched.looks, alike)
        known.add(number, fetched.looks)
    else:
        number = image.id
    _settle(session, url, "stored", None, number)
    return outcome


def _known(session: Session, sha256: str) -> Any:
    """Id and state of the image of SHA256, None where it is new."""
    query = sa.select(ImageRow.id, ImageRow.state).filter_by(sha256=sha256)
    return session.execute(query).one_or_none()


def _put(session: Session, number: int | None, columns: dict[str, Any]) -> int:
    """The id of an image with COLUMNS: a new one's, or NUMBER, which was refused before."""
    if number is None:
        return _insert(session, ImageRow, columns)
    session.execute(sa.update(ImageRow).where(ImageRow.id == number).values(**columns))
    return number


def _insert(session: Session, table: type, columns: dict[str, Any]) -> int:
    found = session.execute(sa.insert(table.__table__).values(**columns))  # type: ignore[attr-defined]
    return int(found.inserted_primary_key[0])  # type: ignore[attr-defined]


def _columns(fetched: Fetched, cluster: int) -> dict[str, Any]:
    names = ("sha256", "phash", "format", "bytes", "width", "height", "store_key")
    told = {name: getattr(fetched, name) for name in names}
    return {**told, "state": "stored", "reason": None, "cluster_id": cluster, "fetched": now()}


def _settle(
    session: Session, url: str, state: str, reason: str | None, image_id: int | None
) -> None:
    settled = (
        sa.update(Sighting)
        .where(Sighting.url == url, Sighting.state == "wanted")
        .values(state=state, reason=reason, image_id=image_id, worker_id=None)
        .execution_options(synchronize_session=False)
    )
    # Posts that came since may have another tag, which may have its images: see claims.py.
    claimed = session.execute(settled.where(Sighting.worker_id > 0))
    if not getattr(claimed, "rowcount", 0):
        # We were taken for dead, and nobody has fetched it since.
        session.execute(settled)
