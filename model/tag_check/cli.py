"""`check-tags`: options -> one call -> exit status."""

from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    catalogue_option,
    contact_option,
    fetched_option,
    images_option,
    private_hosts_option,
    timeout_option,
    vocabulary_option,
)
from model import cli_options


class Columns(click.ParamType):
    """Pairs between commas: what a column holds, and its name in the feed."""

    name = "columns"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[tuple[str, str], ...]:
        """VALUE as pairs of id, image or tag and a name."""
        if isinstance(value, tuple):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        wrong = [what for what, _, name in pairs if what.strip() not in ("id", "image", "tag")]
        if wrong or not all(name.strip() for _, _, name in pairs):
            self.fail(f"{value!r} is not such as id=sku,image=picture,tag=category", param, ctx)
        return tuple((what.strip(), name.strip()) for what, _, name in pairs)


@click.command(
    "check-tags",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: check-tags feed.csv --model runs/first --image-root photos",
)
@click.argument("feed", required=False, type=FILE)
@click.option(
    "--model",
    "run",
    metavar="RUN_DIR",
    type=FOLDER,
    help="The run of train-model that judges.  [required, but for --reviewed]",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("checked"),
    show_default=True,
    help="What to write, a new folder. A check that was cut off goes on by the same command.",
)
@click.option(
    "--image-root",
    type=FOLDER,
    help="The folder that the feed's paths of photos are below; none outside it is read."
    "  [default: the feed's folder]",
)
@click.option(
    "--columns",
    type=Columns(),
    default=(),
    metavar="NAMES",
    help="What the feed's columns are called, as id=sku,image=picture,tag=category."
    "  [default: found by their usual names]",
)
@click.option(
    "--encoding",
    metavar="NAME",
    help="The feed's, such as cp1251.  [default: utf-8, or utf-16 where the file says so]",
)
@click.option(
    "--cost-column",
    metavar="NAME",
    help="The feed's column that says what a wrong tag of the item costs (its price, or how often"
    " it is seen): mistakes are ranked by it times their probability.  [default: all cost alike]",
)
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@catalogue_option
@images_option
@click.option(
    "--data",
    type=FOLDER,
    help="Where the photos are now that the run learned from.  [default: where they were]",
)
@vocabulary_option
@cli_options.cache_option
@cli_options.precision_option
@click.option(
    "--reviewed",
    type=FILE,
    metavar="FILE",
    help="Only say what people found: the sample.csv of a check, with yes or no in tag_is_wrong.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which sample of many.")
def check_tags(run: Path | None, reviewed: Path | None, **asked: Any) -> None:
    """Find wrong tags among the items of FEED, or without one in the catalogue.

    FEED is .csv, .tsv or .jsonl with an id, an image (a path below --image-root, or an address: it
    is fetched under the rules of crawl) and a tag a row.
    Photos are cropped as those were that the model learned from; those that it learned from itself
    are judged by models that did not see them. For each item: whether tag and photo agree, a
    mistake, unsure or no garment seen; what the tag should be, how probable that is, and which
    training photos look most like it. What is asserted is meant to be right 95 times in 100.

    Writes checked.csv (the feed with columns added, the costliest mistakes first), the corrected
    feed, report.html with pictures, sample.csv for people to judge, and check.json. Of the
    catalogue it also keeps what was found, for `review` to ask about.
    """
    if reviewed is not None:
        _say_reviewed(reviewed)
        return
    if run is None:
        raise BadInput("say with --model which run of train-model judges: --model runs/first")
    from dataset.utils import keras_backend
    from dataset.utils.files import refuse_taken
    from dataset.vocabulary import load_vocabulary
    from model.feeds.product_feed import open_feed

    names = ("columns", "cost_column", "feed", "encoding")
    columns, cost, path, encoding = (asked.pop(name) for name in names)
    # Said at once, before Keras is there, which takes seconds.
    refuse_taken(asked["out"], "name a new folder for this check")
    feed = open_feed(path, dict(columns), cost, encoding) if path else None
    vocabulary = load_vocabulary(asked["vocabulary"])
    keras_backend.import_backend()
    from model.feeds.remote_images import FetchOptions
    from model.tag_check import pipeline

    network = {name: asked.pop(name) for name in FetchOptions.__dataclass_fields__}
    options = pipeline.CheckOptions(run=run, feed=feed, fetch=FetchOptions(**network), **asked)
    _say(pipeline.check(options, vocabulary), options.out)


def _say(figures: dict[str, Any], out: Path) -> None:
    from dataset.utils.tables import format_table

    rows = [(verdict, str(count)) for verdict, count in figures["verdicts"].items()]
    click.echo(format_table(("verdict", "items"), rows))
    for why, count in list(figures["problems"].items())[:10]:
        click.echo(f"not checked: {count}: {why}")
    sure = figures["expected_precision"]
    if sure is not None:
        click.echo(
            f"about {figures['estimated_wrong_rate']:.1%} of the tags are wrong; of the mistakes"
            f" asserted {sure:.0%} are expected to be mistakes indeed: say in {out}/sample.csv"
            " whether they are, then check-tags --reviewed"
        )
    click.echo(f"written: {out}/checked.csv, report.html, sample.csv, check.json")


def _say_reviewed(path: Path) -> None:
    from model.tag_check.output import precision_of

    found = precision_of(path)
    low, high = found["interval"]
    click.echo(
        f"{found['right']} of {found['reviewed']} asserted mistakes are mistakes:"
        f" {found['precision']:.1%}, 95% interval {low:.1%} to {high:.1%}"
    )
    if found["left"]:
        click.echo(f"{found['left']} of the sample wait for an answer")
