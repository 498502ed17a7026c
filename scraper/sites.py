"""The supported sites (one per file of scraper/spiders) and the spiders selected by options."""

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dataset.errors import BadInput
from scraper.credentials import load_credentials
from scraper.spiders.base import HashtagSpider

FOLDER = Path(__file__).with_name("spiders")


def site_names() -> list[str]:
    """Every site's name, sorted."""
    return sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "base"))


def spider_class(site: str) -> type[HashtagSpider]:
    """The spider of SITE.

    Raises:
        BadInput: there is no such site.
    """
    if site not in site_names():
        raise BadInput(f"no site {site!r}; there are: {', '.join(site_names())}")
    spider: type[HashtagSpider] = importlib.import_module(f"scraper.spiders.{site}").Spider
    return spider


def site_names_in(values: Iterable[str]) -> tuple[str, ...]:
    """The sites of VALUES, each a name or several with commas between, each once."""
    names = (name.strip() for value in values for name in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def by_site(option: str, values: Sequence[str], sites: Sequence[str]) -> dict[str, str]:
    """The address that OPTION gives each of SITES: of VALUES, `URL` or `SITE=URL`.

    Raises:
        BadInput: a value is no address, of no site, or it is not said of which.
    """
    found: dict[str, str] = {}
    for value in values:
        named = re.match(r"([a-z0-9_]+)=(?=https?://)", value)
        site, url = (named[1], value[named.end() :]) if named else (sites[0], value)
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"{option}: {value!r} is no address; it starts with http:// or https://")
        if site not in sites:
            raise BadInput(f"{option} {value}: {site} is not crawled; name one of the sites")
        if not named and len(sites) > 1:
            raise BadInput(f"{option} {value}: say of which site: {option} {site}={value}")
        found[site] = url
    return found


def spiders_for(
    sites: Sequence[str],
    site_urls: Mapping[str, str],
    image_urls: Mapping[str, str],
    file: Path | None,
    settings: Mapping[str, str],
) -> dict[str, HashtagSpider]:
    """The spider of each of SITES with all it needs; SETTINGS go to the sites that have them.

    Raises:
        BadInput: no such site or setting, or credentials are missing or can't be read.
    """
    kinds = {site: spider_class(site) for site in sites}
    spiders = {}
    for site, kind in kinds.items():
        known = {name for other in kinds.values() for name in other.settings}
        # A name that no site has is refused by the spider, which lists its own.
        mine = {n: v for n, v in settings.items() if n in kind.settings or n not in known}
        given = load_credentials(file, kind.credentials)
        spiders[site] = kind(site_urls.get(site), image_urls.get(site), given, mine)
        spiders[site].ready()
    return spiders
