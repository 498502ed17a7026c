"""Recommendations are diverse, never of the same product, and complete."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model.similar import recommend as module
from model.similar.index_file import (
    COPY_SIMILARITY,
    IndexItem,
    are_duplicates,
    create_index,
    lock_index,
    open_index,
)
from model.similar.recommend import MMR_LAMBDA, duplicate_groups, recommend
from model.similar.search import Searcher


def shop(count: int, seed: int = 0) -> tuple[list[IndexItem], np.ndarray]:
    """Similar items in groups, some of one product and some copies."""
    rng = np.random.default_rng(seed)
    kinds = rng.standard_normal((count // 20 + 1, 32))
    vectors = kinds[np.arange(count) // 20] + 0.6 * rng.standard_normal((count, 32))
    vectors[5::31] = vectors[4:-1:31][: len(vectors[5::31])]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    items = [
        IndexItem(
            f"i{n}",
            f"{n:064x}",
            "",
            product=f"p{n - n % 3 // 2}",
            cluster=f"c{n - (n % 7 == 6)}",
        )
        for n in range(count)
    ]
    return items, vectors


def searcher_of(path: Path, items: Sequence[IndexItem], vectors: np.ndarray) -> Searcher:
    with lock_index(path), create_index(path) as index:
        index.add(items, vectors)
    return Searcher(open_index(path))


def by_hand(items: Sequence[IndexItem], vectors: np.ndarray, row: int, k: int) -> list[int]:
    """Compute maximal marginal relevance by its definition, over all items."""
    products = vectors @ vectors.T
    free = [
        n
        for n in range(len(items))
        if n != row
        and not are_duplicates(items[n], items[row])
        and products[n, row] < COPY_SIMILARITY
    ]
    chosen: list[int] = []
    while free and len(chosen) < k:
        worth = [
            MMR_LAMBDA * products[n, row]
            - (1 - MMR_LAMBDA) * max((products[n, c] for c in chosen), default=0.0)
            for n in free
        ]
        best = free[int(np.argmax(worth))]
        chosen.append(best)
        free = [
            n
            for n in free
            if not are_duplicates(items[n], items[best]) and products[n, best] < COPY_SIMILARITY
        ]
    return chosen


def test_recommendations_equal_the_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All items are in the pool, as in the definition.
    monkeypatch.setattr(module, "POOL_FACTOR", 100)
    monkeypatch.setattr(module, "BATCH_ROWS", 30)
    items, vectors = shop(100)
    searcher = searcher_of(tmp_path / "s.index", items, vectors)
    rows = [
        one
        for part in recommend(searcher, duplicate_groups(items), 6)
        for one in part.chosen.tolist()
    ]
    assert rows == [by_hand(items, searcher.vectors, row, 6) for row in range(100)]


def test_each_item_gets_k_of_different_products(tmp_path: Path) -> None:
    items, vectors = shop(900)
    searcher = searcher_of(tmp_path / "s.index", items, vectors)
    count = 0
    for part in recommend(searcher, duplicate_groups(items), 8):
        for row, chosen, similarity in zip(part.rows, part.chosen, part.similarity, strict=True):
            whole = [items[row], *(items[n] for n in chosen)]
            assert all(n >= 0 for n in chosen)
            assert not any(
                are_duplicates(one, other) for i, one in enumerate(whole) for other in whole[:i]
            )
            np.testing.assert_allclose(
                similarity, searcher.vectors[chosen] @ searcher.vectors[row], atol=1e-5
            )
            count += 1
    assert count == 900


def test_a_product_of_many_photos_does_not_use_up_the_pool(tmp_path: Path) -> None:
    items, vectors = shop(400)
    # The first item's product has 150 photos, all nearer to it than anything else.
    vectors[:150] = vectors[0] + 0.25 * vectors[:150]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    items[:150] = [IndexItem(f"i{n}", f"{n:064x}", "", product="one") for n in range(150)]
    searcher = searcher_of(tmp_path / "s.index", items, vectors)
    first = next(recommend(searcher, duplicate_groups(items), 5))
    assert (first.chosen[0] >= 150).all()


def test_a_small_index_has_fewer_recommendations(tmp_path: Path) -> None:
    items, vectors = shop(4)
    searcher = searcher_of(tmp_path / "s.index", items, vectors)
    (part,) = recommend(searcher, duplicate_groups(items), 12)
    for row, chosen in enumerate(part.chosen.tolist()):
        wanted = by_hand(items, searcher.vectors, row, 12)
        assert chosen == wanted + [-1] * (12 - len(wanted))
