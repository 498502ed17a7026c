"""Clusters and separations."""

import numpy as np

from dataset.duplicates.clusters import connected, links_within, merge_clusters


def test_connected_items_are_one_component() -> None:
    groups = connected(6, np.array([0, 2, 4]), np.array([2, 4, 5]))
    assert groups[0] == groups[2] == groups[4] == groups[5]
    assert len(set(groups.tolist())) == 3


def test_links_merge_images_into_clusters() -> None:
    assert merge_clusters([(5, 3), (3, 9), (1, 2)], {}) == {1: [1, 2], 3: [3, 5, 9]}


def test_separated_images_are_never_in_one_cluster() -> None:
    apart = {1: frozenset({7}), 2: frozenset({7})}
    assert merge_clusters([(1, 2)], apart) == {1: [1], 2: [2]}
    # 3 is a copy of both: it stays with the more certain one.
    assert merge_clusters([(2, 3), (1, 3)], apart) == {1: [1], 2: [2, 3]}


def test_links_within_connect_all_members() -> None:
    assert links_within([[1, 2, 3], [4]]) == [(1, 2), (1, 3)]
