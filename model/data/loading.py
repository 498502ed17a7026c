"""Load splits from disk: examples with their labels, and their photos as arrays."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import MASK_COLUMNS, PHOTOS_FOLDER
from dataset.images.io import (
    FoundPhotos,
    Unreadable,
    apply_to_channels,
    find_photos,
    open_photo,
    sha256_of,
)
from dataset.pose.crop import BOTH, KEEP, Crop, add_opacity, replace_background
from dataset.selection.labeling import LABEL_SEPARATOR
from model.data.facets import FacetGroups, group_labels

SPLITS = ("train", "validation", "test")
CHUNK_SIZE = 128

ImageTransform = Callable[[Image.Image], np.ndarray]


@dataclass(frozen=True)
class Example:
    """A photo of a split.

    Attributes:
        path: Path below the data folder, with forward slashes.
        label: Its label, or all labels as one text.
        split: Its split.
        crop: The part of the photo that is used; None: all of it.
        background: What is behind the person: `keep`, `blur`, `white`, or `both` if the network
            reads two renderings.
        labels: In a multi-label build, all its labels.
        mask: Path of the person's mask below the data folder; None if the build has none.
    """

    path: str
    label: str
    split: str
    crop: Crop | None = None
    background: str = KEEP
    labels: tuple[str, ...] = ()
    mask: str | None = None


@dataclass(frozen=True)
class SplitData:
    """The examples of a data folder.

    Attributes:
        folder: The data folder.
        labels: The labels, sorted; their indices are the class indices.
        examples: All examples, sorted by path.
        unknown_labels: Label without training photos -> number of excluded photos.
        skipped: How many files of the folders are not photos, by kind; empty if all are.
        facets: The facets of the labels, if photos can have several labels.
        single_labels: Facet -> its label, for facets that can't be trained for lack of a second
            one.
    """

    folder: Path
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    unknown_labels: Mapping[str, int] = field(default_factory=dict)
    skipped: str = ""
    facets: FacetGroups | None = None
    single_labels: Mapping[str, str] = field(default_factory=dict)

    def targets(self, examples: Sequence[Example]) -> np.ndarray:
        """Return the class index of each example, or the target of each of its facets.

        Returns:
            Int array of shape (n,), or (n, facets) if photos can have several labels.

        Raises:
            Failure: An example has two labels of a facet.
        """
        if self.facets is None:
            return class_indices(examples, self.labels)
        indices = {label: index for index, label in enumerate(self.labels)}
        return self.facets.targets(
            (example.path, [indices[label] for label in example.labels]) for example in examples
        )

    @property
    def channels(self) -> int:
        """Channels of the photos: 3, or 4 if the last one is the person's opacity."""
        return 4 if any(example.background == BOTH for example in self.examples) else 3

    def examples_of(self, split: str) -> list[Example]:
        """Return the examples of a split, sorted by path."""
        return [example for example in self.examples if example.split == split]


def load_splits(folder: Path) -> SplitData:
    """Load the examples of a folder, from its manifest or from its folder names.

    Raises:
        BadInput: The folder does not exist or has no train split.
        Failure: There are fewer than two labels.
    """
    if not folder.is_dir():
        raise BadInput(f"--data {folder}: no such folder; run build-dataset first")
    manifest = folder / "manifest.parquet"
    photos = [folder / "train", folder / PHOTOS_FOLDER / "train"]
    if manifest.exists() and not any(path.is_dir() for path in photos):
        raise BadInput(f"--data {folder} has shards; build it with --format folders to train")
    if manifest.exists() and "labels" in pq.read_schema(manifest).names:
        return _load_label_sets(folder, manifest)
    found = FoundPhotos([], Counter())
    if manifest.exists():
        examples = _from_manifest(manifest)
    else:
        found = find_photos(path for split in SPLITS for path in (folder / split).glob("*/*"))
        examples = _from_paths(folder, found.paths)
    labels = tuple(sorted({example.label for example in examples if example.split == "train"}))
    if not labels:
        raise BadInput(f"--data {folder} has no photos below train/; run build-dataset first")
    if len(labels) == 1:
        raise Failure(
            f"{folder} has only the label {labels[0]!r}, and a classifier needs two; crawl another"
            " hashtag and build again"
        )
    known = tuple(example for example in examples if example.label in labels)
    unknown_labels = Counter(example.label for example in examples if example.label not in labels)
    return SplitData(folder, labels, known, unknown_labels, found.describe_skipped())


def _load_label_sets(folder: Path, manifest: Path) -> SplitData:
    """Load a multi-label build: examples with all their labels, and the facets of the labels."""
    try:
        by_facet = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["facets"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"--data {folder}: labels.json does not have the facets of the labels; build the data"
            " set again with build-dataset --multi-label"
        ) from error
    rows = _read_manifest(manifest, "labels")
    trained = {label for row in rows if row["split"] == "train" for label in row["labels"]}
    if not trained:
        raise BadInput(f"--data {folder} has no photos for training; run build-dataset first")
    facets, labels = group_labels(sorted(trained), by_facet)
    if facets is None:
        raise Failure(
            f"no facet of {folder} has two labels with photos for training, and a classifier needs"
            f" two (labels: {', '.join(sorted(trained))}); crawl other hashtags and build again"
        )
    single = {
        name: own[0]
        for name, names in by_facet.items()
        if len(own := [label for label in names if label in trained]) == 1
    }
    examples = []
    for row in sorted(rows, key=lambda row: row["path"]):
        known = tuple(label for label in row["labels"] if label in labels)
        if known:
            text = LABEL_SEPARATOR.join(known)
            examples.append(Example(**(row | {"label": text, "labels": known})))
    unknown = Counter(label for row in rows for label in row["labels"] if label not in trained)
    return SplitData(folder, labels, tuple(examples), unknown, "", facets, single)


