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

from dataset.catalogue.models import Assignment, Run, now
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.hashing import Fingerprint
from dataset.duplicates.pipeline import dedup
from dataset.errors import Failure
from dataset.export import croissant, dataset_card, layout, report
from dataset.export.build_result import BuildOptions, Built
from dataset.export.formats import FORMATS
from dataset.export.layout import Rendered
from dataset.export.leakage_audit import Audit, Comparison, audit
from dataset.export.rendering import POOL, recipe_of, render, take_over
from dataset.images.store import ImageStore, open_store
from dataset.maintenance.label_decisions import ask_conflicts
from dataset.selection import crops, splits
from dataset.selection.groups import TORN
from dataset.selection.planning import Again, Choice, Plan, make_plan, split_again
from dataset.selection.quality_gates import load_gates
from dataset.utils.cli_options import plain
from dataset.utils.files import prepare, put_in_place, write_json
from dataset.vocabulary import Vocabulary

if TYPE_CHECKING:
    from dataset.export.build_result import BuildOptions, Built


# A build that needs more rounds than this has a fault of ours.
ROUNDS = 100


def choice_of(options: BuildOptions, vocabulary: Vocabulary) -> Choice:
    """What OPTIONS say about which photos are taken.

    Raises:
        BadInput: the file of gates can't be used.
    """
    return Choice(
        vocabulary,
        load_gates(options.gates),
        options.min_per_class,
        options.max_per_class,
        [vocabulary.label_or_own(label) for label in options.labels],
        options.conflicts,
        options.splits,
        options.seed,
        options.new_splits,
        options.hashtags == "all",
    )


def plan_only(options: BuildOptions, vocabulary: Vocabulary) -> Plan:
    """What OPTIONS would come to by what the catalogue knows; no photo is read.

    Raises:
        BadInput: no catalogue.
        Failure: no class has enough photos.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    choice = choice_of(options, vocabulary)
    with sessions() as session:
        plan = make_plan(session, choice)
    refuse_nothing(plan, choice)
    return plan


def ask(
    options: BuildOptions, choice: Choice, answer: Callable[[str, Sequence[str]], str | None]
) -> int:
    """ANSWER each conflict of labels, after the catalogue's duplicates are up to date."""
    sessions = open_catalogue(options.catalogue, must_exist=True)
    dedup(sessions, open_store(options.images))
    return ask_conflicts(sessions, choice, answer)


def build(options: BuildOptions, vocabulary: Vocabulary) -> Built:
    """Write the splits that OPTIONS ask for; an earlier build at that place stays until then.

    Raises:
        BadInput: no catalogue, or --out is somebody else's folder.
        Failure: no class has enough photos, no photo can be read, or the audit finds a leak.
    """
    began, sessions = time.time(), open_catalogue(options.catalogue, must_exist=True)
    choice, store = choice_of(options, vocabulary), open_store(options.images)
    layout.refuse_foreign(options.out)
    dedup(sessions, store)
    with sessions() as session:
        plan = make_plan(session, choice)
    refuse_nothing(plan, choice)
    part = prepare(options.out)
    zones = [vocabulary.zone_of(one.label) for one in plan.labelled]
    posed = crops.find_crops(
        [one.photo for one in plan.labelled], zones, sessions, store, options.pose
    )
    taken_over = _take_over(plan, posed, part, options)
    rendered, prints, problems = _render(plan, posed, store, part, options)
    again = _without_leaks(plan, choice, prints)
    photos, plan = [rendered[number] for number in again.numbers], again.plan
    output_format = FORMATS[options.format]
    items = output_format.write(layout.items_of(photos, plan.splits, plan.groups), part)
    layout.write_manifest(items, part / layout.MANIFEST)
    built = Built(
        items,
        plan.drops,
        plan.left_out,
        problems,
        plan.unmet,
        audit(part, output_format),
        taken_over,
    )
    _refuse_leaks(built.audit)
    write_output_files(built, part, options, choice, store)
    shutil.rmtree(part / POOL)
    write_json(
        {"made": f"{now()}Z", "seconds": round(time.time() - began, 1), "options": _plain(options)},
        part / layout.MARK,
    )
    _remember(sessions, built, choice)
    put_in_place(options.out)
    _remember_run(sessions, built, options)
    return built


def refuse_nothing(plan: Plan, choice: Choice) -> None:
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


