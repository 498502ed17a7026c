"""Options, result and files of a build: paths of images, the manifest and the excluded images."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.errors import BadInput
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore
from dataset.selection.candidates import Candidate, ExcludedImage, Exclusions
from dataset.selection.crops import PersonCrop, PoseOptions
from dataset.selection.labeling import LabeledImage
from dataset.utils.files import restore_folder, spreadsheet_row
from dataset.utils.threads import map_in_threads
from dataset.vocabulary import split_facets

BUILD_FILE = "build.json"
# In a build at a URL that is not copied completely.
UNFINISHED = ".unfinished"
MANIFEST = "manifest.parquet"
EXCLUDED = "excluded.parquet"
ATTRIBUTION = "attribution.csv"
# Folder of the images of a multi-label build, and the file with their labels in each split.
PHOTOS_FOLDER = "photos"
# Folder of the masks of a build with --background both, and the columns of the manifest.
MASKS_FOLDER = "masks"
MASK_COLUMNS = ("mask", "mask_sha256")
METADATA_FILE = "metadata.jsonl"
ATTRIBUTION_COLUMNS = (
    *("path", "sha256", "license", "license_url", "author", "attribution", "source_page"),
)
# Length of a SHA-256 in paths and group names, in hexadecimal digits.
SHORT_DIGITS = 24
# Names of devices in Windows, also with a suffix, and the bytes of a label in a folder name: file
# systems allow 255, and encrypted ones 143.
RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
MAX_FOLDER_BYTES = 100


@dataclass(frozen=True)
class RenderedImage:
    """An image as a build writes it.

    Attributes:
        labeled: The candidate with its label.
        file: Path of the JPEG file.
        file_sha256: SHA-256 of that file.
        render_key: Equal for equal originals, crops, sizes and resize methods.
        person_crop: The crop; None if images are not cropped.
        mask_file: Path of the person's mask, a PNG file; None without one.
        mask_sha256: SHA-256 of that file.
    """

    labeled: LabeledImage
    file: Path
    file_sha256: str
    render_key: str
    person_crop: PersonCrop | None = None
    mask_file: Path | None = None
    mask_sha256: str | None = None


@dataclass(frozen=True)
class DatasetItem:
    """An image of a split.

    Attributes:
        rendered: The image.
        split: train, validation or test.
        path: Path relative to the build's folder, with slashes.
        group: Equal for images that must stay in one split.
        shard: The file that contains the image: `path` itself, or a shard.
    """

    rendered: RenderedImage
    split: str
    path: str
    group: str
    shard: str = ""

    @property
    def label(self) -> str:
        """Return the label, or all labels as one text."""
        return self.rendered.labeled.label

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels, one unless the build is a multi-label one."""
        return self.rendered.labeled.labels

    @property
    def facets(self) -> tuple[str, ...]:
        """Return the labelled facets; none in a single-label build."""
        return self.rendered.labeled.facets

    @property
    def mask_path(self) -> str | None:
        """Return the path of the person's mask relative to the build's folder, if there is one."""
        if self.rendered.mask_file is None:
            return None
        return f"{MASKS_FOLDER}/{self.path.removesuffix('.jpg')}.png"

    @property
    def photo(self) -> Candidate:
        """Return the image in the catalogue."""
        return self.rendered.labeled.photo

    @property
    def person_crop(self) -> PersonCrop | None:
        """Return the crop; None if images are not cropped."""
        return self.rendered.person_crop


@dataclass(frozen=True)
class BuildOptions:
    """Options of `build-dataset`; its help describes each.

    Attributes:
        catalogue: Path or URL of the catalogue.
        images: Location of the image store.
        out: Output folder; with `target`, where the build is prepared.
        target: The fsspec URL that the finished build is copied to; empty for a local build.
        min_per_class: Labels with fewer images are excluded.
        max_per_class: Largest number of images per label, if limited.
        labels: If not empty, only these labels are used.
        splits: Relative sizes of train, validation and test.
        new_splits: Whether the splits of earlier builds are ignored.
        hashtags: `found` for the hashtags of the search, `all` for those in captions as well.
        conflicts: What happens to an image with several labels: `exclude`, `first`, `ask` or, in
            multi-label builds, `unlabel`.
        licenses: If not empty, only images with these licenses are used.
        quality_gates: The user's quality thresholds (TOML).
        size: Width and height of the written images in pixels.
        resize: How images are fitted into the square: `letterbox`, `crop` or `stretch`.
        format: Output format, a key of `dataset.export.formats.FORMATS`.
        seed: Random seed of the splits.
        pose: Pose network and crop.
        multi_label: Whether an image keeps all its labels, one per facet.
    """

    catalogue: str
    images: Path | str
    out: Path
    min_per_class: int = 500
    max_per_class: int | None = None
    labels: tuple[str, ...] = ()
    splits: tuple[float, float, float] = (80, 10, 10)
    new_splits: bool = False
    hashtags: str = "found"
    conflicts: str = "exclude"
    licenses: tuple[str, ...] = ()
    quality_gates: Path | None = None
    size: int = 342
    resize: str = "letterbox"
    format: str = "folders"
    seed: int = 0
    pose: PoseOptions = field(default_factory=PoseOptions)
    multi_label: bool = False
    target: str = ""

    @property
    def destination(self) -> str:
        """Where the build is, for people: its folder or URL."""
        return self.target or str(self.out)


