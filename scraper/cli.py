"""The commands `crawl`, `fetch-photos` and `sample-shop`."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    FOLDER,
    CommaList,
    catalogue_option,
    columns_option,
    contact_option,
    encoding_option,
    fetched_option,
    format_table,
    images_option,
    preview_option,
    print_feed_notes,
    private_hosts_option,
    timeout_option,
    vocabulary_option,
)

if TYPE_CHECKING:
    from datetime import datetime

    from scrapy.settings import Settings

    from dataset.vocabulary import Vocabulary
    from scraper.spiders.base import HashtagSpider

# The search of --check if no tag is given.
CHECK_WORD = "polo"


def _settings(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    return _parse_pairs("--set", value, "api-version=v18")


def _scrapy_settings(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    return _parse_pairs("-s", value, "DOWNLOAD_DELAY=2")


def _parse_pairs(option: str, values: tuple[str, ...], example: str) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for value, (name, sign, _) in zip(values, pairs, strict=True):
        if not name or not sign:
            raise BadInput(f"{option} {value}: write NAME=VALUE, such as {option} {example}")
    return {name: value for name, _, value in pairs}


class Since(click.ParamType):
    """A date, or an age of posts; see `parse_since`."""

    name = "date or age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "datetime":
        """Parse the value."""
        from scraper.parsing.fields import parse_since

        try:
            return parse_since(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _list_sites(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from scraper.credentials import load_credentials
    from scraper.spiders.base import spiders_by_access

    spiders = spiders_by_access()
    rows = [(spider.name, spider.access.value, _address(spider)) for spider in spiders]
    click.echo(format_table(("site", "needs", "address"), rows))
    for spider in spiders:
        click.echo(
            f"\n{spider.name}\n  {spider.title}, {_address(spider)} (checked {spider.checked})"
        )
        click.echo(f"  needs: {spider.needs}\n  limits: {spider.limits_text}")
        given = load_credentials(ctx.params.get("credentials"), spider.credentials)
        for credential in spider.credentials:
            state = "set" if credential.name in given else "not set"
            optional = "" if credential.required else ", optional"
            click.echo(f"  {credential.name}: {credential.what}{optional} ({state})")
        for name, option in spider.site_options.items():
            choices = f" ({'|'.join(option.choices)})" if option.choices else ""
            click.echo(f"  --set {name}={option.default}{choices}: {option.help}")
    ctx.exit()


def _address(spider: "type[HashtagSpider]") -> str:
    return "any server" if spider.server_option else spider.site_url


@click.command(
    context_settings=CONTEXT_SETTINGS, epilog="Example: crawl lamoda --tags polo --tags dress,jeans"
)
@click.argument("sites", metavar="SITE...", nargs=-1, required=True)
@click.option(
    "--tags",
    "tags",
    type=CommaList(),
    multiple=True,
    help="Comma-separated labels or hashtags; can be repeated. A label is searched under all its"
    " words (English and Russian), any other tag as typed.",
)
@click.option(
    "--max-images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop a tag at N different stored images, earlier runs included, also if tags of this"
    " command share products.  [default: all]",
)
@click.option(
    "--max-pages",
    type=click.IntRange(min=1),
    metavar="N",
    help="Read at most N pages of each search in this run.  [default: all]",
)
@click.option(
    "--since",
    type=Since(),
    metavar="DATE|AGE",
    help="Skip posts that are older than a date, such as 2026-01-31, or an age in hours, days or"
    " weeks, such as 12h, 7d or 2w.",
)
@click.option(
    "--license",
    "licenses",
    type=CommaList(),
    multiple=True,
    metavar="CODES",
    help="Comma-separated licenses, such as cc0,pdm,by,by-sa; photos with others are skipped."
    " Shops state no license: unknown.  [default: all]",
)
@click.option(
    "--full",
    is_flag=True,
    help="Read finished searches to their end again. Without it, a later run stops at a page"
    " without new posts.",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Retry images whose download failed with a temporary error: timeouts, truncated"
    " responses, HTTP errors.",
)
@click.option(
    "--min-per-class",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Show at the end how many photos each tag is short of this number.",
)
@click.option("--json", "json_file", type=FILE, help="Write the final tables to this file as JSON.")
@catalogue_option
@images_option
@vocabulary_option
@click.option(
    "--site-url",
    "site_urls",
    multiple=True,
    metavar="[SITE=]URL",
    help="Send requests for pages to a mirror or test server.",
)
@click.option(
    "--image-url",
    "image_urls",
    multiple=True,
    metavar="[SITE=]URL",
    help="Send requests for images to a mirror or test server.",
)
@click.option(
    "--credentials",
    type=FILE,
    metavar="FILE",
    is_eager=True,
    help="File of NAME=value lines with credentials, in addition to environment variables; it must"
    " be readable by its owner only. --list shows the names.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="Setting of the site; can be repeated. --list shows the names.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Collect nothing; show the owner of the credentials, the remaining rate limits, and"
    " whether a search can be read.",
)
@click.option("--live", is_flag=True, help="With --check, show which fields of posts were found.")
@click.option(
    "--dry-run", is_flag=True, help="Collect nothing; show how many posts each search would read."
)
@private_hosts_option("only those of --site-url and --image-url")
@contact_option
@timeout_option
@click.option(
    "-s",
    "scrapy_settings",
    multiple=True,
    callback=_scrapy_settings,
    metavar="NAME=VALUE",
    help="Setting of Scrapy, such as -s DOWNLOAD_DELAY=2; can be repeated. Settings that protect"
    " users and sites can't be changed.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Show every request, and the final table with one row per search.",
)
@click.option(
    "--list",
    is_flag=True,
    expose_value=False,
    callback=_list_sites,
    help="List the sites, those that need least first, with their credentials and settings, and"
    " exit.",
)
def crawl(
    sites: tuple[str, ...],
    tags: tuple[tuple[str, ...], ...],
    check: bool,
    live: bool,
    **chosen: Any,
) -> None:
    """Collect the photos that sites show under hashtags into a catalogue.

    Several sites are crawled concurrently. An interrupted crawl (Ctrl-C, kill -9, power failure)
    continues with the same command: nothing is lost, and photos in the catalogue are not downloaded
    again. A later run adds what is new. robots.txt is obeyed. The exit status is 0 only if every
    search reached its end or a limit.
    """
    from dataset.vocabulary import load_vocabulary

    vocabulary = load_vocabulary(chosen["vocabulary"])
    words = tuple(vocabulary.unique_tags(word for part in tags for word in part))
    if not words and not check:
        raise BadInput("--tags is missing; for example --tags polo,dress")
    if live and not check:
        raise BadInput("--live requires --check")
    if check and chosen["dry_run"]:
        raise BadInput("--check and --dry-run can't be combined; run one after the other")
    from scraper.crawl.process import project_settings
    from scraper.spiders.base import create_spiders, parse_site_names, parse_site_urls

    names = parse_site_names(sites)
    if check and len(names) > 1:
        raise BadInput("--check takes one site; run it for each site")
    site_urls = parse_site_urls("--site-url", chosen["site_urls"], names)
    image_urls = parse_site_urls("--image-url", chosen["image_urls"], names)
    spiders = create_spiders(
        names, site_urls, image_urls, chosen["credentials"], chosen["settings"]
    )
    if not chosen["contact"]:
        for spider in spiders.values():
            spider.check_contact()
    settings = project_settings(_setting_values(chosen), chosen["scrapy_settings"])
    if check:
        word = vocabulary.words_of(words[0])[0] if words else CHECK_WORD
        _check(spiders[names[0]], word, live, settings)
    elif chosen["dry_run"]:
        _count(list(spiders.values()), vocabulary, words, settings)
    else:
        _crawl(list(spiders.values()), vocabulary, words, settings, chosen)


def _setting_values(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Scrapy settings that options define."""
    return {
        "CATALOGUE": chosen["catalogue"],
        "IMAGES": chosen["images"],
        "ALLOW_PRIVATE_HOSTS": chosen["allow_private"],
        "DOWNLOAD_TIMEOUT": chosen["timeout"],
        "CONTACT": chosen["contact"],
        "LOG_LEVEL": "INFO" if chosen["verbose"] else "CRITICAL",
        # This command prints one summary for all sites.
        "SUMMARY_ENABLED": False,
    }


