"""Build train, validation and test splits from a catalogue.

`build` runs the steps in order: find near duplicates, plan, crop, render, split without leaks,
write, audit. Each step is in the package of its name.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.models import RunRow, SplitAssignment, now
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.pipeline import dedup, save_closest_pairs, save_possible_duplicates
from dataset.duplicates.search import LoadedPhotos, SignatureFile, compare_candidates
from dataset.errors import Failure, first_line
from dataset.export import dataset_card, layout, report
from dataset.export.formats import FORMATS
from dataset.export.layout import (
    AuditResult,
    BuildOptions,
    BuildResult,
    CrossSplitPair,
    DatasetItem,
    RenderedImage,
)
from dataset.export.leakage_audit import audit_build
from dataset.export.rendering import POOL_FOLDER, render_images, render_key, reuse_images
from dataset.images.store import ImageStore, open_store
from dataset.maintenance.label_decisions import ask_conflicts
from dataset.pose.crop import BOTH
from dataset.selection.candidates import load_quality_gates
from dataset.selection.crops import PersonCrop, find_crops
from dataset.selection.planning import (
    BuildPlan,
    SelectionOptions,
    plan_build,
    replan_splits,
)
from dataset.selection.splits import LINKS_TWO_SPLITS, save_kept_splits, split_scheme
from dataset.utils.cli_options import options_as_json
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.utils.files import (
    create_temporary_folder,
    exclusive_use,
    replace_folder,
    temporary_folder_of,
    write_json,
)
from dataset.vocabulary import Vocabulary

# Maximum number of audits. After each but the last, photos that match across splits are put into
# one split.
MAX_AUDITS = 4


def selection_options(options: BuildOptions, vocabulary: Vocabulary) -> SelectionOptions:
    """Return the part of the options that decides which images are used.

    Raises:
        BadInput: The file of quality gates can't be used.
    """
    return SelectionOptions(
        vocabulary=vocabulary,
        gates=load_quality_gates(options.quality_gates),
        min_per_class=options.min_per_class,
        max_per_class=options.max_per_class,
        labels=[vocabulary.label_or_hashtag(label) for label in options.labels],
        conflicts=options.conflicts,
        proportions=options.splits,
        seed=options.seed,
        new_splits=options.new_splits,
        use_captions=options.hashtags == "all",
        multi_label=options.multi_label,
        licenses=tuple(code.lower() for code in options.licenses),
    )


def preview_build(options: BuildOptions, vocabulary: Vocabulary) -> BuildPlan:
    """Plan a build from the catalogue alone, without reading or writing images.

    Raises:
        BadInput: The catalogue does not exist.
        Failure: No label has enough images.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    selection = selection_options(options, vocabulary)
    with sessions() as session:
        plan = plan_build(session, selection)
    check_not_empty(plan, selection)
    return plan


