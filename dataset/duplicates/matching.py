"""Select candidate pairs of near duplicates: photos of which any two views have near hashes.

The orientation of one photo relative to another is a number: 1 if it is mirrored first, plus 2 for
each quarter turn to the left.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dataset.duplicates.hamming import (
    MAX_DISTANCE_BITS,
    HashIndex,
    HashPairs,
    pairs_by_bands,
    pairs_within,
    scan,
)
from dataset.duplicates.hashing import MIRRORED, quarter_turn_hashes
from dataset.utils.threads import map_in_threads

# Number of photos above which candidates are searched by bands of their hashes.
MAX_EXACT_PHOTOS = 300_000
# Candidate pairs per photo, as a mean. Photos of one studio have more: then those are kept that are
# among the nearest MAX_CANDIDATES of either photo; local features find the copies among them.
MAX_CANDIDATES = 16
# Pairs that are collected before those beyond MAX_CANDIDATES are discarded.
MAX_COLLECTED_PAIRS = 4_000_000
# Orientation of each view: those of the fingerprint, then the whole photo turned by quarters.
ORIENTATIONS = np.concatenate([MIRRORED.astype(np.uint8), np.array([2, 4, 6], np.uint8)])


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs of photos that may be near duplicates.

    Attributes:
        first: Index of the first photo, (n,) int64.
        second: Index of the second photo, larger than `first`, (n,) int64.
        orientation: Orientation of the second photo relative to the first, (n,) uint8.
        distance: Hamming distance of their nearest views, (n,) uint8.
    """

    first: np.ndarray
    second: np.ndarray
    orientation: np.ndarray
    distance: np.ndarray

    def take(self, selected: np.ndarray) -> "CandidatePairs":
        """Return the pairs that a mask or an array of indices selects."""
        return CandidatePairs(
            self.first[selected],
            self.second[selected],
            self.orientation[selected],
            self.distance[selected],
        )


EMPTY = CandidatePairs(*(np.zeros(0, kind) for kind in (np.int64, np.int64, np.uint8, np.uint8)))


def candidate_pairs(views: np.ndarray, is_new: np.ndarray) -> CandidatePairs:
    """Find pairs of photos with near views, at least one of which is new.

    Among more than MAX_EXACT_PHOTOS photos, pairs are found by `pairs_by_bands`, and not all.

    Args:
        views: Hashes of the photos' views, (n, 8) uint64.
        is_new: Whether each photo has not been compared yet, (n,) bool.
    """
    views = np.concatenate([views, quarter_turn_hashes(views[:, 0])], 1)
    # The cost of comparing a new photo with all grows with their number.
    if int(is_new.sum()) * 8 * len(views) < min(len(views), MAX_EXACT_PHOTOS) ** 2:
        return _collect(_pairs_of_each(views, np.flatnonzero(is_new)), len(views))
    search = pairs_within if len(views) <= MAX_EXACT_PHOTOS else pairs_by_bands
    blocks = (_photo_pairs(pairs) for pairs in search(views.reshape(-1)))
    pairs = _collect(blocks, len(views))
    return pairs.take(is_new[pairs.first] | is_new[pairs.second])


