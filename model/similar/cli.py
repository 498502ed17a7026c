"""The `find-similar` command."""

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataset.errors import Failure, shorten_for_display
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    CommaList,
    catalogue_option,
    contact_option,
    fetched_option,
    images_option,
    private_hosts_option,
    timeout_option,
    vocabulary_option,
)
from model import cli_options

if TYPE_CHECKING:
    from model.feeds.remote_images import Fetcher
    from model.similar.build import Changed
    from model.similar.sources import Offers


def recommend_all(path: Path, out: Path, top: int) -> str:
    """Write the TOP best items for each item of the index PATH to OUT; returns what was done.

    Raises:
        BadInput: there is no such index.
        Failure: it is damaged, or OUT can't be written.
    """
    import numpy as np

    from model.similar.index_file import open_index
    from model.similar.output import write_recommendations
    from model.similar.recommend import recommend, ties_of
    from model.similar.search import Searcher

    with closing(open_index(path)) as index:
        searcher, known = Searcher(index), dict(index.all_items())
        recall = index.facts().get("recall")
    searcher.keep(np.array(list(known)))
    items = [known[place] for place in searcher.places.tolist()]
    parts = recommend(searcher, ties_of(items), top)
    rows, lonely = write_recommendations(out, items, parts)
    said = f"{rows} recommendations for {len(items) - lonely} of {len(items)} items: {out}"
    if searcher.approximate and recall:
        said += f"\nthe search is approximate: it finds {recall:.1%} of the 10 nearest"
    return said


SEARCH = "a search"
# Which options each way of calling has of its own; those not named here belong to all of them.
OF_SEARCH = {
    *("top", "sites", "labels", "price_from", "price_to", "same_label", "exclude_duplicates"),
    *("json_file", "html"),
}
NETWORK = ("fetched", "allow_private", "contact", "timeout")
OF_FEED = {"source", "image_root", *NETWORK}
OWN = {
    "--build": OF_FEED,
    "--add": OF_FEED,
    "--remove": set[str](),
    "--all": {"top", "out"},
    SEARCH: OF_SEARCH,
}


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
    help="The index: one file of items and what they look like.",
)
@click.option(
    "--model",
    "run",
    metavar="RUN_DIR",
    type=FOLDER,
    help="The run of train-model that looks at photos.  [default: the one that made the index;"
    " --build needs it]",
)
@click.option("--build", "build_", is_flag=True, help="Make the index anew, of the catalogue.")
@click.option(
    "--add",
    "add_",
    is_flag=True,
    help="Put photos into the index: the files that are named, or all that is new in the catalogue"
    " or --from.",
)
@click.option("--remove", "remove_", is_flag=True, help="Take the named items out of the index.")
@click.option(
    "--all",
    "all_",
    is_flag=True,
    help="The best items for each item of the index, unlike one another: --out.",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR|FEED",
    help="With --build and --add: a folder of photos with a folder a label, or a feed (.csv, .tsv,"
    " .jsonl: id, image, which is a path or an address, and tag; price, currency, title, url,"
    " item_group_id where it has them)."
    "  [default: the catalogue]",
)
@click.option(
    "--image-root",
    type=FOLDER,
    help="The folder that a feed's paths of photos are below.  [default: the feed's folder]",
)
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="Results of each query; with --all of each item.",
)
@click.option("--same-label", is_flag=True, help="Only items of the query's own label.")
@click.option(
    "--exclude-duplicates",
    is_flag=True,
    help="Leave out copies of the query's photo, and photos of its product.",
)
@click.option(
    "--site", "sites", type=CommaList(), default=(), help="Only of these sites, between commas."
)
@click.option(
    "--label", "labels", type=CommaList(), default=(), help="Only of these labels, between commas."
)
@click.option("--price-from", type=float, help="Only from this price on, in the site's currency.")
@click.option("--price-to", type=float, help="Only up to this price.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path),
    metavar="FILE|-",
    help="Write the results as JSON to this file, or to the terminal.",
)
@click.option("--html", type=FILE, help="Write the results as a page with the photos.")
@click.option(
    "--out",
    type=FILE,
    default=Path("recommendations.csv"),
    show_default=True,
    help="With --all: the table to write.",
)
@cli_options.cache_option
@catalogue_option
@images_option
@vocabulary_option
@click.pass_context
def find_similar(context: click.Context, names: tuple[str, ...], **chosen: Any) -> None:
    """Find items that look like a photo or an item, in an index of the catalogue's photos.

    A query is a photo's file, or an item: its SHA-256 or the start of it, a product's number or
    address, a feed's id. Copies of a photo and photos of one product are one result. Up to 200,000
    items all are compared; beyond that the search is approximate, and says how good it is.
    """
    flags = [f"--{name}" for name in ("build", "add", "remove", "all") if chosen.pop(f"{name}_")]
    if len(flags) > 1:
        raise click.UsageError(f"{flags[0]} and {flags[1]} are two things; ask for one", context)
    way = flags[0] if flags else SEARCH
    _refuse_mixtures(context, way)
    if way in (SEARCH, "--remove") and not names:
        raise click.UsageError(f"name a photo or an item for {way}", context)
    if way in ("--build", "--all") and names:
        raise click.UsageError(f"{way} takes no names; leave out {names[0]!r}", context)
    if way == SEARCH:
        _search(names, chosen)
    elif way == "--all":
        pass

        click.echo(recommend_all(chosen["index"], chosen["out"], chosen["top"]))
    else:
        changed = _changed(context, way, names, chosen)
        _tell(changed, chosen["index"])
        if names and changed.problems:
            raise Failure(f"{len(changed.problems)} of {len(names)} photos could not be added")