def _take_over(
    plan: Plan, posed: Mapping[int, crops.Posed], part: Path, options: BuildOptions
) -> int:
    """Take from the build that stands at --out what it holds of this one."""
    wanted = {
        recipe_of(one, posed.get(one.photo.image_id), options.size, options.resize)
        for one in plan.labelled
    }
    return take_over(options.out, wanted, part / POOL)


def _render(
    plan: Plan,
    posed: Mapping[int, crops.Posed],
    store: ImageStore,
    part: Path,
    options: BuildOptions,
) -> tuple[dict[int, Rendered], dict[int, Fingerprint], dict[str, str]]:
    """Photos and their fingerprints by their numbers in PLAN; and those that can't be read."""
    rendered, prints, problems = {}, {}, {}
    todo = render(plan.labelled, posed, store, part / POOL, options.size, options.resize)
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


def _without_leaks(plan: Plan, choice: Choice, prints: Mapping[int, Fingerprint]) -> Again:
    """PLAN for the photos of PRINTS, by number, so split that none looks like one elsewhere.

    Photos that differ may be alike once they are cropped: those are tied too.
    """
    numbers, pairs = list(prints), set[tuple[int, int]]()
    comparison = Comparison(list(prints.values()))
    for _ in range(ROUNDS):
        again = split_again(plan, choice, numbers, sorted(pairs))
        if again.torn:
            for number in again.torn:
                plan.drops.add(plan.labelled[number].photo, TORN, plan.labelled[number].label)
            numbers = list(again.numbers)
            if not numbers:
                raise Failure(
                    "every photo ties photos of two splits together; start afresh: --new-splits"
                )
            # Without them others are the nearest of those that are left.
            comparison = Comparison([prints[number] for number in numbers])
            continue
        leaks = comparison.leaks(again.plan.splits)
        if not leaks:
            return again
        pairs |= {(numbers[one], numbers[other]) for one, other in leaks}
    raise Failure("the splits do not settle; please report this with the catalogue")


def _refuse_leaks(found: Audit) -> None:
    if found.leaks:
        shown = "; ".join(found.leaks[:5])
        raise Failure(
            f"the audit of the written photos found {len(found.leaks)} leaks between splits, so the"
            f" build was not put in place: {shown}. Run `catalogue dedup --again`, then build again"
        )


def _plain(options: BuildOptions) -> dict[str, object]:
    """OPTIONS for JSON, without the catalogue's address, which may hold a password."""
    chosen = plain(options) | plain(options.pose)
    return {name: value for name, value in chosen.items() if name != "catalogue"}


def _remember(sessions: sessionmaker[Session], built: Built, choice: Choice) -> None:
    """Every image of every cluster that was written keeps its split."""
    scheme = splits.scheme_of(choice.shares, choice.seed)
    assignments = [(image, item.split) for item in built.items for image in item.photo.copies]
    with sessions.begin() as session:
        splits.keep(session, scheme, assignments, choice.new_splits)


def _remember_run(sessions: sessionmaker[Session], built: Built, options: BuildOptions) -> None:
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
                    "image_id": item.photo.image_id,
                    "label": item.label,
                    "split": item.split,
                }
                for item in built.items
            ],
        )


def write_output_files(
    built: "Built", part: Path, options: "BuildOptions", choice: Choice, store: ImageStore
) -> None:
    """Write all papers of BUILT below PART."""
    names = sorted({item.label for item in built.items})
    write_json(labels_json(names, options, choice), part / "labels.json")
    layout.write_left_out(built.drops.images, part / "left_out.parquet")
    wanted = report.shown_photos(built)
    photos = {path: jpeg for path, jpeg in FORMATS[options.format].read(part) if path in wanted}
    dataset_card.write_contact_sheets(built.items, photos, part)
    dataset_card.write_crop_sheet(built.items, store, part)
    text = dataset_card.dataset_card(built, options, FORMATS[options.format])
    (part / "README.md").write_text(text, encoding="utf-8")
    write_json(croissant.describe(built, options, part), part / "croissant.json")
    page = report.page(built, options, choice.gates, photos, store)
    (part / "report.html").write_text(page, encoding="utf-8")


def labels_json(names: list[str], options: "BuildOptions", choice: Choice) -> Mapping[str, object]:
    """The labels, their folders and garment zones, and how the photos are laid down."""
    return {
        "labels": names,
        "folders": {name: layout.folder_of(name) for name in names},
        "zones": {name: choice.vocabulary.zone_of(name) for name in names},
        "size": options.size,
        "resize": options.resize,
        "format": options.format,
    }
