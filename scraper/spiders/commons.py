"""Spider of Wikimedia Commons: its API, without a key; each photo with license and author.

https://commons.wikimedia.org/wiki/Commons:API, https://www.mediawiki.org/wiki/API:Etiquette. The
formats are those observed from 2019 to 2026.
"""

import re
from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiohttp
from scrapy import Request
from scrapy.http import Response

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
    license_code,
    license_url,
    parse_count,
    parse_datetime,
)
from scraper.spiders.base import Access, Credit, HashtagSpider, Page, Photo, Post, SiteOption

FILES_PER_PAGE = 50
ETIQUETTE = "https://www.mediawiki.org/wiki/API:Etiquette"
# The metadata of a file that the spider reads.
METADATA = (
    *("Artist", "Attribution", "AttributionRequired", "Categories", "Credit", "DateTimeOriginal"),
    *("ImageDescription", "License", "LicenseShortName", "LicenseUrl", "Permission"),
    *("Restrictions", "UsageTerms"),
)
MIME_TYPES = ("image/jpeg", "image/png", "image/webp")
# Categories that describe the file, and not what it shows.
MAINTENANCE = re.compile(
    r"^(?:Files|Media|Pages|Images|Photographs taken|Uploaded|Self-published|Taken with|License|CC-"
    r"|PD\b|GFDL|All |Artworks with|Items with|Quality images|Valued images|Flickr)|"
    r"(?:needing|missing|review|without|wikidata)",
    re.IGNORECASE,
)
NO_PHOTO = "no photo"


class Spider(HashtagSpider):
    """Searches Wikimedia Commons, or reads a category."""

    name = "commons"
    title = "Wikimedia Commons"
    access = Access.CONTACT
    needs = "a contact (--contact), and your consent to its API etiquette (--set api-terms=accept)"
    limits_text = "50 files per page, one request at a time, fewer than 5 per second"
    checked = "2026-11"
    site_url = "https://commons.wikimedia.org"
    image_url = "https://upload.wikimedia.org"
    needs_contact = True
    request_interval = 0.25
    # The rule for clients without a login.
    custom_settings: ClassVar = {"CONCURRENT_REQUESTS_PER_DOMAIN": 1}
    robots_txt_remedy = (
        "the robots.txt of Commons forbids crawlers of pages its API, which programs may use under"
        f" its etiquette ({ETIQUETTE}): read it, and add --set api-terms=accept"
    )
    site_options: ClassVar = {
        "search": SiteOption(
            "text", "files with the word in their texts, or of the category", ("text", "category")
        ),
        "photo-size": SiteOption(
            "1920", "width of the photos", ("960", "1280", "1920", "3840", "original")
        ),
        "api-terms": SiteOption(
            "robots-txt",
            f"accept: use the API by its etiquette ({ETIQUETTE}), although robots.txt forbids it to"
            " crawlers of pages",
            ("robots-txt", "accept"),
        ),
    }

    @classmethod
    def format_user_agent(cls, contact: str | None) -> str:
        """Return the user agent with the library of the requests, as Wikimedia asks for it.

        https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy
        """
        return f"{super().format_user_agent(contact)} aiohttp/{aiohttp.__version__}"

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page; a cursor has the parameters that continue a search."""
        parameters = {
            **{"action": "query", "format": "json", "formatversion": "2", "maxlag": "5"},
            **self._generator(query),
            "prop": "imageinfo",
            "iiprop": "url|size|mime|sha1|timestamp|user|extmetadata",
            "iiextmetadatafilter": "|".join(METADATA),
        }
        if (width := self.chosen["photo-size"]) != "original":
            parameters["iiurlwidth"] = width
        parameters |= dict(parse_qsl(cursor or ""))
        url = f"{self.requested_url}/w/api.php?{urlencode(parameters)}"
        accepts_terms = self.chosen["api-terms"] == "accept"
        return Request(url, meta={ACCEPTS_API_TERMS: True} if accepts_terms else None)

    def _generator(self, query: str) -> dict[str, str]:
        """Return the parameters that select the files."""
        if self.chosen["search"] == "category":
            return {
                "generator": "categorymembers",
                "gcmtitle": f"Category:{query[:1].upper()}{query[1:]}",
                "gcmtype": "file",
                "gcmlimit": str(FILES_PER_PAGE),
            }
        phrase = query.replace('"', " ").replace("\\", " ")
        return {
            "generator": "search",
            "gsrnamespace": "6",
            "gsrsearch": f'filetype:bitmap "{phrase}"',
            "gsrlimit": str(FILES_PER_PAGE),
        }

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; see the function `read`."""
        return read(body, url)

    def explain_refusal(self, response: Response) -> str | None:
        """Return which rule of the site a request broke."""
        if response.status == 403:
            return (
                "Wikimedia refuses the user agent or this network address (HTTP 403): name yourself"
                " with --contact"
            )
        if response.status == 429:
            when = format_retry_after(unicode_headers(response))
            return f"the rate limit of Wikimedia is reached (HTTP 429); continue {when}"
        return None


