"""Splits on disk -> arrays of photos, with their labels."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from dataset.errors import BadInput, Failure, first_line
from dataset.images.io import PHOTO_SUFFIXES, Unreadable, open_photo, sha256_of

SPLITS = ("train", "validation", "test")
CHUNK = 128

Shape = Callable[[Image.Image], np.ndarray]


@dataclass(frozen=True)
class Example:
    """A photo of a split: its path below the data folder, with /, and its label.

    `box`: what is seen of it, left, top, right, bottom in pixels; None: all of it.
    """

    path: str
    label: str
    split: str
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Data:
    """A data folder's examples and its labels in their order.

    `strangers`: photos of labels that no train photo has, which nothing can learn: label -> count.
    """

    folder: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    strangers: Mapping[str, int] = field(default_factory=dict)

    def of(self, split: str) -> list[Example]:
        """The examples of SPLIT, in the order of their paths."""
        return [example for example in self.examples if example.split == split]


def find_data(folder: Path) -> Data:
    """What FOLDER holds: by its manifest, or by its folders where it has none.

    Raises:
        BadInput: there is no such folder, or no train split in it.
        Failure: there are fewer than two labels to tell apart.
    """
    if not folder.is_dir():
        raise BadInput(f"--data {folder}: no such folder; run build-dataset first")
    manifest = folder / "manifest.parquet"
    if manifest.exists() and not (folder / "train").is_dir():
        raise BadInput(f"--data {folder} holds shards; build it with --format folders to train")
    examples = _from_manifest(manifest) if manifest.exists() else _from_folders(folder)
    labels = tuple(sorted({example.label for example in examples if example.split == "train"}))
    if not labels:
        raise BadInput(f"--data {folder} has no photos below train/; run build-dataset first")
    if len(labels) == 1:
        raise Failure(
            f"{folder} has the one label {labels[0]!r}; a classifier needs two to tell apart:"
            " crawl another tag and build again"
        )
    known = tuple(example for example in examples if example.label in labels)
    strangers = Counter(example.label for example in examples if example.label not in labels)
    return Data(folder, labels, known, strangers)


def _from_manifest(path: Path) -> list[Example]:
    rows = pq.read_table(path, columns=["path", "label", "split"]).to_pylist()
    return sorted((Example(**row) for row in rows), key=lambda example: example.path)


def _from_folders(folder: Path) -> list[Example]:
    return [
        Example(f"{split}/{below.parent.name}/{below.name}", below.parent.name, split)
        for split in SPLITS
        for below in sorted((folder / split).glob("*/*"))
        if below.suffix.lower() in PHOTO_SUFFIXES
        # .ipynb_checkpoints, ._photo.jpg: what other programs leave there.
        and not below.name.startswith(".")
        and not below.parent.name.startswith(".")
    ]


def targets_of(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray:
    """(n,) int: the place of each example's label in LABELS."""
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places[example.label] for example in examples], np.int64)


def boxed(photo: Image.Image, size: int) -> np.ndarray:
    """PHOTO, RGB, as (size, size, 3) uint8: fitted in on white, within rounding as the model does.

    The model's letterbox is a Keras layer, which compiles anew for each size of a photo in JAX.
    """
    side = max(photo.size)
    left, top = (side - photo.width) // 2, (side - photo.height) // 2
    if left or top:
        # As much on either side, even where that makes it a pixel less than square: so does Keras.
        canvas = Image.new("RGB", (photo.width + 2 * left, photo.height + 2 * top), "white")
        canvas.paste(photo, (left, top))
        photo = canvas
    return np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR))


def read_one(folder: Path, example: Example, shape: Shape) -> np.ndarray | str:
    """The photo of EXAMPLE below FOLDER as SHAPE makes it of RGB, or why it can't be read."""
    try:
        photo = open_photo(folder / example.path)
        return shape(photo.crop(example.box) if example.box else photo)
    except (Unreadable, OSError) as error:
        return first_line(error)


def read(
    folder: Path, examples: Sequence[Example], shape: Shape
) -> Iterator[tuple[Example, np.ndarray | str]]:
    """Each of EXAMPLES as `read_one`, in their order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A chunk at a time: the pool would read the whole split ahead of its user.
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            photos = pool.map(lambda one: read_one(folder, one, shape), chunk)
            yield from zip(chunk, photos, strict=True)


def digests(
    folder: Path, examples: Sequence[Example], unreadable: dict[str, str]
) -> dict[Example, str]:
    """SHA-256 of each photo's file below FOLDER, and the box that is seen of it, as text.

    Those that can't be read go into UNREADABLE.
    """

    def one(example: Example) -> str | OSError:
        box = " {},{},{},{}".format(*example.box) if example.box else ""
        try:
            return sha256_of((folder / example.path).read_bytes()) + box
        except OSError as error:
            return error

    found = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for example, digest in zip(examples, pool.map(one, examples), strict=True):
            if isinstance(digest, str):
                found[example] = digest
            else:
                unreadable[example.path] = first_line(digest)
    return found


def class_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """(n,) float: n / (classes * n_c) for an example of class c: each class weighs the same."""
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (classes * np.maximum(1, counts)))[targets]
