"""Which photos are worth a closer look: those of which any two views are near (pure).

How one photo is turned to lie on another is a number: 2 a quarter to the left, and 1 where it is
mirrored before.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dataset.duplicates.hamming import BITS, NEAR, HashIndex, Pairs, in_threads, pairs_within, scan
from dataset.duplicates.hashing import MIRRORED, turned

# A photo is compared with at most so many, the nearest: photos of one studio are all alike.
CLOSEST = 16
# Pairs kept before those that are not among the nearest are dropped.
ROOM = 4_000_000
# How each view shows its photo; after those of the fingerprint, the whole turned by quarters.
TURNS = np.concatenate([MIRRORED.astype(np.uint8), np.array([2, 4, 6], np.uint8)])


@dataclass(frozen=True)
class Lookalikes:
    """Pairs of photos, by place: `one` < `other`; `bits` that differ, uint8.

    `turn`: uint8, how the other one is turned to lie on the one.
    """

    one: np.ndarray
    other: np.ndarray
    turn: np.ndarray
    bits: np.ndarray


NOTHING = Lookalikes(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint8, np.uint8)))


def lookalikes(views: np.ndarray, new: np.ndarray) -> Lookalikes:
    """Pairs of photos, by VIEWS (n, 8) uint64, at least one of which is NEW, (n,) bool."""
    views = np.concatenate([views, turned(views[:, 0])], 1)
    if new.sum() * 8 < len(views):
        return _collect(_each(views, np.flatnonzero(new)), len(views))
    pairs = _collect((_of_photos(found) for found in pairs_within(views.reshape(-1))), len(views))
    return _take(pairs, new[pairs.one] | new[pairs.other])


def near_each(
    views: np.ndarray, known: HashIndex, within: int = NEAR
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places in KNOWN, of whole photos' hashes, near each photo of VIEWS, (n, 8); and if mirrored.

    The nearest CLOSEST, the nearest first. Those of VIEWS before it count as put into KNOWN.
    """
    count, straight = len(views), views[:, 0]
    values = np.concatenate([straight, views[:, MIRRORED][:, 0]])
    which, places, bits = known.near_each(values, within)
    apart = np.bitwise_count(values[:, None] ^ straight)
    apart[np.arange(count) >= np.arange(2 * count)[:, None] % count] = BITS
    mine, its = np.nonzero(apart <= within)
    which = np.concatenate([which, mine])
    places = np.concatenate([places, its + len(known)])
    bits = np.concatenate([bits, apart[mine, its]])
    photos, mirrored = which % count, which >= count
    order = np.lexsort((mirrored, places, bits, photos))
    found = []
    for one in np.split(order, np.searchsorted(photos[order], np.arange(1, count))):
        once = one[np.sort(np.unique(places[one], return_index=True)[1])][:CLOSEST]
        found.append((places[once], mirrored[once]))
    return found


def _each(views: np.ndarray, new: np.ndarray) -> Iterator[Lookalikes]:
    """Each of the NEW photos against all."""
    columns = [np.ascontiguousarray(column) for column in views.T]

    def against_all(photo: int) -> Lookalikes:
        parts = []
        for mine, turn in enumerate(TURNS):
            for its, column in enumerate(columns):
                # What both show mirrored, or both turned, they show straight too.
                if not (turn and TURNS[its]) or (turn ^ TURNS[its]) % 2:
                    places, bits = scan(column, views[photo, mine], NEAR)
                    first = np.where(places < photo, TURNS[its], turn)
                    parts.append((places, _between(first, turn ^ TURNS[its] ^ first), bits))
        places, turn, bits = (np.concatenate(part) for part in zip(*parts, strict=True))
        low, high = np.minimum(places, photo), np.maximum(places, photo)
        return _take(Lookalikes(low, high, turn, bits), low != high)

    return in_threads(against_all, new.tolist())


def _of_photos(pairs: Pairs) -> Lookalikes:
    """PAIRS of views as pairs of photos."""
    one, my_view = np.divmod(pairs.one, len(TURNS))
    other, its_view = np.divmod(pairs.other, len(TURNS))
    found = Lookalikes(one, other, _between(TURNS[my_view], TURNS[its_view]), pairs.bits)
    return _take(found, one != other)


def _between(mine: np.ndarray, its: np.ndarray) -> np.ndarray:
    """How the other photo is turned to lie on the one, where MINE and ITS turns look alike."""
    mirrored = (mine ^ its) & 1
    quarters = np.where(mirrored, -(mine // 2) - its // 2, its // 2 - mine // 2) % 4
    return (mirrored + 2 * quarters).astype(np.uint8)


def _take(pairs: Lookalikes, kept: np.ndarray) -> Lookalikes:
    return Lookalikes(pairs.one[kept], pairs.other[kept], pairs.turn[kept], pairs.bits[kept])


def _collect(found: Iterable[Lookalikes], count: int) -> Lookalikes:
    """All FOUND pairs of COUNT photos: each once, with its fewest bits, the nearest of each."""
    parts, size = [NOTHING], 0
    for part in found:
        parts.append(part)
        size += len(part.one)
        if size > ROOM:
            parts = [_nearest(_once(_joined(parts)), count)]
            size = len(parts[0].one) // 2
    return _nearest(_once(_joined(parts)), count)


def _joined(parts: list[Lookalikes]) -> Lookalikes:
    return Lookalikes(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("one", "other", "turn", "bits")
        )
    )


def _once(pairs: Lookalikes) -> Lookalikes:
    order = np.lexsort((pairs.turn, pairs.bits, pairs.other, pairs.one))
    pairs = _take(pairs, order)
    again = (pairs.one[1:] == pairs.one[:-1]) & (pairs.other[1:] == pairs.other[:-1])
    return _take(pairs, np.flatnonzero(np.concatenate([[True], ~again])[: len(order)]))


def _nearest(pairs: Lookalikes, count: int) -> Lookalikes:
    """Pairs that are among the CLOSEST of either photo."""
    photos = np.concatenate([pairs.one, pairs.other])
    bits = np.concatenate([pairs.bits, pairs.bits])
    partner = np.concatenate([pairs.other, pairs.one])
    order = np.lexsort((partner, bits, photos))
    starts = np.searchsorted(photos[order], np.arange(count))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts[photos[order]]
    among = rank < CLOSEST
    return _take(pairs, among[: len(pairs.one)] | among[len(pairs.one) :])
