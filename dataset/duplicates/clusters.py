"""Which photos are one: groups of those that are tied, and what people took apart (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.models import ImageRow, NearDuplicateRow


def connected(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each of COUNT items the number of its group, given the ties ONE - OTHER, by place."""
    ties = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    return connected_components(ties, directed=False)[1]


def merge_clusters(
    ties: Iterable[tuple[int, int]], apart: Mapping[int, frozenset[int]]
) -> dict[int, list[int]]:
    """Images tied by TIES, (one, other), the surest first: the first image -> all of its cluster.

    APART: image -> clusters that a person undid; two images that were in one never meet again.
    """
    parent: dict[int, int] = {}
    undone: dict[int, set[int]] = {}

    def root(image: int) -> int:
        parent.setdefault(image, image)
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    for one, other in ties:
        low, high = sorted((root(one), root(other)))
        mine, its = (undone.setdefault(i, set(apart.get(i, ()))) for i in (low, high))
        if low != high and not mine & its:
            parent[high] = low
            mine |= its
    clusters: dict[int, list[int]] = {}
    for image in sorted(parent):
        clusters.setdefault(root(image), []).append(image)
    return clusters


def links_within(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Ties that keep each of GROUPS together."""
    return [(group[0], member) for group in groups for member in group[1:]]


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
        sa.select(NearDuplicateRow.similarity, one.store_key, other.store_key)
        .join(one, one.id == NearDuplicateRow.one_id)
        .join(other, other.id == NearDuplicateRow.other_id)
        .where(one.cluster_id != other.cluster_id)
        .order_by(NearDuplicateRow.similarity.desc(), one.store_key, other.store_key)
    )
    return [{"similarity": similarity, "photos": [mine, its]} for similarity, mine, its in rows]
