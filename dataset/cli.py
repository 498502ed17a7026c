"""`build-dataset` and `catalogue`: options -> one call -> exit status."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from dataset.options import (
    CONTEXT,
    FOLDER,
    CommaList,
    catalogue_option,
    images_option,
    vocabulary_option,
)
from dataset.pose.cli import weights_option
from dataset.pose.registry import DEFAULT, names


class Shares(click.ParamType):
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
    context_settings=CONTEXT,
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
    type=Shares(),
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
    **chosen: Any,
) -> None:
    """Make train, validation and test splits of the photos in a catalogue.

    One photo of those that look the same is taken; all photos of a product or post are in one
    split; labels keep their shares. Each photo is cropped around the person; key points are found
    once and kept in the catalogue. The folder is written aside and renamed at the end. It holds
    train/ validation/ test/ with a folder a label, manifest.parquet, labels.json and a dataset card
    (README.md) with contact sheets.
    """
    from dataset.build import BuildOptions, build
    from dataset.labels import load_vocabulary
    from dataset.poses import PoseOptions

    looking = PoseOptions(pose, pose_weights, crop)
    options = BuildOptions(splits=shares, pose=looking, **chosen)
    built = build(options, load_vocabulary(vocabulary))
    _show_build(built, options)


def _show_build(built: Any, options: Any) -> None:
    from dataset.card import crop_shares
    from dataset.splits import SPLITS
    from dataset.text_table import table

    count = Counter((item.label, item.split) for item in built.items)
    names = sorted({item.label for item in built.items})
    click.echo(
        table(("label", *SPLITS), [(n, *(str(count[n, split]) for split in SPLITS)) for n in names])
    )
    for outcome, number, share in crop_shares(built.items):
        click.echo(f"kept {outcome} of {number} photos ({share:.1%})")
    for reason, number in sorted(built.drops.items()):
        if number:
            click.echo(f"left out {number}: {reason}")
    for label, number in built.left_out.items():
        click.echo(
            f"label {label} has {number} photos, {options.min_per_class - number} missing to"
            f" --min-per-class {options.min_per_class}"
        )
    for key, problem in built.problems.items():
        click.echo(f"photo {key}: {problem}", err=True)
    click.echo(f"{len(built.items)} photos in {options.out}; the card is {options.out}/README.md")


@click.group(context_settings=CONTEXT, epilog="Example: catalogue stats --min-per-class 500")
def catalogue() -> None:
    """Look into a catalogue."""


@catalogue.command(
    "stats", context_settings=CONTEXT, epilog="Example: catalogue stats --min-per-class 500"
)
@catalogue_option
@vocabulary_option
@click.option(
    "--min-per-class",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Say how many photos each label lacks to this number.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the same as JSON.")
def catalogue_stats(
    catalogue: str, vocabulary: Path | None, min_per_class: int, as_json: bool
) -> None:
    """Count what a catalogue holds: per site and hashtag, per label, and what was refused and why.

    Photos of a label are counted as build-dataset would take them: one of those that look the same.
    """
    from dataset.catalogue.report import read_stats, show

    stats = read_stats(catalogue, vocabulary, min_per_class)
    click.echo(json.dumps(stats, ensure_ascii=False, indent=2) if as_json else show(stats))