def _check(spider: "HashtagSpider", word: str, is_live: bool, settings: "Settings") -> None:
    from scraper.crawl.preflight import check

    if not check(spider, word, is_live, settings):
        raise click.ClickException("a check failed; see the lines above")


def _count(
    spiders: "list[HashtagSpider]",
    vocabulary: "Vocabulary",
    tags: tuple[str, ...],
    settings: "Settings",
) -> None:
    """Print the number of posts of each search (`--dry-run`)."""
    from scraper.crawl.preflight import dry_run

    if not dry_run(spiders, [vocabulary.words_of(tag) for tag in tags], settings):
        raise click.ClickException("interrupted before all searches were counted")


def _crawl(
    spiders: "list[HashtagSpider]",
    vocabulary: "Vocabulary",
    tags: tuple[str, ...],
    settings: "Settings",
    chosen: Mapping[str, Any],
) -> None:
    from scraper.crawl.runner import crawl as run_crawl
    from scraper.crawl.runner import report
    from scraper.crawl.searches import CrawlLimits

    names = ("max_images", "max_pages", "since", "retry_failed", "full")
    licenses = tuple(code.lower() for part in chosen["licenses"] for code in part)
    limits = CrawlLimits(**{name: chosen[name] for name in names}, licenses=licenses)
    result = run_crawl(spiders, tags, limits, vocabulary, settings)
    report(result, chosen["min_per_class"], chosen["json_file"], chosen["verbose"])


