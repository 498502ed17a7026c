"""Searches: filters, merged duplicates, the graph of large indexes, and recommendations.

The blocked search equals a comparison of all vectors. Recommendations are diverse, never of the
same product, and complete.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.similar import build, search
from model.similar.index_file import (
    COPY_SIMILARITY,
    Filters,
    IndexFile,
    IndexItem,
    are_duplicates,
    create_index,
    lock_index,
    open_index,
)
from model.similar.search import (
    MMR_LAMBDA,
    Query,
    Searcher,
    duplicate_groups,
    exact_neighbors,
    recommend,
)

Make = Callable[[Sequence[IndexItem], np.ndarray], IndexFile]


def spread(count: int, seed: int = 0) -> np.ndarray:
    """Return unit vectors that are far from each other."""
    rows = np.random.default_rng(seed).standard_normal((count, 48)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def plain(count: int) -> list[IndexItem]:
    return [
        IndexItem(f"i{n}", f"{n:064x}", "", site="ab"[n % 2], label="xyz"[n % 3], price=float(n))
        for n in range(count)
    ]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    opened: list[IndexFile] = []

    def made(items: Sequence[IndexItem], vectors: np.ndarray) -> IndexFile:
        path = tmp_path / f"{len(opened)}.index"
        with lock_index(path), create_index(path) as index:
            index.add(items, vectors)
            build._update_graph(index)
        opened.append(open_index(path))
        return opened[-1]

    yield made
    for one in opened:
        one.close()


def truth(vectors: np.ndarray, query: int, allowed: Sequence[int]) -> list[str]:
    """Return the ids of the nearest allowed items, without the query itself."""
    kept = vectors.astype(np.float16).astype(np.float64)
    order = sorted(allowed, key=lambda n: -float(kept[n] @ kept[query]))
    return [f"i{n}" for n in order if n != query]


def query_of(searcher: Searcher, item: IndexItem, key: int) -> Query:
    return Query(searcher.vectors[searcher.row_of(key)], item, key)


def test_filters_do_not_reduce_the_number_of_results(make: Make) -> None:
    items, vectors = plain(600), spread(600)
    searcher = Searcher(make(items, vectors))
    filters = Filters(("a",), ("x", "y"), 100.0, 500.0)
    neighbors = searcher.search(query_of(searcher, items[7], 7), 12, filters)
    allowed = [n for n in range(100, 501) if n % 2 == 0 and n % 3 in (0, 1)]
    assert [result.item.id for result in neighbors] == truth(vectors, 7, allowed)[:12]
    rare = searcher.search(query_of(searcher, items[7], 7), 12, Filters(price_from=597))
    assert sorted(result.item.id for result in rare) == ["i597", "i598", "i599"]
    assert searcher.search(query_of(searcher, items[7], 7), 12, Filters(price_from=600)) == []


def test_products_and_copies_are_one_result(make: Make) -> None:
    vectors = spread(60)
    # Items 1 to 30 are similar to the query in this order, and less similar to each other.
    for n in range(1, 31):
        similarity = 0.9 - n / 50
        orthogonal = vectors[n] - (vectors[n] @ vectors[0]) * vectors[0]
        orthogonal /= np.linalg.norm(orthogonal)
        vectors[n] = similarity * vectors[0] + np.sqrt(1 - similarity**2) * orthogonal
    items = plain(60)
    items[2] = replace(items[2], product="s:1")
    items[5] = replace(items[5], product="s:1")
    items[3] = replace(items[3], cluster="9")
    items[8] = replace(items[8], cluster="9")
    vectors[40] = vectors[4]
    searcher = Searcher(make(items, vectors))
    neighbors = searcher.search(query_of(searcher, items[0], 0), 20, Filters())
    duplicates = {result.item.id: result.duplicates for result in neighbors if result.duplicates}
    assert duplicates["i2"] == ("i5",)
    assert duplicates["i3"] == ("i8",)
    assert duplicates["i4"] == ("i40",)
    assert len(duplicates) == 3
    assert len(neighbors) == 20
    assert "i0" not in [result.item.id for result in neighbors]


def test_duplicates_of_the_query_can_be_excluded(make: Make) -> None:
    vectors, items = spread(30), plain(30)
    items[0] = replace(items[0], product="s:1", cluster="4")
    items[1] = replace(items[1], product="s:1")
    items[2] = replace(items[2], cluster="4")
    vectors[3] = vectors[0]
    searcher = Searcher(make(items, vectors))
    query = query_of(searcher, items[0], 0)
    with_them = [result.item.id for result in searcher.search(query, 29, Filters())]
    without = [
        result.item.id for result in searcher.search(query, 29, Filters(), exclude_duplicates=True)
    ]
    assert with_them[0] == "i3"
    assert {"i1", "i2"} & set(with_them)
    assert not {"i0", "i1", "i2", "i3"} & set(without)
    assert len(without) == 26


def test_a_photo_outside_the_index_finds_all_items(make: Make) -> None:
    vectors = spread(20)
    searcher = Searcher(make(plain(20), vectors))
    neighbors = searcher.search(Query(vectors[3], IndexItem("new", "f", "")), 5, Filters())
    assert neighbors[0].item.id == "i3"
    assert neighbors[0].similarity == pytest.approx(1, abs=2e-3)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the graph for more than 500 items."""
    for module in (search, build):
        monkeypatch.setattr(module, "MAX_EXACT_ITEMS", 500)