def prompt_conflicts(
    options: BuildOptions,
    selection: SelectionOptions,
    ask: Callable[[str, Sequence[str]], str | None],
) -> int:
    """Ask for the label of each image with several labels.

    Args:
        options: Options of the build.
        selection: The part of them that decides which images are used.
        ask: Returns one of the labels for a store key, or None to exclude the image.

    Returns:
        Number of images that were asked about.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    dedup(sessions, open_store(options.images))
    return ask_conflicts(sessions, selection, ask)


def build(
    options: BuildOptions, vocabulary: Vocabulary, engine: Engine = LOCAL_ENGINE
) -> BuildResult:
    """Build the splits; an earlier build at the same place is replaced at the end.

    Args:
        options: The options of the build.
        vocabulary: Labels and their words.
        engine: Runs what is done photo by photo; it does not change the result.

    Raises:
        BadInput: The catalogue does not exist, or the output folder is not a build.
        Failure: No label has enough images, no image can be read, the audit finds a leak, or
            another process builds there.
    """
    with exclusive_use(options.out, "--out"):
        try:
            return _build(options, vocabulary, engine)
        except OSError as error:
            # What is unfinished must not fill the disk; an earlier build stays.
            shutil.rmtree(temporary_folder_of(options.out), ignore_errors=True)
            raise Failure(
                f"--out {options.destination} can't be written: {first_line(error)};"
                " free disk space, or choose another folder"
            ) from error


def _build(options: BuildOptions, vocabulary: Vocabulary, engine: Engine) -> BuildResult:
    started, sessions = time.time(), open_catalogue(options.catalogue, must_exist=True)
    selection, store = selection_options(options, vocabulary), open_store(options.images)
    target = open_store(options.target, "--out") if options.target else None
    layout.check_output_folder(options.out)
    if target is not None:
        layout.check_output_url(target)
    dedup(sessions, store, engine=engine)
    with sessions() as session:
        plan = plan_build(session, selection)
    check_not_empty(plan, selection)
    folder = create_temporary_folder(options.out)
    photos = [image.photo for image in plan.images]
    crops = find_crops(photos, sessions, store, options.pose, engine)
    reused = _reuse_images(plan, crops, folder, options)
    rendered, signatures, unreadable = _render_images(plan, crops, store, folder, options, engine)
    plan, items, audit = _write_splits(plan, selection, rendered, signatures, folder, options)
    result = BuildResult(
        items, plan.exclusions, plan.small_classes, unreadable, plan.deviations, audit, reused
    )
    write_output_files(result, folder, options, selection, store)
    shutil.rmtree(folder / POOL_FOLDER)
    write_json(
        {
            "created": f"{now()}Z",
            "seconds": round(time.time() - started, 1),
            "options": _options_as_json(options),
        },
        folder / layout.BUILD_FILE,
    )
    _save_splits(sessions, result, selection)
    _save_pairs(sessions, result)
    if target is None:
        replace_folder(folder, options.out)
    else:
        layout.publish_build(folder, target)
        shutil.rmtree(folder)
    _save_run(sessions, result, options)
    return result


def check_not_empty(plan: BuildPlan, selection: SelectionOptions) -> None:
    """Raise `Failure` if the plan has no image."""
    if plan.images:
        return
    if plan.small_classes:
        counts = ", ".join(f"{label} {count}" for label, count in plan.small_classes.items())
        raise Failure(
            f"no label has {selection.min_per_class} photos (found: {counts}). Crawl more (crawl"
            f" lamoda --tags {','.join(plan.small_classes)}), or lower --min-per-class"
        )
    labels = f" of {', '.join(selection.labels)}" if selection.labels else ""
    counts = ", ".join(f"{count} {why}" for why, count in plan.exclusions.counts.items() if count)
    excluded = f" to use (excluded: {counts})" if counts else ""
    raise Failure(
        f"the catalogue has no photos{labels}{excluded}; crawl first: crawl lamoda --tags polo"
    )


def _reuse_images(
    plan: BuildPlan, crops: Mapping[int, PersonCrop], folder: Path, options: BuildOptions
) -> int:
    """Copy images of the previous build that would be rendered to equal bytes."""
    rendering = options.size, options.resize, options.pose.background
    keys = {render_key(image, crops.get(image.photo.image_id), *rendering) for image in plan.images}
    return reuse_images(options.out, keys, folder / POOL_FOLDER)


def _render_images(
    plan: BuildPlan,
    crops: Mapping[int, PersonCrop],
    store: ImageStore,
    folder: Path,
    options: BuildOptions,
    engine: Engine,
) -> tuple[dict[int, RenderedImage], SignatureFile, dict[str, str]]:
    """Render the planned images.

    Returns:
        Rendered images by index in the plan, their signatures in the same order and by the SHA-256
        of the files, and store key -> reason of the images that can't be read, which are excluded.
    """
    rendered: dict[int, RenderedImage] = {}
    signatures, unreadable = SignatureFile(), {}
    pool = folder / POOL_FOLDER
    rendering = options.size, options.resize, options.pose.background
    results = render_images(plan.images, crops, store, pool, *rendering, engine)
    progress = tqdm(results, total=len(plan.images), desc="photos", disable=None)
    for index, result in enumerate(progress):
        photo = plan.images[index].photo
        if isinstance(result, str):
            unreadable[photo.store_key] = result
            plan.exclusions.add(photo, "photo missing or unreadable", result)
        else:
            rendered[index], signature = result
            signatures.add(rendered[index].file_sha256, signature)
    if not rendered:
        raise Failure(
            f"none of the {len(plan.images)} photos is in {options.images}"
            f" ({next(iter(unreadable))}); name the folder of the crawl's images with --images"
        )
    return rendered, signatures, unreadable


def _write_splits(
    plan: BuildPlan,
    selection: SelectionOptions,
    rendered: Mapping[int, RenderedImage],
    signatures: SignatureFile,
    folder: Path,
    options: BuildOptions,
) -> tuple[BuildPlan, list[DatasetItem], AuditResult]:
    """Assign splits again, write them, and audit the files.

    The audit searches more thoroughly than the build. Photos that only the audit finds are put into
    one split, and the files are written again.

    Args:
        plan: The plan of the build.
        selection: Its options.
        rendered: Rendered images by their index in the plan.
        signatures: Their signatures, in the same order.
        folder: Folder of the build.
        options: The options of the build.

    Returns:
        The plan with the new splits, the written items, and the result of the audit.
    """
    output_format, links = FORMATS[options.format], _find_links(rendered, signatures)
    linked: list[tuple[int, int, float]] = []
    indices = {image.file: index for index, image in rendered.items()}
    for audits_left in reversed(range(MAX_AUDITS)):
        replan = replan_splits(plan, selection, list(rendered), links)
        if not replan.indices:
            raise Failure(
                "no photos left: each one links two existing splits; rebuild with --new-splits"
            )
        images = [rendered[index] for index in replan.indices]
        items = layout.arrange_items(images, replan.plan.splits, replan.plan.groups)
        items = output_format.write(items, folder)
        layout.write_manifest(items, folder / layout.MANIFEST, options.pose.background == BOTH)
        audit = audit_build(folder, output_format, signatures)
        if not audit.matches or not audits_left:
            break
        indices_by_path = {item.path: indices[item.rendered.file] for item in items}
        links += [
            (indices_by_path[pair.first], indices_by_path[pair.second]) for pair in audit.matches
        ]
        linked += _image_pairs(items, audit.matches)
        _remove_splits(items, folder)
    _check_audit(audit)
    for index in replan.conflicting:
        image = plan.images[index]
        plan.exclusions.add(image.photo, LINKS_TWO_SPLITS, image.label)
    return replan.plan, items, replace(audit, linked=linked)


def _find_links(
    rendered: Mapping[int, RenderedImage], signatures: SignatureFile
) -> list[tuple[int, int]]:
    """Return the pairs of rendered images that match, by their indices in the plan.

    Images that differ as a whole may be near duplicates once they are cropped.
    """
    indices = list(rendered)
    photos = LoadedPhotos(
        signatures,
        lambda number: rendered[indices[number]].file.read_bytes(),
    )
    return [
        (indices[pair.first], indices[pair.second])
        for batch in compare_candidates(photos)
        for pair in batch
        if pair.comparison.is_related
    ]


def _remove_splits(items: Sequence[DatasetItem], folder: Path) -> None:
    """Remove the written splits; the images are in the pool again."""
    for item in items:
        if not item.rendered.file.exists():
            (folder / item.path).rename(item.rendered.file)
        if item.mask_path is not None and item.rendered.mask_file is not None:
            (folder / item.mask_path).rename(item.rendered.mask_file)
    for path in folder.iterdir():
        if path.name == POOL_FOLDER:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_audit(audit: AuditResult) -> None:
    if audit.leaks:
        examples = "; ".join(audit.leaks[:5])
        raise Failure(
            f"the leakage audit found {len(audit.leaks)} leaks between splits, so the build was"
            f" discarded: {examples}. Run `catalogue dedup --rebuild`, then build again"
        )


def write_output_files(
    result: BuildResult,
    folder: Path,
    options: BuildOptions,
    selection: SelectionOptions,
    store: ImageStore,
) -> None:
    """Write the files beside the images: labels, exclusions, dataset card, sheets and report."""
    labels = layout.label_names(result.items)
    facets = layout.labels_by_facet(result.items)
    write_json(describe_labels(labels, options, facets), folder / "labels.json")
    layout.write_excluded(result.exclusions.images, folder / layout.EXCLUDED)
    layout.write_attribution(result.items, folder / layout.ATTRIBUTION)
    paths = report.sampled_paths(result)
    output_format = FORMATS[options.format]
    jpegs = {path: jpeg for path, jpeg in output_format.read(folder) if path in paths}
    dataset_card.write_contact_sheets(result.items, jpegs, folder)
    dataset_card.write_crop_sheet(result.items, store, folder)
    card = dataset_card.render_card(result, options, output_format)
    (folder / "README.md").write_text(card, encoding="utf-8")
    write_json(dataset_card.describe_build(result, options, folder), folder / "croissant.json")
    page = report.render_report(result, options, selection.gates, jpegs, store)
    (folder / "report.html").write_text(page, encoding="utf-8")


def describe_labels(
    labels: Sequence[str],
    options: BuildOptions,
    facets: Mapping[str, Sequence[str]] | None = None,
) -> Mapping[str, object]:
    """Return the content of `labels.json`: labels, their folders or facets, and image format."""
    folders = {label: layout.label_folder(label) for label in labels}
    return {
        "labels": list(labels),
        **({"facets": facets} if facets else {"folders": folders}),
        "size": options.size,
        "resize": options.resize,
        "format": options.format,
    }


def _options_as_json(options: BuildOptions) -> dict[str, object]:
    """Return the options without the catalogue's URL, which may hold a password."""
    values = options_as_json(options) | options_as_json(options.pose)
    return {name: value for name, value in values.items() if name != "catalogue"}


