"""Fingerprints in the catalogue: save those of new images, and find near duplicates of them."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.models import FingerprintRow, ImageRow, NearDuplicateRow
from dataset.catalogue.queries import in_batches, table_of
from dataset.duplicates.alignment import DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.features import LocalFeatures, unpack_features
from dataset.duplicates.hamming import HashIndex
from dataset.duplicates.hashing import VIEW_COUNT, Fingerprint, unpack
from dataset.duplicates.matching import nearest_known
from dataset.duplicates.search import read_picture
from dataset.duplicates.verification import Relation
from dataset.images.store import ImageStore

LOADED_IDS = 10_000
# Built once: building a statement takes longer than running it.
_FINGERPRINTS, _NEAR_DUPLICATES, _IMAGES = map(
    table_of, (FingerprintRow, NearDuplicateRow, ImageRow)
)
_IDS, _WHOLE_HASH = _FINGERPRINTS.c.image_id, sa.func.substr(_FINGERPRINTS.c.views, 1, 8)
_NEWEST = sa.select(sa.func.max(_IDS))
# Ids and hashes are aggregated into one row: fetching a million rows takes most of the time.
_SELECT_HASHES = {
    dialect: sa.select(
        sa.func.aggregate_strings(sa.cast(_IDS, sa.String), ","),
        sa.func.aggregate_strings(hexed, ""),
    ).where(sa.bindparam("after") < _IDS, sa.bindparam("until") >= _IDS)
    for dialect, hexed in (
        ("sqlite", sa.func.hex(_WHOLE_HASH, type_=sa.String)),
        ("postgresql", sa.func.encode(_WHOLE_HASH, "hex", type_=sa.String)),
    )
}
_SELECT_KEY = sa.select(_IMAGES.c.store_key).where(_IMAGES.c.id == sa.bindparam("image"))
_INSERT_FINGERPRINTS, _INSERT_PAIRS = sa.insert(_FINGERPRINTS), sa.insert(_NEAR_DUPLICATES)


def fingerprint_values(image: int, fingerprint: Fingerprint) -> dict[str, object]:
    """Return the column values of an image's fingerprint."""
    views, pixels = fingerprint.packed
    return {"image_id": image, "views": views, "pixels": pixels, "compared": False}


def load_fingerprints(session: Session, images: Sequence[int]) -> dict[int, Fingerprint]:
    """Load the fingerprints of images by their ids; those without one are missing."""
    fingerprints = {}
    for batch in in_batches(images):
        query = sa.select(
            FingerprintRow.image_id, FingerprintRow.views, FingerprintRow.pixels
        ).where(FingerprintRow.image_id.in_(batch))
        for image, views, pixels in session.execute(query):
            fingerprints[image] = unpack(views, pixels)
    return fingerprints


class CataloguePhotos:
    """The stored images with fingerprint and features, in the order of their SHA-256.

    Attributes:
        ids: Ids of the images, (n,) int64.
        compared: Whether each was compared, (n,) bool.
    """

    def __init__(self, sessions: sessionmaker[Session], store: ImageStore) -> None:
        """Load the ids and the hashes of all images."""
        self._sessions, self._store = sessions, store
        query = (
            sa.select(FingerprintRow.image_id, FingerprintRow.views, FingerprintRow.compared)
            .join(ImageRow, ImageRow.id == FingerprintRow.image_id)
            .where(ImageRow.state == "stored", FingerprintRow.features.is_not(None))
            .order_by(ImageRow.sha256)
        )
        ids, views, compared = [], bytearray(), []
        with sessions() as session:
            for image, packed, is_compared in session.execute(query):
                ids.append(image)
                views += packed
                compared.append(is_compared)
        self.ids, self.compared = np.array(ids, np.int64), np.array(compared, bool)
        self._views = np.frombuffer(views, "<u8").reshape(-1, VIEW_COUNT)

    def __len__(self) -> int:
        return len(self.ids)

    def views(self) -> np.ndarray:
        """Return the hashes of all views, (n, 8) uint64."""
        return self._views

    def fingerprints(self, photos: Sequence[int]) -> list[Fingerprint]:
        """Return the fingerprints of some photos."""
        images = self.ids[list(photos)].tolist()
        with self._sessions() as session:
            fingerprints = load_fingerprints(session, images)
        return [fingerprints[image] for image in images]

    def features(self, photos: Sequence[int]) -> Iterator[LocalFeatures]:
        """Yield the local features of some photos."""
        for batch in in_batches(self.ids[list(photos)].tolist()):
            query = sa.select(FingerprintRow.image_id, FingerprintRow.features).where(
                FingerprintRow.image_id.in_(batch)
            )
            with self._sessions() as session:
                packed = {image: features for image, features in session.execute(query)}  # noqa: C416
            yield from (unpack_features(packed[image] or b"") for image in batch)

    def picture(self, photo: int) -> np.ndarray | None:
        """Return the picture of a photo, None if its file is missing or can't be read."""
        with self._sessions() as session:
            key = session.connection().scalar(_SELECT_KEY, {"image": int(self.ids[photo])})
        return read_picture(lambda: self._store.read(str(key)))


