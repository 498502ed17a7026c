"""`crawl`: options -> one call -> exit status."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dataset.errors import BadInput
from dataset.options import (
    CONTEXT,
    FILE,
    CommaList,
    catalogue_option,
    images_option,
    vocabulary_option,
)

if TYPE_CHECKING:
    from dataset.labels import Vocabulary
    from scraper.settings import Manners
    from scraper.spiders.base import HashtagSpider
    from scraper.work import Work

# What --check looks for where no tag is named.
CHECK_WORD = "polo"


def _address(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not value.startswith(("http://", "https://")):
        raise BadInput(
            f"{param.opts[0]}: {value!r} is no address; it starts with http:// or https://"
        )
    return value


def _contact(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    # It is sent in a header, which takes one line of plain letters.
    if value is not None and not (value.isascii() and value.isprintable() and value.strip()):
        raise BadInput(f"--contact {value!r}: write one mail or web address, in plain letters")
    return value


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
    context_settings=CONTEXT, epilog="Example: crawl lamoda --tags polo --tags dress,jeans"
)
@click.argument("site")
@click.option(
    "--tags",
    "tags",
    type=CommaList(),
    multiple=True,
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
@click.option(
    "--credentials",
    type=FILE,
    metavar="FILE",
    is_eager=True,
    help="NAME=value lines of keys and tokens, beside the environment; readable by you alone."
    " --list names them.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=_settings,
    metavar="NAME=VALUE",
    help="A setting of the site, as --list names them; may be given several times.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Take nothing: say whose credentials these are, what is left of the limits, and whether"
    " a search can be read.",
)
@click.option(
    "--live", is_flag=True, help="With --check: which fields of a post were found, for a report."
)
@click.option(
    "--dry-run", is_flag=True, help="Take nothing: say how many posts each search would read."
)
@click.option(
    "--allow-private-hosts",
    "allow_private",
    is_flag=True,
    help="Also ask hosts of a private network that photos' addresses and redirects lead to; without"
    " it only those of --site-url and --image-url.",
)
@click.option(
    "--contact",
    callback=_contact,
    metavar="TEXT",
    help="Your mail or web address, for site owners: it stands in the user agent.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for an answer, to its last byte.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show every request.")
@click.option(
    "--list",
    is_flag=True,
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
    credentials: Path | None,
    settings: dict[str, str],
    check: bool,
    live: bool,
    dry_run: bool,
    allow_private: bool,
    contact: str | None,
    timeout: float,
    verbose: bool,
) -> None:
    """Collect the photos that SITE shows under hashtags into a catalogue.

    Stopping it (Ctrl-C, or worse) and repeating the command goes on where it was: nothing is lost
    and nothing is fetched twice. robots.txt is obeyed. The exit status is 0 only when every search
    came to its end or to --max-images.
    """
    words = tuple(dict.fromkeys(word for part in tags for word in part))
    if not words and not check:
        raise BadInput("--tags names no tag; write for example --tags polo,dress")
    if live and not check:
        raise BadInput("--live goes with --check")
    if check and dry_run:
        raise BadInput("--check and --dry-run are two questions: ask one, then the other")
    from dataset.labels import load_vocabulary
    from scraper.settings import Manners

    spider = _spider(site, site_url, image_url, credentials, settings)
    manners = Manners(contact, timeout, allow_private, verbose)
    labels = load_vocabulary(vocabulary)
    if check or dry_run:
        _look(spider, labels, words, check, live, manners)
        return
    from scraper.run import crawl as run_crawl
    from scraper.work import CrawlOptions

    options = CrawlOptions(site, words, catalogue, images, manners, max_images)
    _conclude(run_crawl(options, spider, labels))


def _spider(
    site: str,
    site_url: str | None,
    image_url: str | None,
    file: Path | None,
    settings: dict[str, str],
) -> "HashtagSpider":
    """The spider of SITE with all it needs.

    Raises:
        BadInput: no such site or setting, or credentials are missing or can't be read.
    """
    from scraper.credentials import load_credentials
    from scraper.sites import spider_class

    kind = spider_class(site)
    given = load_credentials(file, kind.credentials)
    spider = kind(site_url, image_url, given, settings)
    spider.ready()
    return spider


def _look(
    spider: "HashtagSpider",
    labels: "Vocabulary",
    tags: tuple[str, ...],
    check: bool,
    live: bool,
    manners: "Manners",
) -> None:
    """`--check` and `--dry-run`: ask, and take nothing."""
    from dataset.catalogue.tables import OR
    from scraper import check as checking

    if check:
        word = labels.words_of(tags[0])[0] if tags else CHECK_WORD
        done = checking.check(spider, word, live, manners)
    else:
        groups = (group for tag in tags for group in spider.queries(labels.words_of(tag)))
        done = checking.dry_run(spider, [OR.join(group) for group in groups], manners)
    if not done:
        raise click.ClickException("not all is well; see the lines above")


def _conclude(work: "Work") -> None:
    """Print why the yield is what it is, and end with the exit status that it deserves."""
    from dataset.text_table import table
    from scraper.report import HEAD, reasons, rows

    if work.tallies:
        click.echo(table(HEAD, rows(work.tallies)))
    for line in reasons(work.tallies):
        click.echo(line)
    if not work.ended:
        raise click.ClickException("stopped before the end; repeat the command to go on")
    if work.problems:
        raise click.ClickException("\nError: ".join(p.message for p in work.problems))
