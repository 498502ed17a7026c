"""Splits on disk -> arrays of photos, with their labels."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataset.errors import BadInput, Failure, first_line
from dataset.images import PHOTO_SUFFIXES, Unreadable, open_photo

SPLITS = ("train", "validation", "test")
CHUNK = 128


@dataclass(frozen=True)
class Example:
    """A photo of a split: its path below the data folder, with /, and its label."""

    path: str
    label: str
    split: str


@dataclass(frozen=True)
class Data:
    """A data folder's examples and its labels in their order."""

    folder: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]

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
    return Data(folder, labels, known)


def _from_manifest(path: Path) -> list[Example]:
    rows = pq.read_table(path, columns=["path", "label", "split"]).to_pylist()
    return sorted((Example(**row) for row in rows), key=lambda example: example.path)


def _from_folders(folder: Path) -> list[Example]:
    return [
        Example(f"{split}/{below.parent.name}/{below.name}", below.parent.name, split)
        for split in SPLITS
        for below in sorted((folder / split).glob("*/*"))
        if below.suffix.lower() in PHOTO_SUFFIXES
    ]


def read(data: Data, split: str) -> Iterator[tuple[Example, np.ndarray | str]]:
    """Each photo of SPLIT as it is on disk, (height, width, 3) uint8, or why it can't be read."""

    def one(example: Example) -> np.ndarray | str:
        try:
            return np.asarray(open_photo(data.folder / example.path))
        except (Unreadable, OSError) as error:
            return first_line(error)

    examples = data.of(split)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # A chunk at a time: the pool would read the whole split ahead of its user.
        for start in range(0, len(examples), CHUNK):
            chunk = examples[start : start + CHUNK]
            yield from zip(chunk, pool.map(one, chunk), strict=True)


def class_weights(targets: np.ndarray, classes: int) -> dict[int, float]:
    """n / (classes * n_c) for each class c of TARGETS, (n,) int: each class weighs the same."""
    counts = np.bincount(targets, minlength=classes)
    return {place: len(targets) / (classes * max(1, n)) for place, n in enumerate(counts)}
