"""The nearest of very many unit vectors, nearly all of them: a graph of neighbours (HNSW).

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs", 2016; usearch builds it and walks on it.
"""

from typing import Any

import numpy as np

from model.similar.exact import NONE, Nearest, nearest

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
    truth = places[nearest(vectors[some], vectors, RESULTS + 1).places]
    found = graph.among(vectors[some], RESULTS + 1, places, vectors).places
    own = places[some]
    right = sum(
        len(set(ours) & set(all_) - {me})
        for ours, all_, me in zip(found.tolist(), truth.tolist(), own.tolist(), strict=True)
    )
    return right / (len(some) * min(RESULTS, max(1, len(vectors) - 1)))
