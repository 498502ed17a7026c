"""Spider of one Mastodon server: its public timelines of hashtags, without a key.

It is off until the user names a server. Before a search it asks the server whether its timelines
are public, and it shows the server's rules and terms. Posts of authors who opted out of search
engines are skipped. The formats are those observed from 2025 to 2026.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

import click
from scrapy import Request
from scrapy.http import Response

from scraper.credentials import Credential
from scraper.errors import LayoutChanged, SiteRefused
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    absolute_url,
    clean_text,
    format_remaining,
    format_retry_after,
    get_nested,
    html_text,
    is_html,
    json_list,
    json_object,
    json_object_or_empty,
    json_objects,
    parse_datetime,
    parse_json,
)
from scraper.parsing.hashtags import group_words, to_hashtag, unique_hashtags
from scraper.spiders.base import Access, Check, Credit, HashtagSpider, Page, Photo, Post, SiteOption

POSTS_PER_PAGE, MAX_TAGS = 40, 4
INSTANCE, RULES = "/api/v2/instance", "/api/v1/instance/rules"
TERMS = "/api/v1/instance/terms_of_service"
# Cursor of the first page, after the server has said that it is public.
FIRST = "first"
OPTED_OUT, SENSITIVE, NOT_PUBLIC = "authors who opted out", "sensitive", "not public"
NO_PHOTO, BRIDGED, SHARED = "no photo", "copies from another network", "shared posts"
# What terms say of programs that read the posts.
USE = re.compile(
    r"scrap|crawl|machine learning|training|\bAI\b|artificial|automated", re.IGNORECASE
)
MAX_SHOWN_SENTENCES = 5


class Spider(HashtagSpider):
    """Reads the timelines of hashtags of a Mastodon server."""

    name = "mastodon"
    title = "Mastodon server"
    access = Access.SERVER
    needs = "nothing, mostly; the server: --set server=mastodon.example; a token if it asks for one"
    limits_text = "40 posts per page, 300 requests in 5 minutes; only posts that reached the server"
    checked = "2026-11"
    site_url = "https://mastodon.example.com"
    image_url = "https://files.mastodon.example.com"
    server_option = "server"
    request_interval = 1.0
    credentials = (
        Credential(
            "MASTODON_TOKEN",
            "access token of an account of the server, with the scope read:statuses",
            required=False,
        ),
    )
    site_options: ClassVar = {
        "server": SiteOption("", "the server's host", example="mastodon.example"),
    }

    def queries(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the words that one timeline has together; each is a hashtag without blanks."""
        hashtags = [word for word in unique_hashtags(words) if to_hashtag(word)]
        return group_words(hashtags, lambda group: len(group) <= MAX_TAGS)

    def lookup_request(self, query: str) -> Request:
        """Return the request of the server's description, which says who may read timelines."""
        return self._request(INSTANCE)

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page; a cursor is the id of the oldest post before it."""
        first, *others = map(to_hashtag, query.split(" or "))
        parameters = [("only_media", "true"), ("limit", str(POSTS_PER_PAGE))]
        parameters += [("any[]", other) for other in others]
        if cursor not in (None, FIRST):
            parameters.append(("max_id", str(cursor)))
        path = f"/api/v1/timelines/tag/{quote(first, safe='')}?{urlencode(parameters)}"
        return self._request(path + ("" if cursor is None else "#public"))

    def _request(self, path: str) -> Request:
        token = self.secrets.get("MASTODON_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return Request(self.requested_url + path, headers=headers)

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; a token allows timelines for accounts of the server."""
        return _read(body, self.own_url(url), "MASTODON_TOKEN" in self.secrets)

    def setup_request(self) -> Request:
        """Return the request of the server's rules."""
        return self._request(RULES)

    def set_up(self, body: bytes, url: str = "") -> Request | None:
        """Show the rules or the terms of the server, and request the terms after the rules."""
        host = urlsplit(self.server_url).netloc
        is_rules = urlsplit(url).path == RULES
        for line in describe_rules(body) if is_rules else describe_terms(body):
            click.echo(f"{host}: {line}", err=True)
        return self._request(TERMS) if is_rules else None

    def checks(self) -> Sequence[Check]:
        """Return the request that shows who may read the timelines."""
        return (Check("timelines of hashtags", self._request(INSTANCE), describe_access),)

    def is_readable(self, response: Response) -> bool:
        """Return whether a response is JSON; an unknown hashtag may be reported as HTTP 404."""
        is_unknown = response.status == 404 and "error" in json_object_or_empty(response.body)
        return is_unknown or (response.status == 200 and not is_html(response.body))

    def explain_refusal(self, response: Response) -> str | None:
        """Return what a server means by an error."""
        host, status = urlsplit(self.server_url).netloc, response.status
        if status in (401, 403, 422):
            return (
                f"{host} shows its timelines only to its accounts (HTTP {status}): set"
                " MASTODON_TOKEN to the token of an account there, or name another server"
            )
        if status == 429:
            when = format_retry_after(unicode_headers(response))
            return f"the rate limit of {host} is reached (HTTP 429); continue {when}"
        if status in (200, 404):
            return f"{host} is not a Mastodon server (HTTP {status}): check the name"
        return None

    def describe_remaining(self, response: Response) -> str | None:
        """Return how many requests are left of the server's limit."""
        return format_remaining(unicode_headers(response), "x-ratelimit")


