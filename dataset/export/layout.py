"""Splits on disk: where each photo goes, the manifest, and the folder that changes at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dataset.errors import BadInput
from dataset.selection.candidates import Candidate, ExcludedImage
from dataset.selection.crops import PersonCrop
from dataset.selection.labeling import LabeledImage
from dataset.utils.files import restore_folder

BUILD_FILE = "build.json"
MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class RenderedImage:
    """A photo as it is written: its JPEG's place and SHA-256, and what it was made with.

    `recipe`: equal for equal originals, crops, sizes and ways of fitting.
    """

    labelled: LabeledImage
    file: Path
    file_sha256: str
    recipe: str
    posed: PersonCrop | None = None


@dataclass(frozen=True)
class DatasetItem:
    """A photo of a split: its path (relative, with /), and what it is.

    `holder`: the file that holds it, the path itself or a shard. `group`: equal for what is tied.
    """

    rendered: RenderedImage
    split: str
    path: str
    group: str
    holder: str = ""

    @property
    def label(self) -> str:
        """Its label's name."""
        return self.rendered.labelled.label

    @property
    def labelled(self) -> LabeledImage:
        """The photo with its label."""
        return self.rendered.labelled

    @property
    def photo(self) -> Candidate:
        """The image in the catalogue."""
        return self.rendered.labelled.photo

    @property
    def posed(self) -> PersonCrop | None:
        """Its crop, where people were looked for."""
        return self.rendered.posed


def label_folder(label: str) -> str:
    """LABEL as the name of a folder on any system: what can't stand there becomes %XX."""
    name = re.sub(r'[\x00-\x1f%/\\:*?"<>|]|^\.|[. ]$', lambda m: f"%{ord(m[0]):02X}", label)
    return name or "%00"


def arrange_items(
    rendered: Sequence[RenderedImage], splits: Sequence[str], groups: Sequence[int]
) -> list[DatasetItem]:
    """Each photo with its split, path and group, in the order of the paths."""
    name_of: dict[int, str] = {}
    for one, group in zip(rendered, groups, strict=True):
        sha256 = one.labelled.photo.sha256
        name_of[group] = min(sha256, name_of.get(group, sha256))
    items = []
    for one, split, group in zip(rendered, splits, groups, strict=True):
        path = f"{split}/{label_folder(one.labelled.label)}/{one.labelled.photo.sha256[:24]}.jpg"
        items.append(DatasetItem(one, split, path, name_of[group][:24]))
    return sorted(items, key=lambda item: item.path)


def write_manifest(items: Sequence[DatasetItem], path: Path) -> None:
    """A Parquet row a photo, in the order of the paths."""
    photos = [item.photo for item in items]
    text = pa.string()
    columns: dict[str, pa.Array] = {
        "path": pa.array([item.path for item in items], text),
        "label": pa.array([item.label for item in items], text),
        "split": pa.array([item.split for item in items], text),
        "sha256": pa.array([photo.sha256 for photo in photos], text),
        "phash": pa.array([photo.phash for photo in photos], text),
        "cluster": pa.array([photo.cluster for photo in photos], pa.int64()),
        "group": pa.array([item.group for item in items], text),
        "post_url": pa.array([next(iter(p.post_urls), None) for p in photos], text),
        "site": pa.array([next(iter(p.sites), None) for p in photos], text),
        "hashtags": pa.array([p.hashtags for p in photos], pa.list_(text)),
        **_crop_columns([item.posed for item in items]),
        "holder": pa.array([item.holder for item in items], text),
        "file_sha256": pa.array([item.rendered.file_sha256 for item in items], text),
        "recipe": pa.array([item.rendered.recipe for item in items], text),
    }
    pq.write_table(pa.table(columns), path)


def _crop_columns(posed: Sequence[PersonCrop | None]) -> dict[str, pa.Array]:
    """What was kept of each photo and why; null where nobody looked for people."""
    numbers = pa.list_(pa.float32())
    return {
        "crop": pa.array([one and one.crop.outcome for one in posed], pa.string()),
        "crop_reason": pa.array([one and one.crop.reason for one in posed], pa.string()),
        "crop_score": pa.array([one and one.crop.score for one in posed], pa.float32()),
        "crop_box": pa.array([one and list(one.crop.box) for one in posed], numbers),
        "key_points": pa.array([one and one.points[:, :3].ravel() for one in posed], numbers),
        "pose_model": pa.array([one and one.key for one in posed], pa.string()),
    }


def write_excluded(images: Sequence[ExcludedImage], path: Path) -> None:
    """A Parquet row an image that was left out: why, and what it is."""
    ordered = sorted(images, key=lambda one: (one.reason, one.photo.sha256))
    photos = [one.photo for one in ordered]
    text = pa.string()
    columns = {
        "reason": pa.array([one.reason for one in ordered], text),
        "detail": pa.array([one.detail for one in ordered], text),
        "sha256": pa.array([photo.sha256 for photo in photos], text),
        "store_key": pa.array([photo.store_key for photo in photos], text),
        "cluster": pa.array([photo.cluster for photo in photos], pa.int64()),
        "post_url": pa.array([next(iter(p.post_urls), None) for p in photos], text),
        "site": pa.array([next(iter(p.sites), None) for p in photos], text),
        "hashtags": pa.array([p.hashtags for p in photos], pa.list_(text)),
    }
    pq.write_table(pa.table(columns), path)


def check_output_folder(out: Path) -> None:
    """Mend what a killed build left at OUT.

    Raises:
        BadInput: OUT is there and is not a build of ours.
    """
    restore_folder(out)
    if out.exists() and not (
        out.is_dir() and ((out / BUILD_FILE).exists() or not any(out.iterdir()))
    ):
        raise BadInput(
            f"--out {out} is there and is no build of fashion-tagger; name another folder"
        )
