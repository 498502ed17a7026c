"""Search an index: nearest vectors, filters, merging of duplicates, and recommendations.

The nearest of many unit vectors are found exhaustively, or with an HNSW graph. Recommendations for
each item are diversified with maximal marginal relevance: Carbonell and Goldstein, "The Use of MMR,
Diversity-Based Reranking for Reordering Documents and Producing Summaries", SIGIR 1998,
https://doi.org/10.1145/290941.291025.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from model.similar.index_file import (
    COPY_SIMILARITY,
    Filters,
    IndexFile,
    IndexItem,
    SearchResult,
    are_duplicates,
    damaged_index,
    duplicate_keys,
)

GRAPH = "graph"
# If a filter passes a smaller fraction of the items, they are compared exhaustively.
MIN_GRAPH_FRACTION = 0.2
# Neighbours that are requested at first, per result.
OVERSAMPLING = 4
# Queries and vectors that are multiplied at once, so that the products fit the processor's cache.
QUERY_BLOCK, VECTOR_BLOCK = 256, 4096
# Below any similarity: fills up the results if there are fewer vectors than requested.
NO_SIMILARITY = np.float32(-2)
# Weight of the similarity to the item; the rest is for the difference from chosen items.
MMR_LAMBDA = 0.7
# The k recommendations are chosen from POOL_FACTOR * k nearest items, for a batch of rows.
POOL_FACTOR, BATCH_ROWS = 4, 256


@dataclass(frozen=True)
class Nearest:
    """The k nearest vectors of m queries, the most similar first.

    Attributes:
        similarity: Float32 array of shape (m, k); NO_SIMILARITY where there are fewer vectors.
        keys: Keys or indices of the vectors, int64 array of shape (m, k); -1 where there are fewer.
    """

    similarity: np.ndarray
    keys: np.ndarray


def exact_neighbors(queries: np.ndarray, vectors: np.ndarray, k: int) -> Nearest:
    """Find the nearest vectors exhaustively, by blocked matrix products.

    Args:
        queries: Float32 array of shape (m, d).
        vectors: Float32 array of shape (n, d).
        k: Number of vectors for each query.

    Returns:
        Similarities and indices of vectors; of equal similarities, the lower index comes first.
    """
    k = min(k, len(vectors))
    blocks = [
        _search_block(np.ascontiguousarray(queries[start : start + QUERY_BLOCK]), vectors, k)
        for start in range(0, len(queries), QUERY_BLOCK)
    ]
    if not blocks:
        return Nearest(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))
    similarity, indices = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    return Nearest(similarity, indices)


def _search_block(
    queries: np.ndarray, vectors: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    best = np.full((len(queries), k), NO_SIMILARITY)
    best_indices = np.full((len(queries), k), -1, np.int64)
    if not k:
        return best, best_indices
    # A few queries are limited by memory bandwidth: use large blocks.
    step = VECTOR_BLOCK if len(queries) > 8 else 1 << 16
    # The first block sets a lower bound that few of the later vectors exceed.
    for start in range(0, len(vectors), step):
        products = queries @ vectors[start : start + step].T
        if start == 0:
            best, best_indices = _top_k(products, k)
            continue
        rows, columns = np.divmod(np.flatnonzero(products > best[:, -1:]), products.shape[1])
        if len(rows):
            _merge(best, best_indices, rows, columns + start, products[rows, columns])
    return best, best_indices


def _top_k(similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k highest of each row with their column indices, arrays of shape (m, k)."""
    best = np.full((len(similarity), k), NO_SIMILARITY)
    best_indices = np.full((len(similarity), k), -1, np.int64)
    count = min(k, similarity.shape[1])
    if count < similarity.shape[1]:
        indices = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
    else:
        indices = np.tile(np.arange(count), (len(similarity), 1))
    values = np.take_along_axis(similarity, indices, 1)
    order = np.lexsort((indices, -values))
    best[:, :count] = np.take_along_axis(values, order, 1)
    best_indices[:, :count] = np.take_along_axis(indices, order, 1)
    return best, best_indices


