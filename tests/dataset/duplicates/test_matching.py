"""Which photos are worth a closer look."""

import numpy as np

from dataset.duplicates.hamming import HashIndex
from dataset.duplicates.hashing import VIEW_COUNT
from dataset.duplicates.matching import (
    MAX_CANDIDATES,
    CandidatePairs,
    candidate_pairs,
    nearest_known,
)


def views(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 64, (count, VIEW_COUNT), dtype=np.uint64)


def told(pairs: CandidatePairs) -> list[tuple[int, int, int]]:
    return list(
        zip(pairs.first.tolist(), pairs.second.tolist(), pairs.orientation.tolist(), strict=True)
    )


def test_photos_with_any_two_near_views_are_found() -> None:
    some = views(50)
    some[7, 0] = some[3, 4] ^ np.uint64(0b111)
    some[9, 6] = some[20, 1]
    everything = candidate_pairs(some, np.ones(50, bool))
    assert told(everything) == [(3, 7, 0), (9, 20, 1)]
    new = np.zeros(50, bool)
    new[[7, 20]] = True
    assert told(candidate_pairs(some, new)) == told(everything)


def test_old_photos_are_not_compared_with_each_other() -> None:
    some = views(40)
    some[1, 0] = some[2, 0]
    new = np.arange(40) >= 20
    assert told(candidate_pairs(some, new)) == []


def test_of_many_alike_only_the_nearest_are_kept() -> None:
    some = views(300)
    some[:, 0] = np.uint64(1) << np.arange(300, dtype=np.uint64) % np.uint64(64)
    pairs = candidate_pairs(some, np.ones(300, bool))
    assert len(pairs.first) <= MAX_CANDIDATES * 300
    assert set(pairs.first.tolist()) | set(pairs.second.tolist()) == set(range(300))


def test_one_photo_finds_its_copy_straight_and_mirrored() -> None:
    some = views(30)
    known = some[:, 0].copy()
    mine = views(3, 5)
    mine[0, 0], mine[0, 6] = known[4] ^ np.uint64(1), known[11]
    # The last one is the mirrored first one, and nearer than what that is near.
    mine[2, 6] = mine[0, 0]
    found = nearest_known(mine, HashIndex(known))
    told = [(places.tolist(), mirrored.tolist()) for places, mirrored in found]
    assert told == [([11, 4], [True, False]), ([], []), ([30, 4], [True, True])]
