"""The photos that a run was trained on: nearest neighbours, and out-of-fold predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from dataset.duplicates.features import PICTURE_SIDE, picture_of
from dataset.duplicates.search import PhotoSignature, is_match
from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import MANIFEST
from dataset.images.io import Unreadable, open_photo
from model.data.feature_cache import EXACT_DTYPE, FeatureCache, default_cache_folder
from model.data.features import SplitFeatures, Views
from model.data.loading import (
    UNLABELLED,
    Example,
    FacetGroups,
    SplitData,
    letterbox,
    load_metadata,
    load_splits,
    read_images,
    view_digests,
)
from model.inference.predictor import BATCH_SIZE, Predictor, SavedRun, find_recorded_path
from model.network.inception import MIN_STD, NAMED_WEIGHTS
from model.tag_check.noise_model import cross_validated_probabilities
from model.training.config import TrainOptions
from model.training.stages import HEAD, prepare_backbone

# Maximum size of the random sample of training photos that photos are compared with.
MAX_PHOTOS = 20_000
# Labels with fewer training photos can't be cross-validated.
MIN_PHOTOS_PER_LABEL = 5
# A photo shows no garment if its similarity to the nearest training photo is below the lowest of:
# this quantile of the validation photos, this number of deviations below their median, and the
# maximum.
OUTLIER_QUANTILE, OUTLIER_DEVIATIONS, MAX_THRESHOLD = 0.002, 4.0, 0.5
# Nearest photos that may be the one a photo shows, their least similarity, and how many are kept
# in memory, 0.4 MB each.
COPY_CANDIDATES, MIN_COPY_SIMILARITY, MAX_PICTURES = 3, 0.4, 256
SEEN_NOTE = "training photos are predicted by the model that was trained on them: "


@dataclass(frozen=True)
class TrainingNeighbour:
    """A training photo near a given one; `similarity` is a cosine, 1 for equal photos."""

    sha256: str
    path: str
    label: str
    similarity: float


@dataclass(frozen=True)
class TrainingReference:
    """Features of the training photos, and their out-of-fold predictions.

    Attributes:
        photos: The training photos.
        vectors: Their standardized features, float32 unit vectors of shape (n, width).
        mean: Means of the features, shape (width,).
        std: Standard deviations of the features, shape (width,).
        min_similarity: A photo whose nearest photo is less similar shows no garment.
        out_of_fold: SHA-256 of a train or validation photo -> calibrated probabilities of shape
            (classes,), by models that were not trained on the photo. NaN for the labels of facets
            that are unlabelled on the photo.
        notes: Messages for the user.
        folder: The data folder.
        validation: The validation photos.
        validation_vectors: Their standardized features, like `vectors`.
        is_multi_label: Whether photos can have several labels.
    """

    photos: Sequence[TrainingNeighbour]
    vectors: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    min_similarity: float
    out_of_fold: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()
    folder: Path = Path()
    validation: Sequence[TrainingNeighbour] = ()
    validation_vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    is_multi_label: bool = False

    @cached_property
    def _picture_reader(self) -> Callable[[str], "_Picture | None"]:
        return lru_cache(MAX_PICTURES)(lambda path: _read_picture(self.folder / path))

    def find_originals(
        self, features: np.ndarray, pixels: Sequence[np.ndarray]
    ) -> list[TrainingNeighbour | None]:
        """Find the train or validation photo that each photo shows: resized, cropped, changed.

        Args:
            features: Features of the photos, float32 array of shape (n, width).
            pixels: The photos as the network gets them, uint8 of shape (size, size, 3).

        Returns:
            For each photo the train or validation photo, None if there is none.
        """
        values = self.standardize(features)
        candidates: list[list[TrainingNeighbour]] = [[] for _ in pixels]
        for photos, vectors in (
            (self.photos, self.vectors),
            (self.validation, self.validation_vectors),
        ):
            if not len(photos):
                continue
            similarities = values @ vectors.T
            for row, similarity in zip(candidates, similarities, strict=True):
                count = min(COPY_CANDIDATES, len(similarity))
                nearest = np.argpartition(-similarity, count - 1)[:count].tolist()
                row += [
                    replace(photos[index], similarity=float(similarity[index]))
                    for index in nearest
                    if similarity[index] >= MIN_COPY_SIMILARITY
                ]
        return list(map(self._find_same, candidates, pixels))

    def _find_same(
        self, candidates: Sequence[TrainingNeighbour], pixels: np.ndarray
    ) -> TrainingNeighbour | None:
        if not candidates:
            return None
        picture = _Picture.of(Image.fromarray(pixels))
        for candidate in sorted(candidates, key=lambda c: (-c.similarity, c.path)):
            original = self._picture_reader(candidate.path)
            if original is not None and is_match(
                picture.signature, original.signature, (picture.pixels, original.pixels)
            ):
                return candidate
        return None

    def nearest(
        self, features: np.ndarray, hashes: Sequence[str], count: int
    ) -> list[list[TrainingNeighbour]]:
        """Return the nearest training photos of each photo.

        Args:
            features: Features of the photos, float32 array of shape (n, width).
            hashes: SHA-256 of the photos; a photo is not its own neighbour.
            count: Number of neighbours.
        """
        similarities = self.standardize(features) @ self.vectors.T
        neighbours = []
        for similarity, sha256 in zip(similarities, hashes, strict=True):
            last = min(count + 1, len(similarity) - 1)
            candidates = np.argpartition(-similarity, last)[: count + 1]
            ordered = sorted(candidates.tolist(), key=lambda index: -similarity[index])
            photos = [replace(self.photos[i], similarity=float(similarity[i])) for i in ordered]
            neighbours.append([photo for photo in photos if photo.sha256 != sha256][:count])
        return neighbours

    def standardize(self, features: np.ndarray) -> np.ndarray:
        """Standardize features of shape (n, width) and scale them to unit length."""
        values = (features - self.mean) / self.std
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        unit: np.ndarray = values / np.maximum(lengths, 1e-9)
        return unit


@dataclass(frozen=True)
class _Picture:
    """A photo's picture and signature."""

    pixels: np.ndarray
    signature: PhotoSignature

    @classmethod
    def of(cls, photo: Image.Image) -> "_Picture":
        return cls(np.asarray(picture_of(photo)), PhotoSignature.of(photo))