@dataclass(frozen=True)
class CrossSplitPair:
    """Two images of different splits.

    Attributes:
        first: Path of one image.
        second: Path of the other image.
        similarity: Fraction of what both show that agrees, at most 1.
    """

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        photos: Number of images that were read.
        compared: Number of candidate pairs across splits whose pixels were compared.
        leaks: A sentence for each leak or wrong file.
        closest: The most similar pairs across splits.
        matches: The leaks that are pairs of near duplicates or of possible ones.
        linked: Such pairs that earlier audits of this build found, and that were put into one
            split: ids of both images in the catalogue, and their similarity.
    """

    photos: int
    compared: int
    leaks: Sequence[str]
    closest: Sequence[CrossSplitPair]
    matches: Sequence[CrossSplitPair] = ()
    linked: Sequence[tuple[int, int, float]] = ()


@dataclass(frozen=True)
class BuildResult:
    """What a build wrote.

    Attributes:
        items: The images with their splits, ordered by path.
        exclusions: Images that are not used.
        small_classes: Label -> number of images, for labels with too few.
        unreadable: Store key -> reason, for images that can't be read.
        deviations: A sentence for each label and split whose proportion deviates.
        audit: Result of the leakage audit.
        reused: Number of images taken from the previous build unchanged.
    """

    items: Sequence[DatasetItem]
    exclusions: Exclusions
    small_classes: Mapping[str, int]
    unreadable: Mapping[str, str]
    deviations: Sequence[str]
    audit: AuditResult
    reused: int


def label_folder(label: str) -> str:
    """Return a folder name for a label on any system.

    Other characters and the first letter of a name that Windows reserves become %XX; a long name
    is cut and gets the beginning of its SHA-256.
    """
    name = re.sub(r'[\x00-\x1f%/\\:*?"<>|]|^\.|[. ]$', lambda m: f"%{ord(m[0]):02X}", label)
    if RESERVED_NAMES.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    encoded = name.encode("utf-8", "replace")
    if len(encoded) > MAX_FOLDER_BYTES:
        digest = sha256_of(label.encode("utf-8", "replace"))[:SHORT_DIGITS]
        name = f"{encoded[:MAX_FOLDER_BYTES].decode('utf-8', 'ignore')}%7E{digest}"
    return name or "%00"


def is_multi_label(items: Sequence[DatasetItem]) -> bool:
    """Return whether items have several labels, by facets."""
    return any(item.facets for item in items)


def label_names(items: Sequence[DatasetItem]) -> list[str]:
    """Return the sorted labels of items."""
    return sorted({label for item in items for label in item.labels})


def labels_by_facet(items: Sequence[DatasetItem]) -> dict[str, list[str]]:
    """Return facet -> its sorted labels, in the order of the facets; empty for single labels."""
    by_facet: dict[str, set[str]] = {}
    for item in items:
        labeled = item.rendered.labeled
        for label, facets in zip(labeled.labels, labeled.label_facets, strict=False):
            for facet in split_facets(facets):
                by_facet.setdefault(facet, set()).add(label)
    return {facet: sorted(by_facet[facet]) for facet in sorted(by_facet)}


def arrange_items(
    images: Sequence[RenderedImage], splits: Sequence[str], groups: Sequence[int]
) -> list[DatasetItem]:
    """Combine images with their splits and groups, ordered by path."""
    group_names: dict[int, str] = {}
    for image, group in zip(images, groups, strict=True):
        sha256 = image.labeled.photo.sha256
        group_names[group] = min(sha256, group_names.get(group, sha256))
    items = []
    for image, split, group in zip(images, splits, groups, strict=True):
        name = image.labeled.photo.sha256[:SHORT_DIGITS]
        labeled = image.labeled
        folder = (
            f"{PHOTOS_FOLDER}/{split}"
            if labeled.facets
            else f"{split}/{label_folder(labeled.label)}"
        )
        path = f"{folder}/{name}.jpg"
        items.append(DatasetItem(image, split, path, group_names[group][:SHORT_DIGITS]))
    return sorted(items, key=lambda item: item.path)


def write_manifest(items: Sequence[DatasetItem], path: Path, has_masks: bool = False) -> None:
    """Write `manifest.parquet`, one row per image, ordered by path.

    A multi-label build has the lists `labels` and `facets` (the labelled ones) instead of `label`.

    Args:
        items: The items.
        path: The file.
        has_masks: Whether the build has masks of people: the columns `MASK_COLUMNS` are null for
            images on which nobody is found.
    """
    photos = [item.photo for item in items]
    text = pa.string()
    columns: dict[str, pa.Array] = {
        "path": pa.array([item.path for item in items], text),
        **_label_columns(items),
        "split": pa.array([item.split for item in items], text),
        "sha256": pa.array([photo.sha256 for photo in photos], text),
        "phash": pa.array([photo.phash for photo in photos], text),
        "cluster": pa.array([photo.cluster for photo in photos], pa.int64()),
        "group": pa.array([item.group for item in items], text),
        "post_url": pa.array([next(iter(photo.post_urls), None) for photo in photos], text),
        "site": pa.array([next(iter(photo.sites), None) for photo in photos], text),
        "hashtags": pa.array([photo.hashtags for photo in photos], pa.list_(text)),
        **_crop_columns([item.person_crop for item in items]),
        "shard": pa.array([item.shard for item in items], text),
        "file_sha256": pa.array([item.rendered.file_sha256 for item in items], text),
        "render_key": pa.array([item.rendered.render_key for item in items], text),
    }
    if has_masks:
        masks = [[item.mask_path, item.rendered.mask_sha256] for item in items]
        columns |= {
            name: pa.array(values, text)
            for name, values in zip(MASK_COLUMNS, zip(*masks, strict=True), strict=True)
        }
    pq.write_table(pa.table(columns), path)


def _label_columns(items: Sequence[DatasetItem]) -> dict[str, pa.Array]:
    if not is_multi_label(items):
        return {"label": pa.array([item.label for item in items], pa.string())}
    texts = pa.list_(pa.string())
    return {
        "labels": pa.array([item.labels for item in items], texts),
        "facets": pa.array([item.facets for item in items], texts),
    }


def _crop_columns(crops: Sequence[PersonCrop | None]) -> dict[str, pa.Array]:
    """Return the columns of the crops, null for images that are not cropped."""
    text, numbers = pa.string(), pa.list_(pa.float32())
    return {
        "crop": pa.array([c and c.crop.outcome for c in crops], text),
        "crop_reason": pa.array([c and c.crop.reason for c in crops], text),
        "crop_score": pa.array([c and c.crop.score for c in crops], pa.float32()),
        "crop_box": pa.array([c and list(c.crop.box) for c in crops], numbers),
        "key_points": pa.array([c and c.points[:, :3].ravel() for c in crops], numbers),
        "pose_model": pa.array([c and c.key for c in crops], text),
    }


def write_excluded(images: Sequence[ExcludedImage], path: Path) -> None:
    """Write `excluded.parquet`, one row per excluded image, ordered by reason."""
    ordered = sorted(images, key=lambda image: (image.reason, image.photo.sha256))
    photos = [image.photo for image in ordered]
    text = pa.string()
    columns = {
        "reason": pa.array([image.reason for image in ordered], text),
        "detail": pa.array([image.detail for image in ordered], text),
        "sha256": pa.array([photo.sha256 for photo in photos], text),
        "store_key": pa.array([photo.store_key for photo in photos], text),
        "cluster": pa.array([photo.cluster for photo in photos], pa.int64()),
        "post_url": pa.array([next(iter(photo.post_urls), None) for photo in photos], text),
        "site": pa.array([next(iter(photo.sites), None) for photo in photos], text),
        "hashtags": pa.array([photo.hashtags for photo in photos], pa.list_(text)),
    }
    pq.write_table(pa.table(columns), path)


def write_attribution(items: Sequence[DatasetItem], path: Path) -> None:
    """Write `attribution.csv`, one row per image: license, author and source page."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ATTRIBUTION_COLUMNS)
        for item in items:
            credit, post = item.photo.credit, next(iter(item.photo.post_urls), "")
            values = (credit.license_url, credit.author, credit.attribution)
            page = credit.source_page or post
            row = [item.path, item.photo.sha256, credit.code, *(v or "" for v in values), page]
            writer.writerow(spreadsheet_row(row))


