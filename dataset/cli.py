"""The commands `build-dataset` and `review`."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataset.errors import BadInput
from dataset.pose.cli import pose_weights_option
from dataset.pose.models import DEFAULT, model_names
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    CommaList,
    catalogue_option,
    engine_options,
    images_option,
    vocabulary_option,
)

if TYPE_CHECKING:
    from dataset.export.layout import BuildOptions, BuildResult
    from dataset.selection.labeling import LabeledImage
    from dataset.selection.planning import BuildPlan


class SplitProportions(click.ParamType):
    """Three comma-separated numbers: the relative sizes of train, validation and test."""

    name = "proportions"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Convert to three numbers of at least 0, the first above 0."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(float(text) for text in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) != 3 or not all(0 <= n < 1e9 for n in numbers) or numbers[0] == 0:
            self.fail(f"{value!r} is not three numbers such as 80,10,10", param, ctx)
        return numbers


@click.command(
    "build-dataset",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: build-dataset --min-per-class 500 --labels polo,dress --out splits",
)
@click.option(
    "--min-per-class",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Exclude labels with fewer photos than this.",
)
@click.option(
    "--max-per-class",
    type=click.IntRange(min=1),
    help="Use at most this many photos per label.  [default: all]",
)
@click.option(
    "--labels",
    type=CommaList(),
    default=(),
    help="Comma-separated labels to use.  [default: all with enough photos]",
)
@click.option(
    "--splits",
    type=SplitProportions(),
    default=(80.0, 10.0, 10.0),
    metavar="A,B,C",
    help="Relative sizes of train, validation and test.  [default: 80,10,10]",
)
@click.option(
    "--size",
    type=click.IntRange(min=32, max=4096),
    default=342,
    show_default=True,
    help="Width and height of the written images in pixels.",
)
@click.option(
    "--out",
    metavar="PATH|URL",
    default="splits",
    show_default=True,
    help="Output folder, or an fsspec URL such as s3://bucket/splits for a format with shards. Such"
    " a build is prepared in the folder for temporary files (TMPDIR).",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option(
    "--new-splits",
    is_flag=True,
    help="Ignore the splits of earlier builds with the same --splits and --seed.",
)
@click.option(
    "--hashtags",
    type=click.Choice(["found", "all"]),
    default="found",
    show_default=True,
    help="Hashtags that decide the label: those the post was found under, or also those in its"
    " caption and title that belong to a label or are named by --labels.",
)
@click.option(
    "--conflicts",
    type=click.Choice(["exclude", "first", "ask", "unlabel"]),
    default="exclude",
    show_default=True,
    help="What to do with a photo of several labels, none of which contains the others: exclude"
    " it, use the label it was found under first, or ask. With --multi-label these are labels of"
    " one facet, and unlabel leaves that facet without a label.",
)
@click.option(
    "--multi-label",
    is_flag=True,
    help="Keep all labels of a photo, one per facet (upper and lower garment, outerwear, footwear,"
    " colour, pattern ...). A facet without a label is unknown.",
)
@click.option(
    "--license",
    "licenses",
    type=CommaList(),
    default=(),
    metavar="CODES",
    help="Comma-separated licenses, such as cc0,pdm,by,by-sa; photos with others are excluded. The"
    " license of photos from shops is unknown.  [default: all]",
)
@click.option(
    "--quality-gates",
    type=FILE,
    metavar="FILE",
    help="Quality thresholds (TOML), for all sites or per site; see dataset/selection/gates.toml.",
)
@click.option(
    "--resize",
    type=click.Choice(["letterbox", "crop", "stretch"]),
    default="letterbox",
    show_default=True,
    help="How images are fitted into a square: padded with white, center-cropped or stretched.",
)
@click.option(
    "--format",
    type=click.Choice(["folders", "tfrecord", "parquet", "webdataset"]),
    default="folders",
    show_default=True,
    help="Output format: image files, or shards of up to 4,000 images.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be built, from the catalogue alone; read and write no images.",
)
@click.option(
    "--crop",
    type=click.Choice(["person", "none"]),
    default="person",
    show_default=True,
    help="Crop each photo to the person, or not at all. Photos without a person stay whole.",
)
@click.option(
    "--background",
    type=click.Choice(["keep", "blur", "white", "both"]),
    default="keep",
    show_default=True,
    help="Background of person crops: that of the photo (keep), blurred, or white. both: that of"
    " the photo, with person masks in masks/; train-model then reads each photo with its background"
    " and on white. Photos without a detected person keep their background.",
)
@click.option(
    "--pose",
    type=click.Choice([*model_names(), "none"]),
    default=DEFAULT,
    show_default=True,
    help="The pose network. hrnet-small is included; the weights of the others are downloaded on"
    " first use.",
)
@pose_weights_option
@catalogue_option
@images_option
@vocabulary_option
@engine_options
def build_dataset(
    vocabulary: Path | None,
    pose: str,
    pose_weights: Path | None,
    crop: str,
    background: str,
    dry_run: bool,
    out: str,
    engine: str,
    workers: int | None,
    gpus: float,
    **values: Any,
) -> None:
    """Build train, validation and test splits from the photos in a catalogue.

    Near duplicates are used once. Photos of a product, post or author, and possible near
    duplicates, stay in one split; splits are stratified by label, and later builds keep them. Each
    photo is cropped around the person; key points are estimated once and saved in the catalogue.
    The written files are audited, and a leak between splits fails the build.

    The output folder is replaced at the end. It has the photos, manifest.parquet,
    excluded.parquet, attribution.csv, labels.json, croissant.json, a dataset card (README.md) with
    contact sheets, and report.html.

    With --multi-label the photos are below photos/, with their labels in metadata.jsonl.
    """
    from dataset.build import build, preview_build, prompt_conflicts, selection_options
    from dataset.export.layout import BuildOptions
    from dataset.selection.crops import PoseOptions
    from dataset.utils.engines import create_engine
    from dataset.vocabulary import load_vocabulary

    pose_options = PoseOptions(pose, pose_weights, crop, background)
    if background != "keep" and not pose_options.is_enabled:
        raise BadInput(
            f"--background {background} has no effect with"
            f" --{'pose' if pose == 'none' else 'crop'} none; remove one of the two"
        )
    if pose_weights and not pose_options.is_enabled:
        raise BadInput(
            f"--pose-weights {pose_weights} has no effect with"
            f" --{'pose' if pose == 'none' else 'crop'} none; remove one of the two"
        )
    if background == "both" and values["format"] != "folders":
        raise BadInput(
            f"--background both has no effect with --format {values['format']}, which has no masks;"
            " use --format folders"
        )
    out = out.removeprefix("file://")
    if "://" in out:
        if values["format"] == "folders":
            raise BadInput(
                f"--out {out}: a URL needs a format with shards: --format parquet, webdataset or"
                " tfrecord"
            )
        name = f"fashion-tagger-{hashlib.sha256(out.encode()).hexdigest()[:16]}"
        values |= {"out": Path(tempfile.gettempdir()) / name, "target": out}
    else:
        values["out"] = Path(out)
    options = BuildOptions(pose=pose_options, **values)
    if options.conflicts == "unlabel" and not options.multi_label:
        raise BadInput("--conflicts unlabel needs --multi-label; add it, or choose first or ask")
    labels = load_vocabulary(vocabulary, options.multi_label)
    if dry_run:
        _show_plan(preview_build(options, labels), options)
        return
    if options.conflicts == "ask":
        prompt_conflicts(options, selection_options(options, labels), _choose_label)
    _show_result(build(options, labels, create_engine(engine, workers, gpus)), options)


def _choose_label(store_key: str, labels: Sequence[str]) -> str | None:
    """Ask for one of the labels of a photo; None excludes it."""
    answer = click.prompt(
        f"{store_key}: {' or '.join(labels)}", type=click.Choice([*labels, "exclude"])
    )
    return None if answer == "exclude" else str(answer)


def _show_plan(plan: "BuildPlan", options: "BuildOptions") -> None:
    _show_counts(
        [
            (row, split)
            for image, split in zip(plan.images, plan.splits, strict=True)
            for row in _rows_of(image)
        ]
    )
    _show_excluded(plan, options)
    click.echo(f"{len(plan.images)} photos would be in {options.destination}; nothing was written")


def _rows_of(image: "LabeledImage") -> list[tuple[str, ...]]:
    """Return the rows of the table of labels that count an image: (label,) or (facet, label)."""
    from dataset.vocabulary import split_facets

    if not image.label_facets:
        return [(image.label,)]
    return [
        (facet, label)
        for label, facets in zip(image.labels, image.label_facets, strict=True)
        for facet in split_facets(facets)
    ]


def _show_counts(rows_and_splits: Sequence[tuple[tuple[str, ...], str]]) -> None:
    from dataset.selection.splits import SPLITS
    from dataset.utils.cli_options import format_table

    count = Counter(rows_and_splits)
    names = sorted({row for row, _ in rows_and_splits})
    rows = [(*row, *(str(count[row, split]) for split in SPLITS)) for row in names]
    columns = ("facet", "label") if names and len(names[0]) > 1 else ("label",)
    click.echo(format_table((*columns, *SPLITS), rows))


def _show_excluded(result: "BuildPlan | BuildResult", options: "BuildOptions") -> None:
    for reason, number in sorted(result.exclusions.counts.items()):
        click.echo(f"excluded {number}: {reason}")
    for label, number in result.small_classes.items():
        click.echo(
            f"label {label} has {number} photos, {options.min_per_class - number} fewer than"
            f" --min-per-class {options.min_per_class}"
        )
    for line in result.deviations:
        click.echo(line)


def _show_result(result: "BuildResult", options: "BuildOptions") -> None:
    from dataset.export.dataset_card import crop_outcomes
    from dataset.export.formats import FORMATS

    _show_counts(
        [(row, item.split) for item in result.items for row in _rows_of(item.rendered.labeled)]
    )
    for outcome, number, fraction in crop_outcomes(result.items):
        click.echo(f"crop {outcome}: {number} photos ({fraction:.1%})")
    _show_excluded(result, options)
    for store_key, reason in result.unreadable.items():
        click.echo(f"photo {store_key}: {reason}", err=True)
    if result.reused:
        click.echo(f"{result.reused} photos are unchanged since the previous build")
    audit = result.audit
    if audit.linked:
        click.echo(f"audit: {len(audit.linked)} more pairs of the same photo put into one split")
    click.echo(
        f"audit: {audit.photos} written photos, {audit.compared} pairs across splits compared by"
        f" their pixels, {len(audit.leaks)} leaks found"
    )
    click.echo(
        f"{len(result.items)} photos in {options.destination};"
        f" see {options.destination}/report.html"
    )
    line = FORMATS[options.format].load_line(options.destination, options.multi_label)
    click.echo(f"load it: {line}")


@click.command("review", context_settings=CONTEXT_SETTINGS, epilog="Example: review --port 8500")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. Any address but the default is open to other machines, which need"
    " the token in the printed URL.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to listen at.  [default: a free one]",
)
@click.option("--who", help="Name of the reviewer.  [default: your user name]")
@click.option(
    "--url-file",
    type=FILE,
    metavar="FILE",
    help="Write the URL to a file once the server is ready, for scripts.",
)
@catalogue_option
@images_option
@vocabulary_option
def review(
    host: str,
    port: int,
    who: str | None,
    url_file: Path | None,
    catalogue: str,
    images: str,
    vocabulary: Path | None,
) -> None:
    """Review a catalogue in the browser: suspected mistakes, conflicts, duplicates and crops.

    The server runs until Ctrl-C. Suspected mistakes come from check-tags, proposed labels from
    tag-photos. Every decision is saved at once with its author and time, can be undone, and holds
    in the next build-dataset.
    """
    from dataset.maintenance.label_decisions import user_name
    from dataset.review.server import ReviewOptions, serve

    serve(ReviewOptions(catalogue, images, who or user_name(), vocabulary, host, port, url_file))