def _from_manifest(path: Path) -> list[Example]:
    rows = _read_manifest(path, "label")
    return sorted((Example(**row) for row in rows), key=lambda example: example.path)


def _read_manifest(path: Path, label_column: str) -> list[dict[str, Any]]:
    """Return the rows of a manifest, with the background and the mask if the build has masks."""
    mask_column = MASK_COLUMNS[0]
    has_masks = mask_column in pq.read_schema(path).names
    columns = ["path", label_column, "split", *([mask_column] if has_masks else [])]
    rows: list[dict[str, Any]] = pq.read_table(path, columns=columns).to_pylist()
    return [row | {"background": BOTH} for row in rows] if has_masks else rows


def _from_paths(folder: Path, paths: Sequence[Path]) -> list[Example]:
    relative = sorted(
        (path.relative_to(folder) for path in paths), key=lambda path: SPLITS.index(path.parts[0])
    )
    return [Example(path.as_posix(), path.parts[1], path.parts[0]) for path in relative]


def class_indices(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray:
    """Return the class index of each example, int array of shape (n,)."""
    indices = {label: index for index, label in enumerate(labels)}
    return np.array([indices[example.label] for example in examples], np.int64)


def letterbox(photo: Image.Image, size: int) -> np.ndarray:
    """Resize a photo to fit a square and pad it with white.

    Equal to the model's letterbox layer up to rounding. The layer would be compiled for each size
    of photo in JAX.

    Args:
        photo: The photo, in RGB or RGBA.
        size: Width and height of the result in pixels.

    Returns:
        Uint8 array of shape (size, size, channels).
    """

    def resize(image: Image.Image) -> Image.Image:
        side = max(image.size)
        left, top = (side - image.width) // 2, (side - image.height) // 2
        if left or top:
            # Keras pads both sides equally, even if the result is one pixel from square.
            padded_size = image.width + 2 * left, image.height + 2 * top
            canvas = Image.new(image.mode, padded_size, "white")
            canvas.paste(image, (left, top))
            image = canvas
        return image.resize((size, size), Image.Resampling.BILINEAR)

    return np.asarray(apply_to_channels(photo, resize))


def read_image(folder: Path, example: Example, transform: ImageTransform) -> np.ndarray | str:
    """Read the photo of an example.

    Args:
        folder: The data folder.
        example: The example.
        transform: Photo in RGB, or in RGBA if the network reads two renderings -> array.

    Returns:
        The array, or the reason why the photo can't be read.
    """
    try:
        photo = open_photo(folder / example.path)
        if example.crop is not None:
            photo = replace_background(photo, example.crop, example.background)
        elif example.background == BOTH:
            photo = add_opacity(photo, _read_mask(folder, example, photo.size))
        return transform(photo)
    except (Unreadable, OSError) as error:
        return first_line(error)


def _read_mask(folder: Path, example: Example, size: tuple[int, int]) -> Image.Image | None:
    """Return the opacity of the person in a photo of a build; None if nobody was found."""
    if example.mask is None:
        return None
    mask = open_photo(folder / example.mask).getchannel(0)
    if mask.size != size:
        raise Unreadable(f"{example.mask} does not have the size of the photo")
    return mask


def read_images(
    folder: Path, examples: Sequence[Example], transform: ImageTransform
) -> Iterator[tuple[Example, np.ndarray | str]]:
    """Yield each example with the result of `read_image`, in their order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # By chunks: the pool would read the whole split ahead of its consumer.
        for start in range(0, len(examples), CHUNK_SIZE):
            chunk = examples[start : start + CHUNK_SIZE]
            photos = pool.map(lambda example: read_image(folder, example, transform), chunk)
            yield from zip(chunk, photos, strict=True)


def view_digests(
    folder: Path, examples: Sequence[Example], unreadable: dict[str, str]
) -> dict[Example, str]:
    """Return a text for each photo that identifies its pixels.

    It is the SHA-256 of the file with the crop, and the SHA-256 of the mask.

    Args:
        folder: The data folder.
        examples: The photos.
        unreadable: Receives the path and the reason of each unreadable photo.
    """

    def digest_of(example: Example) -> str | OSError:
        try:
            digest = sha256_of((folder / example.path).read_bytes()) + describe_crop(example)
            if example.mask is None:
                return digest
            return f"{digest} {sha256_of((folder / example.mask).read_bytes())}"
        except OSError as error:
            return error

    digests = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for example, digest in zip(examples, pool.map(digest_of, examples), strict=True):
            if isinstance(digest, str):
                digests[example] = digest
            else:
                unreadable[example.path] = first_line(digest)
    return digests


def describe_crop(example: Example) -> str:
    """Return a text that changes whenever the crop of an example would change its pixels."""
    crop = example.crop
    if crop is None:
        return ""
    box = " {},{},{},{}".format(*(round(side) for side in crop.box))
    if crop.mask is None or example.background == KEEP:
        return box
    return f"{box} {example.background} {sha256_of(crop.mask.to_bytes())[:16]}"


def class_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """Return example weights that give each class the same total weight.

    Args:
        targets: Class indices of shape (n,).
        classes: Number of classes.

    Returns:
        n / (classes * n_c) for each example of class c, float array of shape (n,).
    """
    counts = np.bincount(targets, minlength=classes)
    return (len(targets) / (classes * np.maximum(1, counts)))[targets]
