"""Extract the features of photos with a frozen backbone, and cache them on disk.

The cache is one SQLite file per backbone, with a row per view of a photo. Rows are written in one
transaction per batch, so a killed process loses one batch at most.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from dataset.errors import Failure
from dataset.images.io import PIXELS_VERSION
from model.data.augmentation import ImageAugmentation
from model.data.loading import (
    Example,
    SplitData,
    letterbox,
    read_images,
    view_digests,
)
from model.network.inception import BLOCK_CHANNELS, CACHED_BLOCKS, letterbox_layer

CACHE_DTYPE = np.float16
EXACT_DTYPE = np.float32
# Below SQLite's own limit of parameters per statement.
MAX_SQL_VALUES = 500


def default_cache_folder() -> Path:
    """Return the folder of cached features in the user's cache folder."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise Failure("there is no home folder; name a folder of cached features: --cache") from (
            error
        )
    return Path(base) / "fashion-tagger" / "features"


@dataclass(frozen=True)
class FeatureCache:
    """A cache of network outputs by the name of a view.

    Attributes:
        folder: Folder of the SQLite file.
        key: Name of the file; must be different for networks with different outputs.
        dtype: NumPy type of the stored values.
    """

    folder: Path
    key: str
    dtype: type = CACHE_DTYPE

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / f"{self.key}.sqlite"

    def get(self, views: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the cached outputs of some views, name -> array of shape (width,)."""
        outputs: dict[str, np.ndarray] = {}
        with self._open() as base:
            for start in range(0, len(views), MAX_SQL_VALUES):
                names = views[start : start + MAX_SQL_VALUES]
                marks = ",".join("?" * len(names))
                query = f"SELECT view, value FROM outputs WHERE view IN ({marks})"
                for view, value in base.execute(query, names):
                    outputs[view] = np.frombuffer(value, self.dtype)
        return outputs

    def put(self, outputs: Mapping[str, np.ndarray]) -> None:
        """Store outputs, name of a view -> array of shape (width,)."""
        rows = [(view, value.astype(self.dtype).tobytes()) for view, value in outputs.items()]
        with self._open() as base, base:
            base.executemany("INSERT OR REPLACE INTO outputs VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file.

        Raises:
            Failure: It can't be read or written: the disk is full, for example.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as base:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS outputs"
                    " (view TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
                )
                (version,) = base.execute("PRAGMA user_version").fetchone()
                if version != PIXELS_VERSION:
                    # These are outputs of photos that were read in another way.
                    with base:
                        base.execute("DELETE FROM outputs")
                        base.execute(f"PRAGMA user_version = {PIXELS_VERSION}")
                yield base
        except (sqlite3.Error, OSError) as error:
            raise Failure(
                f"the feature cache {self.path} can't be used: {error}; free disk space or remove"
                " the file, or name another folder with --cache"
            ) from error


BATCH_SIZE, CHUNK_SIZE = 32, 256
NO_AUGMENTATION = ImageAugmentation()


@dataclass(frozen=True)
class SplitFeatures:
    """Features of the readable photos of a split.

    Attributes:
        examples: The photos.
        values: Float16 array of shape (n, views, width); the first view is not augmented.
        targets: Class indices of shape (n,), or targets of facets of shape (n, facets).
        unreadable: Path -> reason.
        blocks: The blocks whose features follow one another, once for each part of a photo.
    """

    examples: list[Example]
    values: np.ndarray
    targets: np.ndarray
    unreadable: dict[str, str]
    blocks: tuple[str, ...] = CACHED_BLOCKS

    def columns(self, feature_layers: Sequence[str]) -> np.ndarray:
        """Return the indices of the columns of some blocks.

        Raises:
            Failure: The backbone does not have one of the blocks.
        """
        if missing := [layer for layer in feature_layers if layer not in self.blocks]:
            raise Failure(
                f"--feature-layers {missing[0]}: the backbone ends at {self.blocks[-1]}; choose"
                f" from {', '.join(self.blocks)}"
            )
        widths = np.cumsum([0, *(BLOCK_CHANNELS[block] for block in self.blocks)])
        starts = dict(zip(self.blocks, widths, strict=False))
        return np.concatenate(
            [
                np.arange(BLOCK_CHANNELS[layer]) + part + starts[layer]
                for part in range(0, self.values.shape[-1], int(widths[-1]))
                for layer in feature_layers
            ]
        )


@dataclass(frozen=True)
class Views:
    """Views of each photo: the original and augmented versions.

    The random transforms depend on the photo and the augmentation only, so that later trainings
    find the views in the cache.

    Attributes:
        augmentation: The random transforms.
        count: Number of views, including the original.
    """

    augmentation: ImageAugmentation = NO_AUGMENTATION
    count: int = 1

    def names(self, digest: str) -> list[str]:
        """Return a unique name for each view of a photo.

        Args:
            digest: The photo's value of `view_digests`.
        """
        if not self.augmentation:
            return [f"{digest} plain"]
        # There are only two views by mirroring.
        count = min(self.count, 2) if self.augmentation.is_mirror_only else self.count
        augmented = [f"{digest} {self.augmentation} #{number}" for number in range(1, count)]
        return [f"{digest} plain", *augmented]

    def render(self, pixels: np.ndarray, name: str) -> np.ndarray:
        """Return the pixels of the view with a given name.

        Args:
            pixels: The original, uint8 array of shape (size, size, 3).
            name: One of `names`.
        """
        if name.endswith(" plain"):
            return pixels
        rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        is_mirrored = int(name.rpartition("#")[2]) % 2 == 1
        return self.augmentation.apply(pixels, rng, mirror=is_mirrored)


@dataclass(frozen=True)
class FeatureExtractor:
    """A frozen backbone with a cache of its features.

    Attributes:
        features: Pixels of shape (batch, size, size, 3) -> features.
        cache: The cache.
        blocks: The blocks whose features follow one another, once for each part of a photo.
    """

    features: keras.Model
    cache: FeatureCache
    blocks: tuple[str, ...] = CACHED_BLOCKS

    def extract(self, data: SplitData, split: str, views: Views) -> SplitFeatures:
        """Return the features of a split, from the cache where possible."""
        unreadable: dict[str, str] = {}
        examples: list[Example] = []
        width = int(self.features.output.shape[-1])
        values = [np.zeros((0, len(views.names("")), width), CACHE_DTYPE)]
        photos = data.examples_of(split)
        with tqdm(
            total=len(photos), desc=f"features, {split}", unit=" photos", disable=None
        ) as bar:
            for start in range(0, len(photos), CHUNK_SIZE):
                chunk = photos[start : start + CHUNK_SIZE]
                features = self._extract_chunk(data, chunk, views, unreadable)
                examples += features
                values += [np.stack(arrays)[None] for arrays in features.values()]
                bar.update(len(chunk))
        targets = data.targets(examples)
        return SplitFeatures(examples, np.concatenate(values), targets, unreadable, self.blocks)

    def _extract_chunk(
        self, data: SplitData, chunk: Sequence[Example], views: Views, unreadable: dict[str, str]
    ) -> dict[Example, list[np.ndarray]]:
        digests = view_digests(data.folder, chunk, unreadable)
        names = {example: views.names(digest) for example, digest in digests.items()}
        cached = self.cache.get([name for own in names.values() for name in own])
        missing = {
            example: own
            for example, own in names.items()
            if any(name not in cached for name in own)
        }
        for batch in self._batches(data, missing, views, cached, unreadable):
            outputs = np.asarray(self.features.predict_on_batch(np.stack(list(batch.values()))))
            new = dict(zip(batch, _to_cache_dtype(outputs), strict=True))
            self.cache.put(new)
            cached |= new
        return {
            example: [cached[name] for name in own]
            for example, own in names.items()
            if example.path not in unreadable
        }

    def _batches(
        self,
        data: SplitData,
        missing: Mapping[Example, Sequence[str]],
        views: Views,
        cached: Mapping[str, np.ndarray],
        unreadable: dict[str, str],
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield the views that are not cached, name -> pixels, BATCH_SIZE at a time."""
        batch: dict[str, np.ndarray] = {}
        size = int(self.features.input.shape[1])
        for example, photo in read_images(
            data.folder, list(missing), partial(letterbox, size=size)
        ):
            if isinstance(photo, str):
                unreadable[example.path] = photo
                continue
            for name in missing[example]:
                if name in cached:
                    continue
                batch[name] = views.render(photo, name)
                if len(batch) == BATCH_SIZE:
                    yield batch
                    batch = {}
        if batch:
            yield batch


def _to_cache_dtype(outputs: np.ndarray) -> np.ndarray:
    """Return outputs as they are cached.

    Raises:
        Failure: They are not finite, because the weights are broken for example.
    """
    with np.errstate(over="ignore"):
        cached = outputs.astype(CACHE_DTYPE)
    if not np.isfinite(cached).all():
        raise Failure(
            "the outputs of the backbone are not finite, or too large for float16: the file of"
            " --weights is broken, or --precision float32 is needed"
        )
    return cached


def read_letterboxed(
    folder: Path, examples: Sequence[Example], size: int
) -> Iterator[tuple[Example, np.ndarray | str]]:
    """Yield each example with its photo, letterboxed as in the saved model, or why it has none.

    Args:
        folder: The data folder.
        examples: The photos.
        size: Width and height of the network's input in pixels.

    Yields:
        The example, and a float32 array of shape (size, size, 3) or a reason.
    """
    letterbox_photo = letterbox_layer(size)
    for example, photo in read_images(folder, examples, np.asarray):
        if isinstance(photo, str):
            yield example, photo
            continue
        # Photos have different sizes: letterbox them one by one.
        pixels = letterbox_photo(photo[None].astype(np.float32))
        yield example, keras.ops.convert_to_numpy(pixels)[0]


def predict_logits(
    network: keras.Model, data: SplitData, split: str, unreadable: dict[str, str]
) -> tuple[list[Example], np.ndarray]:
    """Return the logits of the photos of a split, letterboxed as in the saved model.

    Args:
        network: Pixels -> logits.
        data: The splits.
        split: The split to predict.
        unreadable: Receives the path and the reason of each unreadable photo.

    Returns:
        The readable photos, and a float32 array of shape (n, classes).
    """
    examples: list[Example] = []
    logits = [np.zeros((0, int(network.output.shape[-1])), np.float32)]
    batch: list[np.ndarray] = []
    photos = read_letterboxed(data.folder, data.examples_of(split), int(network.input.shape[1]))
    for example, photo in photos:
        if isinstance(photo, str):
            unreadable[example.path] = photo
            continue
        examples.append(example)
        batch.append(photo)
        if len(batch) == BATCH_SIZE:
            logits.append(np.asarray(network.predict_on_batch(np.stack(batch))))
            batch = []
    if batch:
        logits.append(np.asarray(network.predict_on_batch(np.stack(batch))))
    return examples, np.concatenate(logits)
