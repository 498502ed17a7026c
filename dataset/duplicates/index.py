"""The fingerprints that a catalogue knows: kept with a photo, compared with a new one."""

from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import FingerprintRow, ImageRow, NearDuplicateRow
from dataset.catalogue.queries import in_batches, table_of
from dataset.duplicates.alignment import DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.hamming import HashIndex
from dataset.duplicates.hashing import VIEWS, Fingerprint, unpack
from dataset.duplicates.matching import nearest_known

LOADED = 10_000
# Made once: to make a statement takes longer than to run it.
_FINGERPRINTS, _RESEMBLANCES = map(table_of, (FingerprintRow, NearDuplicateRow))
_IDS, _WHOLE = _FINGERPRINTS.c.image_id, sa.func.substr(_FINGERPRINTS.c.views, 1, 8)
_NEWEST = sa.select(sa.func.max(_IDS))
# Ids and hashes of many images in a row: a million rows take most of their time to be made.
_WHOLES = {
    dialect: sa.select(
        sa.func.aggregate_strings(sa.cast(_IDS, sa.String), ","),
        sa.func.aggregate_strings(hexed, ""),
    ).where(sa.bindparam("after") < _IDS, sa.bindparam("until") >= _IDS)
    for dialect, hexed in (
        ("sqlite", sa.func.hex(_WHOLE, type_=sa.String)),
        ("postgresql", sa.func.encode(_WHOLE, "hex", type_=sa.String)),
    )
}
_KEEP, _KEEP_PAIRS = sa.insert(_FINGERPRINTS), sa.insert(_RESEMBLANCES)


def fingerprint_values(image: int, fingerprint: Fingerprint) -> dict[str, object]:
    """FINGERPRINT of the image with the id IMAGE as a row of the catalogue."""
    views, pixels = fingerprint.packed
    return {"image_id": image, "views": views, "pixels": pixels, "compared": False}


def load_fingerprints(session: Session, images: Sequence[int]) -> dict[int, Fingerprint]:
    """The fingerprints of IMAGES by their ids."""
    found = {}
    for part in in_batches(images):
        query = sa.select(
            FingerprintRow.image_id, FingerprintRow.views, FingerprintRow.pixels
        ).where(FingerprintRow.image_id.in_(part))
        for image, views, looks in session.execute(query):
            found[image] = unpack(views, looks)
    return found