def _save_pairs(sessions: sessionmaker[Session], result: BuildResult) -> None:
    audit = result.audit
    save_possible_duplicates(sessions, audit.linked)
    save_closest_pairs(sessions, _image_pairs(result.items, audit.closest))


def _image_pairs(
    items: Sequence[DatasetItem], pairs: Sequence[CrossSplitPair]
) -> list[tuple[int, int, float]]:
    """Return the ids of the images of pairs, and their similarity."""
    ids = {item.path: item.photo.image_id for item in items}
    return [(ids[pair.first], ids[pair.second], pair.similarity) for pair in pairs]


def _save_splits(
    sessions: sessionmaker[Session], result: BuildResult, selection: SelectionOptions
) -> None:
    """Save the split of each written cluster, so that later builds keep it."""
    scheme = split_scheme(selection.proportions, selection.seed)
    splits = [(image, item.split) for item in result.items for image in item.photo.copies]
    with sessions.begin() as session:
        save_kept_splits(session, scheme, splits, replace=selection.new_splits)


def _save_run(sessions: sessionmaker[Session], result: BuildResult, options: BuildOptions) -> None:
    with sessions.begin() as session:
        run = RunRow(
            kind="build",
            path=options.target or str(options.out.resolve()),
            options=json.dumps(_options_as_json(options), ensure_ascii=False),
            outcome=json.dumps(Counter(item.split for item in result.items)),
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
                for item in result.items
            ],
        )