def _whole_hashes(session: Session, after: int) -> tuple["array[int]", np.ndarray]:
    """Load the ids above `after`, and the hashes of the whole images, (n,) uint64."""
    connection = session.connection()
    newest = connection.scalar(_NEWEST) or 0
    query, rows = _SELECT_HASHES[connection.dialect.name], []
    for start in range(after, newest, LOADED_IDS):
        row = connection.execute(query, {"after": start, "until": start + LOADED_IDS}).one()
        if row[0]:
            rows.append(row)
    ids = np.fromstring(",".join(row[0] for row in rows), np.int64, sep=",")
    hashes = np.frombuffer(bytes.fromhex("".join(row[1] for row in rows)), "<u8")
    # The database aggregates both columns of a row in the same order, which may be any.
    order = np.argsort(ids)
    return array("q", ids[order].tobytes()), hashes[order].astype(np.uint64)


class Match(NamedTuple):
    """An image that is or may be a near duplicate of a new one."""

    image: int
    mirrored: bool
    similarity: float

    @property
    def relation(self) -> Relation:
        """Return what both images have in common, as far as their fingerprints tell."""
        return (
            Relation.NEAR_DUPLICATE
            if self.similarity >= DUPLICATE_SIMILARITY
            else Relation.POSSIBLE
        )


class FingerprintIndex:
    """The whole-image hashes of a catalogue in memory, to find near duplicates of new images."""

    def __init__(self, session: Session) -> None:
        """Load the hashes of all images."""
        self._ids, hashes = _whole_hashes(session, 0)
        self._newest = max(self._ids, default=0)
        self._hashes = HashIndex(hashes)
        # Fingerprints that may not be committed yet.
        self._recent: dict[int, Fingerprint] = {}

    def catch_up(self, session: Session) -> None:
        """Add the images that other processes have committed; our own are committed by now."""
        self._recent.clear()
        for image, view_hash in zip(*_whole_hashes(session, self._newest), strict=True):
            self._add(image, int(view_hash))

    def _add(self, image: int, view_hash: int) -> None:
        self._ids.append(image)
        self._newest = max(self._newest, image)
        self._hashes.add(view_hash)

    def find(
        self, session: Session, fingerprints: Mapping[int, Fingerprint]
    ) -> dict[int, list[Match]]:
        """Find the near duplicates of new images, and add these to the index.

        Only whole images are compared; `dedup` compares all views.

        Args:
            session: The session.
            fingerprints: Id -> fingerprint of the new images.

        Returns:
            The matches of each new image among known and earlier new images, most similar first.
        """
        if not fingerprints:
            return {}
        # By pair: the index may contain an id twice, if its image was taken down and the database
        # has reused the id.
        near: dict[tuple[int, int], bool] = {}
        later = set(fingerprints)
        views = np.stack([fingerprint.views for fingerprint in fingerprints.values()])
        nearest = nearest_known(views, self._hashes)
        for image, fingerprint in fingerprints.items():
            self._recent[image] = fingerprint
            self._add(image, int(fingerprint.views[0]))
        for image, (indices, mirrored) in zip(fingerprints, nearest, strict=True):
            for index, is_mirrored in zip(indices, mirrored.tolist(), strict=True):
                if self._ids[index] not in later:
                    near[image, self._ids[index]] = is_mirrored
            later.remove(image)
        stored = {other for _, other in near if other not in self._recent}
        known = self._recent | load_fingerprints(session, sorted(stored))
        # Images that were taken down meanwhile have no fingerprint any more.
        near = {pair: is_mirrored for pair, is_mirrored in near.items() if pair[1] in known}
        matches: dict[int, list[Match]] = {image: [] for image in fingerprints}
        similarities = _similarities(near, known)
        for ((image, other), is_mirrored), value in zip(near.items(), similarities, strict=True):
            if value >= POSSIBLE_SIMILARITY:
                matches[image].append(Match(other, is_mirrored, value))
        return {
            image: sorted(image_matches, key=lambda match: -match.similarity)
            for image, image_matches in matches.items()
        }


def _similarities(
    near: Mapping[tuple[int, int], bool], fingerprints: Mapping[int, Fingerprint]
) -> list[float]:
    """Return the similarity of pairs of images, given whether they are mirrored."""
    if not near:
        return []
    # Sorted by content, so that the result does not depend on which image came first.
    pairs = [
        sorted(
            (fingerprints[first], fingerprints[second]), key=lambda fingerprint: fingerprint.packed
        )
        for first, second in near
    ]
    mirrored = np.array(list(near.values()), bool)
    values: list[float] = similarity(
        [pair[0] for pair in pairs], [pair[1] for pair in pairs], mirrored
    ).tolist()
    return values


def save_new(
    session: Session,
    fingerprints: Mapping[int, Fingerprint],
    matches: Mapping[int, Sequence[Match]],
) -> None:
    """Save the fingerprints of new images and their matches.

    Args:
        session: The session.
        fingerprints: Id -> fingerprint.
        matches: Id -> matches, see `FingerprintIndex.find`.
    """
    if fingerprints:
        rows = [fingerprint_values(image, value) for image, value in fingerprints.items()]
        session.connection().execute(_INSERT_FINGERPRINTS, rows)
    pairs = [
        {
            "one_id": min(image, match.image),
            "other_id": max(image, match.image),
            "mirrored": match.mirrored,
            "similarity": match.similarity,
            # `dedup` decides it from the pixels.
            "relation": match.relation,
        }
        for image, image_matches in matches.items()
        for match in image_matches
    ]
    if pairs:
        session.connection().execute(_INSERT_PAIRS, pairs)


def duplicate_of(matches: Sequence[Match]) -> int | None:
    """Return the image that a new one is a near duplicate of, None if it is of none.

    Args:
        matches: Its matches, most similar first.
    """
    is_duplicate = matches and matches[0].relation == Relation.NEAR_DUPLICATE
    return matches[0].image if is_duplicate else None
