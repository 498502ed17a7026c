"""The order in which decisions teach a model most: uncertain items, each unlike the others."""

import numpy as np
import pytest

from model.tag_check.learning_order import learning_order, squared_distances


def test_distances_are_those_of_the_gradients() -> None:
    rng = np.random.default_rng(0)
    errors, features = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    gradients = np.einsum("nc,nf->ncf", errors, features).reshape(5, -1)
    expected = ((gradients - gradients[2]) ** 2).sum(axis=1)
    assert squared_distances(errors, features, 2) == pytest.approx(expected)


def test_copies_of_an_item_come_last() -> None:
    rng = np.random.default_rng(1)
    probabilities = np.tile([0.5, 0.5, 0.0], (30, 1))
    features = np.concatenate([np.tile(rng.normal(size=(1, 8)), (20, 1)), rng.normal(size=(10, 8))])
    order = learning_order(probabilities, features, 0)
    assert sorted(order) == list(range(30))
    assert sum(row < 20 for row in order[:11]) == 1


def test_uncertain_items_precede_certain_ones() -> None:
    rng = np.random.default_rng(2)
    certain = np.tile([0.98, 0.01, 0.01], (200, 1))
    uncertain = np.tile([0.4, 0.35, 0.25], (20, 1))
    features = rng.normal(size=(220, 16))
    order = learning_order(np.concatenate([certain, uncertain]), features, 0)
    # At random, 2 of the first 20 would be uncertain.
    assert sum(row >= 200 for row in order[:20]) >= 15
    assert order[0] >= 200


def test_equal_inputs_give_the_same_order_and_no_items_none() -> None:
    rng = np.random.default_rng(3)
    probabilities, features = rng.dirichlet(np.ones(4), 50), rng.normal(size=(50, 6))
    first = learning_order(probabilities, features, 7)
    assert np.array_equal(first, learning_order(probabilities, features, 7))
    certain = np.eye(4)[[0, 1, 1]]
    assert learning_order(certain, features[:3], 0).tolist() == [0, 1, 2]
