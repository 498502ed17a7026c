"""Splits on disk: folders of letterboxed JPEGs, and a manifest with a row a photo."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dataset.candidates import Labelled
from dataset.errors import BadInput
from dataset.images import ImageStore, Unreadable, letterbox, open_photo
from dataset.poses import Posed

JPEG_QUALITY = 92
MARK = "build.json"


@dataclass(frozen=True)
class Item:
    """A photo of a split: where it goes (relative, with /) and what it is."""

    labelled: Labelled
    split: str
    path: str
    posed: Posed | None = None

    @property
    def label(self) -> str:
        """Its label's name."""
        return self.labelled.label


def folder_of(label: str) -> str:
    """LABEL as the name of a folder on any system: what can't stand there becomes %XX."""
    name = re.sub(r'[\x00-\x1f%/\\:*?"<>|]|^\.|[. ]$', lambda m: f"%{ord(m[0]):02X}", label)
    return name or "%00"


def items_of(
    labelled: Sequence[Labelled], splits: Sequence[str], posed: Mapping[int, Posed]
) -> list[Item]:
    """Each photo with its split and path, in the order of the paths."""
    items = [
        Item(
            one,
            split,
            f"{split}/{folder_of(one.label)}/{one.photo.sha256[:24]}.jpg",
            posed.get(one.photo.image_id),
        )
        for one, split in zip(labelled, splits, strict=True)
    ]
    return sorted(items, key=lambda item: item.path)


def crop(image: Image.Image, item: Item) -> Image.Image:
    """The part of IMAGE to keep: all of it where nobody looked for people."""
    if item.posed is None:
        return image
    left, top, right, bottom = item.posed.crop.box
    return image.crop((round(left), round(top), round(right), round(bottom)))


def write_photos(
    items: Sequence[Item], store: ImageStore, folder: Path, size: int
) -> Iterator[tuple[Item, str | None]]:
    """Write each photo, SIZE x SIZE, below FOLDER; yields it with the reason if it failed."""
    for name in sorted({item.path.rpartition("/")[0] for item in items}):
        (folder / name).mkdir(parents=True)

    def write(item: Item) -> str | None:
        try:
            image = open_photo(store.path(item.labelled.photo.store_key))
        except FileNotFoundError:
            return "file missing"
        except (Unreadable, OSError) as error:
            return f"unreadable ({error})"
        photo = letterbox(crop(image, item), size)
        photo.save(folder / item.path, quality=JPEG_QUALITY)
        return None

    # Pillow frees the interpreter while it decodes, scales and encodes: threads use every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(items, pool.map(write, items), strict=True)


def write_manifest(items: Sequence[Item], path: Path) -> None:
    """A Parquet row a photo, in the order of the paths."""
    photos = [item.labelled.photo for item in items]
    columns: dict[str, pa.Array] = {
        "path": pa.array([item.path for item in items], pa.string()),
        "label": pa.array([item.label for item in items], pa.string()),
        "split": pa.array([item.split for item in items], pa.string()),
        "sha256": pa.array([photo.sha256 for photo in photos], pa.string()),
        "cluster": pa.array([photo.cluster for photo in photos], pa.int64()),
        "post_url": pa.array([next(iter(p.post_urls), None) for p in photos], pa.string()),
        "site": pa.array([next(iter(p.sites), None) for p in photos], pa.string()),
        "hashtags": pa.array([list(p.hashtags) for p in photos], pa.list_(pa.string())),
        **_crop_columns([item.posed for item in items]),
    }
    pq.write_table(pa.table(columns), path)


def _crop_columns(posed: Sequence[Posed | None]) -> dict[str, pa.Array]:
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


def write_json(value: Mapping[str, Any], path: Path) -> None:
    """VALUE as JSON for people and programs: UTF-8, indented, a line at the end."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def aside_of(out: Path) -> tuple[Path, Path]:
    """Where OUT is built, and where the one before it stands while the two change places."""
    return out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.before")


def refuse_foreign(out: Path) -> None:
    """Mend what a killed build left at OUT.

    Raises:
        BadInput: OUT is there and is not a build of ours.
    """
    _, before = aside_of(out)
    if before.exists() and not out.exists():
        before.rename(out)
    if out.exists() and not (out.is_dir() and ((out / MARK).exists() or not any(out.iterdir()))):
        raise BadInput(
            f"--out {out} is there and is no build of fashion-tagger; name another folder"
        )


def prepare(out: Path) -> Path:
    """An empty folder beside OUT to build in.

    Raises:
        BadInput: it can't be made.
    """
    part, _ = aside_of(out)
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror}; name a folder that can be made") from error
    return part


def put_in_place(out: Path) -> None:
    """Let the folder that was built aside take OUT's place."""
    part, before = aside_of(out)
    shutil.rmtree(before, ignore_errors=True)
    if out.exists():
        out.rename(before)
    part.rename(out)
    shutil.rmtree(before, ignore_errors=True)
