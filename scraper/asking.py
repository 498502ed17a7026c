"""Request a page of a site and report failures in words; renew expired image URLs once."""

import asyncio
from dataclasses import replace

from scraper import fetching
from scraper.claims import Wanted
from scraper.credentials import hide, hide_tokens
from scraper.download import REDIRECTS, ROBOTS, Download
from scraper.errors import LayoutChanged, NotNow, SiteRefused
from scraper.examining import Refused
from scraper.spiders.base import Answer, Ask, HashtagSpider, Page, Photo

FORBIDDEN = (
    "the site's robots.txt forbids it, so it is not asked for: ask the site's owner for leave, or"
    " crawl another site (crawl --list)"
)
GO_ON = "repeat the command to continue from here"
# Seconds to wait before a page is requested again that announced posts and had none.
PAUSES = (1, 4, 10)


async def read_page(
    spider: HashtagSpider, download: Download, query: str, cursor: str | None
) -> Page:
    """Return a page of a search; a page that is temporarily empty is requested again a few times.

    Raises:
        SiteRefused: it did not come; the message says why, and holds no credential.
        LayoutChanged: it can't be read.
    """
    page, _ = await read_answer(spider, download, query, cursor)
    return page


async def read_answer(
    spider: HashtagSpider, download: Download, query: str, cursor: str | None
) -> tuple[Page, Answer]:
    """As `read_page`, with the answer that the page was read from."""
    ask = spider.search_request(query, cursor)
    pauses = iter(PAUSES)
    while True:
        answer, url = await answer_of(spider, download, ask)
        try:
            page = spider.read(answer.body, url)
            if fetching.forbidden(answer.headers, answer.body):
                page = replace(page, reason=fetching.REASON)
            return page, answer
        except NotNow as problem:
            pause = next(pauses, None)
            if pause is None:
                times = len(PAUSES) + 1
                raise NotNow(f"{problem.message}, {times} times; {GO_ON} later") from problem
        await asyncio.sleep(pause)


async def page_of(spider: HashtagSpider, download: Download, ask: Ask) -> tuple[bytes, str]:
    """The body that ASK brought, and the address that it came from.

    Raises:
        SiteRefused: as `answer_of`.
    """
    answer, url = await answer_of(spider, download, ask)
    return answer.body, url


async def answer_of(spider: HashtagSpider, download: Download, ask: Ask) -> tuple[Answer, str]:
    """The answer that ASK brought, one that can be read, and the address that it came from.

    Raises:
        SiteRefused: there is none; the message says why, and holds no credential.
    """
    answer = await download(ask)
    if isinstance(answer, Refused):
        if answer.reason == ROBOTS:
            said = FORBIDDEN
        else:
            known = spider.circles if answer.reason == REDIRECTS else None
            said = f"{known or answer.reason}; {GO_ON}"
        raise SiteRefused(hide(f"{said} ({ask.url})", spider.secrets))
    url, page = answer
    if not spider.readable(page):
        known = spider.refusal(page)
        said = known or f"HTTP {page.status}"
        raise SiteRefused(hide(f"{said}; {GO_ON} ({url})", spider.secrets))
    return replace(page, body=hide_tokens(page.body, spider.secrets)), url


async def photo_again(
    spider: HashtagSpider, download: Download, wanted: Wanted, known: dict[str, dict[str, Photo]]
) -> Photo | None:
    """WANTED under its new address; None where the site gives none.

    KNOWN: post -> its photos by key, of posts that were asked for again before.
    """
    if wanted.post not in known:
        known[wanted.post] = await _photos(spider, download, wanted.post)
    found = known[wanted.post].get(wanted.key or "")
    return found if found is not None and found.url != wanted.url else None


async def _photos(spider: HashtagSpider, download: Download, post: str) -> dict[str, Photo]:
    ask = spider.post_request(post)
    if ask is None:
        return {}
    try:
        page = spider.read(*await page_of(spider, download, ask))
    except (SiteRefused, LayoutChanged):
        # The photo keeps its first reason; a post can be gone like a photo.
        return {}
    return {photo.key: photo for one in page.posts for photo in one.photos if photo.key}
