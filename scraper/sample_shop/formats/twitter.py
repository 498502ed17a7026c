"""X's API v2 in the format that `scraper/spiders/twitter.py` parses."""

import re
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from scraper.parsing.fields import parse_count
from scraper.parsing.hashtags import find_hashtags, to_hashtag
from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto, caption, tag

# no-orig: images have no original; partial: authors and some images are withheld; old-since:
# `since_id` is too old for X; the others are error responses.
GENERATIONS = (
    *("today", "no-orig", "partial", "old-since", "wrong-token", "no-credits", "not-enrolled"),
    *("usage-capped", "limited", "overloaded"),
)
ROBOTS = "User-agent: *\nAllow: /\n"
HOST = "https://pbs.twimg.com"
PROBLEMS = "https://api.twitter.com/2/problems"
# The id of a post contains its time: milliseconds since EPOCH, shifted left by 22 bits.
NEWEST, STEP = 1_990_000_000_000_000_000, 60_000 << 22
EPOCH = 1_288_834_974_657
MEDIA, AUTHORS = 1_980_000_000_000_000_000, 2_244_990_000
# A post has at most four photos.
PLACES = 4
SIZES = {"large": 2048, "medium": 1200, "small": 680, "thumb": 150}
# The year 2100.
RESET = 4_102_444_800
LIMITS = {
    "x-rate-limit-limit": "450",
    "x-rate-limit-remaining": "449",
    "x-rate-limit-reset": str(RESET),
}
PAGE, LARGEST_PAGE = 10, {"recent": 100, "all": 500}
LONGEST_QUERY = {"recent": 512, "all": 1024}
TOKEN = "b26v89c19zqg"
USAGE = {
    "cap_reset_day": 10,
    "project_cap": "2000000",
    "project_id": "1369785403853424",
    "project_usage": "43435",
}


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the API or of its image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path.startswith("/media/"):
        return _photo(request, generation)
    if response := refused(request, generation):
        return response
    if request.path == "/2/usage/tweets":
        return as_json({"data": USAGE})
    match = re.fullmatch(r"/2/tweets/(search|counts)/(recent|all)", request.path)
    if match is None:
        return problem(404, "Not Found Error", "resource-not-found")
    what, kind = match.groups()
    if wrong := _wrong(request, kind, generation):
        return invalid(*wrong)
    numbers = _found(stock, request)
    if what == "counts":
        return count(request, numbers, kind)
    return _search(stock, request, numbers, generation)


def problem(
    status: int, title: str, kind: str | None = None, detail: str | None = None
) -> SiteResponse:
    """Return a problem document with its status and rate-limit headers."""
    content = {
        "title": title,
        "type": f"{PROBLEMS}/{kind}" if kind else "about:blank",
        "status": status,
        "detail": detail or title,
    }
    return as_json(content, status, LIMITS | {"x-rate-limit-remaining": "0"})


def invalid(name: str, value: str, message: str) -> SiteResponse:
    """Return the error response for an invalid parameter."""
    content = {
        "errors": [{"parameters": {name: [value]}, "message": message}],
        "title": "Invalid Request",
        "detail": "One or more parameters to your request was invalid.",
        "type": f"{PROBLEMS}/invalid-request",
    }
    return as_json(content, 400)


def refused(request: SiteRequest, generation: str) -> SiteResponse | None:
    """Return the error response for a missing token or an error generation, or None."""
    if not request.token:
        return problem(401, "Unauthorized")
    content = {
        # Some error responses repeat the token.
        "wrong-token": (401, "Unauthorized", None, f"Unauthorized: {request.token}"),
        "no-credits": (402, "CreditsDepleted", "credits", "Your account has no credits."),
        "not-enrolled": (403, "Client Forbidden", "client-not-enrolled", "Not enrolled."),
        "usage-capped": (429, "UsageCapExceeded", "usage-capped", "Usage cap exceeded: Monthly"),
        "limited": (429, "Too Many Requests"),
        "overloaded": (503, "Service Unavailable"),
    }.get(generation)
    return problem(*content) if content else None  # type: ignore[arg-type]


