"""Find the crop of each image: estimates from the catalogue or the network, then the policy."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.models import CropDecision, CropRow, PoseRow, now
from dataset.catalogue.queries import in_batches
from dataset.errors import BadInput
from dataset.images.io import Unreadable, open_photo
from dataset.images.store import ImageStore
from dataset.pose.crop import BY_DECISION, KEEP, WHOLE, Crop, choose_crop, full_box
from dataset.pose.heatmaps import Estimate, PersonMask
from dataset.pose.models import DEFAULT, PoseModel, cache_key, find_model
from dataset.selection.candidates import Candidate
from dataset.utils.engines import LOCAL_ENGINE, Engine, PhotoTask

if TYPE_CHECKING:
    from dataset.pose.estimator import PoseEstimator

BATCH_IMAGES = 16
# Images are read at this multiple of the network's input: a person who fills a third of the image
# still fills the input.
VIEW_SCALE = 3


@dataclass(frozen=True)
class PoseOptions:
    """How images are cropped.

    Attributes:
        pose: Name of the pose network, or `none`.
        pose_weights: The user's weights for that network.
        crop: What is kept of an image: `person`, or `none` for all of it.
        background: What is behind the person: `keep`, `blur`, `white`, or `both` to keep it and
            write masks.
    """

    pose: str = DEFAULT
    pose_weights: Path | None = None
    crop: str = "person"
    background: str = KEEP

    def __getstate__(self) -> dict[str, object]:
        """Pickle the path of the weights for any working directory."""
        weights = self.pose_weights and self.pose_weights.absolute()
        return {**vars(self), "pose_weights": weights}

    @property
    def is_enabled(self) -> bool:
        """Return whether images are cropped at all."""
        return self.pose != "none" and self.crop != "none"

    def find_model(self) -> PoseModel:
        """Return the pose network.

        Raises:
            BadInput: The weights file does not exist, or the network finds no masks and the
                background is not to be kept.
        """
        model = find_model(self.pose, self.pose_weights)
        if self.background != KEEP and not model.has_mask:
            raise BadInput(
                f"--background {self.background}: the network {self.pose_weights or self.pose}"
                f" finds no masks; use --pose {DEFAULT}, or --background {KEEP}"
            )
        return model


@dataclass(frozen=True)
class PersonCrop:
    """The crop of an image and what it is derived from.

    Attributes:
        crop: The box that is kept.
        points: Key points, float array of shape (joints, 7); see `dataset.pose.heatmaps`.
        model: The pose network.
        key: Name and digest of the network's weights.
    """

    crop: Crop
    points: np.ndarray
    model: PoseModel
    key: str


def find_crops(
    photos: Sequence[Candidate],
    sessions: sessionmaker[Session],
    store: ImageStore,
    options: PoseOptions,
    engine: Engine = LOCAL_ENGINE,
) -> dict[int, PersonCrop]:
    """Find the crop of each image.

    Key points and masks that the catalogue does not have yet are estimated and saved batch by
    batch. Images that a reviewer wants whole are not cropped. The crops are saved for `review`.

    Args:
        photos: Images to crop.
        sessions: Sessions on the catalogue.
        store: Image store.
        options: Network and policy.
        engine: Runs the network.

    Returns:
        Image id -> crop, without images that can't be read.

    Raises:
        BadInput: The weights file does not exist, or finds no masks and masks are needed.
        Failure: The network's weights can't be fetched.
    """
    if not options.is_enabled:
        return {}
    model = options.find_model()
    key = cache_key(model)
    ids = [photo.image_id for photo in photos]
    uncropped = _uncropped_by_decision(sessions)
    by_id = {photo.image_id: photo for photo in photos}

    def crop_of(image: int, estimate: Estimate) -> PersonCrop:
        photo, names = by_id[image], model.joints.names
        size = photo.width, photo.height
        crop = choose_crop(estimate.points, names, size, model.gate, model.min_score, estimate.mask)
        if not uncropped.isdisjoint(photo.copies):
            crop = Crop(WHOLE, full_box(size), crop.score, BY_DECISION)
        if options.background == KEEP:
            # Masks take most of the memory.
            crop = replace(crop, mask=None)
        return PersonCrop(crop, estimate.points, model, key)

    people = {
        image: crop_of(image, estimate)
        for image, estimate in _load_estimates(sessions, ids, model, key)
    }
    missing = [photo for photo in photos if photo.image_id not in people]
    if missing:
        task = PeopleTask(store, options)
        for image, estimate in _estimate(missing, sessions, task, engine, key):
            people[image] = crop_of(image, estimate)
    crops = {image: people[image] for image in by_id if image in people}
    _save_crops(sessions, (_crop_row(image, key, own.crop) for image, own in crops.items()))
    return crops


def _load_estimates(
    sessions: sessionmaker[Session], image_ids: Sequence[int], model: PoseModel, key: str
) -> Iterator[tuple[int, Estimate]]:
    """Yield the stored estimates by image id."""
    with sessions() as session:
        for ids in in_batches(image_ids):
            query = sa.select(PoseRow.image_id, PoseRow.points, PoseRow.mask).where(
                PoseRow.model == key, PoseRow.image_id.in_(ids)
            )
            for image, points, mask in session.execute(query):
                values = np.frombuffer(points, "<f4").reshape(len(model.joints.names), -1)
                # A copy: a part of the row would keep all of it in memory.
                yield image, Estimate(values.copy(), PersonMask.from_bytes(mask) if mask else None)


def _uncropped_by_decision(sessions: sessionmaker[Session]) -> set[int]:
    """Return the ids of images that reviewers want whole."""
    with sessions() as session:
        query = sa.select(CropDecision.image_id).where(CropDecision.undone.is_(None))
        return set(session.scalars(query.where(CropDecision.keep_whole)))


class StoredImage(NamedTuple):
    """An image to open: its key in the store, and its width and height in pixels."""

    store_key: str
    width: int
    height: int


@dataclass(frozen=True)
class PeopleTask(PhotoTask[StoredImage, "Estimate | None"]):
    """Finds the person in each image; None in images that can't be read.

    Attributes:
        store: The image store.
        options: The pose network by its name: each worker has its files in a place of its own.
    """

    batch_size = BATCH_IMAGES
    store: ImageStore
    options: PoseOptions

    @cached_property
    def model(self) -> PoseModel:
        """The pose network."""
        return self.options.find_model()

    def read(self, job: StoredImage) -> tuple[StoredImage, Image.Image | None]:
        """Open an image, reduced to what the network needs."""
        try:
            photo = self.store.read(job.store_key)
            return job, open_photo(photo, VIEW_SCALE * max(self.model.size))
        except (Unreadable, OSError):
            # Reported when the image is rendered, which reads all of it.
            return job, None

    def start(self) -> Callable[[Sequence[Any]], Sequence["Estimate | None"]]:
        """Load the network and return the function that finds people in opened images."""
        from dataset.utils import keras_backend

        keras_backend.import_backend()
        from dataset.pose.checkpoints import load_estimator

        return partial(_find_people, load_estimator(self.model))


def _find_people(
    estimator: "PoseEstimator", batch: Sequence[tuple[StoredImage, Image.Image | None]]
) -> list["Estimate | None"]:
    people = iter(estimator.find([image for _, image in batch if image is not None]))
    estimates: list[Estimate | None] = []
    for stored, image in batch:
        if image is None:
            estimates.append(None)
            continue
        # The image was opened at a reduced size.
        scaled = next(people).scaled(np.divide((stored.width, stored.height), image.size))
        estimates.append(replace(scaled, points=scaled.points.astype("<f4")))
    return estimates


def _estimate(
    photos: Sequence[Candidate],
    sessions: sessionmaker[Session],
    task: PeopleTask,
    engine: Engine,
    key: str,
) -> Iterator[tuple[int, Estimate]]:
    """Estimate key points and masks, save them batch by batch, and yield them by image id."""
    jobs = [StoredImage(photo.store_key, photo.width, photo.height) for photo in photos]
    results = zip(photos, engine.map(task, jobs), strict=True)
    with tqdm(total=len(photos), desc="people", unit=" photos", disable=None) as bar:
        while batch := list(islice(results, BATCH_IMAGES)):
            estimated = [
                (photo.image_id, estimate) for photo, estimate in batch if estimate is not None
            ]
            rows = [
                {
                    "image_id": image,
                    "model": key,
                    "points": estimate.points.tobytes(),
                    "mask": estimate.mask and estimate.mask.to_bytes(),
                    "made": now(),
                }
                for image, estimate in estimated
            ]
            with sessions.begin() as session:
                if rows:
                    session.execute(sa.insert(PoseRow), rows)
            yield from estimated
            bar.update(len(batch))


def _save_crops(sessions: sessionmaker[Session], rows: Iterable[dict[str, Any]]) -> None:
    """Save crops, replacing those of earlier builds."""
    with sessions.begin() as session:
        for batch in in_batches(rows):
            session.execute(
                sa.delete(CropRow).where(
                    CropRow.model == batch[0]["model"],
                    CropRow.image_id.in_([row["image_id"] for row in batch]),
                )
            )
            session.execute(sa.insert(CropRow), batch)


def _crop_row(image: int, key: str, crop: Crop) -> dict[str, Any]:
    left, top, right, bottom = crop.box
    return {
        "image_id": image,
        "model": key,
        "outcome": crop.outcome,
        "reason": crop.reason,
        "score": crop.score,
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
    }
