"""A Mastodon server in the format that `scraper/spiders/mastodon.py` parses."""

import re
import zlib
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from scraper.parsing.fields import parse_count
from scraper.parsing.hashtags import find_hashtags
from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    html,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto, caption

# members: timelines only for accounts of the server; disabled: none, which look empty; old: a
# version that does not say who may read; limited: 429.
GENERATIONS = ("today", "old", "members", "disabled", "limited")
ROBOTS = "User-agent: *\nDisallow: /media_proxy/\nDisallow: /interact/\n"
# What a crawl of the server needs beside its URLs.
OPTIONS = "--set server=mastodon.example.com"
HOST, FILES = "https://mastodon.example.com", "https://files.mastodon.example.com"
ATTACHMENTS = "/media_attachments/files/"
PAGE, MAX_PAGE = 20, 40
NEWEST, APART = 114_870_142_396_314_555, 1_000_000_007
START = datetime(2026, 11, 20, 9, 30, tzinfo=timezone.utc)
RULES = ("Be kind.", "No scraping of posts for machine learning without consent.")
TERMS = "<p>These are the terms.</p><p>You must not use automated programs to harvest posts.</p>"
LIMITS = {
    "X-RateLimit-Limit": "300",
    "X-RateLimit-Remaining": "299",
    "X-RateLimit-Reset": "2100-01-01T00:00:00.290188Z",
}
# Every how many posts the author has opted out, and the post is sensitive.
OPTED_OUT, SENSITIVE = 7, 11


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the server or of its image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path.startswith(ATTACHMENTS):
        name = request.path.rpartition("/")[2]
        return PhotoRequest(f"/{name[:1]}/{name[1:2]}/{name}", None)
    if generation == "limited":
        return as_json({"error": "Too many requests"}, 429, {"Retry-After": "2"})
    pages = {
        "/api/v2/instance": instance(generation),
        "/api/v1/instance/rules": [{"id": str(n), "text": text} for n, text in enumerate(RULES)],
        "/api/v1/instance/terms_of_service": {"effective_date": "2026-07-01", "content": TERMS},
    }
    if request.path in pages:
        return as_json(pages[request.path], 200, LIMITS)
    if match := re.fullmatch(r"/api/v1/timelines/tag/([^/]+)", request.path):
        return _timeline(stock, request, unquote(match[1]), generation)
    return html("<h1>404</h1>", 404)


def instance(generation: str = "today") -> dict[str, Any]:
    """Return the description of the server."""
    access = {"members": "authenticated", "disabled": "disabled"}.get(generation, "public")
    feeds = {"local": access, "remote": access}
    configuration = {"timelines_access": {"hashtag_feeds": feeds, "live_feeds": feeds}}
    return {
        "domain": urlsplit(HOST).netloc,
        "title": "Mastodon",
        "version": "4.4.1" if generation == "old" else "4.6.0",
        "source_url": "https://github.com/mastodon/mastodon",
        "configuration": {} if generation == "old" else configuration,
    }


def _timeline(stock: Stock, request: SiteRequest, hashtag: str, generation: str) -> SiteResponse:
    if generation == "members" and not request.token:
        return as_json({"error": "The access token is invalid"}, 401)
    parameters = parse_qs(urlsplit(request.target).query)
    words = [hashtag, *parameters.get("any[]", [])]
    labels = {stock.vocabulary.label_or_hashtag(word) for word in words}
    newest = parse_count(request.query.get("max_id")) or NEWEST + 1
    matching = [
        number
        for number, item in enumerate(stock.items)
        if labels & set(item.labels) and status_id(number) < newest
    ]
    shown = matching[: min(MAX_PAGE, number_in(request.query.get("limit"), PAGE))]
    if generation == "disabled" or not shown:
        return as_json([], 200, LIMITS)
    link = f'<{HOST}{request.path}?max_id={status_id(shown[-1])}>; rel="next"'
    statuses = [status(stock, number) for number in shown]
    return as_json(statuses, 200, LIMITS | {"Link": link})


def status_id(number: int) -> int:
    """Return the id of a post; post 0 is the newest."""
    return NEWEST - number * APART


def status(stock: Stock, number: int) -> dict[str, Any]:
    """Return a post; some authors have opted out, and some posts are sensitive."""
    item, post_id = stock.items[number], str(status_id(number))
    text = caption(item, stock)
    account = _account(item, is_public=number % OPTED_OUT != OPTED_OUT - 1)
    time = (START - timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    page = f"{HOST}/@{account['username']}/{post_id}"
    return {
        "id": post_id,
        "created_at": time,
        "in_reply_to_id": None,
        "sensitive": number % SENSITIVE == SENSITIVE - 1,
        "spoiler_text": "",
        "visibility": "public",
        "language": "ru",
        "uri": page,
        "url": page,
        "content": f"<p>{text}</p>".replace("\n", "<br />").replace(" & ", " &amp; "),
        "reblog": None,
        "account": account,
        "media_attachments": [_attachment(photo) for photo in item.photos],
        "tags": [{"name": tag.lower(), "url": f"{HOST}/tags/{tag}"} for tag in find_hashtags(text)],
        "quote": None,
        "card": None,
    }


def _account(item: Item, is_public: bool) -> dict[str, Any]:
    number = zlib.crc32(item.brand.encode())
    name = f"brand_{number}"
    return {
        **{"id": str(number), "username": name, "acct": name, "display_name": item.brand},
        **{"bot": False, "discoverable": is_public, "indexable": is_public, "group": False},
        "url": f"{HOST}/@{name}",
    }


def _attachment(photo: StockPhoto) -> dict[str, Any]:
    url = f"{FILES}{ATTACHMENTS}{photo.path.rpartition('/')[2]}"
    return {
        "id": str(zlib.crc32(photo.path.encode())),
        "type": "image",
        "url": url,
        "preview_url": url,
        "remote_url": None,
        "meta": {"original": {"width": 600, "height": 800}},
        "description": None,
    }
