"""The part of each photo that HRNet's key points leave, for photos that no build has cropped."""

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
from model.data.features import EXACT, OutputsCache
from model.data.loading import Data, Example, digests, read

BATCH = 16
CROPS = ("whole", "person", "zone")


@dataclass(frozen=True)
class Cropped:
    """DATA whose examples say what is seen of them, and how many came out how."""

    data: Data
    outcomes: Counter[str]


def cropped_already(data: Data) -> bool:
    """Whether DATA is a build whose photos are crops."""
    path = data.folder / MANIFEST
    if not path.exists() or "crop" not in pq.read_schema(path).names:
        return False
    return bool(pq.read_table(path, columns=["crop"])["crop"].is_valid().to_numpy().any())


def crop_data(
    data: Data, crop: str, model: PoseModel, vocabulary: Vocabulary, folder: Path
) -> Cropped:
    """DATA seen as CROP, one of CROPS, says; key points are kept in the cache FOLDER.

    Zones are those of the labels in VOCABULARY; other labels' photos are cropped to the person.
    """
    if crop == "whole":
        return Cropped(data, Counter({"whole": len(data.examples)}))
    known = _key_points(data, model, OutputsCache(folder, f"key-points-{cache_key(model)}", EXACT))
    outcomes: Counter[str] = Counter()
    examples = []
    for example in data.examples:
        chosen = None
        if example in known:
            zone = vocabulary.zone_of(example.label) if crop == "zone" else None
            chosen = _crop(known[example], model, zone)
            outcomes[chosen.outcome] += 1
        examples.append(replace(example, box=_pixels(chosen)))
    return Cropped(replace(data, examples=tuple(examples)), outcomes)


def _crop(values: np.ndarray, model: PoseModel, zone: str | None) -> Crop:
    size = int(values[0]), int(values[1])
    points = values[2:].reshape(len(model.joints.names), -1)
    return choose_crop(points, model.joints.names, size, model.gate, zone)


def _pixels(crop: Crop | None) -> tuple[int, int, int, int] | None:
    if crop is None or crop.outcome == "whole":
        return None
    left, top, right, bottom = (round(side) for side in crop.box)
    return left, top, right, bottom


def _key_points(data: Data, model: PoseModel, cache: OutputsCache) -> dict[Example, np.ndarray]:
    """Width, height, and the key points (joints, 7) laid flat, of each readable photo."""
    shas = digests(data.folder, data.examples, {})
    known = cache.get(list(dict.fromkeys(shas.values())))
    lacking = [example for example, sha in shas.items() if sha not in known]
    for some in _looked_at(data, lacking, model) if lacking else ():
        new = {shas[example]: values for example, values in some.items()}
        cache.put(new)
        known |= new
    return {example: known[sha] for example, sha in shas.items() if sha in known}


def _looked_at(
    data: Data, examples: Sequence[Example], model: PoseModel
) -> Iterator[dict[Example, np.ndarray]]:
    estimator = load_estimator(model)
    batch: dict[Example, Image.Image] = {}

    def found() -> dict[Example, np.ndarray]:
        points = estimator.find(list(batch.values()))
        pairs = zip(batch.items(), points, strict=True)
        return {e: np.concatenate([photo.size, one.ravel()]) for (e, photo), one in pairs}

    shown = tqdm(total=len(examples), desc="key points", unit=" photos", disable=None)
    for example, photo in read(data.folder, examples, np.asarray):
        shown.update()
        if not isinstance(photo, str):
            batch[example] = Image.fromarray(photo)
        if len(batch) == BATCH:
            yield found()
            batch = {}
    if batch:
        yield found()
    shown.close()
