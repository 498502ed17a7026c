"""Items of the spiders: pages of posts with their photos, and downloaded or rejected images."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import astuple, dataclass, field, is_dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)

from dataset.catalogue.models import NO_CREDIT, UNKNOWN_LICENSE, Credit
from dataset.maintenance.takedown import REASON as TAKEN_DOWN
from scraper.decoding.inspection import (
    BROKEN,
    POLYGLOT,
    TOO_MANY_PIXELS,
    TOO_SMALL,
    AcceptedImage,
    RejectedImage,
)

if TYPE_CHECKING:
    from dataset.errors import Failure
    from scraper.crawl.searches import Search
    from scraper.persistence.claims import PendingImage

# PostgreSQL indexes values of at most 2,704 bytes; SQLite has no limit.
MAX_INDEXED_BYTES = 2_000
# Values beyond these are errors of a site: 32-bit column, and more than any product costs.
MAX_TOTAL, MAX_PRICE = 2**31 - 1, 10**12
MAX_CURRENCY_CHARS = 10
PRIVATE, SCHEME, NOAI = "private address", "neither http nor https", "noai"
# The owner reserves text and data mining, https://www.w3.org/community/reports/tdmrep/.
TDM_RESERVATION = "tdm-reservation"
TOO_MANY_REDIRECTS, TOO_LARGE = "too many redirects", "too large"
# robots.txt forbids a request; and the start of the reason why it could not be read.
ROBOTS_TXT, UNREADABLE = "robots.txt", "robots.txt: "
# An image rejected for one of these may be available at a new URL if its URL was signed.
GONE = ("HTTP 403", "HTTP 404", "HTTP 410")
# A repeated request would not change these.
FINAL = (
    *(TOO_SMALL, TOO_MANY_PIXELS, TOO_LARGE, POLYGLOT, PRIVATE, SCHEME),
    *(NOAI, TDM_RESERVATION, TAKEN_DOWN),
)
# Part of a message of Scrapy's middlewares -> reason.
_IGNORED = {"redirections": TOO_MANY_REDIRECTS, "exceeded": TOO_LARGE}


@dataclass(frozen=True)
class Photo:
    """A photo of a post.

    Attributes:
        url: URL of the largest size.
        fallbacks: URLs to try in order if there is nothing at `url`.
        key: Id of the photo that stays the same if its URL is signed or moves; unique in the site.
        credit: Its license and author.
    """

    url: str
    fallbacks: tuple[str, ...] = ()
    key: str | None = None
    credit: Credit = NO_CREDIT


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
        attributes: Attributes of the product, such as colour and category.
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

    def with_photos(self, photos: tuple[Photo, ...]) -> "Post":
        """Return a copy with further photos, without those that it has."""
        photo_by_url = {photo.url: photo for photo in (*photos, *self.photos)}
        urls = dict.fromkeys(photo.url for photo in (*self.photos, *photos))
        return replace(self, photos=tuple(photo_by_url[url] for url in urls))


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
        is_by_date: Whether the search lists its posts newest first, so that `--since` can end it.
        is_lookup: Whether the page only leads to pages of posts, such as a list of categories. It
            does not count as a page of the search.
        listed_ids: Ids of all posts that the site lists on the page, if `posts` has only those that
            match the search; they tell a page that repeats from one without a match.
        detail_urls: URLs of further pages with posts or photos of this page. They are requested
            before the page is saved, and their posts are added to it.
    """

    posts: tuple[Post, ...]
    next_cursor: str | None = None
    total: int | None = None
    later_cursor: str | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None
    is_by_date: bool = False
    is_lookup: bool = False
    listed_ids: tuple[str, ...] = ()
    detail_urls: tuple[str, ...] = ()

    def as_last(self) -> "Page":
        """Return a copy without a next page."""
        return replace(self, next_cursor=None)

    def with_licenses(self, licenses: Collection[str]) -> "Page":
        """Return a copy with the photos of some licenses only.

        Args:
            licenses: Codes of the licenses; `unknown` for photos without one. Empty: all.
        """
        if not licenses:
            return self
        posts, skipped = [], Counter(self.skipped)
        for post in self.posts:
            codes = [photo.credit.code for photo in post.photos]
            pairs = zip(post.photos, codes, strict=True)
            photos = tuple(photo for photo, code in pairs if code in licenses)
            if photos:
                posts.append(replace(post, photos=photos))
            else:
                skipped[f"license {next(iter(codes), UNKNOWN_LICENSE)}"] += 1
        return replace(self, posts=tuple(posts), skipped=dict(skipped))

    def with_details(self, details: Iterable["Page"]) -> "Page":
        """Return a copy with the posts of detail pages; posts with the same id become one."""
        posts = {post.site_id: post for post in self.posts}
        skipped = Counter(self.skipped)
        for page in details:
            skipped.update(page.skipped)
            for post in page.posts:
                known = posts.get(post.site_id)
                posts[post.site_id] = post if known is None else known.with_photos(post.photos)
        return replace(self, posts=tuple(posts.values()), skipped=dict(skipped), detail_urls=())

    def storable(self, change_text: Callable[[str], str] = str) -> "Page":
        """Return a copy that any catalogue can store.

        NUL characters and lone surrogates (half an emoji) are replaced in all texts. A value that
        is too large or impossible, such as an infinite price, is left out; the post stays.

        Args:
            change_text: Applied to each text as well, such as the redaction of secrets.
        """

        def change(text: str) -> str:
            return change_text(storable_text(text))

        is_total_valid = self.total is not None and 0 <= self.total <= MAX_TOTAL
        return replace(
            self,
            posts=tuple(_storable_post(post, change) for post in self.posts),
            next_cursor=_map_texts(self.next_cursor, change),
            later_cursor=_map_texts(self.later_cursor, change),
            total=self.total if is_total_valid else None,
            skipped=_map_texts(self.skipped, change),
        )


