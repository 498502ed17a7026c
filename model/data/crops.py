"""Crop photos to the person or the garment zone, for data that no build has cropped."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from dataset.export.layout import MANIFEST
from dataset.pose.checkpoints import load_estimator
from dataset.pose.crop import Crop, choose_crop
from dataset.pose.models import PoseModel, cache_key
from dataset.vocabulary import Vocabulary
from model.data.features import EXACT_DTYPE, FeatureCache
from model.data.loading import Example, SplitData, read_images, view_digests

BATCH_SIZE = 16
CROPS = ("whole", "person", "zone")


@dataclass(frozen=True)
class CropResult:
    """Data whose examples have a crop box.

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
    data: SplitData, crop: str, model: PoseModel, vocabulary: Vocabulary, folder: Path
) -> CropResult:
    """Add crop boxes to the examples.

    Args:
        data: Uncropped photos.
        crop: One of CROPS. With `zone`, photos whose label has no zone are cropped to the person.
        model: The pose network.
        vocabulary: Defines the zone of each label.
        folder: Where key points are cached.
    """
    if crop == "whole":
        return CropResult(data, Counter({"whole": len(data.examples)}))
    cache = FeatureCache(folder, f"key-points-{cache_key(model)}", EXACT_DTYPE)
    key_points = _key_points(data, model, cache)
    outcomes: Counter[str] = Counter()
    examples = []
    for example in data.examples:
        chosen = None
        if example in key_points:
            zone = vocabulary.zone_of(example.label) if crop == "zone" else None
            chosen = _crop(key_points[example], model, zone)
            outcomes[chosen.outcome] += 1
        examples.append(replace(example, box=_rounded_box(chosen)))
    return CropResult(replace(data, examples=tuple(examples)), outcomes)


def _crop(values: np.ndarray, model: PoseModel, zone: str | None) -> Crop:
    size = int(values[0]), int(values[1])
    points = values[2:].reshape(len(model.joints.names), -1)
    return choose_crop(points, model.joints.names, size, model.gate, zone, model.min_score)


def _rounded_box(crop: Crop | None) -> tuple[int, int, int, int] | None:
    if crop is None or crop.outcome == "whole":
        return None
    left, top, right, bottom = (round(side) for side in crop.box)
    return left, top, right, bottom


def _key_points(
    data: SplitData, model: PoseModel, cache: FeatureCache
) -> dict[Example, np.ndarray]:
    """Return width, height and flattened key points (joints, 7) of each readable photo."""
    digests = view_digests(data.folder, data.examples, {})
    cached = cache.get(list(dict.fromkeys(digests.values())))
    missing = [example for example, digest in digests.items() if digest not in cached]
    for batch in _estimate_key_points(data, missing, model) if missing else ():
        new = {digests[example]: values for example, values in batch.items()}
        cache.put(new)
        cached |= new
    return {example: cached[digest] for example, digest in digests.items() if digest in cached}


def _estimate_key_points(
    data: SplitData, examples: Sequence[Example], model: PoseModel
) -> Iterator[dict[Example, np.ndarray]]:
    estimator = load_estimator(model)
    batch: dict[Example, Image.Image] = {}

    def estimate() -> dict[Example, np.ndarray]:
        key_points = estimator.find(list(batch.values()))
        return {
            example: np.concatenate([photo.size, points.ravel()])
            for (example, photo), points in zip(batch.items(), key_points, strict=True)
        }

    progress = tqdm(total=len(examples), desc="key points", unit=" photos", disable=None)
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
