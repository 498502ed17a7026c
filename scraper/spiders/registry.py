"""Find the supported sites, one module of `scraper.spiders` each, and create their spiders."""

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dataset.errors import BadInput
from scraper.credentials import load_credentials
from scraper.spiders.base import Access, HashtagSpider

FOLDER = Path(__file__).parent


def site_names() -> list[str]:
    """Return the names of all sites, sorted."""
    return sorted(
        path.stem
        for path in FOLDER.glob("*.py")
        if path.stem not in ("__init__", "base", "registry")
    )


def spider_class(site: str) -> type[HashtagSpider]:
    """Import and return the spider class of a site.

    Raises:
        BadInput: There is no such site.
    """
    if site not in site_names():
        raise BadInput(f"no site {site!r}; there are: {', '.join(site_names())}")
    spider: type[HashtagSpider] = importlib.import_module(f"scraper.spiders.{site}").Spider
    return spider


def spiders_by_access() -> list[type[HashtagSpider]]:
    """Return the spider classes of all sites, those that need least first."""
    levels = list(Access)
    classes = [spider_class(site) for site in site_names()]
    return sorted(classes, key=lambda spider: levels.index(spider.access))


def parse_site_names(values: Iterable[str]) -> tuple[str, ...]:
    """Return the unique site names in values, each a name or a comma-separated list of names."""
    names = (name.strip() for value in values for name in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def parse_site_urls(option: str, values: Sequence[str], sites: Sequence[str]) -> dict[str, str]:
    """Parse the values of an option that replaces a URL of sites.

    Args:
        option: Name of the option, for error messages.
        values: The values: `URL`, or `SITE=URL` if there are several sites.
        sites: Names of the crawled sites.

    Returns:
        Site -> URL.

    Raises:
        BadInput: A value is not a URL, or does not name one of the sites.
    """
    urls: dict[str, str] = {}
    for value in values:
        match = re.match(r"([a-z0-9_]+)=(?=https?://)", value)
        site, url = (match[1], value[match.end() :]) if match else (sites[0], value)
        if not url.startswith(("http://", "https://")):
            raise BadInput(
                f"{option}: {value!r} is not a URL; write one that starts with http:// or https://"
            )
        if site not in sites:
            raise BadInput(f"{option} {value}: {site} is not crawled; name one of the sites")
        if not match and len(sites) > 1:
            raise BadInput(f"{option} {value}: name the site: {option} {site}={value}")
        urls[site] = url
    return urls


def create_spiders(
    sites: Sequence[str],
    site_urls: Mapping[str, str],
    image_urls: Mapping[str, str],
    file: Path | None,
    settings: Mapping[str, str],
) -> dict[str, HashtagSpider]:
    """Create the spiders of sites.

    Args:
        sites: Names of the sites.
        site_urls: Site -> URL that replaces the site's own.
        image_urls: Site -> URL that replaces the URL of its image host.
        file: File with credentials; None for only the environment.
        settings: Name -> value; each spider gets the settings that it has.

    Returns:
        Site -> spider.

    Raises:
        BadInput: A site or setting does not exist, or credentials are missing or invalid.
    """
    classes = {site: spider_class(site) for site in sites}
    all_names = {name for spider_type in classes.values() for name in spider_type.site_options}
    spiders = {}
    for site, spider_type in classes.items():
        # A spider also gets the names that no spider has: it rejects them and lists its own.
        site_settings = {
            name: value
            for name, value in settings.items()
            if name in spider_type.site_options or name not in all_names
        }
        credentials = load_credentials(file, spider_type.credentials)
        spiders[site] = spider_type(
            site_urls.get(site), image_urls.get(site), credentials, site_settings
        )
        spiders[site].check_arguments()
    return spiders
