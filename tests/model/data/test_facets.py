"""Facets as groups of outputs: targets, weights, and what is known of a photo."""

import numpy as np
import pytest

from dataset.errors import Failure
from model.data.facets import UNLABELLED, FacetGroups, group_labels

LABELS = ("blouse", "dress", "jeans", "red", "shirt")
BY_FACET = {
    "colour": ["red"],
    "lower": ["dress", "jeans"],
    "upper": ["blouse", "dress", "shirt"],
}


@pytest.fixture
def facets() -> FacetGroups:
    grouped, _ = group_labels(LABELS, BY_FACET)
    assert grouped is not None
    return grouped


def test_facets_of_one_label_are_left_out_with_labels_of_no_other_facet() -> None:
    facets, labels = group_labels(LABELS, BY_FACET)
    assert labels == ("blouse", "dress", "jeans", "shirt")
    assert facets == FacetGroups(("lower", "upper"), ((1, 2), (0, 1, 3)))
    assert facets.named_labels(labels) == {
        "lower": ["dress", "jeans"],
        "upper": ["blouse", "dress", "shirt"],
    }
    assert group_labels(("jeans", "red"), BY_FACET) == (None, ())


def test_a_label_of_two_facets_is_the_target_of_both(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [0, 2]), ("c", [3])])
    assert targets.tolist() == [[0, 1], [1, 0], [UNLABELLED, 2]]
    assert facets.targets([]).shape == (0, 2)
    with pytest.raises(Failure, match="2 labels of the facet upper"):
        facets.targets([("x.jpg", [0, 3])])


def test_unknown_is_not_absent(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [2]), ("c", [3])])
    assert facets.is_known(targets, 4).tolist() == [
        [True, True, True, True],
        # Of jeans alone it is known that they are no dress.
        [False, True, True, False],
        [True, True, False, True],
    ]
    assert facets.has_label(targets, 4).tolist() == [
        [False, True, False, False],
        [False, False, True, False],
        [False, False, False, True],
    ]


def test_encoded_targets_are_zero_where_a_facet_is_unlabelled(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [2]), ("c", [3]), ("d", [2])])
    plain = facets.encode(targets, has_class_weights=False)
    assert (plain > 0).tolist() == [
        [True, False, False, True, False],
        [False, True, False, False, False],
        [False, False, False, False, True],
        [False, True, False, False, False],
    ]
    # The mean weight of a photo is 1, that of its labelled facets is equal.
    assert plain.sum() == pytest.approx(4)
    assert np.unique(plain).tolist() == pytest.approx([0, 0.8])
    balanced = facets.encode(targets, has_class_weights=True)
    assert balanced[:, 0].sum() == pytest.approx(balanced[:, 1].sum())
    assert balanced.sum() == pytest.approx(4)


def test_parts_have_the_labelled_photos_of_each_facet(facets: FacetGroups) -> None:
    targets = facets.targets([("a", [1]), ("b", [2]), ("c", [3])])
    logits = np.arange(12.0).reshape(3, 4)
    (lower, lower_targets), (upper, upper_targets) = facets.parts(logits, targets)
    assert (lower.tolist(), lower_targets.tolist()) == ([[1, 2], [5, 6]], [0, 1])
    assert (upper.tolist(), upper_targets.tolist()) == ([[0, 1, 3], [8, 9, 11]], [1, 2])