def _read_picture(path: Path) -> _Picture | None:
    try:
        return _Picture.of(open_photo(path, PICTURE_SIDE))
    except (Unreadable, OSError):
        return None


def build_reference(
    run: SavedRun, predictor: Predictor, cache: Path | None, data: Path | None
) -> TrainingReference:
    """Build the reference of a run.

    Args:
        run: The run.
        predictor: Its network.
        cache: Folder of cached features.
        data: The data folder; None: the folder of the training.

    Raises:
        BadInput: The data folder does not exist, or has other labels.
    """
    folder = data or run.data
    if folder is None or not folder.is_dir():
        raise BadInput(
            f"the training photos of {run.folder} are not in {folder}; name the folder with --data"
        )
    splits = load_splits(folder)
    if list(splits.labels) != list(run.labels):
        raise BadInput(
            f"--data {folder} has other labels than {run.folder}: {', '.join(splits.labels)}"
        )
    hashes = _PhotoHashes(splits)
    frozen, backbone_notes = _frozen_features(run, splits, cache)
    out_of_fold, fold_notes = _cross_validate(run, hashes, frozen)
    # A linear probe has the features of the frozen backbone.
    if frozen is not None and run.kept_stage == HEAD:
        layers = _feature_layers(run)
        train, validation = (
            _select_split(frozen, split, layers) for split in ("train", "validation")
        )
    else:
        feature_cache = FeatureCache(
            cache or default_cache_folder(), f"features-{predictor.cache_key}", EXACT_DTYPE
        )
        train, validation = (
            _extract_features(hashes, splits.examples_of(split), predictor, feature_cache)
            for split in ("train", "validation")
        )
    notes = (*backbone_notes, *fold_notes)
    reference = _assemble(hashes, train, validation, out_of_fold, notes)
    return replace(reference, folder=folder, is_multi_label=splits.facets is not None)


@dataclass(frozen=True)
class _PhotoHashes:
    """SHA-256 of the photos of a data folder; each file is read once."""

    data: SplitData

    @cached_property
    def files(self) -> dict[Example, str]:
        """SHA-256 of the files of readable train and validation photos."""
        photos = [example for example in self.data.examples if example.split != "test"]
        return view_digests(self.data.folder, photos, {})

    @cached_property
    def originals(self) -> dict[str, str]:
        """Path in a build -> SHA-256 of the downloaded photo; empty for plain folders."""
        path = self.data.folder / MANIFEST
        if not path.exists() or "sha256" not in pq.read_schema(path).names:
            return {}
        rows = pq.read_table(path, columns=["path", "sha256"]).to_pydict()
        return dict(zip(rows["path"], rows["sha256"], strict=True))


