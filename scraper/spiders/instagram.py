"""Spider of Instagram: the hashtag search of the official Graph API.

Documentation, as of 2026:
https://developers.facebook.com/docs/instagram-platform/instagram-api-with-facebook-login/hashtag-search

A search has three steps: the id of the hashtag, its media of the last 24 hours (`recent_media`),
and its most popular media (`top_media`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from scrapy import Request
from scrapy.http import Response

from scraper.credentials import Credential
from scraper.errors import LayoutChanged, SiteRefused
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    WAIT_MINUTES_KEY,
    clean_text,
    get_nested,
    http_url,
    json_object,
    json_object_or_empty,
    json_objects,
    parse_count,
    parse_datetime,
    parse_json,
)
from scraper.parsing.hashtags import find_hashtags, to_hashtag, unique_hashtags
from scraper.spiders.base import Access, Check, HashtagSpider, Page, Photo, Post, SiteOption

MEDIA_FIELDS = (
    "id,media_type,media_url,permalink,caption,timestamp,like_count,comments_count,"
    "children{id,media_type,media_url}"
)
# The edges of a hashtag that list its media, in the order in which they are read.
EDGES = ("recent_media", "top_media")
MEDIA_PER_PAGE = 50
# Path of a page of media in a cursor, with its limit if it is smaller, and its position.
PAGE_CURSOR = re.compile(r"(?P<path>[^?]+)\??(?:limit=(?P<limit>\d+)&?)?(?:after=(?P<after>.*))?")
NO_SUCH_HASHTAG_CODE = 24
HIDDEN_MEDIA = "no photo URL (copyright or age limit)"
# More hidden media on a page without a single photo are a change of the layout.
MAX_HIDDEN_MEDIA_PER_PAGE = 5
VIDEO_TYPES = ("VIDEO", "REELS")
# Code of an error -> its meaning and the remedy.
ERROR_MEANINGS = {
    190: "the token is expired or wrong: make a new one and set INSTAGRAM_TOKEN",
    10: "the app lacks a permission: it needs instagram_basic and Instagram Public Content Access",
    200: "the app lacks a permission: it needs instagram_basic and Instagram Public Content Access",
    18: (
        "this account has searched for 30 different hashtags in 7 days: wait, or search for one"
        " of those"
    ),
    100: "a parameter is wrong: is INSTAGRAM_USER the id of a business or creator account?",
}
RATE_LIMIT_CODES = (4, 17, 32, 613)
# Code and message of the error for a page that takes the API too long.
TOO_MUCH_DATA_CODE, TOO_MUCH_DATA = 1, "reduce the amount of data"
USAGE_HEADER = "x-business-use-case-usage"


class Spider(HashtagSpider):
    """Searches Instagram for the recent and top media of a hashtag."""

    name = "instagram"
    title = "Instagram"
    access = Access.APPROVAL
    needs = "a business or creator account, an app with Public Content Access, and a token"
    limits_text = "30 different hashtags in 7 days; photos of the last 24 hours, and top photos"
    checked = "2026-11"
    site_url = "https://graph.facebook.com"
    image_url = "https://scontent.cdninstagram.com"
    credentials = (
        Credential("INSTAGRAM_TOKEN", "a user access token of your app"),
        Credential("INSTAGRAM_USER", "the id of your business or creator account"),
    )
    site_options: ClassVar[Mapping[str, SiteOption]] = {
        "api-version": SiteOption("v25.0", "version of the Graph API"),
        "media": SiteOption("both", "which photos of a hashtag", ("both", "recent", "top")),
    }
    renews = True
    weekly_hashtags = 30

    def queries(self, words: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """Return one search per hashtag: "polo shirt" and "poloshirt" give the same one."""
        return [(word,) for word in unique_hashtags(words)]

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of the id of a hashtag or of a page of its media.

        Args:
            query: The word.
            cursor: None for the id of the hashtag; the id for the first page of its media;
                else the path of a page, with its `limit` and `after` parameters.

        Raises:
            SiteRefused: The word has no character that a hashtag can have.
        """
        if cursor is None:
            hashtag = to_hashtag(query)
            if not hashtag:
                raise SiteRefused(f"{query!r} has no letter or digit to make a hashtag of")
            return self._api_request("ig_hashtag_search", user_id=self._user_id(), q=hashtag)
        if cursor.isdecimal():
            cursor += "/top_media" if self.chosen["media"] == "top" else "/recent_media"
        match = PAGE_CURSOR.fullmatch(cursor)
        path, limit, after = match.groups() if match else (cursor, None, None)
        return self._api_request(
            path,
            user_id=self._user_id(),
            fields=MEDIA_FIELDS,
            limit=limit or str(MEDIA_PER_PAGE),
            **({"after": after} if after else {}),
        )

    def _user_id(self) -> str:
        return self.secrets.get("INSTAGRAM_USER", "0")

    def _api_request(self, path: str, **parameters: str) -> Request:
        # The token is in a header, because proxies and servers log URLs.
        headers = {"Authorization": f"Bearer {self.secrets.get('INSTAGRAM_TOKEN', '')}"}
        version = self.chosen["api-version"]
        return Request(
            f"{self.requested_url}/{version}/{path}?{urlencode(parameters)}", headers=headers
        )

    def read(self, body: bytes, url: str) -> Page:
        """Parse a response; with `--set media=recent`, the top media do not follow."""
        page = read(body, url)
        if self.chosen["media"] == "recent" and (page.next_cursor or "").endswith("/top_media"):
            return page.as_last()
        return page

    def is_readable(self, response: Response) -> bool:
        """Return whether `read` can read a response.

        A hashtag without posts gives an error, and so does a page of too many posts.
        """
        error = _error(response.body)
        is_too_large = _is_too_much_data(error) and (_page_limit(response.url) or 0) > 1
        return response.status == 200 or error.get("code") == NO_SUCH_HASHTAG_CODE or is_too_large

    def explain_refusal(self, response: Response) -> str | None:
        """Return the meaning of an error, and how long a rate limit lasts if that is known."""
        error = _error(response.body)
        code, message = error.get("code"), clean_text(error.get("message")) or "no message"
        if code in RATE_LIMIT_CODES:
            minutes = _wait_minutes(unicode_headers(response))
            when = f"in about {minutes} minutes" if minutes else "in an hour"
            return f"Instagram's rate limit is reached (code {code}); continue {when}"
        if isinstance(code, int) and code in ERROR_MEANINGS:
            return f"{ERROR_MEANINGS[code]} (code {code}: {message})"
        if _is_too_much_data(error):
            return (
                f"Instagram can't send even a single post of this list (code {code}: {message}):"
                " try again later"
            )
        return f"Instagram reports: {message} (code {code})" if error else None

    def post_request(self, site_id: str) -> Request | None:
        """Return the request of a single media object."""
        return self._api_request(site_id, fields=MEDIA_FIELDS)

    def checks(self) -> Sequence[Check]:
        """Return requests for the account and the hashtags that it has searched this week."""
        user_id = self._user_id()
        hashtags = self._api_request(
            f"{user_id}/recently_searched_hashtags", fields="id,name", limit="30"
        )
        return (
            Check("account", self._api_request(user_id, fields="username"), _describe_account),
            Check("hashtags of the last 7 days", hashtags, _describe_hashtags),
        )


