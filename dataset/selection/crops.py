"""The crop of each photo: key points known to the catalogue or found now, then the crop policy."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.models import CropDecision, CropRow, PoseRow, now
from dataset.catalogue.queries import in_batches
from dataset.images.io import Unreadable, open_photo
from dataset.images.store import ImageStore
from dataset.pose.crop import BY_DECISION, WHOLE, Crop, choose_crop, full_box
from dataset.pose.heatmaps import transform_points
from dataset.pose.models import DEFAULT, PoseModel, find_model, key_of
from dataset.selection.candidates import Candidate

if TYPE_CHECKING:
    from dataset.pose.estimator import Estimator

BATCH_IMAGES = 16
# A person in a third of the photo still fills the network's view.
VIEW_SCALE = 3


@dataclass(frozen=True)
class PoseOptions:
    """Which network finds people, and what is kept: `crop` is person, zone or none."""

    pose: str = DEFAULT
    pose_weights: Path | None = None
    crop: str = "person"

    @property
    def wanted(self) -> bool:
        """Whether photos are cropped at all."""
        return self.pose != "none" and self.crop != "none"

    @property
    def by_zone(self) -> bool:
        """Whether what is kept of a photo depends on what it is tagged as."""
        return self.wanted and self.crop == "zone"


@dataclass(frozen=True)
class PersonCrop:
    """A photo's crop, the key points (joints, 7) that it comes from, and who found them."""

    crop: Crop
    points: np.ndarray
    model: PoseModel
    key: str


def find_crops(
    photos: Sequence[Candidate],
    zones: Sequence[str | None],
    sessions: sessionmaker[Session],
    store: ImageStore,
    options: PoseOptions,
) -> dict[int, PersonCrop]:
    """The crop of each of PHOTOS by its image id; photos that can't be read are left out.

    ZONES: of each photo's garment, heeded when the options ask for zones. All is kept of photos of
    which a person said so. Key points are kept in the catalogue a batch at a time, and only looked
    for where it has none of this model.

    Raises:
        BadInput: no such weights.
        Failure: the network's weights can't be had.
    """
    if not options.wanted:
        return {}
    model = find_model(options.pose, options.pose_weights)
    key = key_of(model)
    known = _load_key_points(
        sessions, [photo.image_id for photo in photos], key, len(model.joints.names)
    )
    missing = [photo for photo in photos if photo.image_id not in known]
    known |= dict(_estimate_key_points(missing, sessions, store, model, key)) if missing else {}
    kept_whole = _uncropped_by_decision(sessions)
    found, rows = {}, []
    for photo, zone in zip(photos, zones, strict=True):
        if photo.image_id in known:
            points = known[photo.image_id]
            asked = zone if options.by_zone else None
            size = photo.width, photo.height
            crop = choose_crop(points, model.joints.names, size, model.gate, asked)
            if not kept_whole.isdisjoint(photo.copies):
                crop = Crop(WHOLE, full_box(size), crop.score, BY_DECISION)
            found[photo.image_id] = PersonCrop(crop, points, model, key)
            rows.append(_row(photo.image_id, key, asked or "", crop))
    _save_crops(sessions, rows)
    return found


def _load_key_points(
    sessions: sessionmaker[Session], images: Sequence[int], key: str, joints: int
) -> dict[int, np.ndarray]:
    found = {}
    with sessions() as session:
        for some in in_batches(images):
            query = sa.select(PoseRow.image_id, PoseRow.points).where(
                PoseRow.model == key, PoseRow.image_id.in_(some)
            )
            for image, points in session.execute(query):
                found[image] = np.frombuffer(points, "<f4").reshape(joints, -1)
    return found


def _uncropped_by_decision(sessions: sessionmaker[Session]) -> set[int]:
    """Images of which people want the whole."""
    with sessions() as session:
        query = sa.select(CropDecision.image_id).where(CropDecision.undone.is_(None))
        return set(session.scalars(query.where(CropDecision.keep_whole)))


def _estimate_key_points(
    photos: Sequence[Candidate],
    sessions: sessionmaker[Session],
    store: ImageStore,
    model: PoseModel,
    key: str,
) -> Iterator[tuple[int, np.ndarray]]:
    """Find the key points of PHOTOS and keep them, a batch at a time."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from dataset.pose.checkpoints import load_estimator

    estimator = load_estimator(model)
    at_least = VIEW_SCALE * max(model.size)
    with tqdm(total=len(photos), desc="key points", unit=" photos", disable=None) as bar:
        for batch, opened in _open_batches(photos, store, at_least):
            points = _batch_key_points(estimator, batch, opened)
            rows = [
                {"image_id": image, "model": key, "points": one.tobytes(), "made": now()}
                for image, one in points
            ]
            with sessions.begin() as session:
                if rows:
                    session.execute(sa.insert(PoseRow), rows)
            yield from points
            bar.update(len(batch))


def _open_batches(
    photos: Sequence[Candidate], store: ImageStore, at_least: int
) -> Iterator[tuple[Sequence[Candidate], list[Image.Image | None]]]:
    """Batches of PHOTOS with what was opened of them; the next is read while one is looked at."""

    def read(photo: Candidate) -> Image.Image | None:
        try:
            return open_photo(store.read(photo.store_key), at_least)
        except (Unreadable, OSError):
            # Named when the photo is written, which needs it whole.
            return None

    batches = [
        photos[start : start + BATCH_IMAGES] for start in range(0, len(photos), BATCH_IMAGES)
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        coming = [pool.submit(read, photo) for photo in batches[0]]
        for batch, after in zip(batches, [*batches[1:], []], strict=True):
            ready, coming = coming, [pool.submit(read, photo) for photo in after]
            yield batch, [future.result() for future in ready]


def _batch_key_points(
    estimator: "Estimator", batch: Sequence[Candidate], opened: Sequence[Image.Image | None]
) -> list[tuple[int, np.ndarray]]:
    pairs = [(p, image) for p, image in zip(batch, opened, strict=True) if image is not None]
    found = []
    points = estimator.find([image for _, image in pairs])
    for (photo, image), one in zip(pairs, points, strict=True):
        # Opened smaller: pixel centres of the small photo, in the whole one's pixels.
        transform_points(
            one, partial(_to_full_size, scale=np.divide((photo.width, photo.height), image.size))
        )
        found.append((photo.image_id, one.astype("<f4")))
    return found


def _to_full_size(places: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (places + 0.5) * scale - 0.5


def _save_crops(sessions: sessionmaker[Session], rows: Sequence[dict[str, Any]]) -> None:
    """The decisions, those of an earlier build replaced."""
    with sessions.begin() as session:
        for some in in_batches(rows):
            session.execute(
                sa.delete(CropRow).where(
                    CropRow.model == some[0]["model"],
                    CropRow.zone.in_({row["zone"] for row in some}),
                    CropRow.image_id.in_([row["image_id"] for row in some]),
                )
            )
            session.execute(sa.insert(CropRow), some)


def _row(image: int, key: str, zone: str, crop: Crop) -> dict[str, Any]:
    left, top, right, bottom = crop.box
    return {
        "image_id": image,
        "model": key,
        "zone": zone,
        "outcome": crop.outcome,
        "reason": crop.reason,
        "score": crop.score,
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
    }
