"""X: recent and archive search of the official API v2. Facts from its documentation, 2026.

https://docs.x.com/x-api/posts/search/introduction, …/counts/introduction, …/usage/introduction
A cursor is what a request has beside its query, and where: `in=…&since_id=1&next_token=b`.
"""

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.errors import BadInput
from scraper import limits
from scraper.credentials import Credential
from scraper.errors import LayoutChanged, SiteRefused
from scraper.hashtags import as_hashtag, grouped, hashtags_in, unlike
from scraper.reading import (
    by_key,
    inside,
    json_object,
    json_or_nothing,
    moment,
    number,
    objects,
    text,
    web_address,
    with_query,
)
from scraper.spiders.base import Answer, Ask, Check, HashtagSpider, Page, Photo, Post, Setting

LONGEST_QUERY = {"recent": 512, "all": 1024}
LARGEST_PAGE = {"recent": 100, "all": 500}
FIELDS = {
    "expansions": "attachments.media_keys,author_id",
    "media.fields": "url,type,width,height,alt_text",
    "tweet.fields": "attachments,author_id,created_at,entities,note_tweet,possibly_sensitive,lang",
}
USAGE = {"usage.fields": "cap_reset_day,project_cap,project_id,project_usage"}
# Why a post is left out.
SENSITIVE = "sensitive (--set sensitive=keep takes them)"
NO_PHOTO = "no photo of their own"
WITHHELD = "a photo that X does not give (deleted or withheld)"
CONSOLE = "X's developer console"
# What a problem's type or status means, and what to do now.
MEANINGS: Mapping[str | int, str] = {
    "client-not-enrolled": f"the app's plan has no such search: change the plan in {CONSOLE}",
    "usage-capped": f"the month's posts are used up: raise the cap in {CONSOLE}, or wait",
    401: f"the token is wrong or revoked: make a bearer token in {CONSOLE} and set TWITTER_TOKEN",
    402: f"the account's credits are used up: buy some in {CONSOLE}, or raise its spending limit",
    403: f"the app may not do that: see its project, plan and permissions in {CONSOLE}",
    503: "X is overloaded: wait some minutes",
}


