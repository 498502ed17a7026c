"""Spider of X (Twitter): the recent and archive search of the official API v2.

Documentation, as of 2026: https://docs.x.com/x-api/posts/search/introduction,
https://docs.x.com/x-api/posts/counts/introduction and https://docs.x.com/x-api/usage/introduction

A cursor has the path of the search and the query parameters of a position in its results:
`in=tweets%2Fsearch%2Frecent&since_id=1&next_token=b`.
"""

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from scrapy import Request
from scrapy.http import Response

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.errors import BadInput
from scraper.credentials import Credential
from scraper.errors import LayoutChanged, SiteRefused
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    clean_text,
    format_remaining,
    format_reset_time,
    get_nested,
    http_url,
    index_by_key,
    json_object,
    json_object_or_empty,
    json_objects,
    parse_count,
    parse_datetime,
    with_query,
)
from scraper.parsing.hashtags import find_hashtags, group_words, to_hashtag, unique_hashtags
from scraper.spiders.base import Access, Check, HashtagSpider, Page, Photo, Post, SiteOption

MAX_QUERY_CHARACTERS = {"recent": 512, "all": 1024}
MIN_POSTS_PER_PAGE = 10
MAX_POSTS_PER_PAGE = {"recent": 100, "all": 500}
POST_FIELDS = {
    "expansions": "attachments.media_keys,author_id",
    "media.fields": "url,type,width,height,alt_text",
    "tweet.fields": "attachments,author_id,created_at,entities,note_tweet,possibly_sensitive,lang",
}
USAGE_FIELDS = {"usage.fields": "cap_reset_day,project_cap,project_id,project_usage"}
# Reasons why posts are skipped.
SENSITIVE = "sensitive (--set sensitive=keep includes them)"
NO_PHOTO = "no photo of their own"
WITHHELD = "a photo that X does not return (deleted or withheld)"
CONSOLE = "X's developer console"
# Type of a problem or HTTP status -> its meaning and the remedy.
PROBLEM_MEANINGS: Mapping[str | int, str] = {
    "client-not-enrolled": (
        f"the app's plan does not include this search: change the plan in {CONSOLE}"
    ),
    "usage-capped": f"the month's posts are used up: raise the cap in {CONSOLE}, or wait",
    401: f"the token is wrong or revoked: make a bearer token in {CONSOLE} and set TWITTER_TOKEN",
    402: f"the account's credits are used up: buy some in {CONSOLE}, or raise its spending limit",
    403: f"the app lacks a permission: check its project, plan and permissions in {CONSOLE}",
    503: "X is overloaded: wait some minutes",
}


