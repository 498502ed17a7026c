"""Which photos are one: groups of those that are tied, and what people took apart (pure)."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def connected(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """For each of COUNT items the number of its group, given the ties ONE - OTHER, by place."""
    ties = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    return connected_components(ties, directed=False)[1]


def fold(
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


def chained(groups: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    """Ties that keep each of GROUPS together."""
    return [(group[0], member) for group in groups for member in group[1:]]