def storable_text(text: str) -> str:
    """Return a text without NUL characters, and with replacements for lone surrogates."""
    if text.isascii():
        return text.replace("\0", "")
    # Two halves of a pair become one character.
    encoded = text.replace("\0", "").encode("utf-16", "surrogatepass")
    return encoded.decode("utf-16", "replace")


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a copy of JSON-like values with all texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_texts(key, change): _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_map_texts(item, change) for item in value)
    return value


def _storable_post(post: Post, change: Callable[[str], str]) -> Post:
    try:
        record = _map_texts(post.record, change)
    except RecursionError:
        record = {}
    texts = {
        name: _map_texts(value, change)
        for name, value in vars(post).items()
        if name not in ("photos", "record")
    }
    site_id, currency, price = texts["site_id"], texts["currency"], post.price
    if not site_id or not _is_indexable(site_id):
        # The digest is as stable as the id.
        site_id = hashlib.sha256(post.site_id.encode("utf-8", "surrogatepass")).hexdigest()
    photos = (_storable_photo(photo, change) for photo in post.photos)
    is_price_valid = price is not None and 0 <= price <= MAX_PRICE and math.isfinite(price)
    return Post(
        **{
            **texts,
            "site_id": site_id,
            "photos": tuple(photo for photo in photos if _is_indexable(photo.url)),
            "price": float(price) if is_price_valid and price is not None else None,
            "currency": currency if len(currency or "") <= MAX_CURRENCY_CHARS else None,
            "record": record,
        }
    )


def _storable_photo(photo: Photo, change: Callable[[str], str]) -> Photo:
    fallbacks = tuple(map(change, photo.fallbacks))
    credit = Credit(*(_map_texts(value, change) for value in astuple(photo.credit)))
    return Photo(change(photo.url), fallbacks, _map_texts(photo.key, change), credit)


def _is_indexable(text: str) -> bool:
    return len(text.encode()) <= MAX_INDEXED_BYTES


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
        body: The downloaded bytes; feed exports contain their length instead.
        outcome: Result of the inspection, or why there is nothing to inspect.
        result: Set by the catalogue pipeline: new, a duplicate, or the rejection.
        error: Why the image stays pending, such as a host that asks for a long pause.
    """

    image: "PendingImage"
    search: "Search" = field(metadata=SEARCH)
    body: bytes = field(default=b"", metadata=SIZE)
    outcome: AcceptedImage | RejectedImage | None = field(default=None, metadata=OUTCOME)
    result: str | RejectedImage | None = field(default=None, metadata=OUTCOME)
    error: "Failure | None" = field(default=None, metadata=MESSAGE)


class InvalidResponseError(Exception):
    """A response is not valid HTTP, such as one with a longer body than announced."""


class CertificateError(DownloadFailedError):
    """The certificate of a server can't be verified."""


class ProxyError(DownloadFailedError):
    """The proxy can't be reached, or refuses a connection."""


# Exception of the download handler -> reason; the first match counts.
_REASONS: dict[type[Exception], str] = {
    DownloadTimeoutError: "timeout",
    CertificateError: "certificate verification failed",
    DownloadCancelledError: TOO_LARGE,
    ResponseDataLossError: "cut off",
    CannotResolveHostError: "no connection (host not found)",
    DownloadConnectionRefusedError: "no connection (nothing listens there)",
    ProxyError: "no connection (the proxy refuses it, or nothing listens there)",
    DownloadFailedError: "no connection (download failed)",
    InvalidResponseError: "no connection (invalid HTTP response)",
}


def image_error_reason(error: BaseException) -> str:
    """Return why the download of an image failed; what is not valid HTTP is a broken image."""
    if isinstance(error, InvalidResponseError):
        return BROKEN
    return download_error_reason(error)


def download_error_reason(error: BaseException) -> str:
    """Return why a download failed, by the exception that Scrapy raised."""
    if isinstance(error, IgnoreRequest):
        # This project's middlewares give the reason; those of Scrapy give sentences.
        text = str(error)
        return next((reason for part, reason in _IGNORED.items() if part in text), text)
    reasons = (reason for kind, reason in _REASONS.items() if isinstance(error, kind))
    return next(reasons, "no connection (unexpected error)")
