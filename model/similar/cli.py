"""The `find-similar` command."""

import math
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataset.errors import BadInput, Failure, shorten_for_display
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    CommaList,
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

if TYPE_CHECKING:
    from model.feeds.sources import ImageFetcher
    from model.similar.build import IndexUpdate
    from model.similar.sources import IndexSource


SEARCH_ACTION = "a search"
# Action -> options that only some actions have. Other options belong to all of them.
SEARCH_OPTIONS = {
    *("top", "sites", "labels", "price_from", "price_to", "same_label", "exclude_duplicates"),
    *("json_file", "html"),
}
SOURCE_OPTIONS = {
    *("source", "image_root", "columns", "encoding", "preview", "fetched", "allow_private"),
    *("contact", "timeout", "engine", "workers", "gpus"),
}
ACTION_OPTIONS = {
    "--build": SOURCE_OPTIONS,
    "--add": SOURCE_OPTIONS,
    "--remove": set[str](),
    "--all": {"top", "out"},
    SEARCH_ACTION: SEARCH_OPTIONS,
}


@dataclass(frozen=True)
class CommandOptions:
    """Options of `find-similar`; `find-similar --help` describes each."""

    names: tuple[str, ...]
    index: Path
    run: Path | None
    source: Path | None
    image_root: Path | None
    columns: dict[str, str]
    encoding: str | None
    preview: bool
    fetched: Path
    allow_private: bool
    contact: str | None
    timeout: float
    top: int
    same_label: bool
    exclude_duplicates: bool
    sites: tuple[str, ...]
    labels: tuple[str, ...]
    price_from: float | None
    price_to: float | None
    json_file: Path | None
    html: Path | None
    out: Path
    cache: Path | None
    catalogue: str
    images: str
    vocabulary: Path | None
    engine: str
    workers: int | None
    gpus: float


@click.command(
    "find-similar",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: find-similar photo.jpg --label dress --html similar.html",
)
@click.argument("names", nargs=-1, metavar="[IMAGE|ITEM_ID]...")
@click.option(
    "--index",
    type=FILE,
    default=Path("similar.index"),
    show_default=True,
    help="The index file.",
)
@click.option(
    "--model",
    "run",
    metavar="RUN_DIR",
    type=FOLDER,
    help="Run of train-model that embeds photos.  [default: the run that built the index; required"
    " by --build]",
)
@click.option(
    "--build", "build_", is_flag=True, help="Build the index from the catalogue or --from."
)
@click.option(
    "--add",
    "add_",
    is_flag=True,
    help="Add photos to the index: the named files, or all new ones of the catalogue or --from.",
)
@click.option("--remove", "remove_", is_flag=True, help="Remove the named items from the index.")
@click.option(
    "--all",
    "all_",
    is_flag=True,
    help="Write diversified recommendations for each item of the index to --out.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR|FEED",
    help="Source of --build and --add: a folder with a folder of photos per label, or a feed (CSV,"
    " TSV, .xlsx, XML or JSON with id, image, which is a path or a URL, and tag; optionally price,"
    " currency, title, url and item_group_id).  [default: the catalogue]",
)
@cli_options.image_root_option
@columns_option
@encoding_option
@preview_option
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="Number of results per query; with --all, per item.",
)
@click.option("--same-label", is_flag=True, help="Return only items with the label of the query.")
@click.option(
    "--exclude-duplicates",
    is_flag=True,
    help="Exclude copies of the query's photo and photos of its product.",
)
@click.option(
    "--site", "sites", type=CommaList(), default=(), help="Return only items of these sites."
)
@click.option(
    "--label", "labels", type=CommaList(), default=(), help="Return only items with these labels."
)
@click.option("--price-from", type=float, help="Lowest price, in the currency of the site.")
@click.option("--price-to", type=float, help="Highest price.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    help="Write the results as JSON to a file; -: to the terminal.",
)
@click.option("--html", type=FILE, help="Write the results as an HTML page with the photos.")
@click.option(
    "--out",
    type=FILE,
    default=Path("recommendations.csv"),
    show_default=True,
    help="CSV file of --all.",
)
@cli_options.cache_option
@catalogue_option
@images_option
@vocabulary_option
@engine_options
@click.pass_context
def find_similar(
    context: click.Context, build_: bool, add_: bool, remove_: bool, all_: bool, **values: Any
) -> None:
    """Find items that look similar to a photo or an item.

    A query is a photo file or an item of the index: the SHA-256 or its beginning, a product's
    number or URL, or the id in a feed. Copies of a photo and photos of one product are one result.
    Up to 200,000 items are compared exhaustively; larger indexes are searched approximately, and
    the recall is shown.
    """
    flags = {"--build": build_, "--add": add_, "--remove": remove_, "--all": all_}
    actions = [action for action, is_set in flags.items() if is_set] or [SEARCH_ACTION]
    if len(actions) > 1:
        raise click.UsageError(f"{actions[0]} and {actions[1]} exclude each other", context)
    action, options = actions[0], CommandOptions(**values)
    _check_options(context, action)
    if action in (SEARCH_ACTION, "--remove") and not options.names:
        raise click.UsageError(f"name a photo or an item for {action}", context)
    if action in ("--build", "--all") and options.names:
        raise click.UsageError(f"{action} takes no names; omit {options.names[0]!r}", context)
    if action == SEARCH_ACTION:
        _search(options)
    elif action == "--all":
        click.echo(recommend_all(options.index, options.out, options.top))
    else:
        update = _update_index(context, action, options)
        if update is None:
            return
        for line in update.lines():
            click.echo(line, err=line.startswith("excluded"))
        click.echo(f"index: {options.index}")
        if options.names and update.problems:
            count, total = len(update.problems), len(options.names)
            raise Failure(f"{count} of {total} photos could not be added")


