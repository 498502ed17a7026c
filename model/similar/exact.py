"""The nearest of many unit vectors, all of them compared: blocked matrix products in float32."""

from dataclasses import dataclass

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


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> Nearest:
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
