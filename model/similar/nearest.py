"""Find the nearest of many unit vectors: exhaustively, or with an HNSW graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Queries and vectors that are multiplied at once, so that the products fit the processor's cache.
QUERY_BLOCK, VECTOR_BLOCK = 256, 4096
# Below any similarity: fills up the results if there are fewer vectors than requested.
NO_SIMILARITY = np.float32(-2)


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