def _check_options(context: click.Context, action: str) -> None:
    """Raise UsageError for options that belong to other actions."""
    invalid = set().union(*ACTION_OPTIONS.values()) - ACTION_OPTIONS[action]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in invalid and source is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} has no effect on {action}; omit it")


def recommend_all(path: Path, out: Path, top: int) -> str:
    """Write recommendations for each item of an index.

    Args:
        path: The index file.
        out: The CSV file to write.
        top: Number of recommendations per item.

    Returns:
        A summary for the terminal.

    Raises:
        BadInput: There is no such index.
        Failure: It is damaged, or the CSV file can't be written.
    """
    import numpy as np

    from model.similar.index_file import open_index
    from model.similar.output import write_recommendations
    from model.similar.search import Searcher, duplicate_groups, recommend

    with closing(open_index(path)) as index:
        searcher, items_by_key = Searcher(index), dict(index.all_items())
        recall = index.facts().get("recall")
    searcher.keep(np.array(list(items_by_key)))
    items = [items_by_key[key] for key in searcher.keys.tolist()]
    recommendations = recommend(searcher, duplicate_groups(items), top)
    count, items_without = write_recommendations(out, items, recommendations)
    summary = (
        f"{count} recommendations for {len(items) - items_without} of {len(items)} items: {out}"
    )
    if searcher.is_approximate and recall:
        summary += f"\nthe search is approximate: it finds {recall:.1%} of the 10 nearest items"
    return summary


def _update_index(
    context: click.Context, action: str, options: CommandOptions
) -> "IndexUpdate | None":
    from model.similar import build

    if action == "--remove":
        return build.remove_items(options.index, options.names)
    if options.preview:
        _preview(options)
        return None
    run = options.run or (build.run_of_index(options.index) if action == "--add" else None)
    if run is None:
        raise click.UsageError("--build needs a model: --model RUN_DIR", context)
    from dataset.utils.engines import create_engine
    from model.feeds.sources import FetchOptions, ImageFetcher
    from model.similar.build import load_embedder
    from model.similar.sources import file_entries

    if options.names:
        embedder = load_embedder(run, options.cache)
        return build.add_items(
            options.index, embedder, lambda facts: file_entries(options.names, facts)
        )
    fetch_options = FetchOptions(
        **{field.name: getattr(options, field.name) for field in fields(FetchOptions)}
    )
    engine = create_engine(options.engine, options.workers, options.gpus)
    with ImageFetcher(fetch_options) as fetcher:
        # Report errors in the input before Keras is imported, which takes seconds.
        source = _open_source(options, fetcher)
        embedder = load_embedder(run, options.cache, engine)
        if action == "--build":
            return build.build_index(options.index, embedder, source)
        return build.add_items(
            options.index, embedder, lambda _: source.entries(embedder.run.crop, engine)
        )


def _open_source(options: CommandOptions, fetcher: "ImageFetcher") -> "IndexSource":
    from dataset.vocabulary import load_vocabulary
    from model.similar.sources import (
        CatalogueIndexSource,
        FeedIndexSource,
        open_index_source,
    )

    vocabulary = load_vocabulary(options.vocabulary)
    if options.source is None:
        return CatalogueIndexSource(options.catalogue, options.images, vocabulary)
    source = open_index_source(
        options.source,
        options.image_root,
        vocabulary,
        fetcher,
        options.columns,
        options.encoding,
    )
    if isinstance(source, FeedIndexSource):
        print_feed_notes(source.feed.feed, options.image_root, preview=False)
    return source


def _preview(options: CommandOptions) -> None:
    from dataset.feeds.product_feed import open_feed

    if options.source is None or options.source.is_dir():
        raise BadInput("--preview shows a feed; name one with --from feed.csv")
    feed = open_feed(options.source, options.columns, None, options.encoding)
    print_feed_notes(feed, options.image_root, preview=True)


def _search(options: CommandOptions) -> None:
    from model.similar import output
    from model.similar.index_file import Filters, open_index
    from model.similar.query import SearchOptions, run_queries

    _check_prices(options.price_from, options.price_to)
    search_options = SearchOptions(
        options.names,
        options.index,
        options.run,
        options.catalogue,
        options.images,
        options.cache,
        options.top,
        Filters(options.sites, options.labels, options.price_from, options.price_to),
        options.same_label,
        options.exclude_duplicates,
    )
    with closing(open_index(options.index)) as index:
        results = run_queries(search_options, index)
        output.write_results(results, index.facts(), options.json_file, options.html)
    failed = [result for result in results if result.problem]
    for result in failed:
        name, problem = shorten_for_display(result.name), shorten_for_display(result.problem)
        click.echo(f"{name}: {problem}", err=True)
    if failed:
        raise Failure(f"{len(failed)} of {len(results)} queries have no results")


def _check_prices(lowest: float | None, highest: float | None) -> None:
    """Raise UsageError if no price is in the range."""
    for option, price in (("--price-from", lowest), ("--price-to", highest)):
        if price is not None and math.isnan(price):
            raise click.UsageError(f"{option} is not a number; use a price, such as 1500")
    if lowest is not None and highest is not None and lowest > highest:
        raise click.UsageError(
            f"--price-from {lowest:g} is above --price-to {highest:g}; exchange them"
        )