@pytest.mark.usefixtures("small_limit")
def test_large_indexes_are_searched_by_a_graph(make: Make) -> None:
    items, vectors = plain(3000), spread(3000)
    index = make(items, vectors)
    searcher = Searcher(index)
    assert searcher.is_approximate
    recall = index.facts()["recall"]
    assert 0.9 < recall <= 1
    near = searcher.nearest(searcher.vectors[:200], 11)
    right = sum(
        len(set(truth(vectors, n, range(3000))[:10]) & {f"i{p}" for p in near.keys[n]})
        for n in range(200)
    )
    assert right / 2000 == pytest.approx(recall, abs=0.05)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("filters", [Filters(("a",)), Filters(("a",), ("x",), 0, 120)])
def test_a_graph_respects_filters(make: Make, filters: Filters) -> None:
    items, vectors = plain(3000), spread(3000)
    searcher = Searcher(make(items, vectors))
    allowed = [
        n for n in range(3000) if n % 2 == 0 and (not filters.labels or (n % 3 == 0 and n <= 120))
    ]
    neighbors = searcher.search(query_of(searcher, items[6], 6), 12, filters)
    wanted = truth(vectors, 6, allowed)[:12]
    assert len(neighbors) == 12
    assert {int(result.item.id[1:]) for result in neighbors} <= set(allowed)
    assert len({result.item.id for result in neighbors} & set(wanted)) >= 10


@pytest.mark.usefixtures("small_limit")
def test_a_graph_grows_and_shrinks_with_its_index(make: Make, tmp_path: Path) -> None:
    items, vectors = plain(700), spread(700)
    make(items[:600], vectors[:600])
    path = tmp_path / "0.index"
    with closing(open_index(path)) as index, index.transaction():
        places = index.add(items[600:], vectors[600:])
        build._update_graph(index, places, vectors[600:])
    with closing(open_index(path)) as index:
        searcher = Searcher(index)
        neighbors = searcher.nearest(vectors[600:], 1).keys[:, 0]
        assert (neighbors == places).mean() > 0.95
    build.remove_items(path, [f"i{n}" for n in range(650, 700)])
    with closing(open_index(path)) as index:
        searcher = Searcher(index)
        assert searcher.is_approximate
        assert searcher.nearest(vectors[640:700], 10).keys.max() < 650
    build.remove_items(path, [f"i{n}" for n in range(450, 650)])
    with closing(open_index(path)) as index:
        assert not Searcher(index).is_approximate
        assert "recall" not in index.facts()


def unit(seed: int, count: int, dimensions: int = 24) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("queries", [1, 5, 300])
def test_the_nearest_equal_those_of_all_products(
    queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Blocks that end in the middle of queries and of vectors.
    monkeypatch.setattr(search, "QUERY_BLOCK", 64)
    monkeypatch.setattr(search, "VECTOR_BLOCK", 100)
    query_vectors, vectors = unit(1, queries), unit(2, 1037)
    neighbors = exact_neighbors(query_vectors, vectors, 7)
    products = query_vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    truth = np.argsort(-products, axis=1)[:, :7]
    assert (neighbors.keys == truth).all()
    np.testing.assert_allclose(
        neighbors.similarity, np.take_along_axis(products, truth, 1), rtol=0, atol=1e-5
    )


def test_of_equal_similarities_the_lower_index_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "VECTOR_BLOCK", 4)
    # Along an axis: its products have no rounding.
    one = np.eye(1, 24, dtype=np.float32)
    vectors = np.repeat(one, 13, axis=0)
    neighbors = exact_neighbors(np.repeat(one, 9, axis=0), vectors, 5)
    assert neighbors.keys.tolist() == 9 * [[0, 1, 2, 3, 4]]


def test_fewer_vectors_than_requested_are_all_returned() -> None:
    vectors = unit(4, 3)
    neighbors = exact_neighbors(vectors[:1], vectors, 10)
    assert neighbors.keys.shape == (1, 3)
    assert set(neighbors.keys[0].tolist()) == {0, 1, 2}
    assert exact_neighbors(vectors[:0], vectors, 2).keys.shape == (0, 2)
    assert exact_neighbors(vectors[:2], vectors[:0], 2).keys.shape == (2, 0)


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
    monkeypatch.setattr(search, "POOL_FACTOR", 100)
    monkeypatch.setattr(search, "BATCH_ROWS", 30)
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
