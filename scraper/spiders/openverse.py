"""Spider of Openverse, which searches openly licensed photos in many archives.

https://api.openverse.org/v1/. It is for sets of hundreds of photos: its terms forbid to copy the
whole catalogue. The formats are those observed from 2022 to 2026.
"""

from collections.abc import Iterator
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from scrapy import FormRequest, Request
from scrapy.http import Response

from dataset.errors import BadInput
from scraper.credentials import VISIBLE_ASCII, Credential
from scraper.errors import LayoutChanged, SiteRefused
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
from scraper.spiders.base import Credit, HashtagSpider, Page, Photo, Post, SiteOption

# Without a key; results of a query in all, which a key without a grant shares.
RESULTS_PER_PAGE, MAX_RESULTS = 20, 240
# Requests per minute without and with a key.
ANONYMOUS_RATE, KEY_RATE = 20, 100
TOKEN, CLIENT_ID, CLIENT_SECRET = (
    *("OPENVERSE_TOKEN", "OPENVERSE_CLIENT_ID", "OPENVERSE_CLIENT_SECRET"),
)
MAX_QUERY_CHARS = 200
LICENSES = {
    *("cc0", "pdm", "by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd", "sampling+"),
}
FILE_TYPES = ("jpg", "jpeg", "png", "webp")
NO_PHOTO, MATURE = "no photo", "mature"
LIMIT_HEADERS = ("x-ratelimit-available-anon_burst", "x-ratelimit-available-anon_sustained")


