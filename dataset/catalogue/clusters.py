"""Lists of clusters and of pairs that may be one photo."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.tables import ImageRow, ResemblanceRow


def list_clusters(session: Session) -> list[dict[str, Any]]:
    """Clusters of more than one image, the largest first; keys of their photos, the best first."""
    size = sa.func.count(ImageRow.id)
    large = (
        sa.select(ImageRow.cluster_id)
        .where(ImageRow.state == "stored")
        .group_by(ImageRow.cluster_id)
        .having(size > 1)
        .subquery()
    )
    rows = session.execute(
        sa.select(ImageRow.cluster_id, ImageRow.store_key)
        .join(large, large.c.cluster_id == ImageRow.cluster_id)
        .where(ImageRow.state == "stored")
        .order_by(
            (ImageRow.width * ImageRow.height).desc(), ImageRow.bytes.desc(), ImageRow.sha256.desc()
        )
    )
    photos: dict[int, list[str]] = {}
    for cluster, key in rows:
        photos.setdefault(int(cluster or 0), []).append(str(key))
    order = sorted(photos, key=lambda cluster: (-len(photos[cluster]), cluster))
    return [{"cluster": cluster, "photos": photos[cluster]} for cluster in order]


def list_possible(session: Session) -> list[dict[str, Any]]:
    """Pairs of images of different clusters that may be one photo, the likest first."""
    one, other = aliased(ImageRow), aliased(ImageRow)
    rows = session.execute(
        sa.select(ResemblanceRow.likeness, one.store_key, other.store_key)
        .join(one, one.id == ResemblanceRow.one_id)
        .join(other, other.id == ResemblanceRow.other_id)
        .where(one.cluster_id != other.cluster_id)
        .order_by(ResemblanceRow.likeness.desc(), one.store_key, other.store_key)
    )
    return [{"likeness": likeness, "photos": [mine, its]} for likeness, mine, its in rows]
