"""Spider of Flickr: the search of its official API, with a free key; each photo with its license.

https://www.flickr.com/services/api/flickr.photos.search.html. The formats are those observed from
2020 to 2025.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar
from urllib.parse import quote

from scrapy import FormRequest
from scrapy.http import Response

from scraper.credentials import Credential
from scraper.errors import LayoutChanged, SiteRefused, TemporarilyEmpty
from scraper.middlewares import ACCEPTS_API_TERMS, unicode_headers
from scraper.parsing.fields import (
    absolute_url,
    check_count,
    clean_text,
    format_retry_after,
    get_nested,
    html_text,
    json_object,
    json_object_or_empty,
    json_objects,
    license_code,
    license_url,
    parse_count,
)
from scraper.parsing.hashtags import fragment_of, fragment_values, group_words, to_hashtag
from scraper.spiders.base import Access, Credit, HashtagSpider, Page, Photo, Post

PHOTOS_PER_PAGE = 500
# Different photos that a query shows; older ones need a query with an earlier date.
MAX_PHOTOS = 4_000
MAX_TAGS = 20
# Sizes of photos, the largest first.
SIZES = "okhlczm"
EXTRAS = (
    *("description", "license", "date_upload", "owner_name", "tags", "o_dims"),
    *(f"url_{size}" for size in SIZES),
)
NO_PHOTO, HIDDEN = "no photo URL (too small, or not allowed)", "not public"
CREATIVE_COMMONS = "https://creativecommons.org"
# Id of a license -> its code and URL, if the API does not list its licenses. Without 0: all rights
# reserved.
LICENSES: Mapping[str, tuple[str, str]] = {
    **{
        str(number): (code, f"{CREATIVE_COMMONS}/licenses/{code}/{version}/")
        for version, first in (("2.0", 1), ("4.0", 11))
        for number, code in enumerate(
            ("by-nc-sa", "by-nc", "by-nc-nd", "by", "by-sa", "by-nd")
            if first == 1
            else ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd"),
            first,
        )
    },
    "7": ("pdm", "https://www.flickr.com/commons/usage/"),
    "8": ("pdm", "http://www.usa.gov/copyright.shtml"),
    "9": ("cc0", f"{CREATIVE_COMMONS}/publicdomain/zero/1.0/"),
    "10": ("pdm", f"{CREATIVE_COMMONS}/publicdomain/mark/1.0/"),
}
OPEN_CODE = re.compile(r"cc0|pdm|by(?:-nc)?(?:-sa|-nd)?")
TEMPORARY_CODES = (10, 105, 201)
INVALID_KEY_CODE = 100


class Spider(HashtagSpider):
    """Searches Flickr for openly licensed photos with one of some tags."""

    name = "flickr"
    title = "Flickr"
    access = Access.KEY
    needs = "a free key for non-commercial use (https://www.flickr.com/services/apps/create/)"
    limits_text = "500 photos per page, 3,600 requests an hour; openly licensed photos only"
    checked = "2026-11"
    site_url = "https://api.flickr.com"
    image_url = "https://live.staticflickr.com"
    request_interval = 1.0
    credentials = (Credential("FLICKR_KEY", "the API key of your app"),)

    licenses: ClassVar[Mapping[str, tuple[str, str]]] = LICENSES

    def queries(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the words that one search has together; tags have no blanks."""
        unique = list({to_hashtag(word).lower(): word for word in reversed(words)}.values())
        return group_words(unique[::-1], lambda group: len(group) <= MAX_TAGS)

    def search_request(self, query: str, cursor: str | None) -> FormRequest:
        """Return the request of a page; a cursor is a fragment with page and latest upload."""
        position = fragment_values(cursor or "")
        page, latest = position.get("page", "1"), position.get("latest", "")
        ids = [
            number
            for number, (code, _) in self.licenses.items()
            if not self.limits.licenses or code in self.limits.licenses
        ]
        since = self.limits.since
        parameters = {
            "tags": ",".join(to_hashtag(word).lower() for word in query.split(" or ")),
            "tag_mode": "any",
            "license": ",".join(ids or self.licenses),
            **{"media": "photos", "content_types": "0", "safe_search": "1"},
            **{"extras": ",".join(EXTRAS), "sort": "date-posted-desc"},
            **{"per_page": str(PHOTOS_PER_PAGE), "page": page},
            **({"max_upload_date": latest} if latest else {}),
            **({"min_upload_date": str(_epoch(since))} if since else {}),
        }
        return self._request(
            "flickr.photos.search", fragment_of(query, page=page, latest=latest), **parameters
        )

    def _request(self, method: str, fragment: str = "", **parameters: str) -> FormRequest:
        # The key is in the body, because proxies and servers log URLs.
        form = {"method": method, "api_key": self.secrets.get("FLICKR_KEY", ""), **parameters}
        return FormRequest(
            f"{self.requested_url}/services/rest/{fragment}",
            formdata={**form, "format": "json", "nojsoncallback": "1"},
            # Whoever has a key has agreed to the terms of the API.
            meta={ACCEPTS_API_TERMS: True},
        )

    def setup_request(self) -> FormRequest:
        """Return the request of the licenses, whose ids photos have."""
        return self._request("flickr.photos.licenses.getInfo")

    def set_up(self, body: bytes, url: str = "") -> None:
        """Use the licenses of a response, without all rights reserved."""
        listed = json_objects(get_nested(json_object_or_empty(body), "licenses", "license"))
        found = {str(entry.get("id")): _license(entry) for entry in listed}
        self.licenses = {  # type: ignore[misc]
            number: license for number, license in found.items() if license is not None
        } or LICENSES

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page, with the licenses that the API lists."""
        return _read(body, url, self.licenses)

    def explain_refusal(self, response: Response) -> str | None:
        """Return how long a rate limit lasts."""
        if response.status != 429:
            return None
        when = format_retry_after(unicode_headers(response))
        return f"Flickr's rate limit is reached (HTTP 429); continue {when}"


def _license(entry: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the code and the URL of a license of the API; None if all rights are reserved."""
    number, url = str(entry.get("id")), license_url(entry.get("url"))
    if number in LICENSES:
        return LICENSES[number][0], url or LICENSES[number][1]
    code = license_code(entry.get("url"))
    return (code, url) if code and url and OPEN_CODE.fullmatch(code) else None


