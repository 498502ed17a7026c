"""What a catalogue holds, counted: per site and hashtag, per label, and refusals by reason."""

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.tables import Hashtag, ImageRow, PostHashtag, PostRow, Search, Sighting


@dataclass(frozen=True)
class SearchStats:
    """A search: `images` are different files, `duplicates` those that look like another one."""

    site: str
    hashtag: str
    state: str
    posts: int
    images: int
    duplicates: int
    wanted: int
    refused: int


def search_stats(session: Session) -> list[SearchStats]:
    """A line for each search, by site and hashtag."""
    found = {
        (row[0], row[1]): row[2:]
        for row in session.execute(
            sa.select(
                PostRow.site,
                Hashtag.text,
                sa.func.count(PostRow.id.distinct()),
                sa.func.count(ImageRow.id.distinct()),
                sa.func.count(ImageRow.cluster_id.distinct()),
                _count_of("wanted"),
                _count_of("refused"),
            )
            .join(PostHashtag, PostHashtag.post_id == PostRow.id)
            .join(Hashtag, Hashtag.id == PostHashtag.hashtag_id)
            .outerjoin(Sighting, Sighting.post_id == PostRow.id)
            .outerjoin(
                ImageRow, sa.and_(ImageRow.id == Sighting.image_id, ImageRow.state == "stored")
            )
            .where(PostHashtag.source == "search")
            .group_by(PostRow.site, Hashtag.text)
        )
    }
    searches = session.scalars(sa.select(Search).order_by(Search.site, Search.hashtag))
    return [_line(search, found.get((search.site, search.hashtag))) for search in searches]


def _count_of(state: str) -> sa.ColumnElement[int]:
    return sa.func.count(sa.case((Sighting.state == state, Sighting.url)).distinct())


def _line(search: Search, numbers: Iterable[int] | None) -> SearchStats:
    posts, images, clusters, wanted, refused = numbers or (0, 0, 0, 0, 0)
    state = f"{search.state}: {search.reason}" if search.reason else search.state
    return SearchStats(
        search.site, search.hashtag, state, posts, images, images - clusters, wanted, refused
    )


def refusals(session: Session) -> list[tuple[str, str, int]]:
    """Site, reason and number of photos refused, the commonest first."""
    count = sa.func.count(Sighting.url.distinct())
    rows = session.execute(
        sa.select(PostRow.site, Sighting.reason, count)
        .join(PostRow, PostRow.id == Sighting.post_id)
        .where(Sighting.state == "refused")
        .group_by(PostRow.site, Sighting.reason)
        .order_by(count.desc(), PostRow.site, Sighting.reason)
    )
    return [(site, reason or "", number) for site, reason, number in rows]