class Spider(HashtagSpider):
    """X's search by hashtags."""

    title = "X (Twitter)"
    needs = "a developer account with credits, an app, and its bearer token"
    limits = "posts of the last 7 days, or the archive; each post that is read costs money"
    checked = "2026-11"
    site_url = "https://api.x.com"
    image_url = "https://pbs.twimg.com"
    credentials = (Credential("TWITTER_TOKEN", "the bearer token of your app"),)
    settings: ClassVar[Mapping[str, Setting]] = {
        "search": Setting("recent", "the last 7 days, or the archive", ("recent", "all")),
        "since": Setting("", "with search=all: the first day, such as 2024-01-31; else 30 days"),
        "sensitive": Setting("skip", "posts marked as sensitive", ("skip", "keep")),
        "page-size": Setting("100", "posts a request: 10 to 100, 500 with search=all"),
    }
    renews = True
    charged = "X takes $0.005 a post and $0.010 an author (2026; see its developer console)"
    dollars = 0.015
    frugal: ClassVar[Mapping[str, str]] = {"page-size": "10"}

    def ready(self) -> None:
        """As everywhere; and the settings must be what X takes."""
        super().ready()
        largest, size = LARGEST_PAGE[self.chosen["search"]], number(self.chosen["page-size"])
        if size is None or not 10 <= size <= largest:
            raise BadInput(f"--set page-size={self.chosen['page-size']}: from 10 to {largest}")
        since, good = self.chosen["since"], self.chosen["search"] == "all"
        if since and not (good and len(since) == 10 and moment(since)):
            raise BadInput(f"--set since={since}: such as 2024-01-31, with --set search=all")

    def queries(self, words: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """As many hashtags together as the longest query takes, each once."""
        longest = LONGEST_QUERY[self.chosen["search"]]
        usable = [word for word in unlike(words) if as_hashtag(word)] or words[:1]
        return grouped(usable, lambda group: len(_query(group)) <= longest)

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """The newest posts, those since the last run, or the page that CURSOR leads to.

        Raises:
            SiteRefused: QUERY has nothing that a hashtag can hold.
        """
        where = dict(parse_qsl(cursor or ""))
        # A search of the archive does not begin where one of the last days ended.
        where = where if where.pop("in", None) == self._path("search") else {}
        more = FIELDS | {"max_results": self.chosen["page-size"]}
        return self._search("search", query, where, more)

    def _search(self, what: str, query: str, where: dict[str, str], more: dict[str, str]) -> Ask:
        words = query.split(HASHTAG_SEPARATOR)
        if not all(map(as_hashtag, words)):
            raise SiteRefused(f"{query!r} has no letter or digit to make a hashtag of")
        # X refuses a time beside a post to begin behind.
        if self.chosen["since"] and "since_id" not in where:
            where = {"start_time": f"{self.chosen['since']}T00:00:00Z"} | where
        return self._ask(self._path(what), {"query": _query(words)} | where | more)

    def _path(self, what: str) -> str:
        return f"tweets/{what}/{self.chosen['search']}"

    def _ask(self, path: str, query: dict[str, str]) -> Ask:
        headers = {"Authorization": f"Bearer {self.secrets.get('TWITTER_TOKEN', '')}"}
        return Ask(f"{self.asked_url}/2/{path}?{urlencode(query)}", headers)

    def read(self, body: bytes, url: str) -> Page:
        """See the function `read`; with `--set sensitive=keep` no post is too sensitive."""
        return _read(body, url, keep_sensitive=self.chosen["sensitive"] == "keep")

    def readable(self, answer: Answer) -> bool:
        """A cursor that X does not take any more leads to the beginning, see `read`."""
        return answer.status == 200 or bool(_blamed(json_or_nothing(answer.body)))

    def refusal(self, answer: Answer) -> str | None:
        """The problem's meaning, and when a limit ends."""
        problem = json_or_nothing(answer.body)
        kind = (text(problem.get("type")) or "").rpartition("/")[2]
        if answer.status == 429 and kind != "usage-capped":
            return f"X's rate limit is reached; continue {_reset(answer)}"
        reasons = (inside(problem, "errors", 0, "message"), *map(problem.get, ("detail", "title")))
        said = next((one for reason in reasons if (one := text(reason))), "no reason given")
        meaning = MEANINGS.get(kind) or MEANINGS.get(answer.status)
        if meaning:
            return f"{meaning} (HTTP {answer.status}: {said})"
        return f"X says: {said} (HTTP {answer.status})" if problem else None

    def count_request(self, query: str) -> Ask | None:
        """The counts endpoint, which reads no post; a later run's posts are fewer."""
        return self._search("counts", query, {}, {"granularity": "day"})

    def count(self, body: bytes, url: str) -> int | None:
        """The posts of a count, or of one piece of it."""
        found = number(inside(json_object(body, url), "meta", "total_tweet_count"))
        if found is None:
            raise LayoutChanged("a count without its total", url)
        return found

    def count_more(self, body: bytes, url: str) -> Ask | None:
        """An archive is counted by the month."""
        token = text(inside(json_object(body, url), "meta", "next_token"))
        asked = dict(parse_qsl(urlsplit(url).query))
        return self._ask(self._path("counts"), asked | {"next_token": token}) if token else None

    def left(self, answer: Answer) -> str | None:
        """The requests that are left of this quarter of an hour."""
        left = limits.left(answer.headers, "x-rate-limit")
        return f"{left}, all of them again {_reset(answer)}" if left else None

    def checks(self) -> Sequence[Check]:
        """Whose project the token is of, and what is left of its month."""
        return (Check("token", self._ask("usage/tweets", USAGE), _say_usage),)


def _query(words: Sequence[str]) -> str:
    return f"({' OR '.join('#' + as_hashtag(word) for word in words)}) has:images -is:retweet"


def _say_usage(body: bytes) -> str:
    data = json_object(body, "the usage").get("data")
    used, cap = (number(inside(data, f"project_{name}")) for name in ("usage", "cap"))
    project, days = (number(inside(data, name)) for name in ("project_id", "cap_reset_day"))
    if used is None or cap is None:
        raise LayoutChanged("a usage without its numbers", "usage/tweets")
    again = f", starting again in {days} days" if days is not None else ""
    return f"of project {project}, which has read {used:,} of {cap:,} posts of the month{again}"


def _reset(answer: Answer) -> str:
    return limits.at(answer.headers.get("x-rate-limit-reset")) or "in 15 minutes"


def _blamed(answer: Mapping[str, Any]) -> set[str]:
    """Which parts of a cursor X does not take: it ran out, or lies before the last 7 days."""
    if "data" in answer or "meta" in answer:
        return set()
    asked = [inside(one, "parameters") for one in objects(answer.get("errors"))]
    named = {name for one in asked if isinstance(one, dict) for name in one}
    return named & {"since_id", "next_token"}


def read(body: bytes, url: str) -> Page:
    """A page of posts, without the sensitive ones; a cursor that ran out begins again.

    Raises:
        LayoutChanged: it is neither.
    """
    return _read(body, url, keep_sensitive=False)


def _read(body: bytes, url: str, *, keep_sensitive: bool) -> Page:
    answer, asked = json_object(body, url), dict(parse_qsl(urlsplit(url).query))
    kept = {"in": "/".join(urlsplit(url).path.split("/")[-3:])}
    first, since = "next_token" not in asked, {k: asked[k] for k in asked if k == "since_id"}
    if blamed := _blamed(answer) & set(asked):
        return Page((), urlencode(kept if "since_id" in blamed else kept | since))
    meta, records = answer.get("meta"), answer.get("data")
    if inside(meta, "result_count") == 0 and not records:
        records = []
    elif not isinstance(meta, dict) or not isinstance(records, list) or not records:
        raise LayoutChanged("no posts in X's answer, and no word that there are none", url)
    posts, skipped = _posts(records, answer, url, keep_sensitive)
    token = inside(meta, "next_token")
    more = token not in (None, asked.get("next_token"))
    if more and not text(token):
        raise LayoutChanged("the next page has no token", url)
    newest = max((int(_number(one, url)) for one in records), default=None) if first else None
    return Page(
        posts=posts,
        next_cursor=urlencode(kept | since | {"next_token": token}) if more else None,
        total=0 if first and not (records or more or since) else None,
        later_cursor=urlencode(kept | {"since_id": newest}) if newest else None,
        skipped=skipped,
    )


def _posts(
    records: list[Any], answer: dict[str, Any], url: str, keep_sensitive: bool
) -> tuple[tuple[Post, ...], Mapping[str, int]]:
    media = by_key(inside(answer, "includes", "media"), "media_key")
    users = by_key(inside(answer, "includes", "users"), "id")
    posts, skipped, lone = dict[str, Post](), Counter[str](), set(media)
    # Where others say whether they are sensitive, one that does not may be.
    said = any("possibly_sensitive" in one for one in objects(records))
    for record in records:
        number = _number(record, url)
        keys = inside(record, "attachments", "media_keys")
        keys = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        lone -= set(keys)
        attached = [media.get(key, {}) for key in keys]
        photos = tuple(dict.fromkeys(_photos(attached)))
        marked = record.get("possibly_sensitive", said)
        if not isinstance(marked, bool):
            raise LayoutChanged("a post that may be sensitive or not", url)
        reason = SENSITIVE if marked and not keep_sensitive else _reason(attached, photos)
        if reason is None:
            posts[number] = _post(record, photos, number, users)
        else:
            skipped[reason] += 1
    # The post's side or the media's is not where it was; what X withholds it names in `errors`.
    if not posts and (lone or (skipped[WITHHELD] and not objects(answer.get("errors")))):
        raise LayoutChanged("no photo's address in posts that have photos", url)
    return tuple(posts.values()), skipped


def _number(record: object, url: str) -> str:
    value = inside(record, "id")
    if not isinstance(value, str) or number(value) is None:
        raise LayoutChanged("a post without its id", url)
    return value


def _photos(attached: Sequence[dict[str, Any]]) -> Iterator[Photo]:
    """Each photo as it was posted, or else the largest copy of it."""
    for one in attached:
        address = web_address(one.get("url"))
        if one.get("type") == "photo" and address:
            yield Photo(with_query(address, name="orig"), (with_query(address, name="large"),))


def _reason(attached: list[Any], photos: Sequence[Photo]) -> str | None:
    """Why a post with what is ATTACHED is left out; None: it is not."""
    if photos or not attached:
        return None if photos else NO_PHOTO
    films = all(one.get("type") in ("video", "animated_gif") for one in attached)
    return "videos" if films else WITHHELD


def _post(
    record: dict[str, Any], photos: tuple[Photo, ...], number: str, users: dict[str, Any]
) -> Post:
    texts = (inside(record, "note_tweet", "text"), record.get("text"))
    caption = next((html.unescape(one) for one in texts if isinstance(one, str)), None)
    tagged = by_key(inside(record, "entities", "hashtags"), "tag")
    author = text(inside(users, text(record.get("author_id")) or "", "username"))
    return Post(
        site_id=number,
        url=f"https://x.com/{quote(author or 'i', safe='')}/status/{number}",
        photos=photos,
        title=text(caption),
        author=author,
        posted=moment(record.get("created_at")),
        hashtags=tuple(dict.fromkeys((*tagged, *hashtags_in(caption)))),
        record=record,
    )
