"""Pinterest: partner search of the official API v5, or the public web search where it is allowed.

https://developers.pinterest.com/docs/api/v5/search_partner_pins, 2026; the web search as other
tools use it, 2026: robots.txt decides whether we may. A cursor is `partner:` or `web:` and a
bookmark.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, quote_plus, urlencode

from dataset.errors import BadInput
from scraper import limits
from scraper.credentials import Credential
from scraper.errors import LayoutChanged
from scraper.hashtags import hashtags_in
from scraper.reading import (
    in_words,
    inside,
    json_object,
    json_or_nothing,
    moment,
    number,
    objects,
    text,
    web_address,
)
from scraper.spiders.base import Answer, Ask, Check, HashtagSpider, Page, Photo, Post, Setting

WEB_URL = "https://www.pinterest.co.uk"
PER_PAGE = {"partner": 50, "web": 25}
# The only header beside our own name that the web search wants: which of its pages asks.
WEB_HEADERS = {"X-Pinterest-PWS-Handler": "www/search/[scope].js"}
END = "-end-"
ORIGINALS = ("originals", "orig")
# 736x and 1200x keep a photo's shape, 150x150 and 400x300 cut it.
WHOLE = re.compile(r"[0-9]+x")
SIZED = re.compile(r"(https://[\w.-]*pinimg\.com)/[0-9]+x[^/]*(/../../../[^/]+)")
VIDEOS = "videos"
NO_PHOTO = "no photo address"
NO_PIN = "no pins (stories, guides)"
# What a status means, and what to do now.
MEANINGS = {
    401: "the token is wrong or expired: make a new one for your app and set PINTEREST_TOKEN",
    403: (
        "the app is not approved for partner search, which is in beta: ask for it at"
        " https://developers.pinterest.com"
    ),
}
WEB_MEANINGS = {
    401: "Pinterest wants a login for its public search: use partner search instead",
    403: "Pinterest refuses its public search from here: use partner search instead",
}


class Spider(HashtagSpider):
    """Pinterest's search for pins."""

    title = "Pinterest"
    needs = "an app that Pinterest has approved for partner search (beta), and a token"
    limits = "photos only; as many pins as partner search gives for a word in one country"
    checked = "2026-11"
    site_url = "https://api.pinterest.com"
    image_url = "https://i.pinimg.com"
    credentials = (Credential("PINTEREST_TOKEN", "an access token; search=web needs none"),)
    settings: ClassVar[Mapping[str, Setting]] = {
        "search": Setting(
            "partner", "web: the public search, where robots.txt allows it", ("partner", "web")
        ),
        "country": Setting("GB", "with search=partner: whose pins, in two letters"),
        "locale": Setting("en-GB", "with search=partner: the language of the search"),
    }
    # Neither search can be asked for what is new: a later run reads the pages again.
    renews = True

    def ready(self) -> None:
        """As everywhere, but the web search needs no token, and gets none."""
        if not re.fullmatch(r"[A-Z]{2}", self.chosen["country"]):
            raise BadInput(f"--set country={self.chosen['country']}: two letters, such as GB")
        if not re.fullmatch(r"[a-z]{2}(-[A-Z]{2})?", self.chosen["locale"]):
            raise BadInput(f"--set locale={self.chosen['locale']}: such as en-GB")
        if self.chosen["search"] == "partner":
            super().ready()

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """The first page, or the one behind the bookmark in CURSOR."""
        kind, _, bookmark = (cursor or "").partition(":")
        # A bookmark of one search is none of the other.
        bookmark = bookmark if kind == self.chosen["search"] else ""
        if self.chosen["search"] == "web":
            return self._web_search(query, bookmark)
        asked = {
            "term": query,
            "country_code": self.chosen["country"],
            "locale": self.chosen["locale"],
            "limit": str(PER_PAGE["partner"]),
        }
        more = {"bookmark": bookmark} if bookmark else {}
        return self._ask(f"search/partner/pins?{urlencode(asked | more)}")

    def _ask(self, what: str) -> Ask:
        headers = {"Authorization": f"Bearer {self.secrets.get('PINTEREST_TOKEN', '')}"}
        return Ask(f"{self.asked_url}/v5/{what}", headers)

    def _web_search(self, query: str, bookmark: str) -> Ask:
        site = WEB_URL if self.asked_url == self.site_url else self.asked_url
        options: dict[str, Any] = {"query": query, "scope": "pins", "page_size": PER_PAGE["web"]}
        if bookmark:
            options["bookmarks"] = [bookmark]
        data = json.dumps({"options": options, "context": {}}, separators=(",", ":"))
        asked = {"source_url": f"/search/pins/?q={quote(query)}", "data": data}
        return Ask(f"{site}/resource/BaseSearchResource/get/?{urlencode(asked)}", WEB_HEADERS)

    def read(self, body: bytes, url: str) -> Page:
        """See the function `read`."""
        return read(body, url)

    def refusal(self, answer: Answer) -> str | None:
        """The status's meaning, and how long a limit lasts."""
        if answer.status == 429:
            seconds = number(answer.headers.get("x-ratelimit-reset"))
            known = "retry-after" in answer.headers or seconds is None
            when = limits.retry_after(answer.headers) if known else in_words(seconds or 0)
            return f"Pinterest's rate limit is reached; continue {when}"
        error = json_or_nothing(answer.body)
        said = text(error.get("message")) or text(inside(error, "resource_response", "message"))
        meanings = WEB_MEANINGS if self.chosen["search"] == "web" else MEANINGS
        if answer.status in meanings:
            return f"{meanings[answer.status]} (HTTP {answer.status}: {said or 'no message'})"
        return f"Pinterest says: {said} (HTTP {answer.status})" if said else None

    def left(self, answer: Answer) -> str | None:
        """The requests that are left."""
        return limits.left(answer.headers, "x-ratelimit")

    def checks(self) -> Sequence[Check]:
        """Whose token it is."""
        if self.chosen["search"] == "web":
            return ()
        return (Check("account", self._ask("user_account"), _say_account),)