def _wrong(request: SiteRequest, kind: str, generation: str) -> tuple[str, str, str] | None:
    """Return the name, value and error message of an invalid parameter, or None."""
    query = request.query
    text, since, size = query.get("query", ""), query.get("since_id"), query.get("max_results")
    token = query.get("next_token")
    if not text or len(text) > LONGEST_QUERY[kind]:
        return "query", text, f"Length is {len(text)}; it must be 1 to {LONGEST_QUERY[kind]}."
    if since and "start_time" in query:
        return "since_id", since, "Invalid use of 'since_id' in conjunction with 'start_time'."
    if since and generation == "old-since":
        return "since_id", since, "'since_id' must be a tweet id created after [2026-11-13]."
    if size and not PAGE <= number_in(size, 0) <= LARGEST_PAGE[kind]:
        return "max_results", size, f"It must be from {PAGE} to {LARGEST_PAGE[kind]}."
    if token and not re.fullmatch(TOKEN + r"\d+", token):
        return "next_token", token, "The 'next_token' is invalid."
    return None


def _found(stock: Stock, request: SiteRequest) -> list[int]:
    """Return the stock indices of the matching posts, newest first."""
    hashtags = set(find_hashtags(request.query.get("query", "")))
    labels = {
        label
        for label in stock.counts()
        if any(
            to_hashtag(label) == hashtag or stock.vocabulary.label_of(hashtag) == label
            for hashtag in hashtags
        )
    }
    since = parse_count(request.query.get("since_id")) or 0
    items = enumerate(stock.items)
    return [n for n, item in items if labels & set(item.labels) and post_id(n) > since]


def count(request: SiteRequest, numbers: Sequence[int], kind: str) -> SiteResponse:
    """Return the number of posts of one day; archive counts come in two pages."""
    half = len(numbers) // 2 if kind == "all" else len(numbers)
    first = "next_token" not in request.query
    here = half if first else len(numbers) - half
    day = _time(post_id(0)).replace(hour=0, minute=0, second=0, microsecond=0)
    piece = {"start": _iso(day), "end": _iso(day + timedelta(days=1)), "tweet_count": here}
    meta: dict[str, Any] = {"total_tweet_count": here}
    if first and half < len(numbers):
        meta["next_token"] = f"{TOKEN}{half}"
    return as_json({"data": [piece], "meta": meta})


def _search(
    stock: Stock, request: SiteRequest, numbers: Sequence[int], generation: str
) -> SiteResponse:
    """Return a page of posts; the first page also has a video and a sensitive post."""
    size = number_in(request.query.get("max_results"), PAGE)
    start = number_in(request.query.get("next_token", "").removeprefix(TOKEN), 0)
    shown = numbers[start : start + size]
    if not shown:
        return as_json({"meta": {"result_count": 0}}, 200, LIMITS)
    posts = [post(stock, number) for number in shown]
    media = [entry for number in shown for entry in _media(stock.items[number], number)]
    if start == 0 and "since_id" not in request.query:
        for more, its_media in (film(stock, shown[0]), sensitive(stock, shown[0])):
            posts.append(more)
            media.append(its_media)
    users = {entry["id"]: entry for entry in (author(stock.items[number]) for number in shown)}
    includes: dict[str, Any] = {"media": media, "users": list(users.values())}
    content: dict[str, Any] = {"data": posts, "includes": includes}
    if generation == "partial":
        content["errors"] = [
            withheld("media", "attachments.media_keys", media.pop(0)["media_key"]),
            *(withheld("user", "author_id", entry["id"]) for entry in includes.pop("users")),
        ]
    ids = sorted(int(entry["id"]) for entry in posts)
    meta = {"newest_id": str(ids[-1]), "oldest_id": str(ids[0]), "result_count": len(posts)}
    more = {"next_token": f"{TOKEN}{start + size}"} if start + size < len(numbers) else {}
    return as_json(content | {"meta": meta | more}, 200, LIMITS)


