"""`build-dataset`: options -> one call -> exit status."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.pose.cli import weights_option
from dataset.pose.models import DEFAULT, names
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    CommaList,
    catalogue_option,
    images_option,
    vocabulary_option,
)


class SplitProportions(click.ParamType):
    """Three shares between commas: train, validation, test."""

    name = "shares"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """VALUE as three numbers from 0 up, the first above 0."""
        if isinstance(value, tuple):
            return value
        try:
            shares = tuple(float(part) for part in value.split(","))
        except ValueError:
            shares = ()
        if len(shares) != 3 or not all(0 <= share < 1e9 for share in shares) or shares[0] == 0:
            self.fail(f"{value!r} is not three shares such as 80,10,10", param, ctx)
        return shares


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
    help="Leave out labels with fewer photos than this.",
)
@click.option(
    "--max-per-class",
    type=click.IntRange(min=1),
    help="Take at most this many photos of a label.  [default: all]",
)
@click.option(
    "--labels",
    type=CommaList(),
    default=(),
    help="Only these labels, between commas.  [default: all that have enough photos]",
)
@click.option(
    "--splits",
    "shares",
    type=SplitProportions(),
    default=(80.0, 10.0, 10.0),
    metavar="A,B,C",
    help="Shares of train, validation and test.  [default: 80,10,10]",
)
@click.option(
    "--size",
    type=click.IntRange(min=32, max=4096),
    default=342,
    show_default=True,
    help="Width and height of the written photos in pixels.",
)
@click.option(
    "--out", type=FOLDER, default=Path("splits"), show_default=True, help="Where the splits go."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which split of many.")
@click.option(
    "--new-splits",
    is_flag=True,
    help="Forget which split each photo had in earlier builds of these --splits and --seed.",
)
@click.option(
    "--hashtags",
    type=click.Choice(["found", "all"]),
    default="found",
    show_default=True,
    help="What gives a photo its label: the hashtags that its post was found under, or all in the"
    " post's caption and title too, where they are words of a label or named by --labels.",
)
@click.option(
    "--conflicts",
    type=click.Choice(["drop", "first", "ask"]),
    default="drop",
    show_default=True,
    help="A photo under two labels, neither of which holds the other: leave it out, take the label"
    " that it was found under first, or be asked.",
)
@click.option(
    "--gates",
    type=FILE,
    metavar="FILE",
    help="Your own thresholds of quality (TOML), for all sites or for one;"
    " see dataset/selection/gates.toml.",
)
@click.option(
    "--resize",
    type=click.Choice(["letterbox", "crop", "stretch"]),
    default="letterbox",
    show_default=True,
    help="Fit photos into the square: on white, cut to it, or out of shape.",
)
@click.option(
    "--format",
    type=click.Choice(["folders", "tfrecord", "parquet", "webdataset"]),
    default="folders",
    show_default=True,
    help="How photos are laid down: files, or shards that hold up to 4000.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be built of what the catalogue knows; read no photo, write nothing.",
)
@click.option(
    "--crop",
    type=click.Choice(["person", "zone", "none"]),
    default="person",
    show_default=True,
    help="Keep of each photo the person, the part of the person that wears garments of the label"
    " (else the person), or all. Photos without a person stay whole.",
)
@click.option(
    "--pose",
    type=click.Choice([*names(), "none"]),
    default=DEFAULT,
    show_default=True,
    help="The network that finds people. hrnet-small comes along; weights of the others are fetched"
    " on first use.",
)
@weights_option
@catalogue_option
@images_option
@vocabulary_option
def build_dataset(
    vocabulary: Path | None,
    shares: tuple[float, float, float],
    pose: str,
    pose_weights: Path | None,
    crop: str,
    dry_run: bool,
    **chosen: Any,
) -> None:
    """Make train, validation and test splits of the photos in a catalogue.

    One photo of those that look the same is taken; photos of a product, post or author, and photos
    that may be one, are in one split; labels keep their shares. A photo stays in its split in later
    builds. Each photo is cropped around the person; key points are found once and kept in the
    catalogue. The written photos are read and compared anew, and a leak fails the build.

    The folder is written aside and renamed at the end. It holds the photos, manifest.parquet,
    left_out.parquet, labels.json, croissant.json, a dataset card (README.md) with contact sheets,
    and report.html.
    """
    from dataset.build import build, preview_build, prompt_conflicts, selection_options
    from dataset.export.build_result import BuildOptions
    from dataset.selection.crops import PoseOptions
    from dataset.vocabulary import load_vocabulary

    looking = PoseOptions(pose, pose_weights, crop)
    if pose_weights and not looking.wanted:
        raise BadInput(
            f"--pose-weights {pose_weights}: nobody is looked for with"
            f" --{'pose' if pose == 'none' else 'crop'} none; leave one of the two out"
        )
    options = BuildOptions(splits=shares, pose=looking, **chosen)
    words = load_vocabulary(vocabulary)
    if dry_run:
        _show_plan(preview_build(options, words), options)
        return
    if options.conflicts == "ask":
        prompt_conflicts(options, selection_options(options, words), _choose_label)
    built = build(options, words)
    _show_build(built, options)


def _choose_label(photo: str, labels: Sequence[str]) -> str | None:
    """A person's choice among LABELS for PHOTO; None to leave it out."""
    answer = click.prompt(
        f"{photo}: {' or '.join(labels)}", type=click.Choice([*labels, "leave out"])
    )
    return None if answer == "leave out" else str(answer)


def _show_plan(plan: Any, options: Any) -> None:
    _show_counts(
        [(one.label, split) for one, split in zip(plan.labelled, plan.splits, strict=True)]
    )
    _show_left_out(plan, options)
    click.echo(f"{len(plan.labelled)} photos would be in {options.out}; nothing was written")


def _show_counts(photos: Sequence[tuple[str, str]]) -> None:
    from dataset.selection.splits import SPLITS
    from dataset.utils.tables import format_table

    count = Counter(photos)
    rows = [
        (label, *(str(count[label, split]) for split in SPLITS))
        for label in sorted({label for label, _ in photos})
    ]
    click.echo(format_table(("label", *SPLITS), rows))


def _show_left_out(done: Any, options: Any) -> None:
    for reason, number in sorted(done.drops.counts.items()):
        click.echo(f"left out {number}: {reason}")
    for label, number in done.left_out.items():
        click.echo(
            f"label {label} has {number} photos, {options.min_per_class - number} missing to"
            f" --min-per-class {options.min_per_class}"
        )
    for line in done.unmet:
        click.echo(line)


def _show_build(built: Any, options: Any) -> None:
    from dataset.export.dataset_card import crop_outcomes
    from dataset.export.formats import FORMATS

    _show_counts([(item.label, item.split) for item in built.items])
    for outcome, number, share in crop_outcomes(built.items):
        click.echo(f"kept {outcome} of {number} photos ({share:.1%})")
    _show_left_out(built, options)
    for key, problem in built.problems.items():
        click.echo(f"photo {key}: {problem}", err=True)
    if built.taken_over:
        click.echo(f"{built.taken_over} photos are as in the build before")
    found = built.audit
    click.echo(
        f"audit: {found.photos} written photos, {found.compared} near pairs across splits,"
        f" {len(found.leaks)} leaks"
    )
    click.echo(f"{len(built.items)} photos in {options.out}; see {options.out}/report.html")
    click.echo(f"read it: {FORMATS[options.format].load.format(out=options.out)}")