def read(body: bytes, url: str) -> Page:
    """Parse the description of a server, or a page of a timeline.

    Raises:
        LayoutChanged: It is neither.
        SiteRefused: The server does not show its timelines.
    """
    return _read(body, url, has_token=False)


def _read(body: bytes, url: str, has_token: bool) -> Page:
    if urlsplit(url).path == INSTANCE:
        _check_access(json_object(body, url), url, has_token)
        return Page((), FIRST, is_lookup=True)
    is_known_public = urlsplit(url).fragment == "public"
    if is_known_public and "error" in json_object_or_empty(body):
        # No post has the hashtag.
        return Page(())
    records = json_list(body, url)
    if not records and not is_known_public:
        # A server whose timelines are disabled sends an empty list, too.
        raise LayoutChanged("an empty timeline of a server whose description was not read", url)
    return _parse_statuses(records, url)


def timeline_access(instance: dict[str, Any]) -> str | None:
    """Return who may read timelines of hashtags: public, authenticated, disabled; None: unknown.

    There may be an answer for posts of the server and one for those of others. The more open one
    counts: the timeline has the posts of these servers.
    """
    feeds = get_nested(instance, "configuration", "timelines_access", "hashtag_feeds")
    values = [clean_text(get_nested(feeds, name)) for name in ("local", "remote")]
    known = [value for value in values if value]
    order = ("public", "authenticated", "disabled")
    return min(known, key=lambda v: order.index(v) if v in order else len(order), default=None)


def _check_access(instance: dict[str, Any], url: str, has_token: bool) -> None:
    """Check that a server shows its timelines.

    Raises:
        SiteRefused: It does not.
    """
    access, host = timeline_access(instance), urlsplit(url).netloc
    if access == "authenticated" and not has_token:
        raise SiteRefused(
            f"{host} shows timelines of hashtags only to its accounts: set MASTODON_TOKEN to the"
            " token of an account there, or name another server"
        )
    if access is not None and access not in ("public", "authenticated"):
        raise SiteRefused(f"{host} has disabled its timelines of hashtags: name another server")


def describe_access(body: bytes) -> str:
    """Return who may read timelines, and the version of a server."""
    instance = json_object(body, "")
    version = clean_text(instance.get("version")) or "unknown"
    return f"{timeline_access(instance) or 'not said (before version 4.5)'}; Mastodon {version}"


