"""Load splits from disk: examples with their labels, and their photos as arrays.

Photos of several labels have facets. A network has one output per label. The labels of a facet
exclude each other: their outputs are the logits of one softmax. A label that fills two facets, as a
dress does, is in both groups. A facet that is unlabelled on a photo has no target there: unknown is
not absent.

The manifest of a build also has the groups, sites and crops of photos (`load_metadata`).
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import MANIFEST, MASK_COLUMNS, PHOTOS_FOLDER
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
from dataset.utils.threads import map_in_threads

SPLITS = ("train", "validation", "test")
CHUNK_SIZE = 128

ImageTransform = Callable[[Image.Image], np.ndarray]
# The target of an unlabelled facet.
UNLABELLED = -1
# Attribute of PhotoMetadata -> column of the manifest.
MANIFEST_COLUMNS = {"groups": "group", "sites": "site", "crops": "crop"}


@dataclass(frozen=True)
class FacetGroups:
    """The facets of labels.

    Attributes:
        names: Names of the facets.
        members: The class indices of each facet's labels, at least two.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]

    def named_labels(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """Return facet -> names of its labels."""
        return {
            name: [labels[index] for index in members]
            for name, members in zip(self.names, self.members, strict=True)
        }

    def targets(self, label_sets: Iterable[tuple[str, Sequence[int]]]) -> np.ndarray:
        """Return the target of each facet of each photo.

        Args:
            label_sets: Path and class indices of the labels of each photo.

        Returns:
            Int array of shape (n, facets): the index of the label within its facet, or
            `UNLABELLED`.

        Raises:
            Failure: A photo has two labels of a facet.
        """
        positions = [
            {label: position for position, label in enumerate(members)} for members in self.members
        ]
        rows = []
        for path, indices in label_sets:
            row = []
            for name, position in zip(self.names, positions, strict=True):
                own = [position[index] for index in indices if index in position]
                if len(own) > 1:
                    raise Failure(
                        f"{path} has {len(own)} labels of the facet {name}, which exclude each"
                        " other; build the data set again with build-dataset --multi-label"
                    )
                row.append(own[0] if own else UNLABELLED)
            rows.append(row)
        return np.array(rows, np.int64).reshape(len(rows), len(self.names))

    def encode(self, targets: np.ndarray, has_class_weights: bool) -> np.ndarray:
        """Return the targets of the loss.

        Args:
            targets: Result of `targets`, shape (n, facets).
            has_class_weights: Whether the labels of a facet get the same total weight.

        Returns:
            Float32 array of shape (n, sum of the facets' sizes): a one-hot row per facet, times the
            weight of the example; zeros for an unlabelled facet. The mean weight of a photo is 1.
        """
        encoded = []
        for number, members in enumerate(self.members):
            own, size = targets[:, number], len(members)
            is_known = own != UNLABELLED
            rows = np.eye(size, dtype=np.float32)[np.where(is_known, own, 0)] * is_known[:, None]
            if has_class_weights:
                counts = np.maximum(1, rows.sum(axis=0))
                rows *= (is_known.sum() / (size * counts)).astype(np.float32)
            encoded.append(rows)
        joined = np.concatenate(encoded, axis=1)
        return joined * np.float32(len(joined) / max(1.0, joined.sum()))

    def by_facet(
        self, logits: np.ndarray, targets: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield logits and targets of the labelled photos of each facet.

        Args:
            logits: Array of shape (n, labels).
            targets: Array of shape (n, facets).

        Yields:
            For each facet, arrays of shape (m, size) and (m,).
        """
        for number, members in enumerate(self.members):
            is_known = targets[:, number] != UNLABELLED
            yield logits[is_known][:, list(members)], targets[is_known, number]

    def is_known(self, targets: np.ndarray, labels: int) -> np.ndarray:
        """Return whether it is known that a photo has or lacks a label, bool array (n, labels).

        It is known if one of the label's facets is labelled.
        """
        known = np.zeros((len(targets), labels), bool)
        for number, members in enumerate(self.members):
            known[:, list(members)] |= (targets[:, number] != UNLABELLED)[:, None]
        return known

    def has_label(self, targets: np.ndarray, labels: int) -> np.ndarray:
        """Return which labels each photo has, bool array of shape (n, labels)."""
        has = np.zeros((len(targets), labels), bool)
        for number, members in enumerate(self.members):
            rows = np.flatnonzero(targets[:, number] != UNLABELLED)
            has[rows, np.array(members)[targets[rows, number]]] = True
        return has

    def facets_of(self, labels: int) -> np.ndarray:
        """Return the number of facets of each label, int array of shape (labels,)."""
        return np.bincount(np.concatenate(self.members), minlength=labels)


def group_labels(
    labels: Sequence[str], facets: Mapping[str, Sequence[str]]
) -> tuple[FacetGroups | None, tuple[str, ...]]:
    """Group labels by facet.

    Args:
        labels: The labels; a label outside all groups is left out of the result.
        facets: Facet -> its labels.

    Returns:
        The facets with at least two of the labels, and the labels of these facets. None if there is
        no such facet.
    """
    own = {name: [label for label in facets[name] if label in labels] for name in facets}
    kept = {name: members for name, members in own.items() if len(members) > 1}
    if not kept:
        return None, ()
    remaining = tuple(
        label for label in labels if any(label in members for members in kept.values())
    )
    indices = {label: index for index, label in enumerate(remaining)}
    members = tuple(tuple(sorted(indices[label] for label in own)) for own in kept.values())
    return FacetGroups(tuple(kept), members), remaining


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


@dataclass(frozen=True)
class PhotoMetadata:
    """Metadata of photos, one value per photo; None if the data folder has none.

    Attributes:
        groups: Names of groups whose photos must stay in one split.
        sites: Names of sites.
        crops: Kinds of crops: person or whole (zone: builds of older versions).
    """

    groups: Sequence[str] | None = None
    sites: Sequence[str] | None = None
    crops: Sequence[str] | None = None


def load_metadata(folder: Path, examples: Sequence[Example]) -> PhotoMetadata:
    """Load the metadata of examples from the manifest of their data folder, if there is one."""
    path = folder / MANIFEST
    if not path.exists():
        return PhotoMetadata()
    present = pq.read_schema(path).names
    columns = {name: column for name, column in MANIFEST_COLUMNS.items() if column in present}
    rows = pq.read_table(path, columns=["path", *columns.values()]).to_pydict()
    row_by_path = {name: row for row, name in enumerate(rows["path"])}
    indices = [row_by_path[example.path] for example in examples]
    values = {name: [rows[column][i] for i in indices] for name, column in columns.items()}
    return PhotoMetadata(
        **{
            name: _fill_missing(name, column, examples)
            for name, column in values.items()
            # A column of nulls has no information: no pose network was used, for example.
            if any(value is not None for value in column)
        }
    )


def _fill_missing(
    name: str, values: Sequence[str | None], examples: Sequence[Example]
) -> list[str]:
    """Replace nulls: a photo without a group is a group of its own."""
    is_group = name == "groups"
    defaults = [e.path for e in examples] if is_group else ["unknown"] * len(values)
    return [
        default if value is None else value for value, default in zip(values, defaults, strict=True)
    ]


HASHED_COLUMNS = ("path", "label", "split", "file_sha256")
# `file_digest` takes the algorithm and the length of a digest from an example.
SHA256_FORMAT = "sha256:" + 64 * "-"


@dataclass(frozen=True)
class DatasetHash:
    """Hash of a data set.

    Attributes:
        sha256: SHA-256 in hexadecimal digits.
        hashed: What is hashed, in words.
        photos: Number of photos.
    """

    sha256: str
    hashed: str
    photos: int


def hash_dataset(folder: Path, examples: Sequence[Example]) -> DatasetHash:
    """Hash a data set.

    For a build, the manifest's path, label, split and file_sha256 of every photo are hashed,
    without reading the photos; for plain folders, the path and the SHA-256 of every file.

    Args:
        folder: The data folder.
        examples: Its photos.
    """
    manifest = folder / MANIFEST
    present = set(pq.read_schema(manifest).names) if manifest.exists() else set()
    # A multi-label build has lists of labels.
    hashed = [f"{name}s" if name == "label" not in present else name for name in HASHED_COLUMNS]
    if set(hashed) <= present:
        columns = pq.read_table(manifest, columns=hashed).to_pydict()
        rows = zip(*(columns[name] for name in hashed), strict=True)
        return _hash_rows(rows, f"{', '.join(hashed)} of manifest.parquet")
    paths = [example.path for example in examples]
    hashes = map_in_threads(_sha256, (folder / path for path in paths))
    return _hash_rows(zip(paths, hashes, strict=True), "path and sha256 of every file")


def _hash_rows(rows: Iterable[Sequence[str]], hashed: str) -> DatasetHash:
    """Hash rows, sorted and as lines of JSON."""
    lines = sorted(json.dumps(row) for row in rows)
    return DatasetHash(sha256_of("\n".join(lines).encode()), hashed, len(lines))


def _sha256(path: Path) -> str:
    # Imports httpx, which commands that hash no photos do not need.
    from dataset.utils.downloads import file_digest

    try:
        return file_digest(path, SHA256_FORMAT).removeprefix("sha256:")
    except OSError:
        # The training excluded it and continued.
        return "unreadable"
