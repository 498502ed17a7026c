"""The pipeline from catalogue to splits, on a page: each step is a call, named like its file."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset import export, kept_splits, papers, poses
from dataset.audit import Audit, Comparison, audit
from dataset.candidates import Drops
from dataset.catalogue.session import open_catalogue
from dataset.catalogue.tables import Assignment, Run, now
from dataset.decisions import ask_conflicts
from dataset.dedup import dedup
from dataset.duplicates.fingerprint import Fingerprint
from dataset.errors import Failure
from dataset.export import Item, Rendered
from dataset.formats import FORMATS
from dataset.gates import load_gates
from dataset.labels import Vocabulary
from dataset.options import plain
from dataset.plan import Again, Choice, Plan, make_plan, split_again
from dataset.render import POOL, recipe_of, render, take_over
from dataset.stores import ImageStore, open_store
from dataset.ties import TORN

# A build that needs more rounds than this has a fault of ours.
ROUNDS = 100


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
    pose: poses.PoseOptions = field(default_factory=poses.PoseOptions)


@dataclass(frozen=True)
class Built:
    """What a build came to. `left_out`: label -> photos, too few; `problems`: path -> reason.

    `taken_over`: photos that an earlier build held; `unmet`: where shares are not as wished.
    """

    items: Sequence[Item]
    drops: Drops
    left_out: Mapping[str, int]
    problems: Mapping[str, str]
    unmet: Sequence[str]
    audit: Audit
    taken_over: int


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
    export.refuse_foreign(options.out)
    dedup(sessions, store)
    with sessions() as session:
        plan = make_plan(session, choice)
    refuse_nothing(plan, choice)
    part = export.prepare(options.out)
    zones = [vocabulary.zone_of(one.label) for one in plan.labelled]
    posed = poses.find_crops(
        [one.photo for one in plan.labelled], zones, sessions, store, options.pose
    )
    taken_over = _take_over(plan, posed, part, options)
    rendered, prints, problems = _render(plan, posed, store, part, options)
    again = _without_leaks(plan, choice, prints)
    photos, plan = [rendered[number] for number in again.numbers], again.plan
    layout = FORMATS[options.format]
    items = layout.write(export.items_of(photos, plan.splits, plan.groups), part)
    export.write_manifest(items, part / export.MANIFEST)
    built = Built(
        items, plan.drops, plan.left_out, problems, plan.unmet, audit(part, layout), taken_over
    )
    _refuse_leaks(built.audit)
    papers.write(built, part, options, choice, store)
    shutil.rmtree(part / POOL)
    export.write_json(
        {"made": f"{now()}Z", "seconds": round(time.time() - began, 1), "options": _plain(options)},
        part / export.MARK,
    )
    _remember(sessions, built, choice)
    export.put_in_place(options.out)
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
    plan: Plan, posed: Mapping[int, poses.Posed], part: Path, options: BuildOptions
) -> int:
    """Take from the build that stands at --out what it holds of this one."""
    wanted = {
        recipe_of(one, posed.get(one.photo.image_id), options.size, options.resize)
        for one in plan.labelled
    }
    return take_over(options.out, wanted, part / POOL)


def _render(
    plan: Plan,
    posed: Mapping[int, poses.Posed],
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
    scheme = kept_splits.scheme_of(choice.shares, choice.seed)
    splits = [(image, item.split) for item in built.items for image in item.photo.copies]
    with sessions.begin() as session:
        kept_splits.keep(session, scheme, splits, choice.new_splits)


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