@dataclass(frozen=True)
class PhotoFeatures:
    """Photos with their features, float32 array of shape (n, width)."""

    examples: Sequence[Example]
    values: np.ndarray


def _assemble(
    hashes: _PhotoHashes,
    train: PhotoFeatures,
    validation: PhotoFeatures,
    out_of_fold: Mapping[str, np.ndarray],
    notes: tuple[str, ...],
) -> TrainingReference:
    sample = _draw_sample(train)
    mean, std = sample.values.mean(axis=0), sample.values.std(axis=0) + MIN_STD
    photos = [_neighbour(hashes, example) for example in sample.examples]
    reference = TrainingReference(photos, sample.values, mean, std, -1.0, out_of_fold, notes)
    reference = replace(reference, vectors=reference.standardize(sample.values))
    if not len(validation.values):
        return reference
    vectors = reference.standardize(validation.values)
    similarity = (vectors @ reference.vectors.T).max(axis=1)
    return replace(
        reference,
        min_similarity=_outlier_threshold(similarity),
        validation=[_neighbour(hashes, example) for example in validation.examples],
        validation_vectors=vectors,
    )


def _neighbour(hashes: _PhotoHashes, example: Example) -> TrainingNeighbour:
    sha256 = hashes.originals.get(example.path, hashes.files.get(example, ""))
    return TrainingNeighbour(sha256, example.path, example.label, 1.0)


def _outlier_threshold(similarity: np.ndarray) -> float:
    """Return the similarity below which a photo is an outlier.

    Args:
        similarity: Similarity of each validation photo to the nearest training photo, shape (n,).
    """
    median = np.median(similarity)
    # The factor 1.48 estimates a standard deviation from the median absolute deviation (Rousseeuw
    # and Croux, 1993).
    deviation = 1.48 * np.median(np.abs(similarity - median))
    lowest = np.quantile(similarity, OUTLIER_QUANTILE)
    return float(min(lowest, median - OUTLIER_DEVIATIONS * deviation, MAX_THRESHOLD))


def _draw_sample(features: PhotoFeatures) -> PhotoFeatures:
    """Return a random sample of MAX_PHOTOS at most."""
    count = len(features.examples)
    if count <= MAX_PHOTOS:
        return features
    chosen = np.sort(np.random.default_rng(0).choice(count, MAX_PHOTOS, replace=False))
    return PhotoFeatures([features.examples[index] for index in chosen], features.values[chosen])


def _select_split(
    frozen: SplitFeatures, split: str, feature_layers: Sequence[str]
) -> PhotoFeatures:
    indices = [index for index, example in enumerate(frozen.examples) if example.split == split]
    values = frozen.values[indices][:, 0, frozen.columns(feature_layers)].astype(np.float32)
    return PhotoFeatures([frozen.examples[index] for index in indices], values)


def _feature_layers(run: SavedRun) -> list[str]:
    return str(run.facts.get("feature_layers", "")).split("+")


def _extract_features(
    hashes: _PhotoHashes, examples: Sequence[Example], predictor: Predictor, cache: FeatureCache
) -> PhotoFeatures:
    """Return the features of the readable examples, from the cache where possible."""
    files = {example: hashes.files[example] for example in examples if example in hashes.files}
    cached = cache.get(list(files.values()))
    missing = [example for example, sha256 in files.items() if sha256 not in cached]
    batch: dict[str, np.ndarray] = {}

    def extract() -> None:
        features = predictor.extract_features(np.stack(list(batch.values())))
        new = dict(zip(batch, features, strict=True))
        cache.put(new)
        cached.update(new)
        batch.clear()

    progress = tqdm(total=len(missing), desc="training photos", unit=" photos", disable=None)
    transform = partial(letterbox, size=predictor.size)
    for example, pixels in read_images(hashes.data.folder, missing, transform):
        progress.update()
        if not isinstance(pixels, str):
            batch[files[example]] = pixels
        if len(batch) == BATCH_SIZE:
            extract()
    if batch:
        extract()
    progress.close()
    readable = [example for example, sha256 in files.items() if sha256 in cached]
    width = int(predictor.feature_network.output.shape[-1])
    values = [cached[files[example]] for example in readable]
    return PhotoFeatures(readable, np.array(values, EXACT_DTYPE).reshape(-1, width))


