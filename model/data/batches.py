"""Training sets: cached features for a head, or photos that are augmented in each epoch."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from dataset.errors import Failure
from model.data.augmentation import ImageAugmentation
from model.data.loading import Example, letterbox, read_image, read_images

# Pixels that stay in memory during training; other photos are read again in each epoch.
MAX_CACHED_BYTES = 3 << 30
BATCH_SIZE = 32


def batches(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield indices in their order, BATCH_SIZE at a time."""
    return (indices[start : start + BATCH_SIZE] for start in range(0, len(indices), BATCH_SIZE))


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