def check_output_url(target: ImageStore) -> None:
    """Check that a build may be copied to a URL.

    Raises:
        BadInput: There are files that are not a build.
        OSError: The place can't be read.
    """
    keys = set(target.keys())
    if keys and not keys & {BUILD_FILE, UNFINISHED}:
        raise BadInput(
            f"--out {target} has files and is not a build of fashion-tagger; choose another path"
        )


def publish_build(folder: Path, target: ImageStore) -> None:
    """Copy a build to an object store, instead of the one that is there.

    Objects can't be renamed, so `build.json` is removed first and written last: a build without it
    is incomplete.

    Raises:
        Failure: The place can't be written.
    """
    target.put(b"", UNFINISHED)
    target.remove(BUILD_FILE)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for _ in map_in_threads(
        lambda name: target.put((folder / name).read_bytes(), name),
        sorted(name for name in names if name != BUILD_FILE),
    ):
        pass
    for key in {*target.keys()}.difference(names):
        target.remove(key)
    target.put((folder / BUILD_FILE).read_bytes(), BUILD_FILE)


def check_output_folder(out: Path) -> None:
    """Check that a build may be written to a folder, and finish an interrupted replacement.

    Raises:
        BadInput: The folder exists and is not empty and not a build.
    """
    restore_folder(out)
    if out.exists() and not (
        out.is_dir() and ((out / BUILD_FILE).exists() or not any(out.iterdir()))
    ):
        raise BadInput(
            f"--out {out} exists and is not a build of fashion-tagger; choose another folder"
        )
