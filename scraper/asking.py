"""A page of a site: asked for, or the reason in words why it did not come."""

import asyncio

from scraper.credentials import hide
from scraper.download import REDIRECTS, ROBOTS, Download
from scraper.errors import NotNow, SiteRefused
from scraper.fetching import Refused
from scraper.spiders.base import Ask, HashtagSpider, Page

GO_ON = "repeat the command to go on from here"
# Seconds to wait before a page that was empty though posts were promised is asked for again.
PAUSES = (1, 4, 10)


async def read_page(
    spider: HashtagSpider, download: Download, query: str, cursor: str | None
) -> Page:
    """The page of QUERY at CURSOR; one that is empty for now is asked for again, a few times.

    Raises:
        SiteRefused: it did not come; the message says why, and holds no credential.
        LayoutChanged: it can't be read.
    """
    ask = spider.search_request(query, cursor)
    for pause in PAUSES:
        try:
            return spider.read(*await page_of(spider, download, ask))
        except NotNow:
            await asyncio.sleep(pause)
    try:
        return spider.read(*await page_of(spider, download, ask))
    except NotNow as problem:
        raise NotNow(f"{problem.message}, {len(PAUSES) + 1} times; {GO_ON} later") from problem


async def page_of(spider: HashtagSpider, download: Download, ask: Ask) -> tuple[bytes, str]:
    """The body that ASK brought, and the address that it came from.

    Raises:
        SiteRefused: there is none; the message says why, and holds no credential.
    """
    answer = await download(ask)
    if isinstance(answer, Refused):
        if answer.reason == ROBOTS:
            said = "the site's robots.txt forbids it, so it is not asked for"
        else:
            known = spider.circles if answer.reason == REDIRECTS else None
            said = f"{known or answer.reason}; {GO_ON}"
        raise SiteRefused(hide(f"{ask.url}: {said}", spider.secrets))
    url, page = answer
    if not spider.readable(page):
        known = spider.refusal(page)
        said = known or f"HTTP {page.status}"
        raise SiteRefused(hide(f"{url}: {said}; {GO_ON}", spider.secrets))
    return page.body, url