def withheld(what: str, parameter: str, value: str) -> dict[str, str]:
    """Return the partial error for an object that is referenced but not included."""
    return {
        "value": value,
        "detail": f"Could not find {what} with {parameter}: [{value}].",
        "title": "Not Found Error",
        "resource_type": what,
        "parameter": parameter,
        "resource_id": value,
        "type": f"{PROBLEMS}/resource-not-found",
    }


def post_id(number: int) -> int:
    """Return the id of a post; post 0 is the newest, each next one is a minute older."""
    return NEWEST - number * STEP


def post(stock: Stock, number: int) -> dict[str, Any]:
    """Return a post of the stock."""
    item = stock.items[number]
    keys = [entry["media_key"] for entry in _media(item, number)]
    return _post(post_id(number), caption(item, stock).replace("&", "&amp;"), item, keys)


def _post(number: int, text: str, item: Item, keys: Sequence[str]) -> dict[str, Any]:
    starts = {hashtag: text.find(f"#{hashtag}") for hashtag in find_hashtags(text)}
    tags = [
        {"start": start, "end": start + len(hashtag) + 1, "tag": hashtag}
        for hashtag, start in starts.items()
    ]
    return {
        "id": str(number),
        "edit_history_tweet_ids": [str(number)],
        "text": text,
        "author_id": str(AUTHORS + _author(item)),
        "created_at": _iso(_time(number)),
        "lang": "ru",
        "possibly_sensitive": False,
        "attachments": {"media_keys": list(keys)},
        "entities": {"hashtags": tags},
    }


def film(stock: Stock, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a video post next to a post of the stock, and its media object."""
    item, key = stock.items[number], f"7_{MEDIA + number * PLACES}"
    text = f"#{tag(item.labels[0])} in motion"
    media = {"media_key": key, "type": "video", "width": 720, "height": 1280}
    return _post(post_id(number) - 1, text, item, [key]), media


def sensitive(stock: Stock, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a sensitive post next to a post of the stock, and its media object."""
    item = stock.items[number]
    media = _photo_media(item.photos[0], f"3_{MEDIA - number - 1}")
    content = _post(post_id(number) - 2, f"#{tag(item.labels[0])}", item, [media["media_key"]])
    return content | {"possibly_sensitive": True}, media


def _media(item: Item, number: int) -> list[dict[str, Any]]:
    return [
        _photo_media(photo, f"3_{MEDIA + number * PLACES + place}")
        for place, photo in enumerate(item.photos[:PLACES])
    ]


def _photo_media(photo: StockPhoto, key: str) -> dict[str, Any]:
    address = f"{HOST}/media/{photo.path.rpartition('/')[2]}"
    return {"media_key": key, "type": "photo", "url": address, "width": 600, "height": 800}


def author(item: Item) -> dict[str, Any]:
    """Return the user who posted an item: its brand."""
    who = _author(item)
    return {"id": str(AUTHORS + who), "name": item.brand, "username": f"brand_{who}"}


def _author(item: Item) -> int:
    return zlib.crc32(item.brand.encode()) % 100_000


def _time(number: int) -> datetime:
    return datetime.fromtimestamp(((number >> 22) + EPOCH) / 1000, timezone.utc)


def _iso(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.000Z"


def _photo(request: SiteRequest, generation: str) -> SiteResponse | PhotoRequest:
    name, size = request.path.removeprefix("/media/"), request.query.get("name", "medium")
    if size == "orig" and generation == "no-orig":
        return plain("not found", 404)
    side = SIZES.get(size)
    if side is None and size != "orig":
        return plain("no such size", 400)
    return PhotoRequest(f"/{name[:1]}/{name[1:2]}/{name}", (side, side) if side else None)