def read(body: bytes, url: str) -> Page:
    """Parse the files of a page and the parameters that continue the search.

    The metadata of some files may come with a later page, which then lists these files again.

    Raises:
        LayoutChanged: It has neither files nor a report that there are none.
        TemporarilyEmpty: The servers are too busy.
        SiteRefused: The API reports another error.
    """
    response = json_object(body, url)
    _check_error(response)
    pages = get_nested(response, "query", "pages")
    # formatversion 1 has an object, by page id.
    records = list(pages.values()) if isinstance(pages, dict) else pages
    is_complete = "batchcomplete" in response
    following = response.get("continue")
    if records is None and (is_complete or isinstance(following, dict)) and "query" not in response:
        return Page((), _cursor(following))
    if not isinstance(records, list) or not records:
        raise LayoutChanged("neither files nor the end of a search in the response", url)
    check_count(records, url)
    posts: dict[str, Post] = {}
    skipped = 0
    for record in records:
        info = get_nested(record, "imageinfo", 0)
        page_id = parse_count(get_nested(record, "pageid"))
        if page_id is None or not isinstance(record, dict):
            raise LayoutChanged(f"a file without an id: {str(record)[:80]}", url)
        if isinstance(info, dict):
            post = _post(record, info, page_id, url)
            if post.photos:
                posts[post.site_id] = post
            else:
                skipped += 1
    if not posts and not skipped and not isinstance(following, dict):
        raise LayoutChanged(f"none of {len(records)} files has the information of an image", url)
    return Page(
        tuple(posts.values()), _cursor(following), skipped={NO_PHOTO: skipped} if skipped else {}
    )


def _check_error(response: dict[str, Any]) -> None:
    """Raise the error that the API reports with HTTP 200.

    Raises:
        TemporarilyEmpty: The servers are too busy.
        SiteRefused: It is another error.
    """
    error = response.get("error")
    code, info = (clean_text(get_nested(error, name)) for name in ("code", "info"))
    if code in ("maxlag", "ratelimited", "readonly"):
        raise TemporarilyEmpty(f"Wikimedia Commons is busy ({code}: {info})")
    if code:
        raise SiteRefused(f"Wikimedia Commons reports an error ({code}: {info})")


def _cursor(following: object) -> str | None:
    """Return the cursor with the whole object that continues a search."""
    if not isinstance(following, dict):
        return None
    values = {name: str(value) for name, value in following.items() if isinstance(value, str | int)}
    return urlencode(values) or None


def _post(record: dict[str, Any], info: dict[str, Any], page_id: int, url: str) -> Post:
    title = clean_text(record.get("title")) or ""
    page = absolute_url(info.get("descriptionurl"), url)
    page = page or f"https://commons.wikimedia.org/?curid={page_id}"
    name = re.sub(r"^[^:]+:|\.\w{3,4}$", "", title)
    return Post(
        site_id=str(page_id),
        url=page,
        photos=tuple(_photos(info, page_id, page)),
        title=clean_text(name),
        author=_value(info, "Artist"),
        posted=parse_datetime(info.get("timestamp")),
        attributes=tuple(_categories(info)),
        record=record,
    )


def _value(info: dict[str, Any], name: str) -> str | None:
    """Return the text of a metadata field, whose value is HTML."""
    value = get_nested(info, "extmetadata", name, "value")
    return html_text(value)


def _categories(info: dict[str, Any]) -> Iterator[str]:
    names = (_value(info, "Categories") or "").split("|")
    yield from (name for name in dict.fromkeys(names) if name and not MAINTENANCE.search(name))


def _photos(info: dict[str, Any], page_id: int, page: str) -> Iterator[Photo]:
    original = absolute_url(info.get("url"), page)
    mime = info.get("mime")
    suffix = urlsplit(original or "").path.lower().rpartition(".")[2]
    is_photo = mime in MIME_TYPES if mime else suffix in ("jpg", "jpeg", "png", "webp")
    if original is None or not is_photo:
        return
    scaled = _without_query(absolute_url(info.get("thumburl"), page) or original)
    fallbacks = (original,) if scaled != original else ()
    credit = Credit(
        license=license_code(_value(info, "License"))
        or license_code(_value(info, "LicenseShortName")),
        license_url=license_url(_value(info, "LicenseUrl")),
        author=_value(info, "Artist"),
        attribution=_value(info, "Attribution"),
        source_page=page,
    )
    yield Photo(scaled, fallbacks, str(page_id), credit)


def _without_query(url: str) -> str:
    # Parameters of the kind utm_source count visits, and change.
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))
