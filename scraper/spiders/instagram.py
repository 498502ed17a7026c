"""Instagram: hashtag search of the official Graph API. Facts from its documentation, 2026.

https://developers.facebook.com/docs/instagram-platform/instagram-api-with-facebook-login/hashtag-search
A search goes in three steps: the hashtag's id, its media of the last 24 hours, its top media.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from scraper.credentials import Credential
from scraper.errors import LayoutChanged, SiteRefused
from scraper.hashtags import as_hashtag, hashtags_in, unlike
from scraper.reading import (
    inside,
    json_object,
    json_or_nothing,
    moment,
    objects,
    text,
    web_address,
)
from scraper.spiders.base import Answer, Ask, Check, HashtagSpider, Page, Photo, Post, Setting

FIELDS = (
    "id,media_type,media_url,permalink,caption,timestamp,like_count,comments_count,"
    "children{id,media_type,media_url}"
)
EDGES = ("recent_media", "top_media")
PER_PAGE = 50
NO_SUCH_HASHTAG = 24
HIDDEN_MEDIA = "no photo address (copyright or age limit)"
# More on a page, and no photo beside, are no accident.
MOST_HIDDEN = 5
FILMS = ("VIDEO", "REELS")
# What an error's code means, and what to do now.
MEANINGS = {
    190: "the token is expired or wrong: make a new one and set INSTAGRAM_TOKEN",
    10: "the app lacks a permission: it needs instagram_basic and Instagram Public Content Access",
    200: "the app lacks a permission: it needs instagram_basic and Instagram Public Content Access",
    18: "this account has asked for 30 different hashtags in 7 days: wait, or ask for one of those",
    100: "a parameter is wrong: is INSTAGRAM_USER the number of a business or creator account?",
}
TOO_MUCH = (4, 17, 32, 613)
WAIT = "estimated_time_to_regain_access"


class Spider(HashtagSpider):
    """Instagram's hashtag search, recent and top media."""

    title = "Instagram"
    needs = "a business or creator account, an app with Public Content Access, and a token"
    limits = "30 different hashtags in 7 days; photos of the last 24 hours, and top photos"
    checked = "2026-11"
    site_url = "https://graph.facebook.com"
    image_url = "https://scontent.cdninstagram.com"
    credentials = (
        Credential("INSTAGRAM_TOKEN", "a user access token of your app"),
        Credential("INSTAGRAM_USER", "the number of your business or creator account"),
    )
    settings: ClassVar[Mapping[str, Setting]] = {
        "api-version": Setting("v25.0", "the version of the Graph API"),
        "media": Setting("both", "which photos of a hashtag", ("both", "recent", "top")),
    }
    renews = True
    weekly_hashtags = 30

    def queries(self, words: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """Each hashtag once: "polo shirt" and "poloshirt" are the same here."""
        return [(word,) for word in unlike(words)]

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """The hashtag's id; with its number as CURSOR its first photos, else the page CURSOR is.

        Raises:
            SiteRefused: QUERY has nothing that a hashtag can hold.
        """
        if cursor is None:
            tag = as_hashtag(query)
            if not tag:
                raise SiteRefused(f"{query!r} has no letter or digit to make a hashtag of")
            return self._ask("ig_hashtag_search", user_id=self._user(), q=tag)
        if cursor.isdecimal():
            cursor += "/top_media" if self.chosen["media"] == "top" else "/recent_media"
        path, _, after = cursor.partition("?after=")
        more = {"after": after} if after else {}
        return self._ask(path, user_id=self._user(), fields=FIELDS, limit=str(PER_PAGE), **more)

    def _user(self) -> str:
        return self.secrets.get("INSTAGRAM_USER", "0")

    def _ask(self, path: str, **query: str) -> Ask:
        # In a header: what stands in an address is logged by everybody on the way.
        headers = {"Authorization": f"Bearer {self.secrets.get('INSTAGRAM_TOKEN', '')}"}
        version = self.chosen["api-version"]
        return Ask(f"{self.asked_url}/{version}/{path}?{urlencode(query)}", headers)

    def read(self, body: bytes, url: str) -> Page:
        """See the function `read`; with `--set media=recent` the top media are left out."""
        page = read(body, url)
        if self.chosen["media"] == "recent" and (page.next_cursor or "").endswith("/top_media"):
            return Page(page.posts, None, page.total, page.later_cursor, page.skipped)
        return page

    def readable(self, answer: Answer) -> bool:
        """A hashtag that nobody has used is an error to the API, and an empty page to us."""
        return answer.status == 200 or _error(answer.body).get("code") == NO_SUCH_HASHTAG

    def refusal(self, answer: Answer) -> str | None:
        """The error's meaning, and how long a limit lasts where the answer says it."""
        error = _error(answer.body)
        code, said = error.get("code"), text(error.get("message")) or "no message"
        if code in TOO_MUCH:
            wait = _minutes(answer.headers)
            when = f"in about {wait} minutes" if wait else "in an hour"
            return f"Instagram's rate limit is reached (code {code}); continue {when}"
        if code in MEANINGS:
            return f"{MEANINGS[code]} (code {code}: {said})"
        return f"Instagram says: {said} (code {code})" if error else None

    def post_request(self, site_id: str) -> Ask | None:
        """One post's fields again."""
        return self._ask(site_id, fields=FIELDS)

    def checks(self) -> Sequence[Check]:
        """Whose account it is, and which hashtags of the week are used up."""
        user = self._user()
        asked = self._ask(f"{user}/recently_searched_hashtags", fields="id,name", limit="30")
        return (
            Check("account", self._ask(user, fields="username"), _say_account),
            Check("hashtags of the last 7 days", asked, _say_hashtags),
        )


def _say_account(body: bytes) -> str:
    return f"@{text(json_object(body, 'the account').get('username')) or 'unnamed'}"


def _say_hashtags(body: bytes) -> str:
    found = objects(json_object(body, "the week's hashtags").get("data"))
    names = ", ".join(name for one in found if (name := text(one.get("name"))))
    return f"{len(found)} of {Spider.weekly_hashtags}" + (f" ({names})" if names else "")


def _error(body: bytes) -> dict[str, Any]:
    error = json_or_nothing(body).get("error")
    return error if isinstance(error, dict) else {}


def _minutes(headers: Mapping[str, str]) -> int | None:
    """The longest time to regain access that the usage header speaks of."""
    try:
        usage = json.loads(headers.get("x-business-use-case-usage", "{}"))
    except (ValueError, RecursionError):
        return None
    parts = usage.values() if isinstance(usage, dict) else ()
    each = [one for part in parts for one in objects(part)]
    waits = [wait for one in each if isinstance(wait := one.get(WAIT), int)]
    return max(waits, default=0) or None


def read(body: bytes, url: str) -> Page:
    """The hashtag's id as a cursor, a page of media, or one media again.

    Raises:
        LayoutChanged: it is none of these.
    """
    answer = json_object(body, url)
    if inside(answer, "error", "code") == NO_SUCH_HASHTAG:
        return Page((), None, 0)
    if "media_type" in answer:
        return _page([answer], url)
    data = answer.get("data")
    if not isinstance(data, list):
        raise LayoutChanged("neither media nor a hashtag in Instagram's answer", url)
    searched = urlsplit(url).path.endswith("/ig_hashtag_search")
    if searched and data and all(isinstance(one, dict) and set(one) == {"id"} for one in data):
        number = _number(data[0], url)
        return Page((), number, later_cursor=number)
    page = _page(data, url)
    return Page(page.posts, _next_cursor(answer, url), None, None, page.skipped)


def _page(records: list[Any], url: str) -> Page:
    posts, skipped = [], dict[str, int]()
    for record in records:
        if not isinstance(record, dict) or not text(record.get("media_type")):
            raise LayoutChanged(f"a media without its type: {str(record)[:80]}", url)
        photos = tuple(_photos(record, url))
        if photos:
            posts.append(_post(record, photos, url))
        else:
            films = all(one.get("media_type") in FILMS for one in _parts(record))
            reason = "videos" if films else HIDDEN_MEDIA
            skipped[reason] = skipped.get(reason, 0) + 1
    if not posts and skipped.get(HIDDEN_MEDIA, 0) > MOST_HIDDEN:
        raise LayoutChanged("no photo's address in any media", url)
    unlike = {post.site_id: post for post in posts}
    return Page(tuple(unlike.values()), skipped=skipped)


def _post(record: dict[str, Any], photos: tuple[Photo, ...], url: str) -> Post:
    number, caption = _number(record, url), record.get("caption")
    return Post(
        site_id=number,
        url=web_address(record.get("permalink")) or f"https://www.instagram.com/p/{number}/",
        photos=photos,
        title=text(caption),
        posted=moment(record.get("timestamp")),
        hashtags=hashtags_in(caption if isinstance(caption, str) else None),
        record=record,
    )


def _photos(record: dict[str, Any], url: str) -> Iterator[Photo]:
    """The post's own photo, or those of an album's children."""
    seen = set()
    for one in _parts(record):
        address = web_address(one.get("media_url"))
        if one.get("media_type") == "IMAGE" and address:
            key = _number(one, url)
            if key not in seen:
                seen.add(key)
                yield Photo(address, key=key)


def _parts(record: dict[str, Any]) -> list[dict[str, Any]]:
    return objects(inside(record, "children", "data")) or [record]


def _number(record: dict[str, Any], url: str) -> str:
    value = record.get("id")
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,30}(_[0-9]{1,30})?", value):
        raise LayoutChanged(f"a media or hashtag without its id: {str(record)[:80]}", url)
    return value


def _next_cursor(answer: dict[str, Any], url: str) -> str | None:
    """The next page of the same list, or the first of the next one."""
    parts = urlsplit(url).path.strip("/").split("/")
    if len(parts) < 2 or parts[-1] not in EDGES or not parts[-2].isdecimal():
        return None
    following, after = text(inside(answer, "paging", "next")), None
    if following:
        after = text(inside(answer, "paging", "cursors", "after"))
        after = after or dict(parse_qsl(urlsplit(following).query)).get("after")
    if after:
        return f"{parts[-2]}/{parts[-1]}?after={after}"
    return f"{parts[-2]}/top_media" if parts[-1] == "recent_media" else None
