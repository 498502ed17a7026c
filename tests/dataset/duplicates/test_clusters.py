"""Clusters and what people took apart."""

import numpy as np

from dataset.duplicates.clusters import connected, links_within, merge_clusters


def test_what_is_linked_through_others_is_one_group() -> None:
    groups = connected(6, np.array([0, 2, 4]), np.array([2, 4, 5]))
    assert groups[0] == groups[2] == groups[4] == groups[5]
    assert len(set(groups.tolist())) == 3


def test_ties_fold_images_under_the_first() -> None:
    assert merge_clusters([(5, 3), (3, 9), (1, 2)], {}) == {1: [1, 2], 3: [3, 5, 9]}


def test_images_of_an_undone_cluster_never_meet_again() -> None:
    apart = {1: frozenset({7}), 2: frozenset({7})}
    assert merge_clusters([(1, 2)], apart) == {1: [1], 2: [2]}
    # 3 is a copy of both: it stays with the surer one.
    assert merge_clusters([(2, 3), (1, 3)], apart) == {1: [1], 2: [2, 3]}


def test_chains_hold_groups_together() -> None:
    assert links_within([[1, 2, 3], [4]]) == [(1, 2), (1, 3)]
