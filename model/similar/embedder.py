"""Predict the photos of items with a run's model, and cache the network outputs on disk."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from dataset.images.io import sha256_of
from dataset.pose.crop import CROP_POLICY
from dataset.utils import keras_backend
from model.data.features import CACHE_DTYPE, FeatureCache, default_cache_folder
from model.inference.preprocessing import (
    PhotoInput,
    PreparedPhoto,
    Preprocessor,
    describe_read_error,
)
from model.similar.index_file import IndexItem
from model.similar.sources import IndexEntry

if TYPE_CHECKING:
    from model.inference.predictor import NetworkOutputs, Predictor
    from model.inference.saved_run import SavedRun

CHUNK_SIZE = 256
# The largest value that the cache can store.
MAX_CACHED_VALUE = np.float32(np.finfo(CACHE_DTYPE).max)


@dataclass(frozen=True)
class CachedItem:
    """An item with cached network outputs.

    Attributes:
        item: The item.
        view: Name of its photo in the cache; empty if there is a problem.
        problem: Why the photo can't be used, or empty.
        photo: The photo.
    """

    item: IndexItem
    view: str = ""
    problem: str = ""
    photo: PhotoInput | None = None


@dataclass(frozen=True)
class Embedder:
    """A run's model with preprocessing and a cache of network outputs.

    Attributes:
        run: The run.
        folder: Folder of the cache; None: the default.
    """

    run: "SavedRun"
    folder: Path | None = None

    @cached_property
    def predictor(self) -> "Predictor":
        """The run's network."""
        from model.inference.predictor import load_predictor

        return load_predictor(self.run)

    @cached_property
    def cache_key(self) -> str:
        """Changes whenever the predictions would change."""
        crop = self.run.crop
        build_options = self.run.build_options
        resize = (build_options.get("resize", ""), build_options.get("size", ""))
        preprocessing = (
            # The path as it was recorded, from whatever folder the command is called.
            f"{crop.pose} {build_options.get('pose_weights')} {crop.crop}"
            f" {crop.background} {CROP_POLICY} {resize}"
            if crop.is_enabled
            else f"{resize}"
        )
        return f"{self.predictor.cache_key}-{sha256_of(preprocessing.encode())[:8]}"

    @cached_property
    def cache(self) -> FeatureCache:
        """Features and logits in one row per photo."""
        return FeatureCache(self.folder or default_cache_folder(), f"outputs-{self.cache_key}")

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.run.crop, self.run.build_options, self.predictor.size)

    def predict(self, entries: Iterator[IndexEntry]) -> Iterator[CachedItem]:
        """Yield entries as items with cached network outputs, in their order."""
        with tqdm(desc="photos", unit="", disable=None) as bar:
            while chunk := list(islice(entries, CHUNK_SIZE)):
                yield from self._predict_chunk(chunk)
                bar.update(len(chunk))

    def _predict_chunk(self, entries: Sequence[IndexEntry]) -> list[CachedItem]:
        with ThreadPoolExecutor() as pool:
            items = list(pool.map(_hash_photo, entries))
        cached = self.cache.get(list(dict.fromkeys(item.view for item in items if item.view)))
        # A mapping, because a photo may occur twice.
        missing = {
            item.view: entry.photo
            for entry, item in zip(entries, items, strict=True)
            if item.view and item.view not in cached and entry.photo is not None
        }
        problems = self._predict_photos(missing)
        return [
            replace(item, view="", problem=problems[item.view]) if item.view in problems else item
            for item in items
        ]

    def _predict_photos(self, photos: dict[str, PhotoInput]) -> dict[str, str]:
        """Predict photos, view -> photo, and cache the outputs; return view -> problem."""
        problems, views = {}, iter(photos)
        for chunk in self._preprocessor.prepare(photos.values()):
            prepared = dict(zip(islice(views, len(chunk)), chunk, strict=True))
            problems.update({v: photo.problem for v, photo in prepared.items() if photo.problem})
            self._cache_outputs({v: p for v, p in prepared.items() if p.pixels is not None})
        return problems

    def _cache_outputs(self, photos: dict[str, PreparedPhoto]) -> None:
        if photos:
            pixels = [photo.pixels for photo in photos.values() if photo.pixels is not None]
            outputs = self.predictor.predict(np.stack(pixels))
            rows = np.hstack([outputs.features, outputs.logits])
            rows = rows.clip(-MAX_CACHED_VALUE, MAX_CACHED_VALUE)
            self.cache.put(dict(zip(photos, rows, strict=True)))

    def load_outputs(self, items: Sequence[CachedItem]) -> "NetworkOutputs":
        """Load the network outputs of items from the cache."""
        from model.inference.predictor import NetworkOutputs

        views = [item.view for item in items]
        cached = self.cache.get(list(dict.fromkeys(views)))
        rows = np.stack([cached[view] for view in views]).astype(np.float32)
        classes = len(self.predictor.labels)
        return NetworkOutputs(rows[:, :-classes], rows[:, -classes:])


def load_embedder(folder: Path, cache: Path | None = None) -> Embedder:
    """Load the embedder of a run.

    Args:
        folder: The run directory.
        cache: Folder of the cache; None: the default.

    Raises:
        BadInput: The folder is not a run directory.
        Failure: The model can't be read.
    """
    keras_backend.import_backend()
    from model.inference.saved_run import load_run

    return Embedder(load_run(folder), cache)


def _hash_photo(entry: IndexEntry) -> CachedItem:
    """Return an entry with the SHA-256 of its photo, which its name in the cache begins with."""
    item, photo = entry.item, entry.photo
    if photo is None:
        return CachedItem(item, problem=entry.problem)
    if not item.sha256:
        try:
            item = replace(item, sha256=sha256_of(photo.read()))
        except (OSError, ValueError) as error:
            return CachedItem(item, problem=describe_read_error(error))
    box = ",".join(f"{side:.1f}" for side in photo.crop.box) if photo.crop else ""
    return CachedItem(item, f"{item.sha256} {box}", photo=photo)