def _refuse_mixtures(context: click.Context, way: str) -> None:
    """Raise UsageError for options that mean nothing to WAY."""
    others = set().union(*OWN.values()) - OWN[way]
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "")
        if parameter.name in others and given is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} means nothing to {way}; leave it out")


def _changed(
    context: click.Context, way: str, names: tuple[str, ...], chosen: Mapping[str, Any]
) -> "Changed":
    """The index is made or changed."""
    from model.similar import build

    if way == "--remove":
        return build.remove(chosen["index"], names)
    run = chosen["run"] or (build.run_of(chosen["index"]) if way == "--add" else None)
    if run is None:
        raise click.UsageError("--build needs the model: --model RUN_DIR", context)
    from model.feeds.remote_images import Fetcher, FetchOptions
    from model.similar.embedder import open_looker
    from model.similar.sources import files

    if names:
        looker = open_looker(run, chosen["cache"])
        return build.add(chosen["index"], looker, lambda facts: files(names, facts))
    with Fetcher(FetchOptions(**{name: chosen[name] for name in NETWORK})) as fetcher:
        # What can't be meant is said before Keras is there, which takes seconds.
        place = _offers(chosen, fetcher)
        looker = open_looker(run, chosen["cache"])
        if way == "--build":
            return build.build(chosen["index"], looker, place)
        return build.add(chosen["index"], looker, lambda _: place.offers(looker.run.crop))


def _offers(chosen: Mapping[str, Any], fetcher: "Fetcher") -> "Offers":
    """What --from names, or the catalogue."""
    from dataset.vocabulary import load_vocabulary
    from model.similar.sources import CatalogueOffers, open_offers

    vocabulary = load_vocabulary(chosen["vocabulary"])
    if chosen["source"] is None:
        return CatalogueOffers(chosen["catalogue"], chosen["images"], vocabulary)
    return open_offers(chosen["source"], chosen["image_root"], vocabulary, fetcher)


def _tell(changed: "Changed", index: Path) -> None:
    """Say what became of the items of INDEX."""
    for line in changed.lines():
        click.echo(line, err=line.startswith("left out"))
    click.echo(f"index: {index}")


def _search(names: tuple[str, ...], chosen: Mapping[str, Any]) -> None:
    from model.similar import output
    from model.similar.index_file import open_index
    from model.similar.items import Filters
    from model.similar.query import FindOptions, find_similar

    _refuse_prices(chosen["price_from"], chosen["price_to"])
    filters = Filters(*(chosen[name] for name in ("sites", "labels", "price_from", "price_to")))
    same = {name: chosen[name] for name in ("index", "run", "catalogue", "images", "cache", "top")}
    options = FindOptions(
        names,
        filters=filters,
        same_label=chosen["same_label"],
        exclude_duplicates=chosen["exclude_duplicates"],
        **same,
    )
    with closing(open_index(options.index)) as index:
        answers = find_similar(options, index)
        output.show(answers, index.facts(), chosen["json_file"], chosen["html"])
    problems = [answer for answer in answers if answer.problem]
    for answer in problems:
        click.echo(
            f"{shorten_for_display(answer.name)}: {shorten_for_display(answer.problem)}", err=True
        )
    if problems:
        raise Failure(f"{len(problems)} of {len(answers)} queries have no answer")


def _refuse_prices(least: float | None, most: float | None) -> None:
    """Raise UsageError where no price can lie from LEAST to MOST."""
    for option, price in (("--price-from", least), ("--price-to", most)):
        if price is not None and math.isnan(price):
            raise click.UsageError(f"{option} is no number; name a price, such as 1500")
    if least is not None and most is not None and least > most:
        raise click.UsageError(
            f"--price-from {least:g} is above --price-to {most:g}; exchange the two"
        )
