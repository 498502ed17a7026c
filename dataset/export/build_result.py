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
    """What `build-dataset` was asked for. `splits`: shares of train, validation, test."""

    catalogue: str
    images: Path | str
    out: Path
    min_per_class: int = 500
    max_per_class: int | None = None
    labels: tuple[str, ...] = ()
    splits: tuple[float, float, float] = (80, 10, 10)
    new_splits: bool = False
    hashtags: str = "found"
    conflicts: str = "drop"
    gates: Path | None = None
    size: int = 342
    resize: str = "letterbox"
    format: str = "folders"
    seed: int = 0
    pose: crops.PoseOptions = field(default_factory=crops.PoseOptions)


@dataclass(frozen=True)
class BuildResult:
    """What a build came to. `left_out`: label -> photos, too few; `problems`: path -> reason.

    `taken_over`: photos that an earlier build held; `unmet`: where shares are not as wished.
    """

    items: Sequence[DatasetItem]
    drops: Exclusions
    left_out: Mapping[str, int]
    problems: Mapping[str, str]
    unmet: Sequence[str]
    audit: AuditResult
    taken_over: int
