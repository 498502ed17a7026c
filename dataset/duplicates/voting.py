"""Select candidate pairs of photos by keys that their local features share.

The strongest key points of all photos are indexed by their keys (see features.py); all key points
of a photo, straight and mirrored, are looked up, and each photo that shares several keys is a
candidate. A key that many photos have is a logo, a caption, the frame of a screenshot or a common
texture: such a key votes only for some of these photos, so the cost grows linearly.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from dataset.duplicates.features import INDEXED_KEYPOINTS, KEY_COUNT, LocalFeatures
from dataset.duplicates.hamming import concatenated_ranges
from dataset.utils.threads import map_in_threads

# Keys that more photos have vote for this many photos before and after a photo in the list.
MAX_SHARED, NEIGHBORS = 16, 8
# Votes of a candidate; below CERTAIN_VOTES, only the MAX_UNCERTAIN photos with the most votes are
# candidates of a photo.
MIN_VOTES, CERTAIN_VOTES, MAX_UNCERTAIN = 2, 6, 12
# Spreads the 48 bits of a key over 64; their upper half is indexed.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)


class KeyIndex:
    """The keys of the strongest key points of photos.

    Args:
        photos: Number of each photo, ascending.
        features: Their features.
        choice: Which keys are used (see `LocalFeatures.keys`).
    """

    def __init__(
        self, photos: Sequence[int], features: Iterable[LocalFeatures], choice: int = 0
    ) -> None:
        self._choice = choice
        self._tables = np.zeros((KEY_COUNT, len(photos) * INDEXED_KEYPOINTS), np.uint64)
        size = 0
        for photo, photo_features in zip(photos, features, strict=True):
            strongest = photo_features.strongest(INDEXED_KEYPOINTS)
            stop = size + len(strongest.points)
            self._tables[:, size:stop] = _spread(strongest.keys(choice)) | np.uint64(photo)
            size = stop
        self._tables = self._tables[:, :size]
        for table in self._tables:
            table.sort()

    def votes(self, photo: int, features: LocalFeatures) -> np.ndarray:
        """Count the keys that photos share with one photo.

        Args:
            photo: Number of the photo, which gets no vote.
            features: Its features.

        Returns:
            Number of each photo, its votes, and whether the votes are for its mirror image,
            (n, 3) int64: a photo may be there twice.
        """
        straight, mirrored = self._votes(photo, features), self._votes(photo, features.mirrored())
        rows = [
            np.stack([*votes, np.full(len(votes[0]), is_mirrored)], 1)
            for is_mirrored, votes in enumerate((straight, mirrored))
        ]
        return np.concatenate(rows)

    def _votes(self, photo: int, features: LocalFeatures) -> tuple[np.ndarray, np.ndarray]:
        voted = [np.zeros(0, np.uint64)]
        for table, keys in zip(self._tables, _spread(features.keys(self._choice)), strict=True):
            starts = np.searchsorted(table, keys)
            stops = np.searchsorted(table, keys | _LOW, side="right")
            is_common = stops - starts > MAX_SHARED
            place = np.searchsorted(table, keys[is_common] | np.uint64(photo))
            starts[is_common] = np.maximum(starts[is_common], place - NEIGHBORS)
            stops[is_common] = np.minimum(stops[is_common], place + NEIGHBORS + 1)
            voted.append(table[concatenated_ranges(starts, stops)] & _LOW)
        photos, votes = np.unique(np.concatenate(voted).astype(np.int64), return_counts=True)
        is_other = photos != photo
        return photos[is_other], votes[is_other]


def _spread(keys: np.ndarray) -> np.ndarray:
    """Return a number of 32 bits of each key in the upper half, zeros in the lower one."""
    return (keys * _MULTIPLIER) & ~_LOW


def feature_pairs(
    is_new: np.ndarray,
    features: Callable[[Sequence[int]], Iterable[LocalFeatures]],
    choice: int = 0,
) -> np.ndarray:
    """Find pairs of photos with common local features, at least one of which is new.

    Args:
        is_new: Whether each photo has not been compared yet, (n,) bool.
        features: Returns the features of photos, given their numbers in ascending order.
        choice: Which keys are used (see `LocalFeatures.keys`).

    Returns:
        Numbers of the first and the second, later photo of each pair, and whether one is mirrored,
        (n, 3) int64, sorted.
    """
    new, known = np.flatnonzero(is_new).tolist(), np.flatnonzero(~is_new).tolist()
    found = [np.zeros((0, 4), np.int64)]
    everything = list(range(len(is_new)))
    found += _candidates(KeyIndex(everything, features(everything), choice), new, features(new))
    if known:
        found += _candidates(KeyIndex(new, features(new), choice), known, features(known))
    first, second, votes, mirrored = np.concatenate(found).T
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((mirrored, -votes, high, low))
    pairs = np.stack([low, high, mirrored], 1)[order]
    is_first = np.ones(len(pairs), bool)
    is_first[1:] = (pairs[1:, :2] != pairs[:-1, :2]).any(1)
    return pairs[is_first]


def _candidates(
    index: KeyIndex, photos: Sequence[int], features: Iterable[LocalFeatures]
) -> Iterator[np.ndarray]:
    """Yield the candidates of each photo: its number, theirs, votes and mirrored, (n, 4) int64."""

    def look_up(job: tuple[int, LocalFeatures]) -> np.ndarray:
        photo, photo_features = job
        rows = index.votes(photo, photo_features)
        rows = rows[rows[:, 1] >= MIN_VOTES]
        rows = rows[np.lexsort((rows[:, 2], rows[:, 0], -rows[:, 1]))]
        is_certain = rows[:, 1] >= CERTAIN_VOTES
        rows = rows[is_certain | (np.arange(len(rows)) < is_certain.sum() + MAX_UNCERTAIN)]
        return np.concatenate([np.full((len(rows), 1), photo), rows], 1)

    return map_in_threads(look_up, zip(photos, features, strict=True))
