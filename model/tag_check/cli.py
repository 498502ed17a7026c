"""The `check-tags` command."""

from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    catalogue_option,
    columns_option,
    contact_option,
    encoding_option,
    engine_options,
    fetched_option,
    images_option,
    preview_option,
    print_feed_notes,
    private_hosts_option,
    timeout_option,
    vocabulary_option,
)
from model import cli_options


class TagColumn(click.ParamType):
    """A column of tags with its facet: `lower=bottom_type`, or only the column."""

    name = "column"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        """Return the facet, which may be empty, and the name of the column."""
        if isinstance(value, tuple):
            return value
        facet, has_facet, name = value.partition("=") if "=" in value else ("", "", value)
        if not name.strip() or (has_facet and not facet.strip()):
            self.fail(f"{value!r} must look like lower=bottom_type", param, ctx)
        return facet.strip(), name.strip()


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
    help="Run of train-model that predicts the photos.  [required without --reviewed]",
)
@click.option(
    "--out",
    type=FOLDER,
    default=Path("checked"),
    show_default=True,
    help="New folder of the results. The same command continues an interrupted check.",
)
@cli_options.image_root_option
@columns_option
@encoding_option
@click.option(
    "--tag-column",
    "tag_columns",
    type=TagColumn(),
    multiple=True,
    metavar="FACET=NAME",
    help="Column of the tags of a facet, such as lower=bottom_type, or only NAME: a column of tags"
    " of all facets. Repeat it for several columns.  [default: the usual names of a tag's column,"
    " or columns named as the facets of the run]",
)
@click.option(
    "--cost-column",
    metavar="NAME",
    help="Column of the feed with the cost of a wrong tag, such as the price or the number of"
    " views: items are ranked by the cost times the probability that the tag is wrong."
    "  [default: all cost the same]",
)
@preview_option
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@catalogue_option
@images_option
@click.option(
    "--data",
    type=FOLDER,
    help="Folder of the photos that the run was trained on.  [default: the folder of the training]",
)
@vocabulary_option
@cli_options.cache_option
@cli_options.precision_option
@click.option(
    "--reviewed",
    type=FILE,
    metavar="FILE",
    help="Only compute the precision of a reviewed sample.csv, with yes or no in tag_is_wrong.",
)
@click.option(
    "--add-missing",
    is_flag=True,
    help="Add the missing tags to the corrected feed.",
)
@cli_options.seed_option
@engine_options
def check_tags(
    feed: Path | None,
    run: Path | None,
    columns: dict[str, str],
    tag_columns: tuple[tuple[str, str], ...],
    encoding: str | None,
    cost_column: str | None,
    preview: bool,
    reviewed: Path | None,
    **values: Any,
) -> None:
    """Find wrong tags among the items of FEED or, without FEED, in the catalogue.

    FEED is a table (CSV, TSV or .xlsx), XML (Google, Meta, Yandex) or JSON with an id, an image (a
    path below --image-root, or a URL, which is downloaded under the rules of crawl) and a tag per
    row; the format is found by the content, and --preview shows it. Photos are cropped as the
    training photos of the run; the training photos themselves are predicted by models that were not
    trained on them. The verdict on a tag is agrees, mistake, unsure, no garment seen or not
    checked, with a suggested tag, its probability, and the nearest training photos. The verdicts
    mistake and agrees are expected to be correct 95 times out of 100.

    A row may have several tags: a list (with commas, `;`, `|` or line breaks, as hashtags, or as
    JSON), or a column for each facet. Each tag has a verdict and a row in checked.csv, and with a
    multi-label run, tags of other facets that the photo certainly needs are there
    as missing. The corrected feed lists tags as the feed does.

    Writes checked.csv (the feed with added columns, ranked by expected cost), the corrected feed,
    report.html with photos, sample.csv to review, and check.json. Verdicts on the catalogue are
    also saved in it, for review.
    """
    if reviewed is not None:
        _print_review(reviewed)
        return
    if preview and feed is None:
        raise BadInput("--preview shows a feed; name one: check-tags feed.csv --preview")
    if run is None and not preview:
        raise BadInput("name a run of train-model: --model runs/first")
    from dataset.feeds.product_feed import TagColumns, open_feed
    from dataset.utils import keras_backend
    from dataset.utils.engines import create_engine
    from dataset.utils.files import require_new_output
    from dataset.vocabulary import load_vocabulary

    # Report errors in the input before Keras is imported, which takes seconds.
    facets = cli_options.read_facets(run) if run is not None else ()
    product_feed = None
    if feed is not None:
        if tag_columns and "tag" in columns:
            raise BadInput(
                "name columns of tags with --tag-column or --columns tag=, not with both"
            )
        unknown = [facet for facet, _ in tag_columns if facet and facet not in facets]
        if facets and unknown:
            raise BadInput(
                f"--tag-column: {run} has no facet {unknown[0]!r}; it has {', '.join(facets)}"
            )
        tags = TagColumns(tag_columns, facets)
        product_feed = open_feed(feed, columns, cost_column, encoding, tags=tags)
    if product_feed is not None:
        print_feed_notes(product_feed, values["image_root"], preview)
    if preview or run is None:
        return
    require_new_output(values["out"], "name a new folder for this check")
    vocabulary = load_vocabulary(values["vocabulary"], multi_label=bool(facets))
    keras_backend.import_backend()
    from model.feeds.sources import FetchOptions
    from model.tag_check import pipeline

    fetch = FetchOptions(**{name: values.pop(name) for name in FetchOptions.__dataclass_fields__})
    engine = create_engine(*(values.pop(name) for name in ("engine", "workers", "gpus")))
    options = pipeline.CheckOptions(run=run, feed=product_feed, fetch=fetch, **values)
    _print_results(pipeline.check_tags(options, vocabulary, engine), options.out)


def _print_results(results: dict[str, Any], out: Path) -> None:
    from dataset.utils.cli_options import format_table
    from model.tag_check.output import format_wrong_rate

    rows = [(verdict, str(count)) for verdict, count in results["verdicts"].items()]
    click.echo(format_table(("verdict", "tags"), rows))
    for why, count in list(results["problems"].items())[:10]:
        click.echo(f"not checked: {count}: {why}")
    precision = results["expected_precision"]
    click.echo(format_wrong_rate(results))
    if precision is not None:
        click.echo(
            f"{precision:.0%} of the reported mistakes are expected to be wrong tags. To measure"
            f" it, review {out}/sample.csv and run check-tags --reviewed"
        )
    click.echo(f"written: {out}/checked.csv, report.html, sample.csv, check.json")


def _print_review(path: Path) -> None:
    from model.tag_check.output import review_precision

    review = review_precision(path)
    low, high = review["interval"]
    click.echo(
        f"{review['correct']} of {review['reviewed']} reported mistakes are wrong tags:"
        f" {review['precision']:.1%}, 95% interval {low:.1%} to {high:.1%}"
    )
    if review["unreviewed"]:
        click.echo(f"{review['unreviewed']} rows of the sample have no answer")
