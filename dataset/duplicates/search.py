"""Find matching photos: candidates by hashes and local features, then verification."""

import copy
import os
import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from PIL import Image

from dataset.duplicates.alignment import POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.features import (
    AUDIT_KEYS,
    LARGE_AUDIT_KEYS,
    PICTURE_SIDE,
    SEARCH_KEYS,
    KeyScheme,
    LocalFeatures,
    extract_features,
    find_placement,
    picture_of,
)
from dataset.duplicates.hashing import Fingerprint, fingerprint
from dataset.duplicates.matching import MAX_EXACT_PHOTOS, candidate_pairs
from dataset.duplicates.verification import Comparison, Picture, compare, compare_whole
from dataset.duplicates.voting import feature_pairs
from dataset.images.io import Unreadable, open_photo
from dataset.utils.threads import map_in_threads

BATCH_PAIRS = 32
# Nearest thumbnails of each photo that a thorough search compares, if they correlate, and
# thumbnails per block.
NEAREST_THUMBNAILS, MIN_THUMBNAIL_CORRELATION, THUMBNAIL_BLOCK = 4, 0.85, 1024
# Largest number of photos for which AUDIT_KEYS are indexed, with 16 KB per photo.
MAX_AUDIT_KEYS_PHOTOS = 75_000
# Largest number of cached pictures, each of at most 0.4 MB, and 0.6 MB with its texture.
MAX_CACHED_PICTURES = 384


class PhotoSet(Protocol):
    """Photos that are compared with each other. They are numbered in an order of their content."""

    def __len__(self) -> int:
        """Return the number of photos."""

    def views(self) -> np.ndarray:
        """Return the hashes of all views, (n, 8) uint64."""

    def fingerprints(self, photos: Sequence[int]) -> Sequence[Fingerprint]:
        """Return the fingerprints of some photos."""

    def features(self, photos: Sequence[int]) -> Iterable[LocalFeatures]:
        """Return the local features of some photos."""

    def picture(self, photo: int) -> np.ndarray | None:
        """Return the picture of a photo (see `features.picture_of`), None if it can't be read."""


@dataclass(frozen=True)
class PhotoSignature:
    """Fingerprint and local features of a photo."""

    fingerprint: Fingerprint
    features: LocalFeatures

    @classmethod
    def of(cls, image: Image.Image) -> "PhotoSignature":
        """Compute both of an RGB image."""
        return cls(fingerprint(image), extract_features(image))

    @classmethod
    def read(cls, source: Path | bytes) -> "PhotoSignature":
        """Compute both of a file; it raises what `open_photo` raises."""
        return cls.of(open_photo(source, PICTURE_SIDE))


class SignatureFile(Sequence[PhotoSignature]):
    """Signatures of photos, stored in a temporary file that is deleted with the object."""

    def __init__(self) -> None:
        # Unbuffered: it is read while it is written.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._starts = array("q", [0])
        self._numbers: dict[str, int] = {}
        self._selected: Sequence[int] | None = None

    def add(self, key: str, signature: PhotoSignature) -> None:
        """Append a signature, whose number `number_of` returns by its key."""
        self._numbers[key] = len(self._starts) - 1
        self._starts.append(self._starts[-1] + self._file.write(pickle.dumps(signature)))

    def number_of(self, key: str) -> int | None:
        """Return the number of the signature of a key, None if there is none."""
        return self._numbers.get(key)

    def select(self, numbers: Sequence[int]) -> "SignatureFile":
        """Return some signatures, in a given order, without copying them."""
        selected = copy.copy(self)
        selected._selected = numbers
        return selected

    def __len__(self) -> int:
        return len(self._starts) - 1 if self._selected is None else len(self._selected)

    @overload
    def __getitem__(self, number: int) -> PhotoSignature: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[PhotoSignature]: ...

    def __getitem__(self, number: int | slice) -> PhotoSignature | Sequence[PhotoSignature]:
        """Read one signature, or several."""
        if isinstance(number, slice):
            return [self[own] for own in range(len(self))[number]]
        if not 0 <= number < len(self):
            raise IndexError(number)
        own = number if self._selected is None else self._selected[number]
        start, stop = self._starts[own], self._starts[own + 1]
        signature: PhotoSignature = pickle.loads(os.pread(self._file.fileno(), stop - start, start))
        return signature


