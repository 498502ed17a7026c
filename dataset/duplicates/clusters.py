"""Cluster near duplicates: merge linked images, except those that people have separated."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


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