def _merge(
    best: np.ndarray,
    best_indices: np.ndarray,
    rows: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
) -> None:
    """Merge candidates into the sorted results, in place.

    Args:
        best: Similarities of shape (m, k).
        best_indices: Indices of shape (m, k).
        rows: Row of each candidate, in ascending order.
        indices: Index of each candidate.
        values: Similarity of each candidate.
    """
    changed, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
    k, width = best.shape[1], best.shape[1] + int(counts.max())
    similarity = np.full((len(changed), width), NO_SIMILARITY)
    merged_indices = np.full((len(changed), width), -1, np.int64)
    similarity[:, :k], merged_indices[:, :k] = best[changed], best_indices[changed]
    # The column of a candidate is its number among the candidates of its row.
    column = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    similarity[inverse, k + column], merged_indices[inverse, k + column] = values, indices
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    best[changed] = np.take_along_axis(similarity, order, 1)
    best_indices[changed] = np.take_along_axis(merged_indices, order, 1)


# Largest index that is searched exhaustively.
MAX_EXACT_ITEMS = 200_000
# Neighbours of a vector in the graph, and candidates when a vector is added and searched.
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 24, 96, 64
# Additional candidates whose similarity is computed in float32, because the graph has float16.
EXTRA_CANDIDATES = 6
# Number of queries and of neighbours with which the recall is measured.
RECALL_QUERIES, RECALL_K = 500, 10


