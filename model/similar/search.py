"""A search on one page: vectors of an index -> the nearest items, filtered, what is one folded."""

from dataclasses import dataclass, replace

import numpy as np

from model.similar.index_file import IndexFile, damaged
from model.similar.items import COPY, Filters, Found, Item, is_one, ties
from model.similar.nearest import EXACT, Graph, Nearest, exact_neighbors

GRAPH = "graph"
# Of the items that a filter lets through fewer than this share are compared one and all.
NARROW = 0.2
# Neighbours asked for at first, for each result that is wanted.
FIRST = 4


@dataclass(frozen=True)
class Asked:
    """A query: its vector, (d,) float32; the item it is, or what is known of a photo.

    `place`: of the item in the index, None for a photo that is not there. `guessed`: the item's
    label is the model's.
    """

    vector: np.ndarray
    item: Item
    place: int | None = None
    guessed: bool = False


class Searcher:
    """An index held in memory: `places`, (n,) int64, and `vectors`, (n, d) float32, by row."""

    def __init__(self, index: IndexFile) -> None:
        self._index = index
        with index.as_it_is():
            self.places, self.vectors = index.vectors()
            data = index.bytes_of(GRAPH) if len(self.places) > EXACT else b""
        self._graph: Graph | None = None
        if data:
            try:
                self._graph = Graph.read(data, self.vectors.shape[1])
            # usearch's only kind of error.
            except RuntimeError as error:
                raise damaged(index.path, f"its graph is broken ({error})") from error

    @property
    def approximate(self) -> bool:
        """Whether it searches by the graph."""
        return self._graph is not None

    def keep(self, places: np.ndarray) -> None:
        """Forget all items but those of PLACES: others may be removed while it is at work."""
        kept = np.isin(self.places, places)
        self.places, self.vectors = self.places[kept], self.vectors[kept]

    def row_of(self, place: int) -> int:
        """Where PLACE's vector is."""
        return int(np.flatnonzero(self.places == place)[0])

    def rows_of(self, places: np.ndarray) -> np.ndarray:
        """Where the vectors of PLACES, of any shape, are; -1 where there is none."""
        # Places are in order: items are added at the end, and blocks are read in theirs.
        rows = np.searchsorted(self.places, places).clip(0, len(self.places) - 1)
        return np.where(self.places[rows] == places, rows, -1)

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Nearest:
        """The K nearest of each of QUERIES, (m, d), among the places ALLOWED, by place.

        Exact where there is no graph, or where few are allowed.
        """
        k = min(k, len(self.places) if allowed is None else len(allowed))
        if self._graph is not None and (
            allowed is None or len(allowed) > NARROW * len(self.places)
        ):
            return self._walked(self._graph, queries, k, allowed)
        if allowed is None:
            places, vectors = self.places, self.vectors
        else:
            rows = np.flatnonzero(np.isin(self.places, allowed))
            places, vectors = self.places[rows], self.vectors[rows]
        found = exact_neighbors(queries, vectors, k)
        return Nearest(found.likeness, np.where(found.places < 0, -1, places[found.places]))

    def _walked(
        self, graph: Graph, queries: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> Nearest:
        if allowed is None:
            return graph.among(queries, k, self.places, self.vectors)
        share = len(allowed) / len(self.places)
        wanted = min(len(self.places), int(2 * k / share) + 8)
        found = graph.among(queries, wanted, self.places, self.vectors)
        good = np.isin(found.places, allowed)
        # What is let through first, in its order.
        order = np.argsort(~good, axis=1, kind="stable")[:, :k]
        if good.sum(axis=1).min() < k:
            rows = np.flatnonzero(np.isin(self.places, allowed))
            all_ = exact_neighbors(queries, self.vectors[rows], k)
            return Nearest(all_.likeness, self.places[rows][all_.places])
        return Nearest(
            np.take_along_axis(found.likeness, order, 1),
            np.take_along_axis(found.places, order, 1),
        )

    def search(
        self, asked: Asked, top: int, filters: Filters, without_copies: bool = False
    ) -> list[Found]:
        """The TOP items most like ASKED that FILTERS let through, never ASKED's own.

        Copies of one photo and photos of one product are one result, the most alike of them; with
        WITHOUT_COPIES those of ASKED's own are left out.
        """
        allowed = self._index.places_of(filters) if filters else None
        most = len(self.places) if allowed is None else len(allowed)
        wanted = min(most, FIRST * top + 8)
        while True:
            near = self.nearest(asked.vector[None], wanted, allowed)
            found = self._folded(asked, near, without_copies)
            if len(found) >= top or wanted >= most:
                return found[:top]
            wanted = min(most, 4 * wanted)

    def _folded(self, asked: Asked, near: Nearest, without_copies: bool) -> list[Found]:
        there = near.places[0] >= 0
        places, alike = near.places[0][there], near.likeness[0][there]
        rows, items = self.rows_of(places), self._index.items(places.tolist())
        kept = _Kept(len(places), self.vectors.shape[1])
        for place, row, likeness in zip(places.tolist(), rows, alike.tolist(), strict=True):
            # It may have been removed meanwhile.
            if place not in items:
                continue
            item = items[place]
            if place == asked.place or (
                without_copies and (is_one(item, asked.item) or likeness >= COPY)
            ):
                continue
            kept.put(item, likeness, self.vectors[row])
        return kept.found


class _Kept:
    """Results, the most alike first: MOST at most, with vectors of WIDTH; what is one is folded."""

    def __init__(self, most: int, width: int) -> None:
        self.found: list[Found] = []
        self._vectors = np.empty((most, width), np.float32)
        self._seats: dict[tuple[str, str], int] = {}

    def put(self, item: Item, likeness: float, vector: np.ndarray) -> None:
        """Let ITEM be a result, or folded into the first that it is one with."""
        seat, count = self._seat(item, vector), len(self.found)
        if seat is None:
            self._vectors[count] = vector
            self._seats.update(dict.fromkeys(ties(item), count))
            self.found.append(Found(item, likeness))
        else:
            before = self.found[seat]
            self.found[seat] = replace(before, folded=(*before.folded, item.id))

    def _seat(self, item: Item, vector: np.ndarray) -> int | None:
        seats = [self._seats[tie] for tie in ties(item) if tie in self._seats]
        copies = np.flatnonzero(self._vectors[: len(self.found)] @ vector >= COPY)
        return min([*seats, *copies.tolist()[:1]], default=None)
