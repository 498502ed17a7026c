"""Renew expired image URLs: request their post again, once."""

from scraper.asking import page_of
from scraper.claims import Wanted
from scraper.download import Download
from scraper.errors import LayoutChanged, SiteRefused
from scraper.spiders.base import HashtagSpider, Photo


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