class Graph:
    """An HNSW graph of vectors by key.

    Malkov and Yashunin, "Efficient and Robust Approximate Nearest Neighbor Search Using
    Hierarchical Navigable Small World Graphs", 2018, https://arxiv.org/abs/1603.09320.
    """

    def __init__(self, dimensions: int) -> None:
        from usearch.index import Index

        self._index: Any = Index(
            ndim=dimensions,
            metric="ip",
            dtype="f16",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )

    @staticmethod
    def from_bytes(data: bytes, dimensions: int) -> "Graph":
        """Restore a graph from the result of `to_bytes`.

        Raises:
            RuntimeError: The data is not a graph.
        """
        graph = Graph(dimensions)
        graph._index.load(data)
        return graph

    def to_bytes(self) -> bytes:
        """Serialize the graph."""
        return bytes(self._index.save())

    def add(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        """Add float32 vectors of shape (n, d) with their keys of shape (n,)."""
        self._index.add(keys, vectors)

    def remove(self, keys: np.ndarray) -> None:
        """Remove vectors by key."""
        self._index.remove(keys)

    def search(self, queries: np.ndarray, k: int) -> Nearest:
        """Find approximately the nearest vectors.

        Args:
            queries: Float32 array of shape (m, d).
            k: Number of vectors for each query.

        Returns:
            Similarities, in the precision of float16, and keys.
        """
        matches = self._index.search(queries, k)
        keys = np.asarray(matches.keys).reshape(len(queries), -1).astype(np.int64)
        distances = np.asarray(matches.distances, np.float32).reshape(len(queries), -1)
        # For one query usearch returns as many as there are, for several it fills up.
        counts = np.atleast_1d(getattr(matches, "counts", keys.shape[1]))
        is_missing = np.arange(keys.shape[1])[None] >= counts[:, None]
        similarity = np.where(is_missing, NO_SIMILARITY, 1 - distances).astype(np.float32)
        return Nearest(similarity, np.where(is_missing, -1, keys))

    def search_rescored(
        self, queries: np.ndarray, k: int, keys: np.ndarray, vectors: np.ndarray
    ) -> Nearest:
        """Find approximately the nearest vectors, with similarities in float32.

        Args:
            queries: Float32 array of shape (m, d).
            k: Number of vectors for each query.
            keys: Keys in ascending order, shape (n,); others are not returned.
            vectors: Their vectors, float32 array of shape (n, d).
        """
        candidates = self.search(queries, k + EXTRA_CANDIDATES)
        rows = np.searchsorted(keys, candidates.keys).clip(0, len(keys) - 1)
        products = np.matmul(vectors[rows], queries[:, :, None])[:, :, 0]
        similarity = np.where(keys[rows] == candidates.keys, products, NO_SIMILARITY)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        similarity = np.take_along_axis(similarity, order, 1)
        nearest_keys = np.take_along_axis(candidates.keys, order, 1)
        return Nearest(similarity, np.where(similarity == NO_SIMILARITY, -1, nearest_keys))


def measure_recall(graph: Graph, keys: np.ndarray, vectors: np.ndarray) -> float:
    """Return the fraction of the RECALL_K nearest vectors that a graph finds.

    The queries are a fixed random sample of the vectors; a query is not its own result.

    Args:
        graph: The graph.
        keys: Keys of the vectors, shape (n,).
        vectors: Float32 array of shape (n, d).
    """
    sample = np.random.default_rng(0).permutation(len(vectors))[:RECALL_QUERIES]
    exact = keys[exact_neighbors(vectors[sample], vectors, RECALL_K + 1).keys]
    nearest_keys = graph.search_rescored(vectors[sample], RECALL_K + 1, keys, vectors).keys
    own_keys = keys[sample]
    hits = sum(
        len(set(approximate) & set(nearest) - {own})
        for approximate, nearest, own in zip(
            nearest_keys.tolist(), exact.tolist(), own_keys.tolist(), strict=True
        )
    )
    return hits / (len(sample) * min(RECALL_K, max(1, len(vectors) - 1)))


@dataclass(frozen=True)
class Query:
    """A query.

    Attributes:
        vector: Its embedding, float32 array of shape (d,).
        item: The item of the index, or what is known of a photo.
        key: Key of the item in the index; None for other photos.
        is_label_predicted: Whether the item's label is predicted by the model.
        copies: Items that are known to show the photo of the query.
    """

    vector: np.ndarray
    item: IndexItem
    key: int | None = None
    is_label_predicted: bool = False
    copies: tuple[IndexItem, ...] = ()


class Searcher:
    """An index in memory.

    Attributes:
        keys: Keys of the items in ascending order, int64 array of shape (n,).
        vectors: Float32 array of shape (n, d).
    """

    def __init__(self, index: IndexFile) -> None:
        self._index = index
        with index.snapshot():
            self.keys, self.vectors = index.vectors()
            data = index.read_bytes(GRAPH) if len(self.keys) > MAX_EXACT_ITEMS else b""
        self._graph: Graph | None = None
        if data:
            try:
                self._graph = Graph.from_bytes(data, self.vectors.shape[1])
            # The only class of errors of usearch.
            except RuntimeError as error:
                raise damaged_index(index.path, f"its graph is broken ({error})") from error

    @property
    def is_approximate(self) -> bool:
        """Whether searches use the graph."""
        return self._graph is not None

    def keep(self, keys: np.ndarray) -> None:
        """Drop all items but some, in memory: others may have been removed from the file."""
        is_kept = np.isin(self.keys, keys)
        self.keys, self.vectors = self.keys[is_kept], self.vectors[is_kept]

    def row_of(self, key: int) -> int:
        """Return the row of a key."""
        return int(np.flatnonzero(self.keys == key)[0])

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the rows of keys, an array of the same shape; -1 for unknown keys."""
        # Keys are in ascending order: items are appended, and blocks are read in order.
        rows = np.searchsorted(self.keys, keys).clip(0, len(self.keys) - 1)
        return np.where(self.keys[rows] == keys, rows, -1)

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Nearest:
        """Find the nearest items, exactly if there is no graph or only a few are allowed.

        Args:
            queries: Float32 array of shape (m, d).
            k: Number of items for each query.
            allowed: Keys of the items that may be returned; None: all.
        """
        k = min(k, len(self.keys) if allowed is None else len(allowed))
        if self._graph is not None and (
            allowed is None or len(allowed) > MIN_GRAPH_FRACTION * len(self.keys)
        ):
            return self._search_graph(self._graph, queries, k, allowed)
        if allowed is None:
            keys, vectors = self.keys, self.vectors
        else:
            rows = np.flatnonzero(np.isin(self.keys, allowed))
            keys, vectors = self.keys[rows], self.vectors[rows]
        nearest = exact_neighbors(queries, vectors, k)
        return Nearest(nearest.similarity, np.where(nearest.keys < 0, -1, keys[nearest.keys]))

    def _search_graph(
        self, graph: Graph, queries: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> Nearest:
        if allowed is None:
            return graph.search_rescored(queries, k, self.keys, self.vectors)
        fraction = len(allowed) / len(self.keys)
        count = min(len(self.keys), int(2 * k / fraction) + 8)
        nearest = graph.search_rescored(queries, count, self.keys, self.vectors)
        is_allowed = np.isin(nearest.keys, allowed)
        # Allowed items first, in their order.
        order = np.argsort(~is_allowed, axis=1, kind="stable")[:, :k]
        if is_allowed.sum(axis=1).min() < k:
            rows = np.flatnonzero(np.isin(self.keys, allowed))
            exact = exact_neighbors(queries, self.vectors[rows], k)
            return Nearest(exact.similarity, self.keys[rows][exact.keys])
        return Nearest(
            np.take_along_axis(nearest.similarity, order, 1),
            np.take_along_axis(nearest.keys, order, 1),
        )

    def search(
        self, query: Query, top: int, filters: Filters, exclude_duplicates: bool = False
    ) -> list[SearchResult]:
        """Find the most similar items; duplicates are merged into the most similar of them.

        Args:
            query: The query, which is not a result itself.
            top: Number of results.
            filters: Conditions on the results.
            exclude_duplicates: Exclude duplicates of the query.
        """
        allowed = self._index.filter_keys(filters) if filters else None
        total = len(self.keys) if allowed is None else len(allowed)
        count = min(total, OVERSAMPLING * top + 8)
        while True:
            nearest = self.nearest(query.vector[None], count, allowed)
            results = self._merge_duplicates(query, nearest, exclude_duplicates)
            if len(results) >= top or count >= total:
                return results[:top]
            count = min(total, 4 * count)

    def _merge_duplicates(
        self, query: Query, nearest: Nearest, exclude_duplicates: bool
    ) -> list[SearchResult]:
        is_found = nearest.keys[0] >= 0
        keys, similarities = nearest.keys[0][is_found], nearest.similarity[0][is_found]
        rows, items = self.rows_of(keys), self._index.items(keys.tolist())
        results = _ResultList(len(keys), self.vectors.shape[1])
        for key, row, similarity in zip(keys.tolist(), rows, similarities.tolist(), strict=True):
            # The item may have been removed meanwhile.
            if key not in items or key == query.key:
                continue
            item = items[key]
            if exclude_duplicates and (
                similarity >= COPY_SIMILARITY
                or any(are_duplicates(item, copy) for copy in (query.item, *query.copies))
            ):
                continue
            results.add(item, similarity, self.vectors[row])
        return results.results


class _ResultList:
    """Results, the most similar first, with merged duplicates.

    Args:
        max_results: Number of results, at most.
        dimensions: Dimensions of the vectors.
    """

    def __init__(self, max_results: int, dimensions: int) -> None:
        self.results: list[SearchResult] = []
        self._vectors = np.empty((max_results, dimensions), np.float32)
        self._positions: dict[tuple[str, str], int] = {}

    def add(self, item: IndexItem, similarity: float, vector: np.ndarray) -> None:
        """Add an item as a result, or to the first result that it is a duplicate of."""
        position, count = self._find_duplicate(item, vector), len(self.results)
        if position is None:
            self._vectors[count] = vector
            self._positions.update(dict.fromkeys(duplicate_keys(item), count))
            self.results.append(SearchResult(item, similarity))
        else:
            result = self.results[position]
            duplicates = (*result.duplicates, item.id)
            self.results[position] = replace(result, duplicates=duplicates)

    def _find_duplicate(self, item: IndexItem, vector: np.ndarray) -> int | None:
        positions = [self._positions[k] for k in duplicate_keys(item) if k in self._positions]
        similarities = self._vectors[: len(self.results)] @ vector
        copies = np.flatnonzero(similarities >= COPY_SIMILARITY)
        return min([*positions, *copies.tolist()[:1]], default=None)


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
