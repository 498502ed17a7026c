"""Search an index: nearest vectors, filters, and merging of duplicates."""

from dataclasses import dataclass, replace

import numpy as np

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
from model.similar.nearest import MAX_EXACT_ITEMS, Graph, Nearest, exact_neighbors

GRAPH = "graph"
# If a filter passes a smaller fraction of the items, they are compared exhaustively.
MIN_GRAPH_FRACTION = 0.2
# Neighbours that are requested at first, per result.
OVERSAMPLING = 4


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
