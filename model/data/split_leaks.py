"""Find photos of plain folders that are in the test split and among those a model learns from."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset.duplicates.search import LoadedPhotos, PhotoPrint, compared_photos
from dataset.errors import BadInput
from dataset.export.layout import MANIFEST
from dataset.images.io import Unreadable
from dataset.utils.files import write_json
from dataset.utils.threads import map_in_threads
from model.data.feature_cache import default_cache_folder
from model.data.loading import Example, SplitData
from model.data.metadata import hash_dataset

# Pairs that an error message names.
MAX_EXAMPLES = 3


def learned_test_photos(data: SplitData, cache: Path | None) -> list[tuple[str, str]]:
    """Find the test photos that show the same as a train or validation photo.

    A build has been audited; its photos are not compared again.

    Args:
        data: The splits.
        cache: Folder that keeps the result for the next training on the same photos; None: the
            default one.

    Returns:
        Path of each such test photo, and of one photo that it shows.
    """
    if (data.folder / MANIFEST).exists() or not data.examples_of("test"):
        return []
    digest = hash_dataset(data.folder, data.examples).sha256
    file = (cache or default_cache_folder()) / f"split-leaks-{digest[:24]}.json"
    try:
        pairs = json.loads(file.read_text(encoding="utf-8"))["pairs"]
        return [(test, other) for test, other in pairs]
    except (OSError, ValueError, KeyError):
        pairs = _find(data.folder, data.examples)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json({"pairs": pairs}, file)
    return pairs


def refuse_leaks(data: SplitData, cache: Path | None, allow: bool) -> int:
    """Return how many test photos are learned.

    Raises:
        BadInput: There are any, and they are not allowed.
    """
    pairs = learned_test_photos(data, cache)
    if pairs and not allow:
        examples = "; ".join(f"{test} is {other}" for test, other in pairs[:MAX_EXAMPLES])
        raise BadInput(
            f"{len(pairs)} of the {len(data.examples_of('test'))} test photos of {data.folder} are"
            f" among the train or validation photos, resized, cropped or changed ({examples}), so"
            " the accuracy would be too high. Move them to one split, let build-dataset split the"
            " photos, or train with --allow-leaks"
        )
    return len(pairs)


def _find(folder: Path, examples: Sequence[Example]) -> list[tuple[str, str]]:
    def read(example: Example) -> PhotoPrint | None:
        try:
            return PhotoPrint.read(folder / example.path)
        except (Unreadable, OSError):
            # The training excludes and reports it.
            return None

    prints = tqdm(
        map_in_threads(read, examples),
        total=len(examples),
        desc="comparing splits",
        unit=" photos",
        disable=None,
    )
    known = [
        (example, photo)
        for example, photo in zip(examples, prints, strict=True)
        if photo is not None
    ]
    # In an order of their content, so that the result does not depend on names.
    known.sort(key=lambda pair: pair[1].features.packed)
    photos = LoadedPhotos(
        [photo for _, photo in known],
        lambda number: (folder / known[number][0].path).read_bytes(),
    )
    is_test = np.array([example.split == "test" for example, _ in known], int)
    found: dict[str, str] = {}
    for batch in compared_photos(photos, groups=is_test, thorough=True):
        for pair in batch:
            if pair.comparison.is_related:
                first, second = known[pair.first][0], known[pair.second][0]
                test, other = (first, second) if first.split == "test" else (second, first)
                found[test.path] = min(other.path, found.get(test.path, other.path))
    return sorted(found.items())
