"""The fingerprints that a catalogue knows: kept with a photo, compared with a new one."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.orm import Session

from dataset import quality
from dataset.catalogue.queries import in_parts
from dataset.catalogue.tables import FingerprintRow, ImageRow, ResemblanceRow
from dataset.duplicates.fingerprint import VIEWS, Fingerprint, fingerprint, unpack
from dataset.duplicates.likeness import FOLD, POSSIBLE, likeness
from dataset.duplicates.nearest import HashIndex
from dataset.duplicates.search import near_one
from dataset.quality import Quality

# Pixels a side that are enough to look at a photo: a JPEG is decoded that small, which changes at
# most 2 bits of a hash (benchmarks/crawl.py hashes).
ENOUGH = 2 * quality.LOOK
LOADED = 10_000


@dataclass(frozen=True)
class Looks:
    """What a photo is recognised and judged by."""

    fingerprint: Fingerprint
    quality: Quality


def look(image: Image.Image) -> Looks:
    """The looks of IMAGE, RGB."""
    small = quality.at_most(image, quality.LOOK)
    return Looks(fingerprint(small), quality.measure_small(small))


def row_of(image: int, looks: Looks) -> dict[str, object]:
    """LOOKS of the image with the id IMAGE as a row of the catalogue."""
    views, pixels = looks.fingerprint.packed
    judged = looks.quality
    return {
        "image_id": image,
        "views": views,
        "looks": pixels,
        "contrast": judged.contrast,
        "blur": judged.blur,
        "text": judged.text,
        "compared": False,
    }


def fingerprints_of(session: Session, images: Sequence[int]) -> dict[int, Fingerprint]:
    """The fingerprints of IMAGES by their ids."""
    found = {}
    for part in in_parts(images):
        query = sa.select(
            FingerprintRow.image_id, FingerprintRow.views, FingerprintRow.looks
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
    query = sa.select(FingerprintRow.image_id, FingerprintRow.views)
    if after:
        query = query.where(FingerprintRow.image_id > after)
    ids, wholes = array("q"), bytearray()
    for image, views in session.execute(
        query.order_by(FingerprintRow.image_id).execution_options(yield_per=LOADED)
    ):
        ids.append(image)
        wholes += views[:8]
    return ids, np.frombuffer(bytes(wholes), "<u8").astype(np.uint64)


class KnownPhotos:
    """All photos of a catalogue, to be asked which one a new photo is a copy of."""

    def __init__(self, session: Session) -> None:
        self._ids, wholes = _wholes(session, 0)
        self._newest = max(self._ids, default=0)
        self._whole = HashIndex(wholes)

    def catch_up(self, session: Session) -> None:
        """Learn of photos that other processes have kept since."""
        for image, whole in zip(*_wholes(session, self._newest), strict=True):
            self._add(image, int(whole))

    def add(self, image: int, looks: Looks) -> None:
        """The image with the id IMAGE is known from now on."""
        self._add(image, int(looks.fingerprint.views[0]))

    def _add(self, image: int, whole: int) -> None:
        self._ids.append(image)
        self._newest = max(self._newest, image)
        self._whole.add(whole)

    def alike(self, session: Session, looks: Looks) -> list[tuple[int, bool, float]]:
        """Images that are or may be the photo of LOOKS: id, mirrored, likeness; the likest first.

        Only whole photos are compared here; `dedup` compares their parts too.
        """
        places, mirrored = near_one(looks.fingerprint.views, self._whole.hashes)
        near = [self._ids[place] for place in places]
        known = fingerprints_of(session, near)
        # Always the same one first: what two photos are must not hang on which of them came first.
        pairs = [sorted((looks.fingerprint, known[i]), key=lambda one: one.packed) for i in near]
        scores = likeness([pair[0] for pair in pairs], [pair[1] for pair in pairs], mirrored)
        found = zip(near, mirrored.tolist(), scores.tolist(), strict=True)
        return sorted((one for one in found if one[2] >= POSSIBLE), key=lambda one: -one[2])


def keep_new(
    session: Session, image: int, looks: Looks, alike: Sequence[tuple[int, bool, float]]
) -> None:
    """Keep LOOKS of the new image with the id IMAGE, and whom it is ALIKE."""
    session.execute(sa.insert(FingerprintRow), [row_of(image, looks)])
    if alike:
        session.execute(
            sa.insert(ResemblanceRow),
            [
                {
                    "one_id": min(image, other),
                    "other_id": max(image, other),
                    "mirrored": mirrored,
                    "likeness": score,
                }
                for other, mirrored, score in alike
            ],
        )


def cluster_of(session: Session, alike: Sequence[tuple[int, bool, float]]) -> int | None:
    """The cluster of the photo that one of ALIKE, the likest first, is; None where it is none."""
    if alike and alike[0][2] >= FOLD:
        return session.scalar(sa.select(ImageRow.cluster_id).where(ImageRow.id == alike[0][0]))
    return None
