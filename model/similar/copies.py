"""Group the items of an index that show copies of one photo, as `catalogue dedup` does.

Fingerprints and local features of photos are cached on disk, beside the network outputs, so a
photo is read again only if it is a candidate. Items of a catalogue keep the catalogue's clusters.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dataset.duplicates.clusters import connected, links_within
from dataset.duplicates.features import LocalFeatures, unpack_features
from dataset.duplicates.hashing import Fingerprint, unpack
from dataset.duplicates.search import BATCH_PAIRS, PhotoSignature, compare_candidates, read_picture
from dataset.duplicates.verification import Relation
from dataset.images.io import Unreadable, sha256_of
from dataset.utils.threads import map_in_threads
from model.data.feature_cache import FeatureCache
from model.similar.index_file import IndexFile, IndexItem
from model.similar.sources import read_photo

# Changes whenever the signatures of a photo, or what is a copy, would change.
COPIES_VERSION = 1
# Number of signatures in memory at a time, of 15 KB each.
CHUNK_SIZE = 256
# Nearest items that are compared with a photo that is not compared with all.
MAX_COMPARED = 48
# Clusters found here begin so; those of a catalogue are numbers.
CLUSTER_PREFIX = "copies-"
# Bytes of a cached signature: hashes of the views, then the thumbnail, then the features.
VIEW_BYTES, THUMBNAIL_BYTES = 64, 48 * 48 + 2 * 8 * 8


@dataclass(frozen=True)
class CopyGroups:
    """Groups of copies among items.

    Attributes:
        clusters: Cluster of each item; empty if it has no copies.
        unread: Number of photos that could not be read, so they were not compared.
    """

    clusters: list[str]
    unread: int = 0


def group_copies(
    items: Sequence[IndexItem],
    is_new: Sequence[bool],
    read: Callable[[int], bytes],
    cache: FeatureCache,
) -> CopyGroups:
    """Group the items without a catalogue's cluster by copies of one photo.

    The groups do not depend on the order of the items.

    Args:
        items: The items.
        is_new: Whether each item has not been compared yet. Known items keep their groups.
        read: Returns the file of an item; it raises OSError or ValueError if it can't be read.
        cache: The cache of `signature_cache`.
    """
    # Photos are compared in the order of their content.
    indices_by_digest: dict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(items)), key=lambda index: items[index].sha256):
        if not is_of_catalogue(items[index]):
            indices_by_digest[items[index].sha256].append(index)
    digests = list(indices_by_digest)
    new_digests = np.array([all(is_new[i] for i in indices_by_digest[d]) for d in digests], bool)
    links: list[tuple[int, int]] = []
    unread = 0
    if len(digests) > 1 and new_digests.any():
        photos = _CachedPhotos(cache, digests, lambda digest: read(indices_by_digest[digest][-1]))
        links = [
            (int(photos.rows[first]), int(photos.rows[second]))
            for first, second in _find_pairs(photos, new_digests[photos.rows])
        ]
        unread = len(digests) - len(photos)
    known = [
        next((items[i].cluster for i in indices_by_digest[digest] if items[i].cluster), "")
        for digest in digests
    ]
    clusters = [item.cluster for item in items]
    for digest, cluster in zip(digests, _name_clusters(known, links), strict=True):
        for index in indices_by_digest[digest]:
            clusters[index] = cluster
    return CopyGroups(clusters, unread)


def find_copies(
    index: IndexFile,
    keys: Sequence[int],
    digest: str,
    read: Callable[[], bytes],
    cache: FeatureCache,
) -> list[IndexItem]:
    """Return the items of an index that show copies of a photo.

    Args:
        index: The index.
        keys: Keys of the items to compare the photo with.
        digest: SHA-256 of the photo.
        read: Returns the file of the photo; it raises OSError or ValueError if it can't be read.
        cache: The cache of `signature_cache`.
    """
    items = list(index.items(keys).values())
    images, source = {item.sha256: item.image for item in items}, index.facts()["source"]

    def read_file(known: str) -> bytes:
        return read() if known == digest else read_photo(source, images[known])

    photos = _CachedPhotos(cache, sorted({digest, *images}), read_file)
    is_query = np.array([known == digest for known in photos.digests], bool)
    copies = {photos.digests[n] for pair in _find_pairs(photos, is_query) for n in pair}
    return [item for item in items if item.sha256 in copies]


def is_of_catalogue(item: IndexItem) -> bool:
    """Return whether an item has a cluster of a catalogue."""
    return bool(item.cluster) and not item.cluster.startswith(CLUSTER_PREFIX)


def signature_cache(outputs: FeatureCache) -> FeatureCache:
    """Return the cache of signatures in the folder of the cache of network outputs."""
    return FeatureCache(outputs.folder, f"prints-{COPIES_VERSION}", np.uint8)


def _find_pairs(photos: "_CachedPhotos", is_new: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of photos that are one photo, at least one of which is new."""
    if len(photos) < 2 or not is_new.any():
        return []
    batches = tqdm(
        compare_candidates(photos, is_new),
        desc="comparing",
        unit=f" x {BATCH_PAIRS} pairs",
        disable=None,
    )
    return [
        (pair.first, pair.second)
        for batch in batches
        for pair in batch
        if pair.comparison.relation == Relation.NEAR_DUPLICATE
    ]


