"""Recommend items for each item of an index, diversified with maximal marginal relevance.

Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and
Producing Summaries", SIGIR 1998, https://doi.org/10.1145/290941.291025.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from model.similar.index_file import COPY_SIMILARITY, IndexItem
from model.similar.nearest import Nearest
from model.similar.search import Searcher

# Weight of the similarity to the item; the rest is for the difference from chosen items.
MMR_LAMBDA = 0.7
# The k recommendations are chosen from POOL_FACTOR * k nearest items, for a batch of rows.
POOL_FACTOR, BATCH_ROWS = 4, 256


@dataclass(frozen=True)
class Recommendations:
    """Recommendations for n items.

    Attributes:
        rows: Rows of the items, shape (n,).
        chosen: Rows of the recommended items, the best first, shape (n, k); -1: none.
        similarity: Their similarities, float32 array of shape (n, k).
    """

    rows: np.ndarray
    chosen: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class DuplicateGroups:
    """Groups of duplicates, int arrays of shape (n,): rows with equal numbers are duplicates."""

    products: np.ndarray
    copies: np.ndarray


def duplicate_groups(items: Sequence[IndexItem]) -> DuplicateGroups:
    """Group items by product and by copies of one photo."""
    return DuplicateGroups(
        _group_numbers([item.product or f"\0{item.id}" for item in items]),
        _group_numbers([item.cluster or f"\0{item.sha256}" for item in items]),
    )


def _group_numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def recommend(searcher: Searcher, groups: DuplicateGroups, k: int) -> Iterator[Recommendations]:
    """Yield k recommendations, or fewer, for every row of an index, in order.

    Args:
        searcher: The index.
        groups: Duplicates among its rows.
        k: Number of recommendations.
    """
    count = len(searcher.keys)
    with tqdm(total=count, desc="recommendations", unit=" items", disable=None) as bar:
        for start in range(0, count, BATCH_ROWS):
            rows = np.arange(start, min(start + BATCH_ROWS, count))
            yield _recommend_rows(searcher, groups, rows, k)
            bar.update(len(rows))


def _recommend_rows(
    searcher: Searcher, groups: DuplicateGroups, rows: np.ndarray, k: int
) -> Recommendations:
    """Recommend items for some rows; if the pool is too small, it is enlarged."""
    chosen = np.full((len(rows), k), -1, np.int64)
    similarity = np.zeros((len(rows), k), np.float32)
    todo, pool_size = np.arange(len(rows)), POOL_FACTOR * k + 8
    while len(todo):
        pool_size = min(pool_size, len(searcher.keys))
        nearest = searcher.nearest(searcher.vectors[rows[todo]], pool_size)
        pool = Nearest(nearest.similarity, searcher.rows_of(nearest.keys))
        chosen[todo], similarity[todo] = diversify(searcher.vectors, groups, rows[todo], pool, k)
        if pool_size == len(searcher.keys):
            break
        todo, pool_size = todo[chosen[todo, -1] < 0], 4 * pool_size
    return Recommendations(rows, chosen, similarity)


def diversify(
    vectors: np.ndarray, groups: DuplicateGroups, rows: np.ndarray, pool: Nearest, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose similar and different items by maximal marginal relevance.

    Duplicates of the row and of chosen items are not chosen.

    Args:
        vectors: All vectors of shape (n, d).
        groups: Duplicates among the rows.
        rows: Rows to recommend for, shape (m,).
        pool: Their nearest items by row, shape (m, pool).
        k: Number of items to choose.

    Returns:
        Rows and similarities of the chosen items, arrays of shape (m, k); row -1: none.
    """
    candidates, similarity = pool.keys, pool.similarity
    candidate_vectors = vectors[candidates]
    is_free = (candidates >= 0) & (candidates != rows[:, None]) & (similarity < COPY_SIMILARITY)
    is_free &= ~_are_duplicates(groups, candidates, rows)
    closest = np.full(candidates.shape, -1, np.float32)
    chosen = np.full((len(rows), k), -1, np.int64)
    chosen_similarity = np.zeros((len(rows), k), np.float32)
    all_rows = np.arange(len(rows))
    for turn in range(min(k, candidates.shape[1])):
        # The first choice is the most similar item.
        relevance = similarity
        if turn:
            relevance = MMR_LAMBDA * similarity - (1 - MMR_LAMBDA) * closest
        best = np.where(is_free, relevance, -np.inf).argmax(axis=1)
        is_found = is_free[all_rows, best]
        picked = candidates[all_rows, best]
        chosen[is_found, turn] = picked[is_found]
        chosen_similarity[is_found, turn] = similarity[all_rows, best][is_found]
        to_picked = np.matmul(candidate_vectors, vectors[picked][:, :, None])[:, :, 0]
        closest = np.maximum(closest, to_picked)
        is_free &= (to_picked < COPY_SIMILARITY) & ~_are_duplicates(groups, candidates, picked)
        is_free[~is_found] = False
    return chosen, chosen_similarity


def _are_duplicates(groups: DuplicateGroups, pool: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return whether each of a row's candidates, shape (m, p), is a duplicate of the row, (m,)."""
    return (groups.products[pool] == groups.products[rows][:, None]) | (
        groups.copies[pool] == groups.copies[rows][:, None]
    )
