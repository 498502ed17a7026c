"""The best items for each item of an index: alike, and unlike one another.

Of the items nearest to one, those are taken in turn that are most like it and least like what was
taken already: maximal marginal relevance, Carbonell and Goldstein, SIGIR 1998.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from model.similar.items import COPY, Item
from model.similar.nearest import Nearest
from model.similar.search import Searcher

# What likeness counts against being unlike the others.
RELEVANCE = 0.7
# Of how many of the nearest K are chosen, in parts of K, and how many items at once.
POOL, AT_ONCE = 4, 256


@dataclass(frozen=True)
class Recommended:
    """The rows of items and, the best first, those of what is recommended for each, -1: no more.

    `rows`: (n,); `chosen`: (n, k); `likeness`: (n, k) float32.
    """

    rows: np.ndarray
    chosen: np.ndarray
    likeness: np.ndarray


@dataclass(frozen=True)
class Ties:
    """Which rows are one: equal numbers of products, and of copies, (n,) int each."""

    products: np.ndarray
    copies: np.ndarray


def ties_of(items: Sequence[Item]) -> Ties:
    """The ties of ITEMS; what is not known ties nothing."""
    return Ties(
        _numbers([item.product or f"\0{item.id}" for item in items]),
        _numbers([item.cluster or f"\0{item.sha256}" for item in items]),
    )


def _numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def recommend(searcher: Searcher, ties: Ties, k: int) -> Iterator[Recommended]:
    """K recommendations, fewer where there are no more, for every row of SEARCHER, in order."""
    count = len(searcher.places)
    with tqdm(total=count, desc="recommendations", unit=" items", disable=None) as bar:
        for start in range(0, count, AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, count))
            yield _for_rows(searcher, ties, rows, k)
            bar.update(len(rows))


def _for_rows(searcher: Searcher, ties: Ties, rows: np.ndarray, k: int) -> Recommended:
    """Recommendations for ROWS; where a pool is too small a larger one is asked for."""
    chosen = np.full((len(rows), k), -1, np.int64)
    likeness = np.zeros((len(rows), k), np.float32)
    todo, pool = np.arange(len(rows)), POOL * k + 8
    while len(todo):
        pool = min(pool, len(searcher.places))
        near = searcher.nearest(searcher.vectors[rows[todo]], pool)
        near = Nearest(near.likeness, searcher.rows_of(near.places))
        chosen[todo], likeness[todo] = diversified(searcher.vectors, ties, rows[todo], near, k)
        if pool == len(searcher.places):
            break
        todo, pool = todo[chosen[todo, -1] < 0], 4 * pool
    return Recommended(rows, chosen, likeness)


def diversified(
    vectors: np.ndarray, ties: Ties, rows: np.ndarray, near: Nearest, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each of ROWS' NEAR, (m, pool) by row, K that are alike and differ: rows and likeness.

    Copies of a row, its product's photos, and those of what was chosen are not chosen.
    """
    pool, likeness = near.places, near.likeness
    among = vectors[pool]
    free = (pool >= 0) & (pool != rows[:, None]) & (likeness < COPY)
    free &= ~_tied(ties, pool, rows)
    closest = np.full(pool.shape, -1, np.float32)
    chosen = np.full((len(rows), k), -1, np.int64)
    found = np.zeros((len(rows), k), np.float32)
    everyone = np.arange(len(rows))
    for turn in range(min(k, pool.shape[1])):
        # The first is simply the most alike.
        worth = likeness if turn == 0 else RELEVANCE * likeness - (1 - RELEVANCE) * closest
        best = np.where(free, worth, -np.inf).argmax(axis=1)
        there = free[everyone, best]
        picked = pool[everyone, best]
        chosen[there, turn], found[there, turn] = picked[there], likeness[everyone, best][there]
        near_picked = np.matmul(among, vectors[picked][:, :, None])[:, :, 0]
        closest = np.maximum(closest, near_picked)
        free &= (near_picked < COPY) & ~_tied(ties, pool, picked)
        free[~there] = False
    return chosen, found


def _tied(ties: Ties, pool: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Whether each of POOL, (m, p) rows, is a copy or of the product of its one of ROWS, (m,)."""
    return (ties.products[pool] == ties.products[rows][:, None]) | (
        ties.copies[pool] == ties.copies[rows][:, None]
    )