class LoadedPhotos:
    """A set of photos with their signatures.

    Args:
        signatures: Their signatures, in an order of the photos' content.
        read: Returns the file of a photo; it raises OSError if it is missing.
    """

    def __init__(self, signatures: Sequence[PhotoSignature], read: Callable[[int], bytes]) -> None:
        self._signatures, self._read = signatures, read

    def __len__(self) -> int:
        return len(self._signatures)

    def views(self) -> np.ndarray:
        """Return the hashes of all views, (n, 8) uint64."""
        return np.stack([photo.fingerprint.views for photo in self._signatures])

    def fingerprints(self, photos: Sequence[int]) -> list[Fingerprint]:
        """Return the fingerprints of some photos."""
        return [self._signatures[photo].fingerprint for photo in photos]

    def features(self, photos: Sequence[int]) -> Iterator[LocalFeatures]:
        """Yield the local features of some photos."""
        return (self._signatures[photo].features for photo in photos)

    def picture(self, photo: int) -> np.ndarray | None:
        """Return the picture of a photo, None if its file is missing or can't be read."""
        return read_picture(lambda: self._read(photo))


def read_picture(read: Callable[[], bytes]) -> np.ndarray | None:
    """Return the picture of a file (see `features.picture_of`), None if it can't be read."""
    try:
        return np.asarray(picture_of(open_photo(read(), PICTURE_SIDE)))
    except (Unreadable, OSError):
        return None


def is_match(
    first: PhotoSignature, second: PhotoSignature, pictures: tuple[np.ndarray, np.ndarray]
) -> bool:
    """Return whether two photos match as a whole or in part, straight or mirrored.

    Args:
        first: Signature of one photo.
        second: Signature of the other one.
        pictures: The pictures of both (see `features.picture_of`).
    """
    one, other = map(Picture, pictures)
    for mirrored in (False, True):
        placement = find_placement(first.features, second.features, mirrored)
        if placement is not None:
            comparison = compare(one, other, placement.transform, placement.inliers)
            if comparison is not None and comparison.is_related:
                return True
    thumbnail_similarity = max(
        float(similarity([first.fingerprint], [second.fingerprint], np.array([mirrored]))[0])
        for mirrored in (False, True)
    )
    comparison = (
        compare_whole(one, other, thumbnail_similarity)
        if thumbnail_similarity >= POSSIBLE_SIMILARITY
        else None
    )
    return comparison is not None and comparison.is_related


@dataclass(frozen=True)
class ComparedPair:
    """Two photos whose pixels were compared.

    Attributes:
        first: Number of one photo.
        second: Number of the other one, larger than `first`.
        comparison: What they have in common.
    """

    first: int
    second: int
    comparison: Comparison


