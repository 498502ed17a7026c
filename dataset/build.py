"""The pipeline from catalogue to splits, on a page: each step is a call, named like its file."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.models import RunRow, SplitAssignment, now
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.hashing import Fingerprint
from dataset.duplicates.pipeline import dedup
from dataset.errors import Failure
from dataset.export import croissant, dataset_card, layout, report
from dataset.export.build_result import BuildOptions, BuildResult
from dataset.export.formats import FORMATS
from dataset.export.layout import RenderedImage
from dataset.export.leakage_audit import AuditResult, CrossSplitComparison, audit_build
from dataset.export.rendering import POOL_FOLDER, render_images, render_key, reuse_images
from dataset.images.store import ImageStore, open_store
from dataset.maintenance.label_decisions import ask_conflicts
from dataset.selection import crops, splits
from dataset.selection.groups import LINKS_TWO_SPLITS
from dataset.selection.planning import (
    BuildPlan,
    Replan,
    SelectionOptions,
    plan_build,
    replan_splits,
)
from dataset.selection.quality_gates import load_quality_gates
from dataset.utils.cli_options import options_as_json
from dataset.utils.files import create_temporary_folder, replace_folder, write_json
from dataset.vocabulary import Vocabulary

if TYPE_CHECKING:
    from dataset.export.build_result import BuildOptions, BuildResult


# A build that needs more rounds than this has a fault of ours.
MAX_SPLIT_ROUNDS = 100


def selection_options(options: BuildOptions, vocabulary: Vocabulary) -> SelectionOptions:
    """What OPTIONS say about which photos are taken.

    Raises:
        BadInput: the file of gates can't be used.
    """
    return SelectionOptions(
        vocabulary,
        load_quality_gates(options.gates),
        options.min_per_class,
        options.max_per_class,
        [vocabulary.label_or_own(label) for label in options.labels],
        options.conflicts,
        options.splits,
        options.seed,
        options.new_splits,
        options.hashtags == "all",
    )


def preview_build(options: BuildOptions, vocabulary: Vocabulary) -> BuildPlan:
    """What OPTIONS would come to by what the catalogue knows; no photo is read.

    Raises:
        BadInput: no catalogue.
        Failure: no class has enough photos.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    choice = selection_options(options, vocabulary)
    with sessions() as session:
        plan = plan_build(session, choice)
    check_not_empty(plan, choice)
    return plan


def prompt_conflicts(
    options: BuildOptions,
    choice: SelectionOptions,
    answer: Callable[[str, Sequence[str]], str | None],
) -> int:
    """ANSWER each conflict of labels, after the catalogue's duplicates are up to date."""
    sessions = open_catalogue(options.catalogue, must_exist=True)
    dedup(sessions, open_store(options.images))
    return ask_conflicts(sessions, choice, answer)


def build(options: BuildOptions, vocabulary: Vocabulary) -> BuildResult:
    """Write the splits that OPTIONS ask for; an earlier build at that place stays until then.

    Raises:
        BadInput: no catalogue, or --out is somebody else's folder.
        Failure: no class has enough photos, no photo can be read, or the audit finds a leak.
    """
    began, sessions = time.time(), open_catalogue(options.catalogue, must_exist=True)
    choice, store = selection_options(options, vocabulary), open_store(options.images)
    layout.check_output_folder(options.out)
    dedup(sessions, store)
    with sessions() as session:
        plan = plan_build(session, choice)
    check_not_empty(plan, choice)
    part = create_temporary_folder(options.out)
    zones = [vocabulary.zone_of(one.label) for one in plan.labelled]
    posed = crops.find_crops(
        [one.photo for one in plan.labelled], zones, sessions, store, options.pose
    )
    taken_over = _reuse_images(plan, posed, part, options)
    rendered, prints, problems = _render_images(plan, posed, store, part, options)
    again = _split_without_leaks(plan, choice, prints)
    photos, plan = [rendered[number] for number in again.numbers], again.plan
    output_format = FORMATS[options.format]
    items = output_format.write(layout.arrange_items(photos, plan.splits, plan.groups), part)
    layout.write_manifest(items, part / layout.MANIFEST)
    built = BuildResult(
        items,
        plan.drops,
        plan.left_out,
        problems,
        plan.unmet,
        audit_build(part, output_format),
        taken_over,
    )
    _check_audit(built.audit)
    write_output_files(built, part, options, choice, store)
    shutil.rmtree(part / POOL_FOLDER)
    write_json(
        {
            "made": f"{now()}Z",
            "seconds": round(time.time() - began, 1),
            "options": _options_as_json(options),
        },
        part / layout.BUILD_FILE,
    )
    _save_splits(sessions, built, choice)
    replace_folder(part, options.out)
    _save_run(sessions, built, options)
    return built


def check_not_empty(plan: BuildPlan, choice: SelectionOptions) -> None:
    """Raises: Failure: PLAN has no photo."""
    if plan.labelled:
        return
    if plan.left_out:
        counts = ", ".join(f"{label} {count}" for label, count in plan.left_out.items())
        raise Failure(
            f"no label has {choice.min_per_class} photos (there are: {counts}). Crawl more (crawl"
            f" lamoda --tags {','.join(plan.left_out)}), or lower --min-per-class"
        )
    asked = f" of {', '.join(choice.labels)}" if choice.labels else ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in plan.drops.counts.items() if count)
    why = f" to take (left out: {reasons})" if reasons else ""
    raise Failure(f"the catalogue has no photos{asked}{why}; crawl first: crawl lamoda --tags polo")


