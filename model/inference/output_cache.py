"""Cache the outputs of a run's network on disk, for all commands that predict the same photos."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dataset.images.io import sha256_of
from dataset.pose.crop import CROP_POLICY, Crop
from dataset.pose.models import cache_key
from model.data.feature_cache import CACHE_DTYPE, EXACT_DTYPE, FeatureCache, default_cache_folder

if TYPE_CHECKING:
    from model.inference.predictor import NetworkOutputs, Predictor, SavedRun
    from model.inference.preprocessing import PreparedPhoto

# Part of the file's name; changes with the layout of the rows.
ROW_VERSION = 2
# The largest feature that the cache can store.
MAX_CACHED_VALUE = np.float32(np.finfo(CACHE_DTYPE).max)


class PhotoOutputs(NamedTuple):
    """The network outputs for a photo.

    Attributes:
        features: Float array of shape (width,).
        logits: Calibrated logits, float array of shape (classes,).
    """

    features: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class OutputCache:
    """Features and logits of photos, which are float16 and float32 in the file.

    Logits decide on labels and verdicts, so they are exact. Results do not depend on what is in the
    cache: `put` returns the outputs as `get` does.

    Attributes:
        key: Changes whenever the outputs for a photo would change.
        classes: Number of logits.
        folder: Folder of the cache; None: the default.
    """

    key: str
    classes: int
    folder: Path | None = None

    @classmethod
    def of_run(
        cls, run: "SavedRun", predictor: "Predictor", folder: Path | None = None
    ) -> "OutputCache":
        """Return the cache of a run.

        Args:
            run: The run.
            predictor: Its network.
            folder: Folder of the cache; None: the default.
        """
        crop, build_options = run.crop, run.build_options
        resize = (build_options.get("resize", ""), build_options.get("size", ""))
        preprocessing = (
            f"{cache_key(crop.find_model())} {crop.crop} {crop.background} {CROP_POLICY} {resize}"
            if crop.is_enabled
            else f"{resize}"
        )
        key = f"{predictor.cache_key}-{sha256_of(preprocessing.encode())[:8]}"
        return cls(key, len(predictor.labels), folder)

    @cached_property
    def file(self) -> FeatureCache:
        """The file, with a row of float16 values per photo; a logit takes two of them."""
        folder = self.folder or default_cache_folder()
        return FeatureCache(folder, f"outputs-{ROW_VERSION}-{self.key}")

    def get(self, views: Sequence[str]) -> dict[str, PhotoOutputs]:
        """Return the cached outputs of some photos by the names of `view_name`."""
        rows = self.file.get(list(dict.fromkeys(views)))
        return {view: self._unpack(row) for view, row in rows.items()}

    def put(self, outputs: Mapping[str, PhotoOutputs]) -> dict[str, PhotoOutputs]:
        """Store outputs by the names of `view_name`, and return them as they are stored."""
        rows = {view: _pack(photo) for view, photo in outputs.items()}
        self.file.put(rows)
        return {view: self._unpack(row) for view, row in rows.items()}

    def predict(
        self, predictor: "Predictor", views: Sequence[str], photos: Sequence["PreparedPhoto"]
    ) -> "NetworkOutputs":
        """Return the outputs for photos, from the cache where possible.

        Args:
            predictor: The network.
            views: Their names, see `view_name`.
            photos: Photos with pixels.
        """
        outputs = self.get(views)
        missing = {
            view: photo for view, photo in zip(views, photos, strict=True) if view not in outputs
        }
        if missing:
            predicted = predictor.predict_prepared(list(missing.values()))
            rows = map(PhotoOutputs, predicted.features, predicted.logits)
            outputs |= self.put(dict(zip(missing, rows, strict=True)))
        return stack_outputs([outputs[view] for view in views])

    def _unpack(self, row: np.ndarray) -> PhotoOutputs:
        width = len(row) - self.classes * EXACT_DTYPE().itemsize // CACHE_DTYPE().itemsize
        features, logits = row[:width], row[width:].copy().view(EXACT_DTYPE)
        return PhotoOutputs(features.astype(np.float32), logits)


def _pack(photo: PhotoOutputs) -> np.ndarray:
    features = photo.features.clip(-MAX_CACHED_VALUE, MAX_CACHED_VALUE).astype(CACHE_DTYPE)
    return np.concatenate([features, photo.logits.astype(EXACT_DTYPE).view(CACHE_DTYPE)])


def stack_outputs(outputs: Sequence[PhotoOutputs]) -> "NetworkOutputs":
    """Return the outputs of n > 0 photos as arrays."""
    from model.inference.predictor import NetworkOutputs

    return NetworkOutputs(*map(np.stack, zip(*outputs, strict=True)))


def view_name(sha256: str, crop: Crop | None) -> str:
    """Return the name of a photo in the cache.

    Args:
        sha256: SHA-256 of its file.
        crop: The crop, if it was known before the photo was read. Otherwise, it follows from the
            photo.
    """
    box = ",".join(f"{side:.1f}" for side in crop.box) if crop else ""
    return f"{sha256} {box}"
