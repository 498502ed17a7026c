"""Photos of any size -> letterboxed pixels, trunk outputs, and predicted shares."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from tqdm import tqdm

from model.classifier import letterbox_layer
from model.data import Example

Read = Iterable[tuple[Example, np.ndarray | str]]


@dataclass(frozen=True)
class Photos:
    """The readable photos of a split. `targets`: (n,) int, places in the labels.

    `values`: (n, …), what was computed of each photo; `unreadable`: path -> reason.
    """

    examples: Sequence[Example]
    values: np.ndarray
    targets: np.ndarray
    unreadable: dict[str, str]


def letterboxed(photos: Read, labels: Sequence[str], size: int) -> Photos:
    """PHOTOS as the network sees them; values are (n, size, size, 3) uint8 in [0, 255]."""
    layer = letterbox_layer(size)

    def shrink(batch: np.ndarray) -> np.ndarray:
        return np.rint(keras.ops.convert_to_numpy(layer(batch.astype(np.float32)))).astype(np.uint8)

    return _each(photos, labels, shrink, np.zeros((0, size, size, 3), np.uint8))


def predicted(network: keras.Model, photos: Read, labels: Sequence[str]) -> Photos:
    """What NETWORK says of raw PHOTOS; values are (n, classes) float32 shares that sum to 1."""
    return _each(photos, labels, network.predict_on_batch, np.zeros((0, len(labels)), np.float32))


def _each(
    photos: Read,
    labels: Sequence[str],
    compute: Callable[[np.ndarray], np.ndarray],
    none: np.ndarray,
) -> Photos:
    examples: list[Example] = []
    parts: list[np.ndarray] = [none]
    unreadable: dict[str, str] = {}
    for some, batch in _same_shape(photos, unreadable):
        examples += some
        parts.append(np.asarray(compute(batch)))
    places = {label: place for place, label in enumerate(labels)}
    targets = np.array([places[example.label] for example in examples], np.int64)
    return Photos(examples, np.concatenate(parts), targets, unreadable)


def _same_shape(
    photos: Read, unreadable: dict[str, str], most: int = 32
) -> Iterator[tuple[list[Example], np.ndarray]]:
    """Neighbours of one shape as batches of at most MOST; the unreadable ones noted."""
    examples: list[Example] = []
    arrays: list[np.ndarray] = []
    for example, array in photos:
        if isinstance(array, str):
            unreadable[example.path] = array
            continue
        if arrays and (len(arrays) == most or arrays[0].shape != array.shape):
            yield examples, np.stack(arrays)
            examples, arrays = [], []
        examples.append(example)
        arrays.append(array)
    if arrays:
        yield examples, np.stack(arrays)


def trunk_outputs(features: keras.Model, pixels: np.ndarray, batch: int, name: str) -> np.ndarray:
    """(n, 2048) float32 outputs for PIXELS, (n, size, size, 3) uint8, a batch at a time."""
    starts = tqdm(
        range(0, len(pixels), batch), desc=f"trunk, {name}", unit=" batches", disable=None
    )
    parts = [np.asarray(features.predict_on_batch(pixels[i : i + batch])) for i in starts]
    return np.concatenate(parts) if parts else np.zeros((0, features.output_shape[-1]), np.float32)
