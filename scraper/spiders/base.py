"""What every site's spider is: how to ask, how to read. Nothing here knows Scrapy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar


@dataclass(frozen=True)
class Photo:
    """A photo's address in the largest size, and what to ask when it is not there."""

    url: str
    fallbacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Post:
    """A product or post as a page of the site shows it; `record` is the site's own, for later."""

    site_id: str
    url: str
    photos: tuple[Photo, ...]
    title: str | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    author: str | None = None
    posted: datetime | None = None
    hashtags: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What one page of a search holds. No `next_cursor`: it was the last one."""

    posts: tuple[Post, ...]
    next_cursor: str | None = None
    total: int | None = None


@dataclass(frozen=True)
class Ask:
    """A request to make."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


class HashtagSpider:
    """A site. A subclass `Spider` in `scraper/spiders/<site>.py` is found by its file's name.

    The file also has `read(body: bytes, url: str) -> Page`, a pure function that raises
    LayoutChanged when the page should hold posts and they can't be found.
    """

    title: ClassVar[str]
    needs: ClassVar[str]
    limits: ClassVar[str]
    checked: ClassVar[str]
    site_url: ClassVar[str]
    image_url: ClassVar[str]

    def __init__(self, site_url: str | None = None, image_url: str | None = None) -> None:
        self.asked_url = (site_url or self.site_url).rstrip("/")
        self.asked_image_url = (image_url or self.image_url).rstrip("/")

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """What to ask for QUERY: its first page, or the one that CURSOR leads to."""
        raise NotImplementedError

    def read(self, body: bytes, url: str) -> Page:
        """The page BODY that came from URL."""
        raise NotImplementedError

    def refusal(self, status: int, body: bytes) -> str | None:
        """What the site means by answering STATUS, when it is known; None otherwise."""
        return None

    def image_request(self, url: str) -> Ask:
        """How to ask for the photo URL, from the mirror when there is one."""
        if url.startswith(self.image_url):
            url = self.asked_image_url + url.removeprefix(self.image_url)
        return Ask(url)
