"""List clusters of near duplicates, and pairs of images that may belong to one cluster."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.models import ImageRow, NearDuplicateRow
from dataset.catalogue.queries import in_batches
from dataset.duplicates.verification import Relation
from dataset.selection.candidates import Candidate, load_candidates, order_copies


def list_clusters(session: Session) -> list[dict[str, Any]]:
    """List the clusters of several images, the largest first.

    Returns:
        `cluster`, `photos` and `products` of each: its id, the keys of its images, the best copy
        first, and the number of products or posts that show them.
    """
    query = (
        sa.select(ImageRow.cluster_id)
        .where(ImageRow.state == "stored", ImageRow.cluster_id.is_not(None))
        .group_by(ImageRow.cluster_id)
        .having(sa.func.count(ImageRow.id) > 1)
    )
    clusters: dict[int, list[Candidate]] = {}
    for batch in in_batches([number for number in session.scalars(query) if number is not None]):
        for candidate in load_candidates(session, clusters=batch):
            clusters.setdefault(candidate.cluster, []).append(candidate)
    order = sorted(clusters, key=lambda cluster: (-len(clusters[cluster]), cluster))
    return [
        {
            "cluster": cluster,
            "photos": [copy.store_key for copy in order_copies(clusters[cluster])],
            "products": len({url for copy in clusters[cluster] for url in copy.post_urls}),
        }
        for cluster in order
    ]


def list_possible(session: Session) -> list[dict[str, Any]]:
    """List pairs of images of different clusters that show the same photo.

    Returns:
        `similarity` and `photos` (two keys) of each, the most similar first.
    """
    first, second = aliased(ImageRow), aliased(ImageRow)
    rows = session.execute(
        sa.select(NearDuplicateRow.similarity, first.store_key, second.store_key)
        .join(first, first.id == NearDuplicateRow.one_id)
        .join(second, second.id == NearDuplicateRow.other_id)
        .where(first.cluster_id != second.cluster_id, NearDuplicateRow.relation != Relation.NONE)
        .order_by(NearDuplicateRow.similarity.desc(), first.store_key, second.store_key)
    )
    return [{"similarity": similarity, "photos": list(keys)} for similarity, *keys in rows]