def _describe_account(body: bytes) -> str:
    return f"@{clean_text(json_object(body, 'the account').get('username')) or 'unnamed'}"


def _describe_hashtags(body: bytes) -> str:
    hashtags = json_objects(json_object(body, "the week's hashtags").get("data"))
    names = ", ".join(name for hashtag in hashtags if (name := clean_text(hashtag.get("name"))))
    return f"{len(hashtags)} of {Spider.weekly_hashtags}" + (f" ({names})" if names else "")


def _error(body: bytes) -> dict[str, Any]:
    error = json_object_or_empty(body).get("error")
    return error if isinstance(error, dict) else {}


def _is_too_much_data(error: Mapping[str, Any]) -> bool:
    message = clean_text(error.get("message")) or ""
    return error.get("code") == TOO_MUCH_DATA_CODE and TOO_MUCH_DATA in message.lower()


def _wait_minutes(headers: Mapping[str, str]) -> int | None:
    """Return the longest time until access is regained; None if the headers have none."""
    try:
        usage = parse_json(headers.get(USAGE_HEADER, "{}"))
    except (ValueError, RecursionError):
        return None
    accounts = usage.values() if isinstance(usage, dict) else ()
    limits = [limit for account in accounts for limit in json_objects(account)]
    waits = [parse_count(limit.get(WAIT_MINUTES_KEY)) or 0 for limit in limits]
    return max(waits, default=0) or None


