"""Extract the features of photos with a frozen backbone, and make training sets.

A head is trained on cached features, a network on photos that are augmented in each epoch.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.errors import Failure
from dataset.utils.engines import LOCAL_ENGINE, Engine, PhotoTask
from model.data.augmentation import ImageAugmentation
from model.data.feature_cache import CACHE_DTYPE, FeatureCache
from model.data.loading import (
    Example,
    SplitData,
    letterbox,
    read_image,
    read_images,
    view_digests,
)
from model.network.inception import BLOCK_CHANNELS, CACHED_BLOCKS, letterbox_layer

BATCH_SIZE, CHUNK_SIZE = 32, 256
NO_AUGMENTATION = ImageAugmentation()
# Pixels that stay in memory during training; other photos are read again in each epoch.
MAX_CACHED_BYTES = 3 << 30
TRAINING_BATCH_SIZE = 32


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
            pixels: The original, uint8 array of shape (size, size, channels).
            name: One of `names`.
        """
        if name.endswith(" plain"):
            return pixels
        rng = np.random.default_rng(list(hashlib.sha256(name.encode()).digest()))
        is_mirrored = int(name.rpartition("#")[2]) % 2 == 1
        return self.augmentation.apply(pixels, rng, mirror=is_mirrored)


class ViewsJob(NamedTuple):
    """A photo whose features are extracted.

    Attributes:
        photo: The photo.
        digest: Its value of `view_digests`.
        names: Names of the views to extract.
    """

    photo: Example
    digest: str
    names: list[str]


class ViewsResult(NamedTuple):
    """Features of a photo.

    Attributes:
        digest: Its value of `view_digests`.
        outputs: Name of a view -> float16 array of shape (width,).
        problem: Why the photo can't be read, or empty.
    """

    digest: str
    outputs: dict[str, np.ndarray]
    problem: str = ""


@dataclass(frozen=True)
class FeaturesTask(PhotoTask[ViewsJob, ViewsResult]):
    """Extracts the features of photos of a data folder.

    Attributes:
        features: Pixels of shape (batch, size, size, channels) -> features.
        folder: The data folder.
        views: The views of each photo.
    """

    batch_size = BATCH_SIZE
    features: keras.Model
    folder: Path
    views: Views

    def read(self, job: ViewsJob) -> tuple[ViewsJob, dict[str, np.ndarray] | str]:
        """Return a job with the pixels of its views, or why the photo can't be read."""
        transform = partial(letterbox, size=int(self.features.input.shape[1]))
        photo = read_image(self.folder, job.photo, transform)
        if isinstance(photo, str):
            return job, photo
        return job, {name: self.views.render(photo, name) for name in job.names}

    def start(self) -> Callable[[Sequence[Any]], list[ViewsResult]]:
        """Return the function that extracts the features of read photos.

        Raises:
            Failure: The worker does not have the data folder.
        """
        if not self.folder.is_dir():
            raise Failure(
                f"--engine ray: a worker has no folder {self.folder}; keep it on a file system that"
                " all machines mount at the same path"
            )
        return self._extract

    def _extract(
        self, photos: Sequence[tuple[ViewsJob, dict[str, np.ndarray] | str]]
    ) -> list[ViewsResult]:
        views = {
            name: pixels
            for _, own in photos
            if not isinstance(own, str)
            for name, pixels in own.items()
        }
        outputs: dict[str, np.ndarray] = {}
        names = list(views)
        for start in range(0, len(names), BATCH_SIZE):
            batch = names[start : start + BATCH_SIZE]
            rows = self.features.predict_on_batch(np.stack([views[name] for name in batch]))
            outputs |= zip(batch, _to_cache_dtype(np.asarray(rows)), strict=True)
        return [
            ViewsResult(job.digest, {}, own)
            if isinstance(own, str)
            else ViewsResult(job.digest, {name: outputs[name] for name in own})
            for job, own in photos
        ]


@dataclass(frozen=True)
class FeatureExtractor:
    """A frozen backbone with a cache of its features.

    Attributes:
        features: Pixels of shape (batch, size, size, channels) -> features.
        cache: The cache.
        blocks: The blocks whose features follow one another, once for each part of a photo.
        engine: Runs the backbone.
    """

    features: keras.Model
    cache: FeatureCache
    blocks: tuple[str, ...] = CACHED_BLOCKS
    engine: Engine = LOCAL_ENGINE

    def extract(self, data: SplitData, split: str, views: Views) -> SplitFeatures:
        """Return the features of a split, from the cache where possible.

        Raises:
            Failure: The features are not finite.
        """
        photos = data.examples_of(split)
        digests: dict[Example, str] = {}
        outputs: dict[str, np.ndarray] = {}
        unreadable: dict[str, str] = {}
        problems: dict[str, str] = {}
        with tqdm(
            total=len(photos), desc=f"features, {split}", unit=" photos", disable=None
        ) as bar:
            jobs = self._missing(data.folder, photos, views, digests, outputs, unreadable, bar)
            results = self.engine.map(
                FeaturesTask(self.features, data.folder.absolute(), views), jobs
            )
            while batch := list(islice(results, BATCH_SIZE)):
                problems |= {result.digest: result.problem for result in batch if result.problem}
                new = {name: row for result in batch for name, row in result.outputs.items()}
                self.cache.put(new)
                outputs |= new
                bar.update(len(batch))
        unreadable |= {
            example.path: problems[digest]
            for example, digest in digests.items()
            if digest in problems
        }
        examples = [example for example, digest in digests.items() if digest not in problems]
        shape = len(examples), len(views.names("")), int(self.features.output.shape[-1])
        values = np.zeros(shape, CACHE_DTYPE)
        for own, example in zip(values, examples, strict=True):
            own[:] = [outputs[name] for name in views.names(digests[example])]
        return SplitFeatures(examples, values, data.targets(examples), unreadable, self.blocks)

    def _missing(
        self,
        folder: Path,
        photos: Sequence[Example],
        views: Views,
        digests: dict[Example, str],
        outputs: dict[str, np.ndarray],
        unreadable: dict[str, str],
        bar: tqdm,
    ) -> Iterator[ViewsJob]:
        """Yield the photos with views that are not cached, each view once.

        Args:
            folder: The data folder.
            photos: The photos.
            views: The views of each.
            digests: Receives the value of `view_digests` of each photo.
            outputs: Receives the cached outputs by view.
            unreadable: Receives the path and the reason of each unreadable photo.
            bar: Advances by the photos that are skipped.
        """
        requested: set[str] = set()
        for start in range(0, len(photos), CHUNK_SIZE):
            chunk = view_digests(folder, photos[start : start + CHUNK_SIZE], unreadable)
            digests |= chunk
            names = {digest: views.names(digest) for digest in chunk.values()}
            outputs |= self.cache.get([name for own in names.values() for name in own])
            missing = {
                digest: [name for name in own if name not in outputs and name not in requested]
                for digest, own in names.items()
            }
            jobs = [
                ViewsJob(example, digest, missing.pop(digest))
                for example, digest in chunk.items()
                if missing.get(digest)
            ]
            requested.update(name for job in jobs for name in job.names)
            bar.update(len(photos[start : start + CHUNK_SIZE]) - len(jobs))
            yield from jobs


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
        The example, and a float32 array of shape (size, size, channels) or a reason.
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


