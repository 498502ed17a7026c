"""The options and the result of a build."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset.export.layout import DatasetItem
from dataset.export.leakage_audit import AuditResult
from dataset.selection import crops
from dataset.selection.candidates import Exclusions


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
    pose: crops.PoseOptions = field(default_factory=crops.PoseOptions)
    multi_label: bool = False
    target: str = ""

    @property
    def place(self) -> str:
        """Where the build is, for people: its folder or URL."""
        return self.target or str(self.out)


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
