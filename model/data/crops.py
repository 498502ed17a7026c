"""Crop photos to the person, for data that no build has cropped."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from dataset.export.layout import MANIFEST
from dataset.images.io import Unreadable, open_photo
from dataset.pose.checkpoints import load_estimator
from dataset.pose.crop import BLUR, BOTH, KEEP, WHITE, WHOLE, Crop, choose_crop
from dataset.pose.heatmaps import Estimate, PersonMask, as_box
from dataset.pose.models import PoseModel, cache_key
from model.data.feature_cache import EXACT_DTYPE, FeatureCache
from model.data.loading import Example, SplitData, read_images, view_digests

BATCH_SIZE = 16
CROPS = ("whole", "strip", "person")
BACKGROUNDS = (KEEP, BLUR, WHITE, BOTH)
# Width of the central strip relative to the photo's. Photographers centre people, so that it is a
# control for the person crop: the mean strip that holds a person on street photos.
STRIP_WIDTH = 0.59
# Columns of a point: x, y, score, and the region of the joint.
POINT_COLUMNS = 7


@dataclass(frozen=True)
class CropResult:
    """Data whose examples have a crop.

    Attributes:
        data: The data.
        outcomes: Kind of crop -> number of photos.
    """

    data: SplitData
    outcomes: Counter[str]


def is_cropped(data: SplitData) -> bool:
    """Return whether the data is a build whose photos are crops."""
    path = data.folder / MANIFEST
    if not path.exists() or "crop" not in pq.read_schema(path).names:
        return False
    return bool(pq.read_table(path, columns=["crop"])["crop"].is_valid().to_numpy().any())


def crop_data(
    data: SplitData, crop: str, model: PoseModel, folder: Path, background: str = KEEP
) -> CropResult:
    """Add crops to the examples; they depend on the photos alone, not on their labels.

    Args:
        data: Uncropped photos.
        crop: One of CROPS.
        model: The pose network.
        folder: Where key points and masks are cached.
        background: What is behind a person, one of BACKGROUNDS.
    """
    if crop == "whole":
        return CropResult(data, Counter({WHOLE: len(data.examples)}))
    if crop == "strip":
        crops = _central_strips(data)
    else:
        cache = FeatureCache(folder, f"people-{cache_key(model)}", EXACT_DTYPE)
        crops = {
            example: _person_crop(values, model)
            for example, values in _estimates(data, model, cache).items()
        }
    outcomes = Counter(chosen.outcome for chosen in crops.values())
    kept = {example: chosen for example, chosen in crops.items() if chosen.outcome != WHOLE}
    # Whole photos have the same background, and so the same channels, as the others.
    examples = [
        replace(example, crop=kept.get(example), background=background) for example in data.examples
    ]
    return CropResult(replace(data, examples=tuple(examples)), outcomes)


def _central_strips(data: SplitData) -> dict[Example, Crop]:
    strips = {}
    for example in data.examples:
        try:
            # Opened as small as possible: only the size is needed.
            width, height = open_photo(data.folder / example.path, at_least=1).info["size"]
        except (Unreadable, OSError):
            continue
        margin = round(width * (1 - STRIP_WIDTH) / 2)
        box = float(margin), 0.0, float(width - margin), float(height)
        strips[example] = Crop("strip", box, 0.0)
    return strips


def _person_crop(values: np.ndarray, model: PoseModel) -> Crop:
    size = int(values[0]), int(values[1])
    estimate, names = _unpack(values[2:], model), model.joints.names
    return choose_crop(estimate.points, names, size, model.gate, model.min_score, estimate.mask)


def _pack(estimate: Estimate) -> np.ndarray:
    """Return an estimate as one array: key points, height, width, region and mask, and bounds."""
    if estimate.mask is None:
        return estimate.points.ravel()
    mask = estimate.mask
    return np.concatenate(
        [
            *(estimate.points.ravel(), mask.values.shape, mask.region, mask.values.ravel()),
            mask.bounds or (),
        ]
    )


def _unpack(values: np.ndarray, model: PoseModel) -> Estimate:
    joints = len(model.joints.names)
    points, rest = np.split(values, [joints * POINT_COLUMNS])
    mask = None
    if len(rest):
        height, width, left, top, right, bottom = map(float, rest[:6])
        array, bounds = np.split(rest[6:], [int(height * width)])
        array = array.reshape(int(height), int(width)).astype(np.uint8)
        region = left, top, right, bottom
        mask = PersonMask(array, region, as_box(bounds.reshape(2, 2)) if len(bounds) else None)
    return Estimate(points.reshape(joints, POINT_COLUMNS), mask)


def _estimates(data: SplitData, model: PoseModel, cache: FeatureCache) -> dict[Example, np.ndarray]:
    """Return width, height and the packed estimate of each readable photo."""
    digests = view_digests(data.folder, data.examples, {})
    cached = cache.get(list(dict.fromkeys(digests.values())))
    missing = [example for example, digest in digests.items() if digest not in cached]
    for batch in _estimate(data, missing, model) if missing else ():
        new = {digests[example]: values for example, values in batch.items()}
        cache.put(new)
        cached |= {digest: values.astype(EXACT_DTYPE) for digest, values in new.items()}
    return {example: cached[digest] for example, digest in digests.items() if digest in cached}


def _estimate(
    data: SplitData, examples: Sequence[Example], model: PoseModel
) -> Iterator[dict[Example, np.ndarray]]:
    estimator = load_estimator(model)
    batch: dict[Example, Image.Image] = {}

    def estimate() -> dict[Example, np.ndarray]:
        estimates = estimator.find(list(batch.values()))
        return {
            example: np.concatenate([photo.size, _pack(person)])
            for (example, photo), person in zip(batch.items(), estimates, strict=True)
        }

    progress = tqdm(total=len(examples), desc="people", unit=" photos", disable=None)
    for example, photo in read_images(data.folder, examples, np.asarray):
        progress.update()
        if not isinstance(photo, str):
            batch[example] = Image.fromarray(photo)
        if len(batch) == BATCH_SIZE:
            yield estimate()
            batch = {}
    if batch:
        yield estimate()
    progress.close()
