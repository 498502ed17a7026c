"""Searches: filters, merged duplicates, and the graph of large indexes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.similar import build, nearest, search
from model.similar.index_file import (
    Filters,
    IndexFile,
    IndexItem,
    create_index,
    lock_index,
    open_index,
)
from model.similar.search import Query, Searcher

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
    found = searcher.search(query_of(searcher, items[7], 7), 12, filters)
    allowed = [n for n in range(100, 501) if n % 2 == 0 and n % 3 in (0, 1)]
    assert [result.item.id for result in found] == truth(vectors, 7, allowed)[:12]
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
    found = searcher.search(query_of(searcher, items[0], 0), 20, Filters())
    duplicates = {result.item.id: result.duplicates for result in found if result.duplicates}
    assert duplicates["i2"] == ("i5",)
    assert duplicates["i3"] == ("i8",)
    assert duplicates["i4"] == ("i40",)
    assert len(duplicates) == 3
    assert len(found) == 20
    assert "i0" not in [result.item.id for result in found]


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
    found = searcher.search(Query(vectors[3], IndexItem("new", "f", "")), 5, Filters())
    assert found[0].item.id == "i3"
    assert found[0].similarity == pytest.approx(1, abs=2e-3)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the graph for more than 500 items."""
    for module in (nearest, search, build):
        monkeypatch.setattr(module, "MAX_EXACT_ITEMS", 500)


@pytest.mark.usefixtures("small_limit")
def test_large_indexes_are_searched_by_a_graph(make: Make) -> None:
    items, vectors = plain(3000), spread(3000)
    index = make(items, vectors)
    searcher = Searcher(index)
    assert searcher.is_approximate
    said = index.facts()["recall"]
    assert 0.9 < said <= 1
    near = searcher.nearest(searcher.vectors[:200], 11)
    right = sum(
        len(set(truth(vectors, n, range(3000))[:10]) & {f"i{p}" for p in near.keys[n]})
        for n in range(200)
    )
    assert right / 2000 == pytest.approx(said, abs=0.05)


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("filters", [Filters(("a",)), Filters(("a",), ("x",), 0, 120)])
def test_a_graph_respects_filters(make: Make, filters: Filters) -> None:
    items, vectors = plain(3000), spread(3000)
    searcher = Searcher(make(items, vectors))
    allowed = [
        n for n in range(3000) if n % 2 == 0 and (not filters.labels or (n % 3 == 0 and n <= 120))
    ]
    found = searcher.search(query_of(searcher, items[6], 6), 12, filters)
    wanted = truth(vectors, 6, allowed)[:12]
    assert len(found) == 12
    assert {int(result.item.id[1:]) for result in found} <= set(allowed)
    assert len({result.item.id for result in found} & set(wanted)) >= 10


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
        found = searcher.nearest(vectors[600:], 1).keys[:, 0]
        assert (found == places).mean() > 0.95
    build.remove_items(path, [f"i{n}" for n in range(650, 700)])
    with closing(open_index(path)) as index:
        searcher = Searcher(index)
        assert searcher.is_approximate
        assert searcher.nearest(vectors[640:700], 10).keys.max() < 650
    build.remove_items(path, [f"i{n}" for n in range(450, 650)])
    with closing(open_index(path)) as index:
        assert not Searcher(index).is_approximate
        assert "recall" not in index.facts()