def load_views(session: Session) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all images with a fingerprint: ids (n,), views (n, 8) uint64, compared (n,) bool."""
    query = (
        sa.select(FingerprintRow.image_id, FingerprintRow.views, FingerprintRow.compared)
        .join(ImageRow, ImageRow.id == FingerprintRow.image_id)
        .where(ImageRow.state == "stored")
        .order_by(FingerprintRow.image_id)
    )
    ids, views, compared = [], bytearray(), []
    for image, packed, done in session.execute(query):
        ids.append(image)
        views += packed
        compared.append(done)
    return (
        np.array(ids, np.int64),
        np.frombuffer(bytes(views), "<u8").astype(np.uint64).reshape(-1, VIEWS),
        np.array(compared, bool),
    )


def _wholes(session: Session, after: int) -> tuple["array[int]", np.ndarray]:
    """Ids of images larger than AFTER, and the hashes of the whole photos, (n,) uint64."""
    connection = session.connection()
    newest = connection.scalar(_NEWEST) or 0
    query, rows = _WHOLES[connection.dialect.name], []
    for start in range(after, newest, LOADED):
        row = connection.execute(query, {"after": start, "until": start + LOADED}).one()
        if row[0]:
            rows.append(row)
    ids = np.fromstring(",".join(row[0] for row in rows), np.int64, sep=",")
    hashes = np.frombuffer(bytes.fromhex("".join(row[1] for row in rows)), "<u8")
    # Within a row the two are in one order, whichever the database likes.
    order = np.argsort(ids)
    return array("q", ids[order].tobytes()), hashes[order].astype(np.uint64)


# Another image, whether it is mirrored, and how alike it is.
Match = tuple[int, bool, float]


class FingerprintIndex:
    """All photos of a catalogue, to be asked which one a new photo is a copy of."""

    def __init__(self, session: Session) -> None:
        self._ids, wholes = _wholes(session, 0)
        self._newest = max(self._ids, default=0)
        self._whole = HashIndex(wholes)
        self._latest: dict[int, Fingerprint] = {}

    def catch_up(self, session: Session) -> None:
        """Learn of photos that other processes have kept since; ours stand in the catalogue now."""
        self._latest.clear()
        for image, whole in zip(*_wholes(session, self._newest), strict=True):
            self._add(image, int(whole))

    def _add(self, image: int, whole: int) -> None:
        self._ids.append(image)
        self._newest = max(self._newest, image)
        self._whole.add(whole)

    def alike(
        self, session: Session, fingerprints: Mapping[int, Fingerprint]
    ) -> dict[int, list[Match]]:
        """Of each of FINGERPRINTS, of new photos by their ids: which are or may be the same photo.

        The likest first; those known, and the new ones before it. All are known from now on. Only
        whole photos are compared here; `dedup` compares their parts too.
        """
        if not fingerprints:
            return {}
        # Each pair once: a number may have been another's too, which was taken down and is in the
        # index still.
        near: dict[tuple[int, int], bool] = {}
        later = set(fingerprints)
        places = nearest_known(np.stack([one.views for one in fingerprints.values()]), self._whole)
        for image, one in fingerprints.items():
            self._latest[image] = one
            self._add(image, int(one.views[0]))
        for image, (found_at, mirrored) in zip(fingerprints, places, strict=True):
            for place, turn in zip(found_at, mirrored.tolist(), strict=True):
                if self._ids[place] not in later:
                    near[image, self._ids[place]] = turn
            later.remove(image)
        earlier = {other for _, other in near if other not in self._latest}
        known = self._latest | load_fingerprints(session, sorted(earlier))
        # One that was taken down meanwhile is none any more.
        near = {pair: turn for pair, turn in near.items() if pair[1] in known}
        found: dict[int, list[Match]] = {image: [] for image in fingerprints}
        for (pair, turn), score in zip(near.items(), _scores(near, known), strict=True):
            if score >= POSSIBLE_SIMILARITY:
                found[pair[0]].append((pair[1], turn, score))
        return {image: sorted(alike, key=lambda one: -one[2]) for image, alike in found.items()}


def _scores(near: Mapping[tuple[int, int], bool], known: Mapping[int, Fingerprint]) -> list[float]:
    """How alike each pair of NEAR is, all of them in one call."""
    if not near:
        return []
    # Always the same one first: what two photos are must not hang on which of them came first.
    pairs = [sorted((known[a], known[b]), key=lambda one: one.packed) for a, b in near]
    turns = np.array(list(near.values()), bool)
    found: list[float] = similarity([p[0] for p in pairs], [p[1] for p in pairs], turns).tolist()
    return found


def save_new(
    session: Session, fingerprints: Mapping[int, Fingerprint], alike: Mapping[int, Sequence[Match]]
) -> None:
    """Keep FINGERPRINTS of new images by their ids, and whom each is ALIKE."""
    if fingerprints:
        rows = [fingerprint_values(image, found) for image, found in fingerprints.items()]
        session.connection().execute(_KEEP, rows)
    pairs = [
        {
            "one_id": min(image, other),
            "other_id": max(image, other),
            "mirrored": mirrored,
            "similarity": score,
        }
        for image, found in alike.items()
        for other, mirrored, score in found
    ]
    if pairs:
        session.connection().execute(_KEEP_PAIRS, pairs)


def best_copy(alike: Sequence[Match]) -> int | None:
    """The image that one of ALIKE, the likest first, is; None where it is a photo of its own."""
    return alike[0][0] if alike and alike[0][2] >= DUPLICATE_SIMILARITY else None