def _reuse_images(
    plan: BuildPlan, posed: Mapping[int, crops.PersonCrop], part: Path, options: BuildOptions
) -> int:
    """Take from the build that stands at --out what it holds of this one."""
    wanted = {
        render_key(one, posed.get(one.photo.image_id), options.size, options.resize)
        for one in plan.labelled
    }
    return reuse_images(options.out, wanted, part / POOL_FOLDER)


def _render_images(
    plan: BuildPlan,
    posed: Mapping[int, crops.PersonCrop],
    store: ImageStore,
    part: Path,
    options: BuildOptions,
) -> tuple[dict[int, RenderedImage], dict[int, Fingerprint], dict[str, str]]:
    """Photos and their fingerprints by their numbers in PLAN; and those that can't be read."""
    rendered, prints, problems = {}, {}, {}
    todo = render_images(
        plan.labelled, posed, store, part / POOL_FOLDER, options.size, options.resize
    )
    shown = tqdm(todo, total=len(plan.labelled), desc="photos", disable=None)
    for number, made in enumerate(shown):
        photo = plan.labelled[number].photo
        if isinstance(made, str):
            problems[photo.store_key] = made
            plan.drops.add(photo, "photo missing or unreadable", made)
        else:
            rendered[number], prints[number] = made
    if not rendered:
        raise Failure(
            f"none of the {len(plan.labelled)} photos is in {options.images}"
            f" ({next(iter(problems))}); name the folder that they were crawled into with --images"
        )
    return rendered, prints, problems


def _split_without_leaks(
    plan: BuildPlan, choice: SelectionOptions, prints: Mapping[int, Fingerprint]
) -> Replan:
    """PLAN for the photos of PRINTS, by number, so split that none looks like one elsewhere.

    Photos that differ may be alike once they are cropped: those are tied too.
    """
    numbers, pairs = list(prints), set[tuple[int, int]]()
    comparison = CrossSplitComparison(list(prints.values()))
    for _ in range(MAX_SPLIT_ROUNDS):
        again = replan_splits(plan, choice, numbers, sorted(pairs))
        if again.torn:
            for number in again.torn:
                plan.drops.add(
                    plan.labelled[number].photo, LINKS_TWO_SPLITS, plan.labelled[number].label
                )
            numbers = list(again.numbers)
            if not numbers:
                raise Failure(
                    "every photo ties photos of two splits together; start afresh: --new-splits"
                )
            # Without them others are the nearest of those that are left.
            comparison = CrossSplitComparison([prints[number] for number in numbers])
            continue
        leaks = comparison.leaks(again.plan.splits)
        if not leaks:
            return again
        pairs |= {(numbers[one], numbers[other]) for one, other in leaks}
    raise Failure("the splits do not settle; please report this with the catalogue")


def _check_audit(found: AuditResult) -> None:
    if found.leaks:
        shown = "; ".join(found.leaks[:5])
        raise Failure(
            f"the audit of the written photos found {len(found.leaks)} leaks between splits, so the"
            f" build was not put in place: {shown}. Run `catalogue dedup --again`, then build again"
        )


def _options_as_json(options: BuildOptions) -> dict[str, object]:
    """OPTIONS for JSON, without the catalogue's address, which may hold a password."""
    chosen = options_as_json(options) | options_as_json(options.pose)
    return {name: value for name, value in chosen.items() if name != "catalogue"}


def _save_splits(
    sessions: sessionmaker[Session], built: BuildResult, choice: SelectionOptions
) -> None:
    """Every image of every cluster that was written keeps its split."""
    scheme = splits.split_scheme(choice.shares, choice.seed)
    assignments = [(image, item.split) for item in built.items for image in item.photo.copies]
    with sessions.begin() as session:
        splits.save_kept_splits(session, scheme, assignments, choice.new_splits)


def _save_run(sessions: sessionmaker[Session], built: BuildResult, options: BuildOptions) -> None:
    with sessions.begin() as session:
        run = RunRow(
            kind="build",
            path=str(options.out.resolve()),
            options=json.dumps(_options_as_json(options), ensure_ascii=False),
            outcome=json.dumps(Counter(item.split for item in built.items)),
            finished=now(),
        )
        session.add(run)
        session.flush()
        session.execute(
            sa.insert(SplitAssignment),
            [
                {
                    "run_id": run.id,
                    "image_id": item.photo.image_id,
                    "label": item.label,
                    "split": item.split,
                }
                for item in built.items
            ],
        )


def write_output_files(
    built: "BuildResult",
    part: Path,
    options: "BuildOptions",
    choice: SelectionOptions,
    store: ImageStore,
) -> None:
    """Write all papers of BUILT below PART."""
    names = sorted({item.label for item in built.items})
    write_json(describe_labels(names, options, choice), part / "labels.json")
    layout.write_excluded(built.drops.images, part / "left_out.parquet")
    wanted = report.sampled_paths(built)
    photos = {path: jpeg for path, jpeg in FORMATS[options.format].read(part) if path in wanted}
    dataset_card.write_contact_sheets(built.items, photos, part)
    dataset_card.write_crop_sheet(built.items, store, part)
    text = dataset_card.render_card(built, options, FORMATS[options.format])
    (part / "README.md").write_text(text, encoding="utf-8")
    write_json(croissant.describe_build(built, options, part), part / "croissant.json")
    page = report.render_report(built, options, choice.gates, photos, store)
    (part / "report.html").write_text(page, encoding="utf-8")


def describe_labels(
    names: list[str], options: "BuildOptions", choice: SelectionOptions
) -> Mapping[str, object]:
    """The labels, their folders and garment zones, and how the photos are laid down."""
    return {
        "labels": names,
        "folders": {name: layout.label_folder(name) for name in names},
        "zones": {name: choice.vocabulary.zone_of(name) for name in names},
        "size": options.size,
        "resize": options.resize,
        "format": options.format,
    }