def _epoch(time: datetime) -> int:
    return int(time.replace(tzinfo=timezone.utc).timestamp())


def read(body: bytes, url: str) -> Page:
    """Parse the photos of a page, and the cursor of the next page.

    Raises:
        LayoutChanged: It has no list of photos.
        TemporarilyEmpty: The search is not available for now.
        SiteRefused: The API reports another error.
    """
    return _read(body, url, LICENSES)


def _read(body: bytes, url: str, licenses: Mapping[str, tuple[str, str]]) -> Page:
    # Seen in 2020: an error without the brackets of its object.
    is_fragment = body.lstrip().startswith(b'"stat"')
    response = json_object(b"{" + body + b"}" if is_fragment else body, url)
    _check_error(response)
    listed = response.get("photos")
    records, total = get_nested(listed, "photo"), parse_count(get_nested(listed, "total"))
    position = fragment_values(url)
    number = parse_count(position.get("page")) or 1
    is_first = number == 1 and not position.get("latest")
    if not isinstance(records, list) or (not records and is_first and total != 0):
        raise LayoutChanged("neither photos nor a report of none in the response", url)
    check_count(records, url)
    posts: dict[str, Post] = {}
    skipped = Counter[str]()
    for record in records:
        post = _post(record, url, licenses)
        if not post.photos:
            skipped[NO_PHOTO] += 1
        elif record.get("ispublic") in (0, "0"):
            skipped[HIDDEN] += 1
        else:
            posts[post.site_id] = post
    return Page(
        tuple(posts.values()),
        _next_cursor(listed, records, position) if records else None,
        total=total if is_first else None,
        skipped=dict(skipped),
        is_by_date=True,
    )


def _check_error(response: Mapping[str, Any]) -> None:
    """Raise the error that the API reports with HTTP 200.

    Raises:
        TemporarilyEmpty: The search is not available for now.
        SiteRefused: It is another error.
    """
    if response.get("stat") != "fail":
        return
    code, message = parse_count(response.get("code")), clean_text(response.get("message"))
    if code in TEMPORARY_CODES:
        raise TemporarilyEmpty(f"Flickr's search is not available (code {code}: {message})")
    if code == INVALID_KEY_CODE:
        raise SiteRefused(
            f"Flickr does not accept FLICKR_KEY (code {code}: {message}): copy it again"
        )
    raise SiteRefused(f"Flickr reports an error (code {code}: {message})")


def _next_cursor(listed: object, records: Sequence[Any], position: Mapping[str, str]) -> str | None:
    """Return the cursor of the next page, or of the first page of an earlier time."""
    number, latest = parse_count(position.get("page")) or 1, position.get("latest", "")
    pages = parse_count(get_nested(listed, "pages")) or 0
    if number >= pages:
        return None
    if (number + 1) * PHOTOS_PER_PAGE <= MAX_PHOTOS:
        return fragment_of("", page=str(number + 1), latest=latest)
    oldest = parse_count(get_nested(records[-1], "dateupload"))
    is_earlier = oldest is not None and (not latest or oldest < int(latest))
    return fragment_of("", page="1", latest=str(oldest)) if is_earlier else None


def _post(record: object, url: str, licenses: Mapping[str, tuple[str, str]]) -> Post:
    photo_id, owner = (clean_text(get_nested(record, name)) for name in ("id", "owner"))
    if not isinstance(record, dict) or not re.fullmatch(r"\d{1,20}", photo_id or "") or not owner:
        raise LayoutChanged(f"a photo without an id or owner: {str(record)[:80]}", url)
    page = f"https://www.flickr.com/photos/{quote(owner, safe='@')}/{photo_id}"
    author = html_text(record.get("ownername"))
    code, terms = licenses.get(str(record.get("license")), (None, None))
    credit = Credit(license=code, license_url=terms, author=author, source_page=page)
    seconds = parse_count(record.get("dateupload"))
    tags = record.get("tags")
    return Post(
        site_id=str(photo_id),
        url=page,
        photos=tuple(_photos(record, str(photo_id), credit)),
        title=html_text(record.get("title")),
        author=author,
        posted=_time(seconds),
        hashtags=tuple(dict.fromkeys(tags.split())) if isinstance(tags, str) else (),
        record=record,
    )


def _time(seconds: int | None) -> datetime | None:
    # The year 2100: later times are errors.
    if not seconds or seconds > 4_102_444_800:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)


def _photos(record: Mapping[str, Any], photo_id: str, credit: Credit) -> Iterator[Photo]:
    """Yield the photo in its largest size, with the smaller ones to try if there is none."""
    sizes = (absolute_url(record.get(f"url_{size}"), "https://flickr.com") for size in SIZES)
    urls = list(dict.fromkeys(url for url in sizes if url))
    if urls:
        yield Photo(urls[0], tuple(urls[1:]), photo_id, credit)
