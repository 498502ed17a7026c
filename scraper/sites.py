"""The sites we know: one for each file of scraper/spiders, found without importing them."""

import importlib
from pathlib import Path

from dataset.errors import BadInput
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
