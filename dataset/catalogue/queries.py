"""Queries of several packages: batches of parameters, conditions, images by name, and statistics.

The statistics count what a catalogue contains: per search, per account, and rejections by reason.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    HASHTAG_SEPARATOR,
    Base,
    Hashtag,
    ImageRow,
    PostHashtag,
    PostRow,
    RequestedHashtag,
    Search,
    Sighting,
    now,
)
from dataset.errors import BadInput
from dataset.images.io import sha256_of

# Parameters of one query: older versions of SQLite allow 999.
QUERY_ROWS = 500
# Digits of a SHA-256 that are needed to name an image.
MIN_DIGITS = 8
T = TypeVar("T")
WEEK = timedelta(days=7)


def in_batches(values: Iterable[T]) -> Iterator[list[T]]:
    """Split values into lists of at most QUERY_ROWS, the parameters of one query."""
    rest = iter(values)
    while batch := list(islice(rest, QUERY_ROWS)):
        yield batch


def table_of(mapped: type[Base]) -> sa.Table:
    """Return the table of a mapped class, for statements that must not pay for the mapper."""
    return cast(sa.Table, mapped.__table__)


def is_stored(image: Any) -> Any:
    """Return the condition that an image's file is stored.

    The expression keeps SQLite from using the index on `state`, which selects nearly all rows, and
    lets it use the index of another condition.
    """
    return image.state + "" == "stored"


def copies_of(images: Sequence[int]) -> Any:
    """Return the condition that an image is one of `images` or in a cluster with one."""
    clusters = sa.select(ImageRow.cluster_id).where(ImageRow.id.in_(images))
    return sa.or_(ImageRow.id.in_(images), ImageRow.cluster_id.in_(clusters))


def find_image(session: Session, name: str) -> ImageRow:
    """Find a stored image.

    Args:
        session: The session.
        name: The first digits of its SHA-256, a file in the store or a build, or any file with the
            same content.

    Raises:
        BadInput: No image matches, or several do.
    """
    stem = Path(name).stem
    digits = stem if re.fullmatch(r"[0-9a-f]*", stem) else ""
    if len(digits) < MIN_DIGITS and Path(name).is_file():
        digits = sha256_of(Path(name).read_bytes())
    if len(digits) < MIN_DIGITS:
        raise BadInput(
            f"{name} does not name an image: give a photo's file, or {MIN_DIGITS} digits or more of"
            " its SHA-256 (see excluded.parquet, manifest.parquet and file names)"
        )
    rows = session.scalars(
        sa.select(ImageRow)
        .where(ImageRow.sha256.startswith(digits), ImageRow.state == "stored")
        .limit(2)
    ).all()
    if len(rows) != 1:
        matches = "several images" if rows else "no image"
        raise BadInput(f"the catalogue has {matches} of {name}; give more digits of its SHA-256")
    return rows[0]


@dataclass(frozen=True)
class StoredSearchCounts:
    """Counts of a search.

    Attributes:
        images: Stored files.
        duplicates: Files that are near duplicates of another one.
        pending: Images that are not downloaded yet.
        rejected: Images that were rejected.
        reason: Why the search failed, empty if it did not.
    """

    site: str
    hashtag: str
    state: str
    posts: int
    images: int
    duplicates: int
    pending: int
    rejected: int
    reason: str


@dataclass(frozen=True)
class HashtagQuota:
    """The hashtags that an account has requested in the last seven days.

    Attributes:
        account: Digest of the account's credentials.
        requested: Hashtags that it has requested.
        allowed: Hashtags that it may request in seven days.
        next_free: When the oldest one no longer counts, UTC.
        hashtags: Their names, joined by commas.
    """

    site: str
    account: str
    requested: int
    allowed: int
    next_free: str
    hashtags: str


def search_stats(session: Session) -> list[StoredSearchCounts]:
    """Count the posts and images of each search, sorted by site and hashtag."""
    searches = session.scalars(sa.select(Search).order_by(Search.site, Search.hashtag)).all()
    return [_count_search(session, search) for search in searches]


def _count_search(session: Session, search: Search) -> StoredSearchCounts:
    post_ids = (
        sa.select(PostHashtag.post_id)
        .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
        .where(
            PostHashtag.source == "search",
            Hashtag.text.in_(search.hashtag.split(HASHTAG_SEPARATOR)),
        )
    )
    posts, images, clusters, pending, rejected = session.execute(
        sa.select(
            sa.func.count(PostRow.id.distinct()),
            sa.func.count(ImageRow.id.distinct()),
            sa.func.count(ImageRow.cluster_id.distinct()),
            _count_of("pending"),
            _count_of("rejected"),
        )
        .outerjoin(Sighting, Sighting.post_id == PostRow.id)
        .outerjoin(ImageRow, sa.and_(ImageRow.id == Sighting.image_id, ImageRow.state == "stored"))
        .where(PostRow.site == search.site, PostRow.id.in_(post_ids))
    ).one()
    counts = (posts, images, images - clusters, pending, rejected)
    return StoredSearchCounts(
        search.site, search.hashtag, search.state, *counts, search.reason or ""
    )


def _count_of(state: str) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((Sighting.state == state, Sighting.url)).distinct())


def requested_this_week(
    session: Session, site: str, account: str | None = None
) -> list[RequestedHashtag]:
    """Return the hashtags requested from a site in the last seven days, oldest first.

    Args:
        session: The session.
        site: The site.
        account: Digest of the account's credentials; None returns those of all accounts.
    """
    query = sa.select(RequestedHashtag).where(
        RequestedHashtag.site == site, RequestedHashtag.requested > now() - WEEK
    )
    if account is not None:
        query = query.where(RequestedHashtag.account == account)
    return list(session.scalars(query.order_by(RequestedHashtag.requested, RequestedHashtag.id)))


def hashtag_quotas(session: Session) -> list[HashtagQuota]:
    """Return the quota of each account of each site that has one."""
    quotas = []
    for site in session.scalars(sa.select(RequestedHashtag.site).distinct().order_by("site")).all():
        rows = requested_this_week(session, site)
        for account in dict.fromkeys(row.account for row in rows):
            own = [row for row in rows if row.account == account]
            free = f"{own[0].requested + WEEK:%Y-%m-%d %H:%M}"
            names = ", ".join(row.hashtag for row in own)
            quotas.append(HashtagQuota(site, account, len(own), own[0].allowed, free, names))
    return quotas


def rejections(session: Session) -> list[tuple[str, str, int]]:
    """Count the rejected images by site and reason.

    Returns:
        (site, reason, number of images), the most frequent first.
    """
    count = sa.func.count(Sighting.url.distinct())
    rows = session.execute(
        sa.select(PostRow.site, Sighting.reason, count)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(Sighting.state == "rejected")
        .group_by(PostRow.site, Sighting.reason)
        .order_by(count.desc(), PostRow.site, Sighting.reason)
    )
    return [(site, reason or "", number) for site, reason, number in rows]