def compare_candidates(
    photos: PhotoSet,
    is_new: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    thorough: bool = False,
) -> Iterator[list[ComparedPair]]:
    """Compare the pixels of all candidate pairs of photos.

    Args:
        photos: The photos.
        is_new: Photos that were not compared yet, (n,) bool: a pair has at least one. None: all.
        groups: If given, only photos of different groups are compared, (n,) int.
        thorough: Search for candidates by other and more keys of the features, and among the
            nearest thumbnails as well, as far as there are not too many photos. It finds
            candidates that a search without it has missed.

    Yields:
        Compared pairs in batches, related or not.
    """
    is_new = np.ones(len(photos), bool) if is_new is None else is_new
    views = photos.views()
    orientations = _PairTable(_look_alike_pairs(photos, views, is_new, thorough), len(photos))
    scheme = _key_scheme(len(photos), thorough)
    by_features = _PairTable(feature_pairs(is_new, photos.features, scheme), len(photos))
    codes = np.union1d(by_features.codes, orientations.codes)
    if groups is not None:
        first, second = np.divmod(codes, len(photos))
        codes = codes[groups[first] != groups[second]]
    codes = _in_hash_order(codes, views)

    @lru_cache(MAX_CACHED_PICTURES)
    def picture(photo: int) -> Picture | None:
        pixels = photos.picture(photo)
        return None if pixels is None else Picture(pixels)

    def compare_batch(start: int) -> list[ComparedPair]:
        batch = codes[start : start + BATCH_PAIRS]
        pairs = [divmod(code, len(photos)) for code in batch.tolist()]
        mirrored = {pair: bool(flag) for pair, flag in by_features.values_of(batch).items()}
        return _compare(photos, pairs, mirrored, orientations.values_of(batch), picture)

    yield from map_in_threads(compare_batch, range(0, len(codes), BATCH_PAIRS))


