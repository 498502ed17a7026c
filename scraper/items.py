"""Items of the spiders: pages of posts with their photos, and downloaded images."""

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset.errors import Failure
    from scraper.crawl.searches import Search
    from scraper.decoding.inspection import AcceptedImage, RejectedImage
    from scraper.persistence.claims import PendingImage


@dataclass(frozen=True)
class Photo:
    """A photo of a post.

    Attributes:
        url: URL of the largest size.
        fallbacks: URLs to try in order if there is nothing at `url`.
        key: Id of the photo that stays the same if its URL is signed or moves; unique in the site.
    """

    url: str
    fallbacks: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True)
class Post:
    """A product or post of a site.

    Attributes:
        site_id: The site's id of the post.
        url: URL of the post's page.
        photos: Its photos.
        title: Title or caption.
        brand: Brand.
        price: Price in `currency`.
        currency: ISO 4217 code, such as `RUB`.
        author: User name of the author.
        posted: Time of publication in UTC, without a time zone.
        hashtags: Hashtags of the caption; those of `title` are found when the post is saved.
        attributes: The shop's own words, such as colour and category.
        record: The site's record of the post, as JSON values.
    """

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
    attributes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """The posts of one page of a search.

    Attributes:
        posts: The posts.
        next_cursor: Cursor of the next page; None on the last page.
        total: Number of posts of the whole search, if the site reports it.
        later_cursor: Cursor with which a later run of the finished search starts.
        skipped: Reason -> number of posts that were skipped, such as videos.
        reason: Why no photo of the page may be downloaded, such as `noai`.
    """

    posts: tuple[Post, ...]
    next_cursor: str | None = None
    total: int | None = None
    later_cursor: str | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    def as_last(self) -> "Page":
        """Return a copy without a next page."""
        return replace(self, next_cursor=None)


def _search_name(search: "Search | None") -> str | None:
    return None if search is None else search.hashtag


def _outcome_values(outcome: object) -> object:
    """Return an outcome without its fingerprint, whose arrays are binary."""
    if not is_dataclass(outcome):
        return outcome
    return {name: value for name, value in vars(outcome).items() if name != "fingerprint"}


def _message(error: "Failure | None") -> str | None:
    return None if error is None else error.message


# Serializers of fields for feed exports:
# https://docs.scrapy.org/en/latest/topics/exporters.html#declaring-a-serializer-in-the-field
SEARCH, MESSAGE = {"serializer": _search_name}, {"serializer": _message}
SIZE, OUTCOME = {"serializer": len}, {"serializer": _outcome_values}


@dataclass
class PageItem:
    """A page of a search on its way into the catalogue, or the error in its place.

    Attributes:
        page: The page; None if it could not be read.
        search: The search; None outside of a crawl, as in `scrapy parse`.
        cursor: Cursor of the page; None for the first one.
        error: Why the page could not be read.
        is_saved: Whether it is in the catalogue.
    """

    page: Page | None
    search: "Search | None" = field(default=None, metadata=SEARCH)
    cursor: str | None = None
    error: "Failure | None" = field(default=None, metadata=MESSAGE)
    is_saved: bool = False


@dataclass
class ImageItem:
    """An image on its way into the image store and the catalogue.

    Attributes:
        image: The claimed image.
        search: The search that claimed it.
        body: The downloaded bytes; feed exports get their number.
        outcome: Result of the inspection, or why there is nothing to inspect.
        result: Set by the catalogue pipeline: new, a duplicate, or the rejection.
        error: Why the image stays pending, such as a host that asks for a long pause.
    """

    image: "PendingImage"
    search: "Search" = field(metadata=SEARCH)
    body: bytes = field(default=b"", metadata=SIZE)
    outcome: "AcceptedImage | RejectedImage | None" = field(default=None, metadata=OUTCOME)
    result: "str | RejectedImage | None" = field(default=None, metadata=OUTCOME)
    error: "Failure | None" = field(default=None, metadata=MESSAGE)