@click.command(
    "fetch-photos",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: fetch-photos feed.csv --contact me@shop.example",
)
@click.argument(
    "addresses",
    metavar="FEED|LIST|-",
    type=click.Path(dir_okay=False, allow_dash=True),
    default="-",
)
@columns_option
@encoding_option
@preview_option
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@click.option("-v", "--verbose", is_flag=True, help="Show every request.")
def fetch_photos(
    addresses: str,
    fetched: Path,
    columns: dict[str, str],
    encoding: str | None,
    preview: bool,
    **chosen: Any,
) -> None:
    """Download the images of a feed or of a list of URLs.

    FEED is a file that check-tags reads, LIST a file with one URL per line, and - a list from
    standard input. check-tags and find-similar download the images of feeds themselves. The rules
    of crawl apply: robots.txt, rate limits, size limits, no private addresses. Prints a line of
    JSON for each URL when it is done: "url", and "problem", which is empty if the image was
    downloaded.
    """
    from scraper.fetch import FeedUrls, fetch, open_url_feed

    feed = None
    if addresses != "-":
        feed = open_url_feed(Path(addresses), columns, encoding, is_feed=preview or bool(columns))
    if preview and feed is None:
        raise BadInput("--preview shows a feed; name one: fetch-photos feed.csv --preview")
    if feed is not None:
        print_feed_notes(feed, None, preview)
    if preview:
        return
    try:
        if feed is not None:
            urls = FeedUrls(feed)
            is_complete = fetch(urls, fetched, _report, **chosen)
            for line in urls.summary():
                click.echo(line, err=True)
        else:
            with click.open_file(addresses, "rb") as file:
                is_complete = fetch(_lines(file), fetched, _report, **chosen)
    except FileNotFoundError as error:
        raise BadInput(f"{addresses}: no such file; name a file with one URL per line") from error
    finally:
        _ignore_broken_pipe()
    if not is_complete:
        raise click.ClickException("interrupted; repeat the command to continue")


def _lines(addresses: IO[bytes]) -> Iterator[str]:
    # Without Python's buffer, which reads ahead while the sender waits for results, and which can
    # block the exit of the program.
    rest = b""
    while data := os.read(addresses.fileno(), 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from filter(None, map(_line, lines))
    yield from filter(None, [_line(rest)])


def _line(given: bytes) -> str:
    return given.decode("utf-8", "replace").strip()


def _report(url: str, problem: str) -> None:
    sys.stdout.write(json.dumps({"url": url, "problem": problem}) + "\n")
    sys.stdout.flush()


def _ignore_broken_pipe() -> None:
    """Prevent an error at exit if nobody reads standard output any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parse_fraction(_ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:
        raise BadInput(f"--{(param.name or '').replace('_', '-')} {value}: choose from 0 to 1")
    return value


@click.command(
    "sample-shop", context_settings=CONTEXT_SETTINGS, epilog="Example: sample-shop --port 8000"
)
@click.option(
    "--photos",
    type=FOLDER,
    help="Folder with one folder of photos per class; each photo is one product."
    "  [default: photos are drawn]",
)
@click.option(
    "--site", default="lamoda", show_default=True, help="Site whose response format is served."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
@click.option(
    "--per-label",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Number of drawn products per label.",
)
@click.option(
    "--duplicates",
    type=float,
    default=0.1,
    show_default=True,
    callback=_parse_fraction,
    help="Additional products with a copied, re-encoded or resized photo, as a fraction of the"
    " products.",
)
@click.option(
    "--double-tagged",
    type=float,
    default=0.05,
    show_default=True,
    callback=_parse_fraction,
    help="Fraction of products that are listed under two hashtags.",
)
@click.option(
    "--wrong-tagged",
    type=float,
    default=0.0,
    show_default=True,
    callback=_parse_fraction,
    help="Fraction of products that are listed under a wrong hashtag, for check-tags to find.",
)
@click.option(
    "--wrong-tagged-file",
    type=FILE,
    help="Write these products to this file (CSV with sku, tag and shown), to count what is found.",
)
@click.option(
    "--generation",
    help="Page design or error page of the site; an unknown name lists them."
    "  [default: the current design]",
)
@click.option(
    "--faults",
    type=CommaList(),
    default=(),
    help="Comma-separated faults of pages, of paging, or of every second photo (`photos`: all photo"
    " faults in turn); an unknown name lists them.",
)
@click.option(
    "--key-points",
    type=FILE,
    help="Write the key points of the drawn people to this file (COCO JSON: people.json) and"
    " their photos to the folder of the same name (people/).",
)
@click.option(
    "--url-file",
    type=FILE,
    help="Write the shop's URL to this file once it accepts connections, for scripts.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
def sample_shop(**chosen: Any) -> None:
    """Serve a shop with a site's own response format until Ctrl-C.

    Its products are drawn, or made of your photos. As in real shops, some photos are copies of
    others and some products are listed under two hashtags.
    """
    from scraper.sample_shop.server import ShopOptions, run

    run(ShopOptions(**chosen))
