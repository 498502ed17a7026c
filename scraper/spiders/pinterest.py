"""Spider of Pinterest: partner search of the official API v5, or the public web search.

The API is documented at https://developers.pinterest.com/docs/api/v5/search_partner_pins (2026).
The web search is requested as other tools do (2026), and only if robots.txt allows it.

A cursor is `partner:` or `web:` with a bookmark.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from scrapy import Request
from scrapy.http import Response

from dataset.errors import BadInput
from scraper.credentials import Credential
from scraper.errors import LayoutChanged
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    clean_text,
    format_remaining,
    format_retry_after,
    format_wait,
    get_nested,
    http_url,
    json_object,
    json_object_or_empty,
    json_objects,
    parse_count,
    parse_datetime,
)
from scraper.parsing.hashtags import find_hashtags
from scraper.spiders.base import Access, Check, HashtagSpider, Page, Photo, Post, SiteOption

WEB_URL = "https://www.pinterest.co.uk"
PINS_PER_PAGE = {"partner": 50, "web": 25}
# The web search requires this header with the name of the page that sends the request.
WEB_HEADERS = {"X-Pinterest-PWS-Handler": "www/search/[scope].js"}
LAST_BOOKMARK = "-end-"
ORIGINAL_SIZES = ("originals", "orig")
# Names of uncropped sizes, such as 736x; 150x150 and 400x300 are cropped.
UNCROPPED_SIZE = re.compile(r"[0-9]+x")
SIZED_URL = re.compile(r"(https://[\w.-]*pinimg\.com)/[0-9]+x[^/]*(/../../../[^/]+)")
VIDEOS = "videos"
NO_PHOTO_URL = "no photo URL"
NO_PIN = "no pins (stories, guides)"
# HTTP status -> its meaning and the remedy.
PARTNER_STATUS_MEANINGS = {
    401: "the token is wrong or expired: make a new one for your app and set PINTEREST_TOKEN",
    403: (
        "the app is not approved for partner search, which is in beta: request it at"
        " https://developers.pinterest.com"
    ),
}
WEB_STATUS_MEANINGS = {
    401: "Pinterest's public search requires a login: use partner search instead",
    403: "Pinterest blocks its public search for this network: use partner search instead",
}


class Spider(HashtagSpider):
    """Searches Pinterest for pins."""

    name = "pinterest"
    title = "Pinterest"
    access = Access.APPROVAL
    needs = "an app that Pinterest has approved for partner search (beta), and a token"
    limits_text = "photos only; as many pins as partner search returns for a word in one country"
    checked = "2026-11"
    site_url = "https://api.pinterest.com"
    image_url = "https://i.pinimg.com"
    credentials = (Credential("PINTEREST_TOKEN", "an access token; search=web needs none"),)
    site_options: ClassVar[Mapping[str, SiteOption]] = {
        "search": SiteOption(
            "partner",
            "API to use; web: the public search, if robots.txt allows it",
            ("partner", "web"),
        ),
        "country": SiteOption("GB", "with search=partner: country of the pins, in two letters"),
        "locale": SiteOption("en-GB", "with search=partner: language of the search"),
    }
    # Neither search can be limited to new pins, so a later run reads the pages again.
    renews = True

    def check_arguments(self) -> None:
        """Check that options are valid, and that partner search has a token.

        Raises:
            CredentialsMissing: A required credential is missing.
            BadInput: An option is invalid, or a token would be sent unencrypted over a network.
        """
        if not re.fullmatch(r"[A-Z]{2}", self.chosen["country"]):
            raise BadInput(f"--set country={self.chosen['country']}: two letters, such as GB")
        if not re.fullmatch(r"[a-z]{2}(-[A-Z]{2})?", self.chosen["locale"]):
            raise BadInput(f"--set locale={self.chosen['locale']}: such as en-GB")
        if self.chosen["search"] == "partner":
            super().check_arguments()

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of the first page, or of the page after a bookmark."""
        cursor_search, _, bookmark = (cursor or "").partition(":")
        # A bookmark of one search is invalid in the other.
        bookmark = bookmark if cursor_search == self.chosen["search"] else ""
        if self.chosen["search"] == "web":
            return self._web_search_request(query, bookmark)
        parameters = {
            "term": query,
            "country_code": self.chosen["country"],
            "locale": self.chosen["locale"],
            "limit": str(PINS_PER_PAGE["partner"]),
        }
        position = {"bookmark": bookmark} if bookmark else {}
        return self._api_request(f"search/partner/pins?{urlencode(parameters | position)}")

    def _api_request(self, path: str) -> Request:
        headers = {"Authorization": f"Bearer {self.secrets.get('PINTEREST_TOKEN', '')}"}
        return Request(f"{self.requested_url}/v5/{path}", headers=headers)

    def _web_search_request(self, query: str, bookmark: str) -> Request:
        root = WEB_URL if self.requested_url == self.site_url else self.requested_url
        options: dict[str, Any] = {
            "query": query,
            "scope": "pins",
            "page_size": PINS_PER_PAGE["web"],
        }
        if bookmark:
            options["bookmarks"] = [bookmark]
        data = json.dumps({"options": options, "context": {}}, separators=(",", ":"))
        parameters = {"source_url": f"/search/pins/?q={quote(query)}", "data": data}
        return Request(
            f"{root}/resource/BaseSearchResource/get/?{urlencode(parameters)}", headers=WEB_HEADERS
        )

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; see the function `read`."""
        return read(body, url)

    def explain_refusal(self, response: Response) -> str | None:
        """Return the meaning of an HTTP status, and how long a rate limit lasts."""
        headers = unicode_headers(response)
        if response.status == 429:
            seconds = parse_count(headers.get("x-ratelimit-reset"))
            if "retry-after" in headers or seconds is None:
                when = format_retry_after(headers)
            else:
                when = format_wait(seconds)
            return f"Pinterest's rate limit is reached; continue {when}"
        error = json_object_or_empty(response.body)
        message = clean_text(error.get("message")) or clean_text(
            get_nested(error, "resource_response", "message")
        )
        is_web = self.chosen["search"] == "web"
        meanings = WEB_STATUS_MEANINGS if is_web else PARTNER_STATUS_MEANINGS
        if response.status in meanings:
            meaning = meanings[response.status]
            return f"{meaning} (HTTP {response.status}: {message or 'no message'})"
        return f"Pinterest reports: {message} (HTTP {response.status})" if message else None

    def describe_remaining(self, response: Response) -> str | None:
        """Return how many requests are left."""
        return format_remaining(unicode_headers(response), "x-ratelimit")

    def checks(self) -> Sequence[Check]:
        """Return a request for the account of the token."""
        if self.chosen["search"] == "web":
            return ()
        return (Check("account", self._api_request("user_account"), _describe_account),)


def _describe_account(body: bytes) -> str:
    account = json_object(body, "the account")
    account_type = clean_text(account.get("account_type"))
    return f"@{clean_text(account.get('username')) or 'unnamed'}" + (
        f" ({account_type.lower()})" if account_type else ""
    )


def read(body: bytes, url: str) -> Page:
    """Parse a page of pins of either search.

    Raises:
        LayoutChanged: It has no list of pins, or a pin lacks a required field.
    """
    response = json_object(body, url)
    web_response = response.get("resource_response")
    search = "partner" if web_response is None else "web"
    if search == "web":
        records, bookmark = (
            get_nested(web_response, "data", "results"),
            get_nested(web_response, "bookmark"),
        )
        if get_nested(response, "resource", "options", "bookmarks", 0) == LAST_BOOKMARK:
            bookmark = LAST_BOOKMARK
    else:
        records, bookmark = response.get("items"), response.get("bookmark")
    if not isinstance(records, list):
        raise LayoutChanged("no list of pins in Pinterest's response", url)
    is_last = bookmark in (None, "", LAST_BOOKMARK)
    if not is_last and not clean_text(bookmark):
        raise LayoutChanged("a bookmark that is not text", url)
    posts, skipped = _posts(records, url, search)
    is_first = "bookmark=" not in url and "%22bookmarks%22" not in url
    return Page(
        posts=posts,
        next_cursor=None if is_last else f"{search}:{bookmark}",
        total=0 if is_first and is_last and not records else None,
        later_cursor=f"{search}:" if is_first else None,
        skipped=skipped,
    )


def _posts(records: list[Any], url: str, search: str) -> tuple[tuple[Post, ...], Mapping[str, int]]:
    """Return the posts of pins, and the number of skipped pins by reason."""
    image_sizes = _partner_image_sizes if search == "partner" else _web_image_sizes
    posts, skipped = dict[str, Post](), Counter[str]()
    for record in records:
        if not isinstance(record, dict):
            raise LayoutChanged("a pin that is not a JSON object", url)
        sizes_by_image, reason = image_sizes(record, url)
        photos = tuple(dict.fromkeys(_photos(sizes_by_image)))
        if photos and reason is None:
            post = _post(record, photos, url)
            posts[post.site_id] = post
        else:
            skipped[reason or NO_PHOTO_URL] += 1
    if skipped[NO_PHOTO_URL] and not posts:
        raise LayoutChanged("no pin has a photo URL", url)
    return tuple(posts.values()), skipped


def _partner_image_sizes(record: dict[str, Any], url: str) -> tuple[list[Any], str | None]:
    """Return the images of a pin of the partner search.

    Returns:
        For each image its sizes by name; and the reason to skip the pin, or None.
    """
    media = record.get("media", {})
    media_type = clean_text(get_nested(media, "media_type"))
    if media is None:
        return [], NO_PHOTO_URL
    if media_type is None:
        raise LayoutChanged("a pin without the type of its media", url)
    if "video" in media_type:
        return [], VIDEOS
    items = json_objects(get_nested(media, "items"))
    if not items:
        return [get_nested(media, "images")], None
    sizes_by_image = [
        item.get("images")
        for item in items
        if "video" not in (clean_text(item.get("item_type")) or "")
    ]
    return sizes_by_image, None if sizes_by_image else VIDEOS


def _web_image_sizes(record: dict[str, Any], url: str) -> tuple[list[Any], str | None]:
    """Return the images of a pin of the web search, as `_partner_image_sizes` does."""
    videos = record.get("videos")
    if videos is not None and not isinstance(videos, dict):
        raise LayoutChanged("a pin with an invalid list of videos", url)
    if videos:
        return [], VIDEOS
    slots = json_objects(get_nested(record, "carousel_data", "carousel_slots"))
    if not slots and record.get("images") is None and record.get("type", "pin") != "pin":
        return [], NO_PIN
    return [slot.get("images") for slot in slots] or [record.get("images")], None


def _photos(sizes_by_image: list[Any]) -> Iterator[Photo]:
    """Yield a photo per image: the URL of its largest size, with smaller ones as fallbacks.

    Args:
        sizes_by_image: For each image its sizes by name.
    """
    for sizes_by_name in sizes_by_image:
        named_sizes = sizes_by_name.items() if isinstance(sizes_by_name, dict) else ()
        sizes = [(name, size) for name, size in named_sizes if http_url(get_nested(size, "url"))]
        sizes.sort(key=lambda named_size: _size_rank(*named_size))
        uncropped = [
            (name, size)
            for name, size in sizes
            if name in ORIGINAL_SIZES or UNCROPPED_SIZE.fullmatch(name)
        ]
        urls = [size["url"] for _, size in uncropped or sizes]
        if urls and not any(name in ORIGINAL_SIZES for name, _ in uncropped):
            urls.insert(0, SIZED_URL.sub(r"\1/originals\2", urls[0]))
        if urls:
            largest, *fallbacks = dict.fromkeys(urls)
            yield Photo(largest, tuple(fallbacks))


def _size_rank(name: str, size: dict[str, Any]) -> tuple[bool, int]:
    """Return a sort key: the original first, then by decreasing width."""
    return name not in ORIGINAL_SIZES, -(parse_count(size.get("width")) or 0)


def _post(record: dict[str, Any], photos: tuple[Photo, ...], url: str) -> Post:
    site_id = record.get("id")
    if not isinstance(site_id, str) or not re.fullmatch(r"[\w-]{1,100}", site_id, re.ASCII):
        raise LayoutChanged("a pin without an id", url)
    texts = [
        clean_text(record.get(name)) for name in ("title", "grid_title", "description", "alt_text")
    ]
    owners = (get_nested(record, name, "username") for name in ("board_owner", "pinner"))
    return Post(
        site_id=site_id,
        url=f"https://www.pinterest.com/pin/{site_id}/",
        photos=photos,
        title=next(filter(None, texts), None),
        author=next(filter(None, map(clean_text, owners)), None),
        posted=parse_datetime(record.get("created_at")),
        hashtags=find_hashtags("\n".join(filter(None, texts))),
        record=record,
    )