class Spider(HashtagSpider):
    """Searches X for hashtags."""

    name = "twitter"
    title = "X (Twitter)"
    access = Access.APPROVAL
    needs = "a developer account with credits, an app, and its bearer token"
    limits_text = "posts of the last 7 days, or the archive; each post that is read costs money"
    checked = "2026-11"
    site_url = "https://api.x.com"
    image_url = "https://pbs.twimg.com"
    credentials = (Credential("TWITTER_TOKEN", "the bearer token of your app"),)
    site_options: ClassVar[Mapping[str, SiteOption]] = {
        "search": SiteOption(
            "recent",
            "posts to search; recent: the last 7 days, all: the archive",
            ("recent", "all"),
        ),
        "since": SiteOption(
            "", "with search=all: first day, such as 2024-01-31; by default 30 days ago"
        ),
        "sensitive": SiteOption("skip", "what to do with sensitive posts", ("skip", "keep")),
        "page-size": SiteOption("100", "posts per request: 10 to 100, or 500 with search=all"),
    }
    renews = True
    pricing = "X charges $0.005 per post and $0.010 per author (2026; see its developer console)"
    dollars_per_post = 0.015
    check_options: ClassVar[Mapping[str, str]] = {"page-size": "10"}

    def check_arguments(self) -> None:
        """Check credentials and options.

        Raises:
            CredentialsMissing: A required credential is missing.
            BadInput: An option is invalid, or a token would be sent unencrypted over a network.
        """
        super().check_arguments()
        search, size = self.chosen["search"], parse_count(self.chosen["page-size"])
        if size is None or not MIN_POSTS_PER_PAGE <= size <= MAX_POSTS_PER_PAGE[search]:
            raise BadInput(
                f"--set page-size={self.chosen['page-size']}:"
                f" from {MIN_POSTS_PER_PAGE} to {MAX_POSTS_PER_PAGE[search]}"
            )
        since = self.chosen["since"]
        if since and not (search == "all" and len(since) == 10 and parse_datetime(since)):
            raise BadInput(f"--set since={since}: such as 2024-01-31, with --set search=all")

    def queries(self, words: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """Return groups of words with unique hashtags, each as large as a query may be."""
        max_characters = MAX_QUERY_CHARACTERS[self.chosen["search"]]
        valid_words = [word for word in unique_hashtags(words) if to_hashtag(word)] or words[:1]
        return group_words(valid_words, lambda group: len(_query(group)) <= max_characters)

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of the newest posts, of those since the last run, or of a next page.

        Raises:
            SiteRefused: A word of the query has no character that a hashtag can have.
        """
        position = dict(parse_qsl(cursor or ""))
        # A search of the archive starts from its beginning, not where a recent search ended.
        position = position if position.pop("in", None) == self._path("search") else {}
        parameters = POST_FIELDS | {"max_results": self.chosen["page-size"]}
        return self._query_request("search", query, position, parameters)

    def _query_request(
        self, endpoint: str, query: str, position: dict[str, str], parameters: dict[str, str]
    ) -> Request:
        """Return a request with a query.

        Args:
            endpoint: `search` or `counts`.
            query: Words with " OR " between.
            position: Parameters of the position in the results; empty for the first page.
            parameters: Further parameters.

        Raises:
            SiteRefused: A word of the query has no character that a hashtag can have.
        """
        words = query.split(HASHTAG_SEPARATOR)
        if not all(map(to_hashtag, words)):
            raise SiteRefused(f"{query!r} has no letter or digit to make a hashtag of")
        # X rejects requests that have both a start time and the id of a post to start after.
        if self.chosen["since"] and "since_id" not in position:
            position = {"start_time": f"{self.chosen['since']}T00:00:00Z"} | position
        return self._api_request(
            self._path(endpoint), {"query": _query(words)} | position | parameters
        )

    def _path(self, endpoint: str) -> str:
        return f"tweets/{endpoint}/{self.chosen['search']}"

    def _api_request(self, path: str, parameters: dict[str, str]) -> Request:
        headers = {"Authorization": f"Bearer {self.secrets.get('TWITTER_TOKEN', '')}"}
        return Request(f"{self.requested_url}/2/{path}?{urlencode(parameters)}", headers=headers)

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; with `--set sensitive=keep`, sensitive posts are included."""
        return _read(body, url, keep_sensitive=self.chosen["sensitive"] == "keep")

    def is_readable(self, response: Response) -> bool:
        """Return whether `read` can read a response, such as the error of an expired cursor."""
        return response.status == 200 or bool(
            _rejected_parameters(json_object_or_empty(response.body))
        )

    def explain_refusal(self, response: Response) -> str | None:
        """Return the meaning of a problem, and when a rate limit is reset."""
        problem = json_object_or_empty(response.body)
        problem_type = (clean_text(problem.get("type")) or "").rpartition("/")[2]
        if response.status == 429 and problem_type != "usage-capped":
            return f"X's rate limit is reached; continue {_reset_time(response)}"
        texts = (
            get_nested(problem, "errors", 0, "message"),
            *map(problem.get, ("detail", "title")),
        )
        message = next(filter(None, map(clean_text, texts)), "no reason given")
        meaning = PROBLEM_MEANINGS.get(problem_type) or PROBLEM_MEANINGS.get(response.status)
        if meaning:
            return f"{meaning} (HTTP {response.status}: {message})"
        return f"X reports: {message} (HTTP {response.status})" if problem else None

    def count_request(self, query: str) -> Request | None:
        """Return a request to the counts endpoint, which reads no posts.

        It counts the posts of a first run; a later run has fewer.
        """
        return self._query_request("counts", query, {}, {"granularity": "day"})

    def read_count(self, body: bytes, url: str) -> int | None:
        """Return the number of posts in a response of the counts endpoint, or in a part of it."""
        count = parse_count(get_nested(json_object(body, url), "meta", "total_tweet_count"))
        if count is None:
            raise LayoutChanged("a count without its total", url)
        return count

    def next_count_request(self, body: bytes, url: str) -> Request | None:
        """Return the request of the next part of a count: the archive is counted month by month."""
        token = clean_text(get_nested(json_object(body, url), "meta", "next_token"))
        if not token:
            return None
        parameters = dict(parse_qsl(urlsplit(url).query))
        return self._api_request(self._path("counts"), parameters | {"next_token": token})

    def describe_remaining(self, response: Response) -> str | None:
        """Return how many requests are left in the current 15 minutes."""
        remaining = format_remaining(unicode_headers(response), "x-rate-limit")
        return f"{remaining}; the limit is reset {_reset_time(response)}" if remaining else None

    def checks(self) -> Sequence[Check]:
        """Return a request for the project of the token and its usage in this month."""
        request = self._api_request("usage/tweets", USAGE_FIELDS)
        return (Check("token", request, _describe_usage),)


def _query(words: Sequence[str]) -> str:
    return f"({' OR '.join('#' + to_hashtag(word) for word in words)}) has:images -is:retweet"


def _describe_usage(body: bytes) -> str:
    data = json_object(body, "the usage").get("data")
    usage, cap = (parse_count(get_nested(data, f"project_{name}")) for name in ("usage", "cap"))
    project, days = (
        parse_count(get_nested(data, name)) for name in ("project_id", "cap_reset_day")
    )
    if usage is None or cap is None:
        raise LayoutChanged("a usage without its numbers", "usage/tweets")
    reset = f"; the count is reset in {days} days" if days is not None else ""
    return f"project {project} has read {usage:,} of {cap:,} posts of the month{reset}"


def _reset_time(response: Response) -> str:
    reset = unicode_headers(response).get("x-rate-limit-reset")
    return format_reset_time(reset) or "in 15 minutes"


def _rejected_parameters(response: Mapping[str, Any]) -> set[str]:
    """Return the parameters of a cursor that X rejects.

    It rejects a `next_token` that has expired, and a `since_id` from before the last 7 days.
    """
    if "data" in response or "meta" in response:
        return set()
    errors = [get_nested(error, "parameters") for error in json_objects(response.get("errors"))]
    names = {name for parameters in errors if isinstance(parameters, dict) for name in parameters}
    return names & {"since_id", "next_token"}


def read(body: bytes, url: str) -> Page:
    """Parse a page of posts, without sensitive ones; an expired cursor restarts the search.

    Raises:
        LayoutChanged: It is neither a page of posts nor the error of an expired cursor.
    """
    return _read(body, url, keep_sensitive=False)


def _read(body: bytes, url: str, *, keep_sensitive: bool) -> Page:
    response, parameters = json_object(body, url), dict(parse_qsl(urlsplit(url).query))
    path = {"in": "/".join(urlsplit(url).path.split("/")[-3:])}
    since = {name: value for name, value in parameters.items() if name == "since_id"}
    is_first = "next_token" not in parameters
    if rejected := _rejected_parameters(response) & set(parameters):
        return Page((), urlencode(path if "since_id" in rejected else path | since))
    meta, records = response.get("meta"), response.get("data")
    if get_nested(meta, "result_count") == 0 and not records:
        records = []
    elif not isinstance(meta, dict) or not isinstance(records, list) or not records:
        raise LayoutChanged("neither posts nor a result count of 0 in X's response", url)
    posts, skipped = _posts(records, response, url, keep_sensitive)
    token = get_nested(meta, "next_token")
    has_more = token is not None
    if has_more and not clean_text(token):
        raise LayoutChanged("the token of the next page is not text", url)
    newest_id = (
        max((int(_post_id(record, url)) for record in records), default=None) if is_first else None
    )
    return Page(
        posts=posts,
        next_cursor=urlencode(path | since | {"next_token": token}) if has_more else None,
        total=0 if is_first and not (records or has_more or since) else None,
        later_cursor=urlencode(path | {"since_id": newest_id}) if newest_id else None,
        skipped=skipped,
        is_by_date=True,
    )


def _posts(
    records: list[Any], response: dict[str, Any], url: str, keep_sensitive: bool
) -> tuple[tuple[Post, ...], Mapping[str, int]]:
    """Return the posts of a page, and the number of skipped posts by reason."""
    media_by_key = index_by_key(get_nested(response, "includes", "media"), "media_key")
    users_by_id = index_by_key(get_nested(response, "includes", "users"), "id")
    posts, skipped = dict[str, Post](), Counter[str]()
    unattached_keys = set(media_by_key)
    # If some posts have the field, a post without it may be sensitive.
    has_sensitivity = any("possibly_sensitive" in record for record in json_objects(records))
    for record in records:
        post_id = _post_id(record, url)
        keys = get_nested(record, "attachments", "media_keys")
        keys = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        unattached_keys -= set(keys)
        media = [media_by_key.get(key, {}) for key in keys]
        photos = tuple(dict.fromkeys(_photos(media)))
        is_sensitive = record.get("possibly_sensitive", has_sensitivity)
        if not isinstance(is_sensitive, bool):
            raise LayoutChanged("a post with an invalid possibly_sensitive field", url)
        reason = (
            SENSITIVE if is_sensitive and not keep_sensitive else _reason_to_skip(media, photos)
        )
        if reason is None:
            posts[post_id] = _post(record, photos, post_id, users_by_id)
        else:
            skipped[reason] += 1
    # Posts or media have other fields than before; X lists withheld media in `errors`.
    has_errors = bool(json_objects(response.get("errors")))
    if not posts and (unattached_keys or (skipped[WITHHELD] and not has_errors)):
        raise LayoutChanged("no photo URL in posts that have photos", url)
    return tuple(posts.values()), skipped


def _post_id(record: object, url: str) -> str:
    value = get_nested(record, "id")
    if not isinstance(value, str) or parse_count(value) is None:
        raise LayoutChanged("a post without an id", url)
    return value


def _photos(media: Sequence[dict[str, Any]]) -> Iterator[Photo]:
    """Yield each photo in its original size, with the largest copy as the fallback."""
    for medium in media:
        photo_url = http_url(medium.get("url"))
        if medium.get("type") == "photo" and photo_url:
            yield Photo(with_query(photo_url, name="orig"), (with_query(photo_url, name="large"),))


def _reason_to_skip(media: list[Any], photos: Sequence[Photo]) -> str | None:
    """Return why a post is skipped; None if it is not.

    Args:
        media: Media of the post; empty objects for media that X did not return.
        photos: The photos among them.
    """
    if photos or not media:
        return None if photos else NO_PHOTO
    is_video = all(medium.get("type") in ("video", "animated_gif") for medium in media)
    return "videos" if is_video else WITHHELD


def _post(
    record: dict[str, Any], photos: tuple[Photo, ...], post_id: str, users_by_id: dict[str, Any]
) -> Post:
    texts = (get_nested(record, "note_tweet", "text"), record.get("text"))
    caption = next((html.unescape(text) for text in texts if isinstance(text, str)), None)
    tags = index_by_key(get_nested(record, "entities", "hashtags"), "tag")
    author_id = clean_text(record.get("author_id")) or ""
    author = clean_text(get_nested(users_by_id, author_id, "username"))
    return Post(
        site_id=post_id,
        url=f"https://x.com/{quote(author or 'i', safe='')}/status/{post_id}",
        photos=photos,
        title=clean_text(caption),
        author=author,
        posted=parse_datetime(record.get("created_at")),
        hashtags=tuple(dict.fromkeys((*tags, *find_hashtags(caption)))),
        record=record,
    )