def _in_hash_order(codes: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Sort pairs by the hashes of whole photos, so that the pairs of a photo's copies are together.

    Then fewer pictures are decoded twice.

    Args:
        codes: Pairs, (n,) int64; see `_PairTable`.
        views: Hashes of all views of the photos, (photos, 8) uint64.
    """
    rank = np.empty(len(views), np.int64)
    rank[np.argsort(views[:, 0], kind="stable")] = np.arange(len(views))
    first, second = (rank[photos] for photos in np.divmod(codes, len(views)))
    return codes[np.lexsort((np.maximum(first, second), np.minimum(first, second)))]


def _key_scheme(count: int, thorough: bool) -> KeyScheme:
    if not thorough:
        return SEARCH_KEYS
    return AUDIT_KEYS if count <= MAX_AUDIT_KEYS_PHOTOS else LARGE_AUDIT_KEYS


class _PairTable:
    """Maps pairs of photos to integers from 0 to 255, in 9 bytes per pair.

    Args:
        rows: First photo, second photo and number of each pair, (n, 3) int64, sorted.
        count: Number of photos.
    """

    def __init__(self, rows: np.ndarray, count: int) -> None:
        self._count = count
        self.codes = rows[:, 0] * count + rows[:, 1]
        self._numbers = rows[:, 2].astype(np.uint8)

    def values_of(self, codes: np.ndarray) -> dict[tuple[int, int], int]:
        """Return pair -> number for those of some pairs that the table has."""
        if not len(self.codes):
            return {}
        places = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        is_known = self.codes[places] == codes
        pairs = [divmod(code, self._count) for code in codes[is_known].tolist()]
        return dict(zip(pairs, self._numbers[places[is_known]].tolist(), strict=True))


def _look_alike_pairs(
    photos: PhotoSet, views: np.ndarray, is_new: np.ndarray, thorough: bool
) -> np.ndarray:
    """Return the pairs that may be alike as a whole, with the orientation of the second photo.

    Returns:
        Numbers of both photos and the orientation, (n, 3) int64, sorted.
    """
    hashes = candidate_pairs(views, is_new)
    rows = np.stack([hashes.first, hashes.second, hashes.orientation.astype(np.int64)], 1)
    if not thorough or len(photos) > MAX_EXACT_PHOTOS:
        return rows
    orientations = nearest_thumbnails(photos.fingerprints(range(len(photos))))
    orientations |= {(first, second): number for first, second, number in rows.tolist()}
    pairs = sorted((*pair, number) for pair, number in orientations.items())
    return np.array(pairs, np.int64).reshape(-1, 3)


def nearest_thumbnails(fingerprints: Sequence[Fingerprint]) -> dict[tuple[int, int], int]:
    """Return the pairs of photos whose thumbnails are nearest, straight or mirrored.

    Args:
        fingerprints: Fingerprints of the photos.

    Returns:
        Pair of indices -> orientation of the second photo, 1 if it is mirrored: of each photo, the
        NEAREST_THUMBNAILS nearest ones.
    """
    thumbnails = np.stack([p.thumbnail for p in fingerprints]).reshape(
        len(fingerprints), 12, 4, 12, 4
    )
    small = thumbnails.mean((2, 4), dtype=np.float32)
    pairs: dict[tuple[int, int], int] = {}
    straight = _normalized(small)
    count = min(NEAREST_THUMBNAILS, len(fingerprints) - 1)
    if not count:
        return pairs
    for mirrored, others in enumerate((straight, _normalized(small[:, :, ::-1]))):
        for start in range(0, len(fingerprints), THUMBNAIL_BLOCK):
            products = straight[start : start + THUMBNAIL_BLOCK] @ others.T
            rows = np.arange(len(products))
            products[rows, start + rows] = -2
            nearest = np.argpartition(-products, count - 1, axis=1)[:, :count]
            for first, (row, values) in enumerate(zip(nearest, products, strict=True), start):
                for second in row[values[row] >= MIN_THUMBNAIL_CORRELATION].tolist():
                    pairs.setdefault((min(first, second), max(first, second)), mirrored)
    return pairs


def _normalized(pictures: np.ndarray) -> np.ndarray:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6)


def _compare(
    photos: PhotoSet,
    pairs: Sequence[tuple[int, int]],
    mirrored: Mapping[tuple[int, int], bool],
    orientations: Mapping[tuple[int, int], int],
    picture: Callable[[int], Picture | None],
) -> list[ComparedPair]:
    """Compare pairs of photos.

    Args:
        photos: The photos.
        pairs: Pairs with common features or alike as a whole.
        mirrored: Pairs with common features, and whether one photo is mirrored.
        orientations: Pairs that may be alike as a whole, and the orientation of the second photo.
        picture: Returns the picture of a photo.
    """
    with_features = [pair for pair in pairs if pair in mirrored]
    numbers = sorted({photo for pair in with_features for photo in pair})
    features = dict(zip(numbers, photos.features(numbers), strict=True))
    compared: dict[tuple[int, int], Comparison] = {}
    for pair in with_features:
        placement = find_placement(features[pair[0]], features[pair[1]], mirrored[pair])
        pictures = _readable(picture, pair) if placement else None
        if placement and pictures:
            comparison = compare(*pictures, placement.transform, placement.inliers)
            if comparison is not None:
                compared[pair] = comparison
    # Photos with little texture have too few features to be placed by them.
    unrelated = [
        pair
        for pair in pairs
        if pair in orientations and not (pair in compared and compared[pair].is_related)
    ]
    for pair, thumbnail_similarity in _look_alikes(photos, unrelated, orientations):
        if pictures := _readable(picture, pair):
            comparison = compare_whole(*pictures, thumbnail_similarity)
            if comparison is not None:
                compared[pair] = comparison
    return [ComparedPair(*pair, compared[pair]) for pair in pairs if pair in compared]


def _readable(
    picture: Callable[[int], Picture | None], pair: tuple[int, int]
) -> tuple[Picture, Picture] | None:
    """Return the pictures of two photos, None if one can't be read."""
    first, second = map(picture, pair)
    return None if first is None or second is None else (first, second)


def _look_alikes(
    photos: PhotoSet,
    pairs: Sequence[tuple[int, int]],
    orientations: Mapping[tuple[int, int], int],
) -> list[tuple[tuple[int, int], float]]:
    """Return the pairs whose thumbnails are similar, and their similarity."""
    if not pairs:
        return []
    numbers = sorted({photo for pair in pairs for photo in pair})
    fingerprints = dict(zip(numbers, photos.fingerprints(numbers), strict=True))
    similarities = similarity(
        [fingerprints[first] for first, _ in pairs],
        [fingerprints[second] for _, second in pairs],
        np.array([orientations[pair] for pair in pairs]),
    )
    return [
        (pair, value)
        for pair, value in zip(pairs, similarities.tolist(), strict=True)
        if value >= POSSIBLE_SIMILARITY
    ]
