"""Candidate pairs of near duplicates."""

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


def listed(pairs: CandidatePairs) -> list[tuple[int, int, int]]:
    return list(
        zip(pairs.first.tolist(), pairs.second.tolist(), pairs.orientation.tolist(), strict=True)
    )


def test_photos_with_two_near_views_are_candidates() -> None:
    all_views = views(50)
    all_views[7, 0] = all_views[3, 4] ^ np.uint64(0b111)
    all_views[9, 6] = all_views[20, 1]
    everything = candidate_pairs(all_views, np.ones(50, bool))
    assert listed(everything) == [(3, 7, 0), (9, 20, 1)]
    new = np.zeros(50, bool)
    new[[7, 20]] = True
    assert listed(candidate_pairs(all_views, new)) == listed(everything)


def test_known_photos_are_not_compared_with_each_other() -> None:
    all_views = views(40)
    all_views[1, 0] = all_views[2, 0]
    new = np.arange(40) >= 20
    assert listed(candidate_pairs(all_views, new)) == []


def test_only_the_nearest_candidates_are_kept() -> None:
    all_views = views(300)
    all_views[:, 0] = np.uint64(1) << np.arange(300, dtype=np.uint64) % np.uint64(64)
    pairs = candidate_pairs(all_views, np.ones(300, bool))
    assert len(pairs.first) <= MAX_CANDIDATES * 300
    assert set(pairs.first.tolist()) | set(pairs.second.tolist()) == set(range(300))


def test_a_new_photo_finds_straight_and_mirrored_copies() -> None:
    all_views = views(30)
    known = all_views[:, 0].copy()
    new_views = views(3, 5)
    new_views[0, 0], new_views[0, 6] = known[4] ^ np.uint64(1), known[11]
    # The last photo is the mirrored first one, which is nearer than the known photo.
    new_views[2, 6] = new_views[0, 0]
    found = nearest_known(new_views, HashIndex(known))
    listed = [(places.tolist(), mirrored.tolist()) for places, mirrored in found]
    assert listed == [([11, 4], [True, False]), ([], []), ([30, 4], [True, True])]
