"""The pipeline from catalogue to splits, on a page: each step is a call, named like its file."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset import candidates, card, export, poses, splits
from dataset.catalogue.session import open_catalogue
from dataset.catalogue.tables import Assignment, Run, now
from dataset.errors import Failure
from dataset.export import Item
from dataset.images import ImageStore
from dataset.labels import Vocabulary
from dataset.options import plain


@dataclass(frozen=True)
class BuildOptions:
    """What `build-dataset` was asked for. `splits`: shares of train, validation, test."""

    catalogue: str
    images: Path
    out: Path
    min_per_class: int = 500
    max_per_class: int | None = None
    labels: tuple[str, ...] = ()
    splits: tuple[float, float, float] = (80, 10, 10)
    size: int = 342
    seed: int = 0
    pose: poses.PoseOptions = field(default_factory=poses.PoseOptions)


@dataclass(frozen=True)
class Built:
    """What a build came to. `left_out`: label -> photos, too few; `problems`: path -> reason."""

    items: Sequence[Item]
    drops: Mapping[str, int]
    left_out: Mapping[str, int]
    problems: Mapping[str, str]


def build(options: BuildOptions, vocabulary: Vocabulary) -> Built:
    """Write the splits that OPTIONS ask for; an earlier build at that place stays until then.

    Raises:
        BadInput: no catalogue, or --out is somebody else's folder.
        Failure: no class has enough photos, or no photo can be read.
    """
    began, sessions = time.time(), open_catalogue(options.catalogue, must_exist=True)
    export.refuse_foreign(options.out)
    drops = candidates.Drops()
    with sessions() as session:
        photos = candidates.fold(candidates.load(session), drops)
    wished = [vocabulary.label_or_own(label) for label in options.labels]
    labelled = candidates.give_labels(photos, vocabulary, wished, drops)
    kept, left_out = candidates.limit_classes(
        labelled, options.min_per_class, options.max_per_class, drops
    )
    _refuse_nothing(kept, left_out, wished, options.min_per_class)
    groups = splits.group([one.photo.posts for one in kept])
    names = splits.split(groups, [one.label for one in kept], options.splits, options.seed)
    part = export.prepare(options.out)
    store = ImageStore(options.images)
    zones = [vocabulary.zone_of(one.label) for one in kept]
    posed = poses.find_crops([one.photo for one in kept], zones, sessions, store, options.pose)
    items, problems = _write_photos(export.items_of(kept, names, posed), part, options)
    drops.counts["photo missing or unreadable"] += len(problems)
    built = Built(items, dict(drops.counts), left_out, problems)
    _write_papers(built, part, options, vocabulary, time.time() - began)
    export.put_in_place(options.out)
    _remember(sessions, built, options)
    return built


def _refuse_nothing(
    kept: Sequence[candidates.Labelled],
    left_out: Mapping[str, int],
    wished: Sequence[str],
    minimum: int,
) -> None:
    if kept:
        return
    if left_out:
        counts = ", ".join(f"{label} {count}" for label, count in left_out.items())
        raise Failure(
            f"no label has {minimum} photos (there are: {counts}). Crawl more (crawl lamoda --tags"
            f" {','.join(left_out)}), or lower --min-per-class"
        )
    asked = f" of {', '.join(wished)}" if wished else ""
    raise Failure(f"the catalogue has no photos{asked}; crawl first: crawl lamoda --tags polo")


def _write_photos(
    items: Sequence[Item], part: Path, options: BuildOptions
) -> tuple[list[Item], dict[str, str]]:
    written, problems = [], {}
    todo = export.write_photos(items, ImageStore(options.images), part, options.size)
    for item, problem in tqdm(todo, total=len(items), desc="photos", disable=None):
        if problem is None:
            written.append(item)
        else:
            problems[item.labelled.photo.store_key] = problem
    if not written:
        raise Failure(
            f"none of the {len(items)} photos is in {options.images} ({next(iter(problems))});"
            " name the folder that they were crawled into with --images"
        )
    return written, problems


def _write_papers(
    built: Built, part: Path, options: BuildOptions, vocabulary: Vocabulary, seconds: float
) -> None:
    names = sorted({item.label for item in built.items})
    zones = {name: vocabulary.zone_of(name) for name in names}
    export.write_manifest(built.items, part / "manifest.parquet")
    export.write_json(
        {
            "labels": names,
            "folders": {name: export.folder_of(name) for name in names},
            "zones": zones,
            "size": options.size,
        },
        part / "labels.json",
    )
    text = card.dataset_card(
        built.items, built.drops, built.left_out, options.min_per_class, options.size
    )
    (part / "README.md").write_text(text, encoding="utf-8")
    card.write_contact_sheets(built.items, part)
    card.write_crop_sheet(built.items, ImageStore(options.images), part)
    # The one file that differs between two equal builds.
    export.write_json(
        {"made": f"{now()}Z", "seconds": round(seconds, 1), "options": _plain(options)},
        part / export.MARK,
    )


def _plain(options: BuildOptions) -> dict[str, object]:
    """OPTIONS for JSON, without the catalogue's address, which may hold a password."""
    chosen = plain(options) | plain(options.pose)
    return {name: value for name, value in chosen.items() if name != "catalogue"}


def _remember(sessions: sessionmaker[Session], built: Built, options: BuildOptions) -> None:
    with sessions.begin() as session:
        run = Run(
            kind="build",
            path=str(options.out.resolve()),
            options=json.dumps(_plain(options), ensure_ascii=False),
            outcome=json.dumps(Counter(item.split for item in built.items)),
            finished=now(),
        )
        session.add(run)
        session.flush()
        session.execute(
            sa.insert(Assignment),
            [
                {
                    "run_id": run.id,
                    "image_id": item.labelled.photo.image_id,
                    "label": item.label,
                    "split": item.split,
                }
                for item in built.items
            ],
        )
