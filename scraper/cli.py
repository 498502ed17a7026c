"""The `crawl` command."""

from typing import TYPE_CHECKING, Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    FILE,
    CommaList,
    catalogue_option,
    contact_option,
    images_option,
    private_hosts_option,
    timeout_option,
    vocabulary_option,
)

if TYPE_CHECKING:
    from dataset.vocabulary import Vocabulary
    from scraper.settings import Manners
    from scraper.spiders.base import HashtagSpider

# The search of --check if no tag is given.
CHECK_WORD = "polo"


def _settings(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    pairs = [one.partition("=") for one in value]
    for one, (name, sign, _) in zip(value, pairs, strict=True):
        if not name or not sign:
            raise BadInput(f"--set {one}: write NAME=VALUE, such as --set api-version=v18")
    return {name: setting for name, _, setting in pairs}


def _list_sites(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from scraper.credentials import load_credentials
    from scraper.sites import site_names, spider_class

    for name in site_names():
        spider = spider_class(name)
        click.echo(f"{name}\n  {spider.title}, {spider.site_url} (checked {spider.checked})")
        click.echo(f"  needs: {spider.needs}\n  limits: {spider.limits}")
        given = load_credentials(ctx.params.get("credentials"), spider.credentials)
        for one in spider.credentials:
            state = "set" if one.name in given else "not set"
            optional = "" if one.required else ", optional"
            click.echo(f"  {one.name}: {one.what}{optional} ({state})")
        for setting, one_setting in spider.settings.items():
            choices = f" ({'|'.join(one_setting.choices)})" if one_setting.choices else ""
            click.echo(f"  --set {setting}={one_setting.default}{choices}: {one_setting.what}")
    ctx.exit()


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
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Skip posts that are older than DATE, such as 2026-01-31.",
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
@click.option("-v", "--verbose", is_flag=True, help="Show every request.")
@click.option(
    "--list",
    is_flag=True,
    expose_value=False,
    callback=_list_sites,
    help="List the sites with their credentials and settings, and exit.",
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
    words = tuple(dict.fromkeys(word for part in tags for word in part))
    if not words and not check:
        raise BadInput("--tags is missing; for example --tags polo,dress")
    if live and not check:
        raise BadInput("--live requires --check")
    if check and chosen["dry_run"]:
        raise BadInput("--check and --dry-run can't be combined; run one after the other")
    from dataset.vocabulary import load_vocabulary
    from scraper.settings import Manners
    from scraper.sites import by_site, site_names_in, spiders_for

    names = site_names_in(sites)
    if check and len(names) > 1:
        raise BadInput("--check takes one site; run it for each site")
    site_urls = by_site("--site-url", chosen["site_urls"], names)
    image_urls = by_site("--image-url", chosen["image_urls"], names)
    spiders = spiders_for(names, site_urls, image_urls, chosen["credentials"], chosen["settings"])
    manners = Manners(
        chosen["contact"], chosen["timeout"], chosen["allow_private"], chosen["verbose"]
    )
    labels = load_vocabulary(chosen["vocabulary"])
    if check:
        _check(
            spiders[names[0]], labels.words_of(words[0])[0] if words else CHECK_WORD, live, manners
        )
    elif chosen["dry_run"]:
        _count(spiders, labels, words, manners)
    else:
        _crawl(spiders, labels, words, manners, chosen)


def _check(spider: "HashtagSpider", word: str, live: bool, manners: "Manners") -> None:
    from scraper.check import check

    if not check(spider, word, live, manners):
        raise click.ClickException("a check failed; see the lines above")


def _count(
    spiders: dict[str, "HashtagSpider"],
    labels: "Vocabulary",
    tags: tuple[str, ...],
    manners: "Manners",
) -> None:
    """Print the number of posts of each search (`--dry-run`)."""
    from scraper.check import dry_run

    words = [labels.words_of(tag) for tag in tags]
    if not dry_run(list(spiders.values()), words, manners):
        raise click.ClickException("interrupted before all searches were counted")


def _crawl(
    spiders: dict[str, "HashtagSpider"],
    labels: "Vocabulary",
    tags: tuple[str, ...],
    manners: "Manners",
    chosen: dict[str, Any],
) -> None:
    from scraper.run import conclude
    from scraper.run import crawl as run_crawl
    from scraper.work import CrawlOptions

    same = ("catalogue", "images", "max_images", "max_pages", "since", "retry_failed", "full")
    options = CrawlOptions(tags, manners=manners, **{name: chosen[name] for name in same})
    crawled = run_crawl(options, spiders, labels)
    conclude(crawled, chosen["min_per_class"], chosen["json_file"])
