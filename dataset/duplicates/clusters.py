"""Cluster near duplicates: merge linked images, except those that people have separated."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.models import ImageRow, NearDuplicateRow


def connected(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the number of the connected component of each item.

    Args:
        count: Number of items.
        first: Index of one item of each link.
        second: Index of the other item of each link.
    """
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return connected_components(links, directed=False)[1]


def merge_clusters(
    links: Iterable[tuple[int, int]], separated: Mapping[int, frozenset[int]]
) -> dict[int, list[int]]:
    """Merge linked images into clusters.

    Args:
        links: Pairs of images, the most certain first.
        separated: Image -> numbers of separations; two images that share one never meet in a
            cluster.

    Returns:
        The sorted images of each cluster by the smallest one.
    """
    parent: dict[int, int] = {}
    separations: dict[int, set[int]] = {}

    def root_of(image: int) -> int:
        parent.setdefault(image, image)
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    for first, second in links:
        low, high = sorted((root_of(first), root_of(second)))
        of_low, of_high = (
            separations.setdefault(image, set(separated.get(image, ()))) for image in (low, high)
        )
        if low != high and not of_low & of_high:
            parent[high] = low
            of_low |= of_high
    clusters: dict[int, list[int]] = {}
    for image in sorted(parent):
        clusters.setdefault(root_of(image), []).append(image)
    return clusters


def links_within(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Return links that connect all members of each group."""
    return [(group[0], member) for group in groups for member in group[1:]]


def list_clusters(session: Session) -> list[dict[str, Any]]:
    """List the clusters of several images, the largest first.

    Returns:
        `cluster` and `photos` of each: its id, and the keys of its images, the best copy first.
    """
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
    """List pairs of images of different clusters that may be near duplicates.

    Returns:
        `similarity` and `photos` (two keys) of each, the most similar first.
    """
    first, second = aliased(ImageRow), aliased(ImageRow)
    rows = session.execute(
        sa.select(NearDuplicateRow.similarity, first.store_key, second.store_key)
        .join(first, first.id == NearDuplicateRow.one_id)
        .join(second, second.id == NearDuplicateRow.other_id)
        .where(first.cluster_id != second.cluster_id)
        .order_by(NearDuplicateRow.similarity.desc(), first.store_key, second.store_key)
    )
    return [{"similarity": similarity, "photos": list(keys)} for similarity, *keys in rows]
