"""What networks learn from: kept trunk outputs, or photos augmented anew each epoch."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from dataset.errors import Failure
from model.data.augmentation import Augmentation
from model.data.loading import Example, boxed, read, read_one

# Bytes of pixels that stay in memory while a network is trained; other photos are read again.
KEPT = 3 << 30
BATCH = 32


def batches(places: Sequence[int]) -> Iterator[Sequence[int]]:
    """PLACES in their order, BATCH at a time."""
    return (places[start : start + BATCH] for start in range(0, len(places), BATCH))


@dataclass(frozen=True)
class OutputsFeed:
    """A head's food. `values`: (n, views, width); an epoch sees one view of each photo."""

    values: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    def inputs(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """(batch, width) float32: the views go round from epoch to epoch."""
        views = (places + epoch) % self.values.shape[1]
        return self.values[places, views].astype(np.float32)


@dataclass
class Pixels:
    """Photos of EXAMPLES as the network sees them, `size` pixels wide and high, kept as room is."""

    folder: Path
    examples: Sequence[Example]
    size: int
    kept: dict[int, np.ndarray] = field(default_factory=dict)

    def shape(self, photo: Image.Image) -> np.ndarray:
        """PHOTO as the network sees it."""
        return boxed(photo, self.size)

    def of(self, place: int) -> np.ndarray:
        """(size, size, 3) uint8 of the example at PLACE.

        Raises:
            Failure: the photo can't be read any more.
        """
        if place not in self.kept:
            photo = read_one(self.folder, self.examples[place], self.shape)
            if isinstance(photo, str):
                path = self.folder / self.examples[place].path
                raise Failure(f"{path} can't be read any more: {photo}")
            if (len(self.kept) + 1) * photo.nbytes > KEPT:
                return photo
            self.kept[place] = photo
        return self.kept[place]

    @classmethod
    def readable(
        cls,
        folder: Path,
        examples: Sequence[Example],
        size: int,
        unreadable: dict[str, str],
    ) -> "Pixels":
        """Those of EXAMPLES that can be read; why the others can't goes into UNREADABLE."""
        found, kept, room = list[Example](), dict[int, np.ndarray](), KEPT
        for example, photo in read(folder, examples, cls(folder, (), size).shape):
            if isinstance(photo, str):
                unreadable[example.path] = photo
                continue
            if room >= photo.nbytes:
                kept[len(found)], room = photo, room - photo.nbytes
            found.append(example)
        return cls(folder, found, size, kept)

    def logits(self, network: keras.Model) -> np.ndarray:
        """What NETWORK, pixels -> logits, says of all of them: (n, classes) float32."""
        parts = [
            np.asarray(network.predict_on_batch(np.stack([self.of(place) for place in places])))
            for places in batches(range(len(self.examples)))
        ]
        none = np.zeros((0, network.output.shape[-1]), np.float32)
        return np.concatenate([none, *parts]).astype(np.float32)


@dataclass
class PixelsFeed:
    """A whole network's food: PIXELS changed by AUGMENTATION, anew each epoch, alike for SEED."""

    pixels: Pixels
    targets: np.ndarray
    weights: np.ndarray
    augmentation: Augmentation
    seed: int
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(os.cpu_count()))

    def inputs(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """(batch, size, size, 3) uint8."""

        def one(place: int) -> np.ndarray:
            rng = np.random.default_rng((self.seed, epoch, place))
            return self.augmentation.apply(self.pixels.of(place), rng)

        return np.stack(list(self.pool.map(one, places.tolist())))