class Spider(HashtagSpider):
    """Searches Openverse for photos with an open license."""

    name = "openverse"
    title = "Openverse"
    needs = "nothing; a free key allows more requests"
    limits_text = (
        "240 results per search; without a key 20 per request, 20 requests a minute, 200 a day;"
        " with one 240 per request, 100 requests a minute, 10,000 a day"
    )
    checked = "2026-11"
    site_url = "https://api.openverse.org"
    image_url = "https://live.staticflickr.com"
    request_interval = 60 / ANONYMOUS_RATE
    credentials = (
        Credential(
            CLIENT_ID, "client id of a free key (/v1/auth_tokens/register/)", required=False
        ),
        Credential(CLIENT_SECRET, "client secret of the key", required=False),
        Credential(
            TOKEN,
            "in place of both: access token of the key (/v1/auth_tokens/token/), which lasts ten"
            " hours",
            required=False,
        ),
    )
    site_options: ClassVar = {
        "search": SiteOption("text", "title, description and tags, or tags only", ("text", "tags")),
        "source": SiteOption("", "archives to search, such as flickr,wikimedia; empty: all"),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.secrets:
            self.request_interval = 60 / KEY_RATE

    def check_arguments(self) -> None:
        """Check that the key is complete.

        Raises:
            BadInput: The client id or the client secret is missing.
        """
        super().check_arguments()
        if TOKEN not in self.secrets and len(self.secrets) == 1:
            raise BadInput(f"Openverse: set both {CLIENT_ID} and {CLIENT_SECRET}, or none of them")

    def setup_request(self) -> Request | None:
        """Return the request of an access token by the client id and the client secret."""
        if TOKEN in self.secrets or CLIENT_ID not in self.secrets:
            return None
        return FormRequest(
            f"{self.requested_url}/v1/auth_tokens/token/",
            formdata={
                "grant_type": "client_credentials",
                "client_id": self.secrets[CLIENT_ID],
                "client_secret": self.secrets.get(CLIENT_SECRET, ""),
            },
            # Whoever has a key has agreed to the terms of the API.
            meta={ACCEPTS_API_TERMS: True},
        )

    def set_up(self, body: bytes, url: str = "") -> None:
        """Keep the access token, as a credential that is redacted."""
        token = clean_text(json_object_or_empty(body).get("access_token"))
        if token and VISIBLE_ASCII.fullmatch(token):
            self.secrets[TOKEN] = token

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page, by its number.

        Raises:
            SiteRefused: The API has given no token for the key.
        """
        token = self.secrets.get(TOKEN)
        if self.secrets and token is None:
            raise SiteRefused(
                f"Openverse gives no access token for {CLIENT_ID} and {CLIENT_SECRET}: check both,"
                " confirm the key by the link in its e-mail, or crawl without them"
            )
        text = query.replace('"', " ")[: MAX_QUERY_CHARS - 2]
        # Without quotation marks, a phrase matches any of its words.
        search = {"tags": query} if self.chosen["search"] == "tags" else {"q": f'"{text}"'}
        licenses = [code for code in self.limits.licenses if code in LICENSES]
        parameters = {
            **search,
            **({"license": ",".join(licenses)} if licenses else {}),
            **({"source": self.chosen["source"]} if self.chosen["source"] else {}),
            "page": cursor or "1",
            "page_size": str(MAX_RESULTS if token else RESULTS_PER_PAGE),
            "mature": "false",
        }
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Request(f"{self.requested_url}/v1/images/?{urlencode(parameters)}", headers=headers)

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; see the function `read`."""
        return read(body, url)

    def is_readable(self, response: Response) -> bool:
        """Return whether a response has results, or reports the end of those that are shown."""
        is_end = response.status in (400, 401) and _is_depth_error(
            json_object_or_empty(response.body)
        )
        return response.status == 200 or is_end

    def explain_refusal(self, response: Response) -> str | None:
        """Return what an error means, in the words of the API."""
        error, status = json_object_or_empty(response.body), response.status
        detail = clean_text(error.get("detail")) or ""
        if status == 429:
            when = format_retry_after(unicode_headers(response))
            return (
                f"Openverse's rate limit is reached (HTTP 429); continue {when}, or set"
                f" {CLIENT_ID} and {CLIENT_SECRET} for a higher limit"
            )
        if status in (401, 403) and TOKEN in self.secrets:
            return (
                f"Openverse does not accept the access token (HTTP {status}: {detail}): it lasts"
                f" ten hours; request a new {TOKEN}, or repeat the command with {CLIENT_ID} and"
                f" {CLIENT_SECRET}"
            )
        return f"Openverse refuses the request (HTTP {status}: {detail})" if detail else None

    def describe_remaining(self, response: Response) -> str | None:
        """Return how many requests are left without a key."""
        headers = unicode_headers(response)
        minute, day = (parse_count(headers.get(name, "").strip()) for name in LIMIT_HEADERS)
        if minute is None or day is None:
            return None
        return f"{minute} requests are left for this minute, {day} for this day"


def read(body: bytes, url: str) -> Page:
    """Parse the results of a page and the number of the next page.

    Raises:
        LayoutChanged: It has neither results nor a report that there are none.
    """
    response = json_object(body, url)
    if _is_depth_error(response):
        return Page(())
    records, count = response.get("results"), parse_count(response.get("result_count"))
    if (
        not isinstance(records, list)
        or count is None
        or (not records and count and _page(url) == 1)
    ):
        raise LayoutChanged("neither results nor a report of none in the response", url)
    check_count(records, url)
    posts: dict[str, Post] = {}
    skipped = {NO_PHOTO: 0, MATURE: 0}
    for record in records:
        post = _post(record, url)
        if record.get("mature") is True:
            skipped[MATURE] += 1
        elif not post.photos:
            skipped[NO_PHOTO] += 1
        else:
            posts[post.site_id] = post
    return Page(
        tuple(posts.values()),
        _next_cursor(response, url) if records else None,
        # At the limit, the number says nothing about the rest.
        total=count if count != MAX_RESULTS else None,
        skipped={reason: number for reason, number in skipped.items() if number},
    )


def _is_depth_error(response: dict[str, Any]) -> bool:
    return "pagination depth" in str(response.get("detail"))


def _page(url: str) -> int:
    return parse_count(dict(parse_qsl(urlsplit(url).query)).get("page")) or 1


def _next_cursor(response: dict[str, Any], url: str) -> str | None:
    page, pages = _page(url), parse_count(response.get("page_count"))
    size = parse_count(response.get("page_size")) or RESULTS_PER_PAGE
    # A key may be granted more results; otherwise an error ends the search.
    has_key = size > RESULTS_PER_PAGE
    is_last = not has_key and (page + 1) * size > MAX_RESULTS
    return None if is_last or (pages is not None and page >= pages) else str(page + 1)


def _post(record: object, url: str) -> Post:
    site_id = clean_text(get_nested(record, "id"))
    if not isinstance(record, dict) or site_id is None:
        raise LayoutChanged(f"a result without an id: {str(record)[:80]}", url)
    page = absolute_url(record.get("foreign_landing_url"), url)
    page = page or f"https://openverse.org/image/{site_id}"
    return Post(
        site_id=site_id,
        url=page,
        photos=tuple(_photos(record, page)),
        title=html_text(record.get("title")),
        author=html_text(record.get("creator")),
        # Tags of people; those of machines have an accuracy.
        hashtags=tuple(
            dict.fromkeys(
                name
                for tag in json_objects(record.get("tags"))
                if tag.get("accuracy") is None and (name := html_text(tag.get("name")))
            )
        ),
        attributes=tuple(filter(None, [clean_text(record.get("category"))])),
        record=record,
    )


def _photos(record: dict[str, Any], page: str) -> Iterator[Photo]:
    image_url = absolute_url(record.get("url"), page)
    file_type = record.get("filetype") or urlsplit(image_url or "").path.lower().rpartition(".")[2]
    # The URLs of some archives have no suffix.
    is_photo = file_type in FILE_TYPES or "/" in str(file_type) or not file_type
    if image_url is None or not is_photo:
        return
    thumbnail = absolute_url(record.get("thumbnail"), page)
    credit = Credit(
        license=license_code(record.get("license")),
        license_url=license_url(record.get("license_url")),
        author=html_text(record.get("creator")),
        attribution=html_text(record.get("attribution")),
        source_page=page,
    )
    yield Photo(image_url, (thumbnail,) if thumbnail else (), clean_text(record.get("id")), credit)