def _name_clusters(known: Sequence[str], links: Sequence[tuple[int, int]]) -> list[str]:
    """Return the cluster of each photo; a known one keeps its name, and merged ones the lowest.

    Args:
        known: Known cluster of each photo, or an empty text.
        links: Pairs of photos that are one photo.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for photo, cluster in enumerate(known):
        if cluster:
            members[cluster].append(photo)
    pairs = np.array([*links, *links_within(members.values())], np.int64).reshape(-1, 2)
    groups: dict[int, list[int]] = defaultdict(list)
    for photo, group in enumerate(connected(len(known), pairs[:, 0], pairs[:, 1]).tolist()):
        groups[group].append(photo)
    names = list(known)
    next_number = max(map(_number, members), default=0) + 1
    for group in groups.values():
        own = {known[photo] for photo in group if known[photo]}
        if own:
            name = min(own, key=_number)
        elif len(group) > 1:
            name = f"{CLUSTER_PREFIX}{next_number}"
            next_number += 1
        else:
            continue
        for photo in group:
            names[photo] = name
    return names


def _number(cluster: str) -> int:
    return int(cluster.removeprefix(CLUSTER_PREFIX))


class _CachedPhotos:
    """Photos whose signatures are in a cache; those that can't be read are excluded.

    Attributes:
        rows: Positions of the photos among the given ones, (n,) int64.
        digests: Their SHA-256.

    Args:
        cache: The cache of signatures, which gets those that it lacks.
        digests: SHA-256 of each photo, in ascending order.
        read: Returns the file of a photo by its SHA-256.
    """

    def __init__(
        self, cache: FeatureCache, digests: Sequence[str], read: Callable[[str], bytes]
    ) -> None:
        self._cache, self._read = cache, read
        views = self._save_signatures(digests)
        self.rows = np.array([n for n, digest in enumerate(digests) if digest in views], np.int64)
        self.digests = list(views)
        self._views = np.stack(list(views.values())) if views else np.zeros((0, 8), np.uint64)

    def _save_signatures(self, digests: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute the signatures that the cache lacks; return the hashes of each photo's views."""
        views: dict[str, np.ndarray] = {}
        with tqdm(total=len(digests), desc="features", unit=" photos", disable=None) as bar:
            for chunk in _chunks(digests):
                packed = self._cache.get(chunk)
                missing = [digest for digest in chunk if digest not in packed]
                signatures = map_in_threads(self._compute_signature, missing)
                computed = zip(missing, signatures, strict=True)
                new = {digest: data for digest, data in computed if data is not None}
                if new:
                    self._cache.put(new)
                packed |= new
                for digest in chunk:
                    if digest in packed:
                        views[digest] = packed[digest][:VIEW_BYTES].copy().view("<u8")
                bar.update(len(chunk))
        return views

    def _compute_signature(self, digest: str) -> np.ndarray | None:
        data = self._file(digest)
        if data is None:
            return None
        try:
            photo = PhotoSignature.read(data)
        except Unreadable:
            return None
        packed = b"".join((*photo.fingerprint.packed, photo.features.packed))
        return np.frombuffer(packed, np.uint8)

    def _file(self, digest: str) -> bytes | None:
        """Return the file of a photo; None if it can't be read or has changed."""
        try:
            data = self._read(digest)
        except (OSError, ValueError):
            return None
        return data if sha256_of(data) == digest else None

    def __len__(self) -> int:
        return len(self.digests)

    def views(self) -> np.ndarray:
        """Return the hashes of all views, (n, 8) uint64."""
        return self._views

    def fingerprints(self, photos: Sequence[int]) -> list[Fingerprint]:
        """Return the fingerprints of some photos."""
        return [
            unpack(packed[:VIEW_BYTES], packed[VIEW_BYTES : VIEW_BYTES + THUMBNAIL_BYTES])
            for packed in self._packed(photos)
        ]

    def features(self, photos: Sequence[int]) -> Iterator[LocalFeatures]:
        """Yield the local features of some photos."""
        for packed in self._packed(photos):
            yield unpack_features(packed[VIEW_BYTES + THUMBNAIL_BYTES :])

    def _packed(self, photos: Sequence[int]) -> Iterator[bytes]:
        for chunk in _chunks([self.digests[photo] for photo in photos]):
            packed: Mapping[str, np.ndarray] = self._cache.get(chunk)
            yield from (packed[digest].tobytes() for digest in chunk)

    def picture(self, photo: int) -> np.ndarray | None:
        """Return the picture of a photo, None if its file can't be read or has changed."""
        data = self._file(self.digests[photo])
        return None if data is None else read_picture(lambda: data)


def _chunks(digests: Sequence[str]) -> Iterator[Sequence[str]]:
    return (digests[start : start + CHUNK_SIZE] for start in range(0, len(digests), CHUNK_SIZE))