def nearest_known(
    views: np.ndarray, known: HashIndex, within: int = MAX_DISTANCE_BITS
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the known photos nearest to each new photo, straight or mirrored.

    Args:
        views: Hashes of the new photos' views, (n, 8) uint64. New photos count as known to those
            that follow them, with indices from `len(known)` on.
        known: Hashes of whole photos.
        within: Largest Hamming distance in bits.

    Returns:
        For each new photo the indices of at most MAX_CANDIDATES known photos, nearest first, and
        whether each is mirrored.
    """
    count, straight = len(views), views[:, 0]
    values = np.concatenate([straight, views[:, MIRRORED][:, 0]])
    queries, indices, distances = known.query(values, within)
    among_new = np.bitwise_count(values[:, None] ^ straight)
    is_earlier = np.arange(count) < np.arange(2 * count)[:, None] % count
    new_queries, new_indices = np.nonzero((among_new <= within) & is_earlier)
    queries = np.concatenate([queries, new_queries])
    indices = np.concatenate([indices, new_indices + len(known)])
    distances = np.concatenate([distances, among_new[new_queries, new_indices]])
    photos, mirrored = queries % count, queries >= count
    order = np.lexsort((mirrored, indices, distances, photos))
    nearest = []
    for rows in np.split(order, np.searchsorted(photos[order], np.arange(1, count))):
        unique = rows[np.sort(np.unique(indices[rows], return_index=True)[1])][:MAX_CANDIDATES]
        nearest.append((indices[unique], mirrored[unique]))
    return nearest


def _pairs_of_each(views: np.ndarray, new: np.ndarray) -> Iterator[CandidatePairs]:
    """Compare each new photo with all photos."""
    columns = [np.ascontiguousarray(column) for column in views.T]

    def compare(photo: int) -> CandidatePairs:
        matches = []
        for view, orientation in enumerate(ORIENTATIONS):
            for column, its_orientation in zip(columns, ORIENTATIONS, strict=True):
                # Views that are both mirrored, or both turned, add nothing to the straight ones.
                if not (orientation and its_orientation) or (orientation ^ its_orientation) % 2:
                    indices, distances = scan(column, views[photo, view], MAX_DISTANCE_BITS)
                    first = np.where(indices < photo, its_orientation, orientation)
                    second = orientation ^ its_orientation ^ first
                    matches.append((indices, _relative_orientation(first, second), distances))
        indices, orientations, distances = (
            np.concatenate(part) for part in zip(*matches, strict=True)
        )
        low, high = np.minimum(indices, photo), np.maximum(indices, photo)
        return CandidatePairs(low, high, orientations, distances).take(low != high)

    return map_in_threads(compare, new.tolist())


def _photo_pairs(pairs: HashPairs) -> CandidatePairs:
    """Return the photos of pairs of views."""
    first, first_view = np.divmod(pairs.first, len(ORIENTATIONS))
    second, second_view = np.divmod(pairs.second, len(ORIENTATIONS))
    orientation = _relative_orientation(ORIENTATIONS[first_view], ORIENTATIONS[second_view])
    photo_pairs = CandidatePairs(first, second, orientation, pairs.distance)
    return photo_pairs.take(first != second)


def _relative_orientation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the orientation of the second photo relative to the first, whose views are near."""
    mirrored = (first ^ second) & 1
    quarters = np.where(mirrored, -(first // 2) - second // 2, second // 2 - first // 2) % 4
    return (mirrored + 2 * quarters).astype(np.uint8)


def _collect(found: Iterable[CandidatePairs], count: int) -> CandidatePairs:
    """Join pairs of `count` photos: each pair once, only the nearest of each photo."""
    parts, size = [EMPTY], 0
    for part in found:
        parts.append(part)
        size += len(part.first)
        if size > MAX_COLLECTED_PAIRS:
            parts = [_nearest(_unique(_joined(parts)), count)]
            size = len(parts[0].first) // 2
    return _nearest(_unique(_joined(parts)), count)


def _joined(parts: list[CandidatePairs]) -> CandidatePairs:
    return CandidatePairs(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("first", "second", "orientation", "distance")
        )
    )


def _unique(pairs: CandidatePairs) -> CandidatePairs:
    """Keep the match of the smallest distance of each pair."""
    order = np.lexsort((pairs.orientation, pairs.distance, pairs.second, pairs.first))
    pairs = pairs.take(order)
    repeated = (pairs.first[1:] == pairs.first[:-1]) & (pairs.second[1:] == pairs.second[:-1])
    return pairs.take(np.flatnonzero(np.concatenate([[True], ~repeated])[: len(order)]))


def _nearest(pairs: CandidatePairs, count: int) -> CandidatePairs:
    """Keep all pairs if they cost little, or those among the nearest MAX_CANDIDATES of a photo."""
    if len(pairs.first) <= MAX_CANDIDATES * count:
        return pairs
    photos = np.concatenate([pairs.first, pairs.second])
    distances = np.concatenate([pairs.distance, pairs.distance])
    partners = np.concatenate([pairs.second, pairs.first])
    order = np.lexsort((partners, distances, photos))
    starts = np.searchsorted(photos[order], np.arange(count))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts[photos[order]]
    is_near = rank < MAX_CANDIDATES
    return pairs.take(is_near[: len(pairs.first)] | is_near[len(pairs.first) :])
