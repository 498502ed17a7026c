"""The nearest of many unit vectors, all of them compared: blocked matrix products in float32."""

from dataclasses import dataclass
from typing import Any

import numpy as np

# Queries and vectors multiplied at once: their products stay in the processor's cache.
QUERIES, VECTORS = 256, 4096
# Below any likeness: where there are fewer vectors than were asked for.
NONE = np.float32(-2)


@dataclass(frozen=True)
class Nearest:
    """Of m queries the k nearest, the most alike first: (m, k) `likeness` and `places`.

    Where there are fewer, places are -1 and likeness is NONE.
    """

    likeness: np.ndarray
    places: np.ndarray


def exact_neighbors(queries: np.ndarray, vectors: np.ndarray, k: int) -> Nearest:
    """The rows of VECTORS, (n, d) float32, most like each of QUERIES, (m, d) float32, by product.

    Exact. Of equal likeness the lower place comes first.
    """
    k = min(k, len(vectors))
    parts = [
        _nearest(np.ascontiguousarray(queries[start : start + QUERIES]), vectors, k)
        for start in range(0, len(queries), QUERIES)
    ]
    if not parts:
        return Nearest(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))
    likeness, places = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Nearest(likeness, places)


def _nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    best = np.full((len(queries), k), NONE)
    where = np.full((len(queries), k), -1, np.int64)
    if not k:
        return best, where
    # A few queries alone are bound by memory: as large blocks as can be.
    step = VECTORS if len(queries) > 8 else 1 << 16
    # The first block sets a bound that few of the later vectors pass.
    for start in range(0, len(vectors), step):
        found = queries @ vectors[start : start + step].T
        if start == 0:
            best, where = _first(found, k)
            continue
        rows, columns = np.divmod(np.flatnonzero(found > best[:, -1:]), found.shape[1])
        if len(rows):
            _merge(best, where, rows, columns + start, found[rows, columns])
    return best, where


def _first(found: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The K best of FOUND, (m, n), in order: likeness and places, (m, k)."""
    best = np.full((len(found), k), NONE)
    where = np.full((len(found), k), -1, np.int64)
    count = min(k, found.shape[1])
    if count < found.shape[1]:
        places = np.argpartition(-found, count - 1, axis=1)[:, :count]
    else:
        places = np.tile(np.arange(count), (len(found), 1))
    values = np.take_along_axis(found, places, 1)
    order = np.lexsort((places, -values))
    best[:, :count] = np.take_along_axis(values, order, 1)
    where[:, :count] = np.take_along_axis(places, order, 1)
    return best, where


def _merge(
    best: np.ndarray, where: np.ndarray, rows: np.ndarray, places: np.ndarray, values: np.ndarray
) -> None:
    """Let VALUES of PLACES, found for ROWS, take their places in BEST and WHERE, both in order."""
    touched, inverse, counts = np.unique(rows, return_inverse=True, return_counts=True)
    k, width = best.shape[1], best.shape[1] + int(counts.max())
    likeness = np.full((len(touched), width), NONE)
    seats = np.full((len(touched), width), -1, np.int64)
    likeness[:, :k], seats[:, :k] = best[touched], where[touched]
    # ROWS are in order: a hit's seat is its number among those of its row.
    nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    likeness[inverse, k + nth], seats[inverse, k + nth] = values, places
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    best[touched] = np.take_along_axis(likeness, order, 1)
    where[touched] = np.take_along_axis(seats, order, 1)


# Up to so many items all vectors are compared.
EXACT = 200_000
# Neighbours of a vector in the graph, and how many are looked at when one is added and searched.
NEIGHBOURS, ADDING, SEARCHING = 24, 96, 64
# So many more than are wanted are compared again: float16 may take them for the last ones.
SPARE = 6
# Vectors and results that recall is measured on.
SAMPLE, RESULTS = 500, 10


class Graph:
    """A graph of vectors, by place."""

    def __init__(self, dimensions: int) -> None:
        from usearch.index import Index

        self._index: Any = Index(
            ndim=dimensions,
            metric="ip",
            dtype="f16",
            connectivity=NEIGHBOURS,
            expansion_add=ADDING,
            expansion_search=SEARCHING,
        )

    @staticmethod
    def read(data: bytes, dimensions: int) -> "Graph":
        """What `write` gave.

        Raises:
            RuntimeError: DATA is something else.
        """
        graph = Graph(dimensions)
        graph._index.load(data)
        return graph

    def write(self) -> bytes:
        """All of it."""
        return bytes(self._index.save())

    def add(self, places: np.ndarray, vectors: np.ndarray) -> None:
        """Put in VECTORS, (n, d) float32, by PLACES, (n,)."""
        self._index.add(places, vectors)

    def remove(self, places: np.ndarray) -> None:
        """Take out the vectors of PLACES."""
        self._index.remove(places)

    def nearest(self, queries: np.ndarray, k: int) -> Nearest:
        """Nearly the K most like each of QUERIES, (m, d) float32; likeness is of float16."""
        found = self._index.search(queries, k)
        keys = np.asarray(found.keys).reshape(len(queries), -1).astype(np.int64)
        apart = np.asarray(found.distances, np.float32).reshape(len(queries), -1)
        # Of one query usearch gives as many as there are; of several it fills up.
        counts = np.atleast_1d(getattr(found, "counts", keys.shape[1]))
        missing = np.arange(keys.shape[1])[None] >= counts[:, None]
        likeness = np.where(missing, NONE, 1 - apart).astype(np.float32)
        return Nearest(likeness, np.where(missing, -1, keys))

    def among(
        self, queries: np.ndarray, k: int, places: np.ndarray, vectors: np.ndarray
    ) -> Nearest:
        """The same K with the likeness of VECTORS, (n, d) float32, of PLACES, (n,) in order.

        What has none of PLACES is left out.
        """
        near = self.nearest(queries, k + SPARE)
        rows = np.searchsorted(places, near.places).clip(0, len(places) - 1)
        alike = np.matmul(vectors[rows], queries[:, :, None])[:, :, 0]
        likeness = np.where(places[rows] == near.places, alike, NONE)
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        likeness = np.take_along_axis(likeness, order, 1)
        found = np.take_along_axis(near.places, order, 1)
        return Nearest(likeness, np.where(likeness == NONE, -1, found))


def recall(graph: Graph, places: np.ndarray, vectors: np.ndarray) -> float:
    """The share of the RESULTS nearest of a SAMPLE of VECTORS that GRAPH finds, in [0, 1].

    The vectors themselves, which all find, don't count. The sample is the same each time.
    """
    some = np.random.default_rng(0).permutation(len(vectors))[:SAMPLE]
    truth = places[exact_neighbors(vectors[some], vectors, RESULTS + 1).places]
    found = graph.among(vectors[some], RESULTS + 1, places, vectors).places
    own = places[some]
    right = sum(
        len(set(ours) & set(all_) - {me})
        for ours, all_, me in zip(found.tolist(), truth.tolist(), own.tolist(), strict=True)
    )
    return right / (len(some) * min(RESULTS, max(1, len(vectors) - 1)))
