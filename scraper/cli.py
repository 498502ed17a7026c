"""`crawl` and `sample-shop`: options -> one call -> exit status."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataset.errors import BadInput
from dataset.options import (
    CONTEXT,
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


@click.command("sample-shop", context_settings=CONTEXT, epilog="Example: sample-shop --port 8000")
def sample_shop() -> None:
    """Serve a shop."""
