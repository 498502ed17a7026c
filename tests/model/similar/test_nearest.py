"""The blocked search equals a comparison of all vectors."""

import numpy as np
import pytest

from model.similar import nearest
from model.similar.nearest import exact_neighbors


def unit(seed: int, count: int, dimensions: int = 24) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("queries", [1, 5, 300])
def test_the_nearest_equal_those_of_all_products(
    queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks that end in the middle of queries and of vectors.
    monkeypatch.setattr(nearest, "QUERY_BLOCK", 64)
    monkeypatch.setattr(nearest, "VECTOR_BLOCK", 100)
    asked, vectors = unit(1, queries), unit(2, 1037)
    found = exact_neighbors(asked, vectors, 7)
    products = asked.astype(np.float64) @ vectors.T.astype(np.float64)
    truth = np.argsort(-products, axis=1)[:, :7]
    assert (found.keys == truth).all()
    np.testing.assert_allclose(
        found.similarity, np.take_along_axis(products, truth, 1), rtol=0, atol=1e-5
    )


def test_of_equal_similarities_the_lower_index_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "VECTOR_BLOCK", 4)
    # Along an axis: its products have no rounding.
    one = np.eye(1, 24, dtype=np.float32)
    vectors = np.repeat(one, 13, axis=0)
    found = exact_neighbors(np.repeat(one, 9, axis=0), vectors, 5)
    assert found.keys.tolist() == 9 * [[0, 1, 2, 3, 4]]


def test_fewer_vectors_than_requested_are_all_returned() -> None:
    vectors = unit(4, 3)
    found = exact_neighbors(vectors[:1], vectors, 10)
    assert found.keys.shape == (1, 3)
    assert set(found.keys[0].tolist()) == {0, 1, 2}
    assert exact_neighbors(vectors[:0], vectors, 2).keys.shape == (0, 2)
    assert exact_neighbors(vectors[:2], vectors[:0], 2).keys.shape == (2, 0)
