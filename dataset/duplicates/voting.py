"""Select candidate pairs of photos by keys that their local features share.

The strongest key points of all photos are indexed by their keys (see features.py); all key points
of a photo, straight and mirrored, are looked up, and each photo that shares several keys is a
candidate. A key that many photos have is a logo, a caption, the frame of a screenshot or a common
texture: such a key votes only for some of these photos, so the cost grows linearly.

The index of many photos does not fit into memory. Then the keys of the strongest key points of all
photos are written to disk in parts, by ranges of keys, and the photos that share a key are found by
sorting each part.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dataset.duplicates.features import SEARCH_KEYS, KeyScheme, LocalFeatures, keys_of_table
from dataset.duplicates.hamming import concatenated_ranges
from dataset.utils.threads import map_in_threads

# A key that more than MAX_SHARED photos share counts for the NEIGHBORS photos before and after the
# queried one in the sorted table only.
MAX_SHARED, NEIGHBORS = 16, 8
# Votes of a candidate; below CERTAIN_VOTES, only the MAX_UNCERTAIN photos with the most votes are
# candidates of a photo.
MIN_VOTES, CERTAIN_VOTES, MAX_UNCERTAIN = 2, 6, 12
# Largest number of photos whose keys are indexed in memory (SEARCH_KEYS: 4 KB per photo). Keys of
# more are sorted on disk, in PARTS parts, and written in batches of BATCH_PHOTOS.
MAX_INDEXED_PHOTOS, PARTS, BATCH_PHOTOS = 300_000, 64, 1024
# Spreads the bits of a key over 64; their upper half is indexed.
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFFFFFF)


class KeyIndex:
    """The keys of the strongest key points of photos.

    Args:
        photos: Number of each photo, ascending.
        features: Their features.
        scheme: How keys are made.
    """

    def __init__(
        self,
        photos: Sequence[int],
        features: Iterable[LocalFeatures],
        scheme: KeyScheme = SEARCH_KEYS,
    ) -> None:
        self._scheme = scheme
        self._tables = np.zeros((scheme.count, len(photos) * scheme.keypoints), np.uint64)
        size = 0
        for photo, photo_features in zip(photos, features, strict=True):
            strongest = photo_features.strongest(scheme.keypoints)
            stop = size + len(strongest.points)
            self._tables[:, size:stop] = _spread(strongest.keys(scheme)) | np.uint64(photo)
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
        if not self._tables.size:
            return voted[0].astype(np.int64), voted[0].astype(np.int64)
        # Sorted keys are found faster.
        sorted_keys = np.sort(_spread(features.keys(self._scheme)), axis=1)
        for table, own_keys in zip(self._tables, sorted_keys, strict=True):
            starts = np.searchsorted(table, own_keys)
            is_known = table.take(starts, mode="clip") & ~_LOW == own_keys
            keys, starts = own_keys[is_known], starts[is_known]
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
    scheme: KeyScheme = SEARCH_KEYS,
) -> np.ndarray:
    """Find pairs of photos with common local features, at least one of which is new.

    If there are more than MAX_INDEXED_PHOTOS photos, only the strongest key points are looked up,
    or only the new photos are indexed if these are fewer.

    Args:
        is_new: Whether each photo has not been compared yet, (n,) bool.
        features: Returns the features of photos, given their numbers in ascending order.
        scheme: How keys are made.

    Returns:
        Numbers of the first and the second, later photo of each pair, and whether one is mirrored,
        (n, 3) int64, sorted.
    """
    new, known = np.flatnonzero(is_new).tolist(), np.flatnonzero(~is_new).tolist()
    found = [np.zeros((0, 4), np.int64)]
    everything = list(range(len(is_new)))
    if len(new) > MAX_INDEXED_PHOTOS:

        def keys(table: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
            return map_in_threads(
                lambda photos: _strongest_keys(photos, features(photos), table, scheme),
                [
                    everything[start : start + BATCH_PHOTOS]
                    for start in range(0, len(everything), BATCH_PHOTOS)
                ],
            )

        rows = sorted_candidates(keys, len(is_new), scheme.count)
        found.append(rows[is_new[rows[:, 0]] | is_new[rows[:, 1]]])
    elif len(everything) > MAX_INDEXED_PHOTOS:
        index = KeyIndex(new, features(new), scheme)
        found += _candidates(index, everything, features(everything))
    else:
        found += _candidates(KeyIndex(everything, features(everything), scheme), new, features(new))
        if known:
            found += _candidates(KeyIndex(new, features(new), scheme), known, features(known))
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


def _strongest_keys(
    photos: Sequence[int], features: Iterable[LocalFeatures], table: int, scheme: KeyScheme
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the keys of the strongest key points of photos in a table.

    Returns:
        Number of the photo, its key and its key when it is mirrored, of each key point.
    """
    codes = [one.strongest(scheme.keypoints).codes for one in features]
    joined = np.concatenate(codes)
    owners = np.repeat(np.array(photos, np.uint64), [len(own) for own in codes])
    straight, mirrored = (keys_of_table(joined, table, scheme, flag) for flag in (False, True))
    return owners, straight, mirrored