def _frozen_features(
    run: SavedRun, data: SplitData, cache: Path | None
) -> tuple[SplitFeatures | None, tuple[str, ...]]:
    """Return the features of the backbone before the training, or None and a note."""
    options = run.facts.get("options", {})
    weights = options.get("weights", "imagenet")
    if weights not in NAMED_WEIGHTS:
        weights = str(find_recorded_path(Path(weights), run.folder))
    if weights == "none":
        return None, (f"{SEEN_NOTE}its backbone was trained from scratch",)
    train_options = TrainOptions(
        data.folder,
        run.folder,
        weights,
        image_size=int(options.get("image_size", 299)),
        parts=str(options.get("parts", "whole")),
        precision=str(options.get("precision", "auto")),
        cache=cache,
    )
    try:
        extractor = prepare_backbone(train_options, channels=data.channels).extractor
    except (Failure, OSError) as error:
        reason = f"the initial weights of its backbone can't be loaded: {first_line(error)}"
        return None, (f"{SEEN_NOTE}{reason}",)
    train, validation = (
        extractor.extract(data, split, Views()) for split in ("train", "validation")
    )
    features = replace(
        train,
        examples=[*train.examples, *validation.examples],
        values=np.concatenate([train.values, validation.values]),
        targets=np.concatenate([train.targets, validation.targets]),
    )
    return features, ()


def _cross_validate(
    run: SavedRun, hashes: _PhotoHashes, frozen: SplitFeatures | None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return SHA-256 -> out-of-fold probabilities of the train and validation photos.

    They are based on the backbone before the training: a fine-tuned one has memorized the tags.
    """
    if frozen is None:
        return {}, ()
    values = frozen.values[:, 0, frozen.columns(_feature_layers(run))].astype(np.float32)
    groups = load_metadata(hashes.data.folder, frozen.examples).groups
    seed = int(run.facts.get("seed", 0))
    facets, classes = hashes.data.facets, len(run.labels)
    too_few = f"has fewer than {MIN_PHOTOS_PER_LABEL} photos"
    if facets is None:
        if np.bincount(frozen.targets, minlength=classes).min() < MIN_PHOTOS_PER_LABEL:
            return {}, (f"{SEEN_NOTE}a label {too_few}",)
        probabilities = cross_validated_probabilities(values, frozen.targets, groups, classes, seed)
        notes: tuple[str, ...] = ()
    else:
        probabilities, rare = _cross_validate_facets(values, frozen.targets, groups, facets, seed)
        notes = tuple(f"{SEEN_NOTE}a label of {name} {too_few}" for name in rare)
    out_of_fold = {}
    for example, row in zip(frozen.examples, probabilities, strict=True):
        # Feeds and the catalogue have the original photo, a build its own file.
        own_hashes = {hashes.files.get(example, ""), hashes.originals.get(example.path, "")}
        for sha256 in own_hashes - {""}:
            out_of_fold[sha256] = row
    return out_of_fold, notes


def _cross_validate_facets(
    values: np.ndarray,
    targets: np.ndarray,
    groups: Sequence[str] | None,
    facets: FacetGroups,
    seed: int,
) -> tuple[np.ndarray, list[str]]:
    """Cross-validate each facet on the photos on which it is labelled.

    Args:
        values: Features of shape (n, width).
        targets: Targets of the facets, shape (n, facets).
        groups: A name for each photo, or None.
        facets: The facets.
        seed: Random seed.

    Returns:
        Probabilities of the labels, shape (n, labels): means over the facets of a label, NaN if all
        are unlabelled. And the names of the facets with too few photos of a label.
    """
    labels = 1 + max(index for members in facets.members for index in members)
    total, count = np.zeros((len(targets), labels)), np.zeros((len(targets), labels))
    rare = []
    for name, members, own in zip(facets.names, facets.members, targets.T, strict=True):
        rows = np.flatnonzero(own != UNLABELLED)
        if np.bincount(own[rows], minlength=len(members)).min() < MIN_PHOTOS_PER_LABEL:
            rare.append(name)
            continue
        names = None if groups is None else [groups[row] for row in rows.tolist()]
        cells = np.ix_(rows, np.array(members))
        total[cells] += cross_validated_probabilities(
            values[rows], own[rows], names, len(members), seed
        )
        count[cells] += 1
    with np.errstate(invalid="ignore"):
        return total / count, rare
