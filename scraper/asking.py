"""A page of a site: asked for, or the reason in words why it did not come."""

from scraper.credentials import hide
from scraper.download import Download
from scraper.errors import SiteRefused
from scraper.fetching import Refused
from scraper.spiders.base import Ask, HashtagSpider

GO_ON = "repeat the command to go on from here"


async def page_of(spider: HashtagSpider, download: Download, ask: Ask) -> tuple[bytes, str]:
    """The body that ASK brought, and the address that it came from.

    Raises:
        SiteRefused: there is none; the message says why, and holds no credential.
    """
    answer = await download(ask)
    if isinstance(answer, Refused):
        if answer.reason == "robots.txt":
            said = "the site's robots.txt forbids it, so it is not asked for"
        else:
            said = f"{answer.reason}; {GO_ON}"
        raise SiteRefused(hide(f"{ask.url}: {said}", spider.secrets))
    url, page = answer
    if not spider.readable(page):
        known = spider.refusal(page)
        said = known or f"HTTP {page.status}"
        raise SiteRefused(hide(f"{url}: {said}; {GO_ON}", spider.secrets))
    return page.body, url