def batches(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield indices in their order, TRAINING_BATCH_SIZE at a time."""
    size = TRAINING_BATCH_SIZE
    return (indices[start : start + size] for start in range(0, len(indices), size))


@dataclass(frozen=True)
class HeadTrainingSet:
    """Features of photos to train a head on; an epoch uses one view of each photo.

    Attributes:
        values: Features of shape (n, views, width).
        targets: Target probabilities of shape (n, classes).
        weights: Example weights of shape (n,).
    """

    values: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def inputs(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Return float32 features of shape (batch, width); the views alternate by epoch."""
        views = (indices + epoch) % self.values.shape[1]
        return self.values[indices, views].astype(np.float32)


@dataclass
class ImageSet:
    """Letterboxed photos, kept in memory up to MAX_CACHED_BYTES.

    Attributes:
        folder: The data folder.
        examples: The photos.
        size: Width and height of the letterboxed photos in pixels.
        cache: Index -> pixels.
    """

    folder: Path
    examples: Sequence[Example]
    size: int
    cache: dict[int, np.ndarray] = field(default_factory=dict)

    def letterbox(self, photo: Image.Image) -> np.ndarray:
        """Return the pixels of a letterboxed photo, uint8 array of shape (size, size, channels)."""
        return letterbox(photo, self.size)

    def pixels(self, index: int) -> np.ndarray:
        """Return the pixels of a photo, uint8 array of shape (size, size, channels).

        Raises:
            Failure: The photo can no longer be read.
        """
        if index not in self.cache:
            photo = read_image(self.folder, self.examples[index], self.letterbox)
            if isinstance(photo, str):
                path = self.folder / self.examples[index].path
                raise Failure(f"{path} can no longer be read: {photo}")
            if (len(self.cache) + 1) * photo.nbytes > MAX_CACHED_BYTES:
                return photo
            self.cache[index] = photo
        return self.cache[index]

    @classmethod
    def load_readable(
        cls,
        folder: Path,
        examples: Sequence[Example],
        size: int,
        unreadable: dict[str, str],
    ) -> "ImageSet":
        """Load photos; those that can't be read are excluded.

        Args:
            folder: The data folder.
            examples: The photos.
            size: Width and height of the letterboxed photos in pixels.
            unreadable: Receives the path and the reason of each unreadable photo.
        """
        readable, cache = list[Example](), dict[int, np.ndarray]()
        free_bytes = MAX_CACHED_BYTES
        for example, photo in read_images(folder, examples, cls(folder, (), size).letterbox):
            if isinstance(photo, str):
                unreadable[example.path] = photo
                continue
            if free_bytes >= photo.nbytes:
                cache[len(readable)], free_bytes = photo, free_bytes - photo.nbytes
            readable.append(example)
        return cls(folder, readable, size, cache)

    def logits(self, network: keras.Model) -> np.ndarray:
        """Return the logits of all photos, float32 array of shape (n, classes)."""
        outputs = [
            np.asarray(network.predict_on_batch(np.stack([self.pixels(i) for i in indices])))
            for indices in batches(range(len(self.examples)))
        ]
        empty = np.zeros((0, network.output.shape[-1]), np.float32)
        return np.concatenate([empty, *outputs]).astype(np.float32)


@dataclass
class ImageTrainingSet:
    """Photos that are augmented differently in each epoch; equal seeds give equal pixels.

    Attributes:
        images: The photos.
        targets: Target probabilities of shape (n, classes).
        weights: Example weights of shape (n,).
        augmentation: The random transforms.
        seed: Random seed.
        pool: Threads that augment the photos of a batch.
    """

    images: ImageSet
    targets: np.ndarray
    weights: np.ndarray
    augmentation: ImageAugmentation
    seed: int
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(os.cpu_count()))

    def inputs(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Return augmented pixels, uint8 array of shape (batch, size, size, channels)."""

        def augment(index: int) -> np.ndarray:
            rng = np.random.default_rng((self.seed, epoch, index))
            return self.augmentation.apply(self.images.pixels(index), rng)

        return np.stack(list(self.pool.map(augment, indices.tolist())))