def sorted_candidates(
    keys: Callable[[int], Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]],
    count: int,
    tables: int = SEARCH_KEYS.count,
) -> np.ndarray:
    """Find pairs of photos that share keys by sorting the keys on disk.

    It takes 2 KB of disk and 100 bytes of memory per photo.

    Args:
        keys: Table -> blocks of photos, keys and mirrored keys; see `_strongest_keys`.
        count: Number of photos.
        tables: Number of tables.

    Returns:
        Numbers of the first and the second, later photo of each pair, its votes, and whether one is
        mirrored, (n, 4) int64.
    """
    with tempfile.TemporaryDirectory(prefix="fashion-tagger-") as name:
        folder = Path(name)
        # An entry: the upper bits of a key, the photo, and whether the key is that of its mirror
        # image. A vote: both photos, and whether one is mirrored.
        shift = np.uint64(max(8, count.bit_length() + 1))
        for table in range(tables):
            with _Parts(folder, "keys") as parts:
                for photos, straight, mirrored in keys(table):
                    for flag, own in enumerate((straight, mirrored)):
                        upper = ((own * _MULTIPLIER) >> shift) << shift
                        parts.add(upper | photos << np.uint64(1) | np.uint64(flag), np.uint64(58))
            with _Parts(folder, "votes", "ab" if table else "wb") as votes:
                for part in range(PARTS):
                    for codes in _votes_of_part(_Parts.read(folder, "keys", part), shift):
                        votes.add(codes, np.uint64(2) * shift - np.uint64(7))
        rows = [_count_votes(_Parts.read(folder, "votes", part), shift) for part in range(PARTS)]
    return _best_candidates(np.concatenate(rows), count)


class _Parts(contextlib.AbstractContextManager["_Parts"]):
    """Files of numbers, by their upper bits.

    Args:
        folder: The folder of the files.
        name: Name of the files.
        mode: `wb`, or `ab` to append to existing files.
    """

    def __init__(self, folder: Path, name: str, mode: str = "wb") -> None:
        self._stack = contextlib.ExitStack()
        self._files = [
            self._stack.enter_context((folder / f"{name}-{part}").open(mode))
            for part in range(PARTS)
        ]

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def add(self, numbers: np.ndarray, shift: np.uint64) -> None:
        """Append numbers to the files of their parts, which are `numbers >> shift`."""
        numbers = np.sort(numbers)
        parts = (numbers >> shift).astype(np.int64)
        starts = np.searchsorted(parts, np.arange(PARTS + 1))
        for file, start, stop in zip(self._files, starts, starts[1:], strict=False):
            if stop > start:
                file.write(numbers[start:stop].tobytes())

    @staticmethod
    def read(folder: Path, name: str, part: int) -> np.ndarray:
        """Return the sorted numbers of a part, and remove its file."""
        path = folder / f"{name}-{part}"
        numbers = np.fromfile(path, np.uint64)
        path.unlink()
        numbers.sort()
        return numbers


def _votes_of_part(entries: np.ndarray, shift: np.uint64) -> Iterator[np.ndarray]:
    """Yield the votes of sorted entries: of each key, those of neighbouring photos."""
    one, photo_bits = np.uint64(1), (np.uint64(1) << shift) - np.uint64(1)
    keys = entries >> shift
    for step in range(1, MAX_SHARED + 1):
        places = np.flatnonzero(keys[step:] == keys[:-step])
        if not len(places):
            return
        first, second = entries[places] & photo_bits, entries[places + step] & photo_bits
        # Entries of a key are sorted by photo. The mirror image of the second one is enough.
        is_pair = (first >> one != second >> one) & (first & one == 0)
        yield (first[is_pair] >> one << shift) | second[is_pair]


def _count_votes(votes: np.ndarray, shift: np.uint64) -> np.ndarray:
    """Return the pairs of sorted votes with at least MIN_VOTES votes, (n, 4) int64."""
    starts = np.flatnonzero(np.concatenate([[True], votes[1:] != votes[:-1]])[: len(votes)])
    counts = np.diff(np.append(starts, len(votes)))
    is_enough = counts >= MIN_VOTES
    pairs, counts = votes[starts[is_enough]], counts[is_enough]
    one = np.uint64(1)
    second = (pairs & ((one << shift) - one)) >> one
    return np.stack([pairs >> shift, second, counts, pairs & one], 1).astype(np.int64)


def _best_candidates(rows: np.ndarray, count: int) -> np.ndarray:
    """Keep the rows of certain pairs, and the MAX_UNCERTAIN best others of either photo."""
    is_certain = rows[:, 2] >= CERTAIN_VOTES
    uncertain = rows[~is_certain]
    photos = np.concatenate([uncertain[:, 0], uncertain[:, 1]])
    order = np.lexsort((np.tile(-uncertain[:, 2], 2), photos))
    starts = np.searchsorted(photos[order], np.arange(count))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts[photos[order]]
    is_best = (rank < MAX_UNCERTAIN).reshape(2, -1).any(0)
    return np.concatenate([rows[is_certain], uncertain[is_best]])