def describe_rules(body: bytes) -> Iterator[str]:
    """Yield the rules of a server."""
    try:
        rules = json_objects(parse_json(body.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return
    texts = [text for rule in rules if (text := html_text(rule.get("text")))]
    yield from (f"rule: {text}" for text in texts)


def describe_terms(body: bytes) -> Iterator[str]:
    """Yield since when terms of service are in force, and what they say of programs."""
    terms = json_object_or_empty(body)
    text = html_text(terms.get("content")) or ""
    if not text:
        return
    since = clean_text(terms.get("effective_date")) or "an unknown date"
    yield f"terms of service since {since}: read them before you use the posts (/terms-of-service)"
    sentences = (part.strip() for part in re.split(r"(?<=[.!?])\s+", text))
    relevant = [sentence for sentence in sentences if USE.search(sentence)]
    yield from (f"terms: {sentence[:300]}" for sentence in relevant[:MAX_SHOWN_SENTENCES])


def _parse_statuses(records: list[Any], url: str) -> Page:
    posts: dict[str, Post] = {}
    skipped = Counter[str]()
    ids: list[str] = []
    for record in records:
        post = _post(record, url)
        ids.append(post.site_id)
        reason = _reason_to_skip(record) or (None if post.photos else NO_PHOTO)
        if reason:
            skipped[reason] += 1
        else:
            posts[post.site_id] = post
    # Ids are numbers of any length, as text.
    oldest = min(ids, key=lambda text: (len(text), text), default=None)
    return Page(
        tuple(posts.values()),
        oldest,
        skipped=dict(skipped),
        is_by_date=True,
        listed_ids=tuple(ids),
    )


def _reason_to_skip(record: dict[str, Any]) -> str | None:
    """Return why a post must not be used; opt-outs of its author first."""
    account = record.get("account")
    flags = {name: get_nested(account, name) for name in ("noindex", "indexable", "discoverable")}
    is_opted_out = flags["noindex"] is True or False in (flags["indexable"], flags["discoverable"])
    if is_opted_out:
        return OPTED_OUT
    if record.get("visibility") not in (None, "public"):
        return NOT_PUBLIC
    if record.get("sensitive") is True or clean_text(record.get("spoiler_text")):
        return SENSITIVE
    if record.get("reblog") is not None:
        return SHARED
    if str(get_nested(account, "acct")).endswith("brid.gy"):
        return BRIDGED
    return None


def _post(record: object, url: str) -> Post:
    site_id = clean_text(get_nested(record, "id"))
    if not isinstance(record, dict) or site_id is None:
        raise LayoutChanged(f"a post without an id: {str(record)[:80]}", url)
    page = absolute_url(record.get("url"), url) or absolute_url(record.get("uri"), url)
    page = page or f"https://{urlsplit(url).netloc}/statuses/{quote(site_id, safe='')}"
    acct = clean_text(get_nested(record, "account", "acct"))
    # Names of the server's own accounts have no host.
    author = f"{acct}@{urlsplit(url).hostname}" if acct and "@" not in acct else acct
    tags = (clean_text(tag.get("name")) for tag in json_objects(record.get("tags")))
    return Post(
        site_id=site_id,
        url=page,
        photos=tuple(_photos(record, page, author)),
        title=html_text(record.get("content")),
        author=author,
        posted=parse_datetime(record.get("created_at")),
        hashtags=tuple(dict.fromkeys(tag for tag in tags if tag)),
        record=record,
    )


def _photos(record: dict[str, Any], page: str, author: str | None) -> Iterator[Photo]:
    for media in json_objects(record.get("media_attachments")):
        # The server's own copies of other servers' photos expire.
        urls = [absolute_url(media.get(name), page) for name in ("remote_url", "url")]
        known = list(dict.fromkeys(url for url in urls if url))
        if media.get("type") == "image" and known:
            credit = Credit(author=author, source_page=page)
            yield Photo(known[0], tuple(known[1:]), clean_text(media.get("id")), credit)