def _say_account(body: bytes) -> str:
    account = json_object(body, "the account")
    kind = text(account.get("account_type"))
    return f"@{text(account.get('username')) or 'unnamed'}" + (f" ({kind.lower()})" if kind else "")


def read(body: bytes, url: str) -> Page:
    """A page of pins, of either search.

    Raises:
        LayoutChanged: it is none.
    """
    answer = json_object(body, url)
    response = answer.get("resource_response")
    kind = "partner" if response is None else "web"
    if kind == "web":
        records, bookmark = inside(response, "data", "results"), inside(response, "bookmark")
        if inside(answer, "resource", "options", "bookmarks", 0) == END:
            bookmark = END
    else:
        records, bookmark = answer.get("items"), answer.get("bookmark")
    if not isinstance(records, list):
        raise LayoutChanged("no list of pins in Pinterest's answer", url)
    ended = bookmark in (None, "", END)
    if not ended and not text(bookmark):
        raise LayoutChanged("a bookmark that is no text", url)
    posts, skipped = _posts(records, url, kind)
    # The same bookmark again would bring the same page again.
    more = not ended and quote_plus(bookmark) not in url
    first = "bookmark=" not in url and "%22bookmarks%22" not in url
    return Page(
        posts=posts,
        next_cursor=f"{kind}:{bookmark}" if more else None,
        total=0 if first and not (records or more) else None,
        later_cursor=f"{kind}:" if first else None,
        skipped=skipped,
    )


def _posts(records: list[Any], url: str, kind: str) -> tuple[tuple[Post, ...], Mapping[str, int]]:
    posts, skipped = dict[str, Post](), Counter[str]()
    for record in records:
        if not isinstance(record, dict):
            raise LayoutChanged("a pin that is not a JSON object", url)
        albums, reason = (_api_images if kind == "partner" else _web_images)(record, url)
        photos = tuple(dict.fromkeys(_photos(albums)))
        if photos and reason is None:
            post = _post(record, photos, url)
            posts[post.site_id] = post
        else:
            skipped[reason or NO_PHOTO] += 1
    if skipped[NO_PHOTO] and not posts:
        raise LayoutChanged("no photo's address in any pin", url)
    return tuple(posts.values()), skipped


def _api_images(record: dict[str, Any], url: str) -> tuple[list[Any], str | None]:
    """The sizes of each photo of the pin RECORD, and why it is left out in any case."""
    media = record.get("media", {})
    kind = text(inside(media, "media_type"))
    if media is None:
        return [], NO_PHOTO
    if kind is None:
        raise LayoutChanged("a pin without the type of its media", url)
    if "video" in kind:
        return [], VIDEOS
    items = objects(inside(media, "items"))
    if not items:
        return [inside(media, "images")], None
    albums = [
        one.get("images") for one in items if "video" not in (text(one.get("item_type")) or "")
    ]
    return albums, None if albums else VIDEOS


def _web_images(record: dict[str, Any], url: str) -> tuple[list[Any], str | None]:
    videos = record.get("videos")
    if videos is not None and not isinstance(videos, dict):
        raise LayoutChanged("a pin that may be a video or not", url)
    if videos:
        return [], VIDEOS
    slots = objects(inside(record, "carousel_data", "carousel_slots"))
    if not slots and record.get("images") is None and record.get("type", "pin") != "pin":
        return [], NO_PIN
    return [one.get("images") for one in slots] or [record.get("images")], None


def _photos(albums: list[Any]) -> Iterator[Photo]:
    """The largest size of each of ALBUMS, the next ones to fall back to."""
    for sizes in albums:
        named = sizes.items() if isinstance(sizes, dict) else ()
        known = [(name, one) for name, one in named if web_address(inside(one, "url"))]
        known.sort(key=lambda pair: _rank(*pair))
        whole = [pair for pair in known if pair[0] in ORIGINALS or WHOLE.fullmatch(pair[0])]
        urls = [one["url"] for _, one in whole or known]
        if urls and not any(name in ORIGINALS for name, _ in whole):
            urls.insert(0, SIZED.sub(r"\1/originals\2", urls[0]))
        if urls:
            first, *others = dict.fromkeys(urls)
            yield Photo(first, tuple(others))


def _rank(name: str, size: dict[str, Any]) -> tuple[bool, int]:
    return name not in ORIGINALS, -(number(size.get("width")) or 0)


def _post(record: dict[str, Any], photos: tuple[Photo, ...], url: str) -> Post:
    site_id = record.get("id")
    if not isinstance(site_id, str) or not re.fullmatch(r"[\w-]{1,100}", site_id, re.ASCII):
        raise LayoutChanged("a pin without its id", url)
    said = [text(record.get(name)) for name in ("title", "grid_title", "description", "alt_text")]
    owners = (inside(record, name, "username") for name in ("board_owner", "pinner"))
    return Post(
        site_id=site_id,
        url=f"https://www.pinterest.com/pin/{site_id}/",
        photos=photos,
        title=next(filter(None, said), None),
        author=next(filter(None, map(text, owners)), None),
        posted=moment(record.get("created_at")),
        hashtags=hashtags_in("\n".join(filter(None, said))),
        record=record,
    )