def read(body: bytes, url: str) -> Page:
    """Parse the id of a hashtag, a page of media, or a single media object.

    Returns:
        The posts; for a hashtag, no posts and its id as the cursor; for a page that has too many
        posts, none and a cursor with half the limit.

    Raises:
        LayoutChanged: It is none of these.
    """
    response = json_object(body, url)
    if get_nested(response, "error", "code") == NO_SUCH_HASHTAG_CODE:
        return Page((), None, 0)
    limit = _page_limit(url)
    if _is_too_much_data(_error(body)) and limit is not None and limit > 1:
        return Page((), _page_cursor(url, limit // 2, _parameter(url, "after")), is_lookup=True)
    if "media_type" in response:
        return _parse_media([response], url)
    data = response.get("data")
    if not isinstance(data, list):
        raise LayoutChanged("neither media nor a hashtag in Instagram's response", url)
    is_hashtag_search = urlsplit(url).path.endswith("/ig_hashtag_search")
    has_only_ids = all(isinstance(entry, dict) and set(entry) == {"id"} for entry in data)
    if is_hashtag_search and data and has_only_ids:
        hashtag_id = _parse_id(data[0], url)
        return Page((), hashtag_id, later_cursor=hashtag_id)
    page = _parse_media(data, url)
    return Page(page.posts, _next_cursor(response, url), None, None, page.skipped)


def _parse_media(records: list[Any], url: str) -> Page:
    posts, skipped = [], dict[str, int]()
    for record in records:
        if not isinstance(record, dict) or not clean_text(record.get("media_type")):
            raise LayoutChanged(f"a media object without a type: {str(record)[:80]}", url)
        photos = tuple(_photos(record, url))
        if photos:
            posts.append(_post(record, photos, url))
        else:
            is_video = all(item.get("media_type") in VIDEO_TYPES for item in _album_items(record))
            reason = "videos" if is_video else HIDDEN_MEDIA
            skipped[reason] = skipped.get(reason, 0) + 1
    if not posts and skipped.get(HIDDEN_MEDIA, 0) > MAX_HIDDEN_MEDIA_PER_PAGE:
        raise LayoutChanged("no media object has a photo URL", url)
    unique_posts = {post.site_id: post for post in posts}
    return Page(tuple(unique_posts.values()), skipped=skipped)


def _post(record: dict[str, Any], photos: tuple[Photo, ...], url: str) -> Post:
    media_id, caption = _parse_id(record, url), record.get("caption")
    return Post(
        site_id=media_id,
        url=http_url(record.get("permalink")) or f"https://www.instagram.com/p/{media_id}/",
        photos=photos,
        title=clean_text(caption),
        posted=parse_datetime(record.get("timestamp")),
        hashtags=find_hashtags(caption if isinstance(caption, str) else None),
        record=record,
    )


def _photos(record: dict[str, Any], url: str) -> Iterator[Photo]:
    """Yield the photo of a post, or the photos of an album."""
    keys = set()
    for item in _album_items(record):
        photo_url = http_url(item.get("media_url"))
        if item.get("media_type") == "IMAGE" and photo_url:
            key = _parse_id(item, url)
            if key not in keys:
                keys.add(key)
                yield Photo(photo_url, key=key)


def _album_items(record: dict[str, Any]) -> list[dict[str, Any]]:
    return json_objects(get_nested(record, "children", "data")) or [record]


def _parse_id(record: dict[str, Any], url: str) -> str:
    value = record.get("id")
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,30}(_[0-9]{1,30})?", value):
        raise LayoutChanged(f"a media object or hashtag without an id: {str(record)[:80]}", url)
    return value


def _parameter(url: str, name: str) -> str | None:
    return dict(parse_qsl(urlsplit(url).query)).get(name)


def _page_limit(url: str) -> int | None:
    """Return how many posts a page of media has at most; None if a URL requests something else."""
    if _edge(url) is None:
        return None
    return parse_count(_parameter(url, "limit")) or MEDIA_PER_PAGE


def _edge(url: str) -> tuple[str, str] | None:
    """Return the id of a hashtag and the name of its edge that a URL requests."""
    parts = urlsplit(url).path.strip("/").split("/")
    is_edge = len(parts) >= 2 and parts[-1] in EDGES and parts[-2].isdecimal()
    return (parts[-2], parts[-1]) if is_edge else None


def _page_cursor(url: str, limit: int, after: str | None) -> str:
    """Return the cursor of a page of the edge that a URL requests."""
    hashtag_id, edge = _edge(url) or ("", "")
    parameters = [f"limit={limit}"] if limit < MEDIA_PER_PAGE else []
    parameters += [f"after={after}"] if after else []
    return f"{hashtag_id}/{edge}?{'&'.join(parameters)}"


def _next_cursor(response: dict[str, Any], url: str) -> str | None:
    """Return the cursor of the next page of an edge, or of the first page of the next edge."""
    edge, limit = _edge(url), _page_limit(url)
    if edge is None or limit is None:
        return None
    next_url, after = clean_text(get_nested(response, "paging", "next")), None
    if next_url:
        after = clean_text(get_nested(response, "paging", "cursors", "after"))
        after = after or _parameter(next_url, "after")
    if after:
        return _page_cursor(url, limit, after)
    return f"{edge[0]}/top_media" if edge[1] == "recent_media" else None
