"""Near hashes among many: one against all, or all pairs; exact, in numpy, on all cores.

All pairs: 64 bits are cut into NEAR + 2 pieces; two hashes that differ in at most NEAR bits are
equal in two pieces at least (pigeonhole; Norouzi et al. 2012, multi-index hashing). So hashes are
sorted by each two pieces, and only those of equal ones are compared.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise

import numpy as np

# Hamming distance in bits up to which a view makes a photo worth a closer look.
NEAR = 10
BITS = 64
# Values compared at once, so that they stay in the cache.
BLOCK = 1 << 16
# How a hash is cut to be found among many, and how many may come before they are sorted again.
WORD, WORDS, UNSORTED = 16, 4, 16_384
# Equal hashes that are compared each with each: of more, each with so many that follow.
EQUAL = 8


@dataclass(frozen=True)
class Pairs:
    """Places `one` < `other` of two hashes, and the bits that differ: (n,) int64, int64, uint8."""

    one: np.ndarray
    other: np.ndarray
    bits: np.ndarray


@dataclass(frozen=True)
class _Piece:
    """Hashes sorted by one piece: their places, themselves, and where each of its values begins."""

    order: np.ndarray
    hashes: np.ndarray
    edges: np.ndarray


class HashIndex:
    """Hashes in the order they came, with room for more; which of them are near another one.

    Those that were there when it was last sorted are found by their pieces of 16 bits. Of two
    hashes that differ in at most 10 bits, one of the first three pieces differs in at most 2 or the
    fourth in at most 1 (pigeonhole): of a million, 6,500 are compared. What came since is scanned.
    """

    def __init__(self, hashes: np.ndarray | None = None) -> None:
        self._count = 0 if hashes is None else len(hashes)
        self._hashes = np.zeros(max(1024, 2 * self._count), np.uint64)
        if hashes is not None:
            self._hashes[: self._count] = hashes
        self._sorted = 0
        self._pieces: list[_Piece] = []
        if self._count > UNSORTED:
            self._sort()

    def __len__(self) -> int:
        return self._count

    def add(self, value: int) -> None:
        """Put the hash VALUE in; its place is the count before."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._count] = value
        self._count += 1

    @property
    def hashes(self) -> np.ndarray:
        """All of them, (n,) uint64."""
        return self._hashes[: self._count]

    def near(self, value: np.uint64, within: int = NEAR) -> tuple[np.ndarray, np.ndarray]:
        """As `scan` of all of them: places in ascending order, and the bits that differ."""
        _, places, bits = self.near_each(np.array([value], np.uint64), within)
        return places, bits

    def near_each(
        self, values: np.ndarray, within: int = NEAR
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same of each of VALUES, (n,) uint64: which of them, its places in order, bits."""
        if self._count - self._sorted > max(UNSORTED, self._sorted // 8):
            self._sort()
        found = [self._among_sorted(values, within)]
        later = self.hashes[self._sorted :]
        for number, value in enumerate(values):
            places, bits = scan(later, value, within)
            found.append((np.full(len(places), number), places + self._sorted, bits))
        which, places, bits = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(which, kind="stable")
        return which[order], places[order], bits[order]

    def _sort(self) -> None:
        self._sorted, self._pieces = self._count, []
        for piece in _words(self.hashes).T.copy():
            # Numbers of 16 bits are sorted in an eighth of the time of longer ones.
            order = np.argsort(piece, kind="stable").astype(np.int32)
            counts = np.bincount(piece, minlength=1 << WORD)
            edges = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            # The hashes themselves lie in this order, too: to gather them would take most time.
            self._pieces.append(_Piece(order, self._hashes[order], edges))

    def _among_sorted(
        self, values: np.ndarray, within: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `near_each`, of the sorted ones."""
        found = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8))]
        words, ranges = _words(values).T.astype(np.int64), []
        for number, piece in enumerate(self._pieces):
            # The pieces that come first may have what the division leaves over.
            flips = _flips(within // WORDS - (number > within % WORDS))
            keys = words[number][:, None] ^ flips
            ranges.append((piece.edges[keys], piece.edges[keys + 1]))
        compared = np.zeros(len(values), np.int64)
        for start, stop in ranges:
            compared += (stop - start).sum(1)
        # To look at all of them is as quick.
        for many in np.flatnonzero(compared > self._sorted // 8):
            places, bits = scan(self.hashes[: self._sorted], values[many], within)
            found.append((np.full(len(places), many), places, bits))
        few = np.flatnonzero(compared <= self._sorted // 8)
        for piece, (start, stop) in zip(self._pieces, ranges, strict=True):
            lines = _each_of(start[few].reshape(-1), stop[few].reshape(-1))
            sizes = (stop[few] - start[few]).sum(1)
            apart = np.bitwise_count(piece.hashes[lines] ^ np.repeat(values[few], sizes))
            near = np.flatnonzero(apart <= within)
            owners = few[np.searchsorted(np.cumsum(sizes), near, side="right")]
            found.append((owners, piece.order[lines[near]].astype(np.int64), apart[near]))
        which, places, bits = (np.concatenate(part) for part in zip(*found, strict=True))
        # One may be near by several pieces.
        _, first = np.unique(which * max(1, self._sorted) + places, return_index=True)
        return which[first], places[first], bits[first]


def _words(hashes: np.ndarray) -> np.ndarray:
    """HASHES, (n,) uint64, as pieces of 16 bits, (n, 4) uint16."""
    return hashes.astype("<u8", copy=False).view("<u2").reshape(-1, WORDS)


@lru_cache
def _flips(radius: int) -> np.ndarray:
    """All pieces with at most RADIUS bits set, (n,) int64."""
    pieces = np.arange(1 << WORD)
    return pieces[np.bitwise_count(pieces) <= radius]


def _each_of(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """All numbers of the ranges from STARTS to before STOPS."""
    sizes = stops - starts
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())


def scan(hashes: np.ndarray, value: np.uint64, within: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in HASHES, (n,) uint64, at most WITHIN bits from VALUE, and the bits that differ."""
    places, bits = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
    for start in range(0, len(hashes), BLOCK):
        apart = np.bitwise_count(hashes[start : start + BLOCK] ^ value)
        found = np.flatnonzero(apart <= within)
        if len(found):
            places.append(found + start)
            bits.append(apart[found])
    return np.concatenate(places), np.concatenate(bits)


def pairs_within(hashes: np.ndarray, within: int = NEAR) -> Iterator[Pairs]:
    """All pairs of HASHES, (n,) uint64, at most WITHIN bits apart, each pair once.

    Of more than EQUAL equal hashes only neighbours are paired, and one stands for all elsewhere.
    """
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    yield from _equal(inverse)
    pieces = _pieces(within + 2)
    wanted = list(combinations(range(len(pieces)), 2))

    def compare(pair: tuple[int, int]) -> Pairs:
        return _in_order(_equal_in(values, pieces, pair, within), first)

    yield from in_threads(compare, wanted)


def in_threads(work: Callable, jobs: Iterable) -> Iterator:
    """WORK of each of JOBS in their order, on all cores; a few jobs a core are ahead."""
    ahead = 4 * (os.cpu_count() or 1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[Future] = deque()
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _pieces(count: int) -> list[np.uint64]:
    """Masks of COUNT runs of bits, as even as can be."""
    edges = [BITS * number // count for number in range(count + 1)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]


def _equal(inverse: np.ndarray) -> Iterator[Pairs]:
    order = np.argsort(inverse, kind="stable")
    for step in range(1, EQUAL + 1):
        same = np.flatnonzero(inverse[order[step:]] == inverse[order[:-step]])
        if not len(same):
            return
        yield Pairs(order[same], order[same + step], np.zeros(len(same), np.uint8))


def _equal_in(
    values: np.ndarray, pieces: list[np.uint64], pair: tuple[int, int], within: int
) -> Pairs:
    """Pairs of VALUES equal in the PAIR of PIECES and in no two earlier ones."""
    masked = values & (pieces[pair[0]] | pieces[pair[1]])
    order = np.argsort(masked, kind="stable")
    sorted_values, keys = values[order], masked[order]
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if stop - start > 1:
            _compare_all(sorted_values[start:stop], start, within, found)
    if not found:
        return Pairs(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint8)))
    one, other, bits = (np.concatenate(part) for part in zip(*found, strict=True))
    apart = sorted_values[one] ^ sorted_values[other]
    equal = np.stack([(apart & piece) == 0 for piece in pieces])
    earlier = equal[: pair[1]].sum(0) - equal[pair[0]]
    kept = earlier == 0
    return Pairs(order[one[kept]], order[other[kept]], bits[kept])


def _compare_all(values: np.ndarray, start: int, within: int, found: list) -> None:
    """Append to FOUND the pairs among VALUES, whose first is at START."""
    count = len(values)
    rows = max(1, BLOCK // count)
    for top in range(0, count - 1, rows):
        right = values[top + 1 :]
        apart = np.bitwise_count(values[top : top + rows, None] ^ right[None])
        near = np.flatnonzero(apart <= within)
        if len(near):
            row, column = np.divmod(near, len(right))
            # Below the diagonal is what an earlier row compared, or a value and itself.
            above = column >= row
            row, column, near = row[above], column[above], near[above]
            found.append((start + top + row, start + top + 1 + column, apart.reshape(-1)[near]))


def _in_order(pairs: Pairs, place: np.ndarray) -> Pairs:
    one, other = place[pairs.one], place[pairs.other]
    return Pairs(np.minimum(one, other), np.maximum(one, other), pairs.bits)
