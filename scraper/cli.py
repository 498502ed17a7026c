"""`crawl` and `sample-shop`: options -> one call -> exit status."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dataset.errors import BadInput
from dataset.options import (
    CONTEXT,
    FILE,
    FOLDER,
    CommaList,
    catalogue_option,
    images_option,
    vocabulary_option,
)

if TYPE_CHECKING:
    from scraper.run import Work


def _address(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise BadInput(
            f"--{param.name}: {value!r} is no address; it starts with http:// or https://"
        )
    return value


def _list_sites(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from scraper.sites import site_names, spider_class

    for name in site_names():
        spider = spider_class(name)
        click.echo(f"{name}\n  {spider.title}, {spider.site_url} (checked {spider.checked})")
        click.echo(f"  needs: {spider.needs}\n  limits: {spider.limits}")
    ctx.exit()


@click.command(
    context_settings=CONTEXT, epilog="Example: crawl lamoda --tags polo --tags dress,jeans"
)
@click.argument("site")
@click.option(
    "--tags",
    "tags",
    type=CommaList(),
    multiple=True,
    required=True,
    help="Labels or hashtags to collect, between commas; may be given several times. A label is"
    " searched under all its words (English and Russian), any other tag as it is typed.",
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop when N different images of a tag are stored, earlier runs included.  [default: all]",
)
@catalogue_option
@images_option
@vocabulary_option
@click.option(
    "--site-url", callback=_address, metavar="URL", help="A mirror or test server of the site."
)
@click.option(
    "--image-url", callback=_address, metavar="URL", help="The same for the site's photos."
)
@click.option("-v", "--verbose", is_flag=True, help="Show every request.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_sites,
    help="List the sites and what each needs, then stop.",
)
def crawl(
    site: str,
    tags: tuple[tuple[str, ...], ...],
    max_images: int | None,
    catalogue: str,
    images: Path,
    vocabulary: Path | None,
    site_url: str | None,
    image_url: str | None,
    verbose: bool,
) -> None:
    """Collect the photos that SITE shows under hashtags into a catalogue.

    Stopping it (Ctrl-C, or worse) and repeating the command goes on where it was: nothing is lost
    and nothing is fetched twice. robots.txt is obeyed. The exit status is 0 only when every search
    came to its end or to --max-images.
    """
    words = tuple(dict.fromkeys(word for part in tags for word in part))
    if not words:
        raise BadInput("--tags names no tag; write for example --tags polo,dress")
    from dataset.labels import load_vocabulary
    from scraper.sites import spider_class

    spider = spider_class(site)(site_url, image_url)
    labels = load_vocabulary(vocabulary)
    from scraper.run import CrawlOptions
    from scraper.run import crawl as run_crawl

    options = CrawlOptions(site, words, catalogue, images, max_images, verbose)
    _conclude(run_crawl(options, spider, labels))


def _conclude(work: "Work") -> None:
    """Print why the yield is what it is, and end with the exit status that it deserves."""
    from dataset.text_table import table
    from scraper.report import HEAD, reasons, rows

    click.echo(table(HEAD, rows(work.tallies)))
    for line in reasons(work.tallies):
        click.echo(line)
    if not work.ended:
        raise click.ClickException("stopped before the end; repeat the command to go on")
    if work.problems:
        raise click.ClickException("\nError: ".join(p.message for p in work.problems))


def _share(_ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:
        raise BadInput(f"--{(param.name or '').replace('_', '-')} {value}: a share is from 0 to 1")
    return value


@click.command("sample-shop", context_settings=CONTEXT, epilog="Example: sample-shop --port 8000")
@click.option(
    "--photos",
    type=FOLDER,
    help="A folder of class folders with photos, one product a photo.  [default: photos are drawn]",
)
@click.option(
    "--site", default="lamoda", show_default=True, help="The site whose format is spoken."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="The port to listen at; 0 takes a free one.",
)
@click.option(
    "--per-label",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Drawn products of each label.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.1,
    show_default=True,
    callback=_share,
    help="Share of further products with a copied, re-encoded or resized photo.",
)
@click.option(
    "--double-tagged",
    type=float,
    default=0.05,
    show_default=True,
    callback=_share,
    help="Share of products found under two hashtags.",
)
@click.option(
    "--generation",
    type=click.Choice(["state", "cards", "old"]),
    default="state",
    show_default=True,
    help="Which of the site's page designs.",
)
@click.option(
    "--key-points",
    type=FILE,
    help="Write the key points of the drawn people into this file (COCO JSON; people.json), and"
    " their photos into a folder beside it (people/).",
)
@click.option(
    "--url-file",
    type=FILE,
    help="Write the shop's address into this file once it listens, for scripts.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which shop of many.")
def sample_shop(**chosen: Any) -> None:
    """Serve a shop on loopback, in a site's own wire format, until Ctrl-C.

    Its products are drawn, or made of your photos. Some are copies of others and some stand under
    two hashtags, as in life.
    """
    from scraper.sample_shop.server import ShopOptions, run

    run(ShopOptions(**chosen))
