"""Instagram's Graph API in the format that `scraper/spiders/instagram.py` parses."""

import re
import zlib
from typing import Any

from dataset.vocabulary import normalize_word
from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Stock, StockPhoto, caption, tag

# expiring: image URLs in lists have expired; those of a single requested post are valid. heavy:
# pages of more than HEAVY_LIMIT posts are too much data. The others are error responses.
GENERATIONS = ("today", "expiring", "heavy", "expired-token", "limited", "hashtag-limit")
# The API is closed to page crawlers; access requires a token.
ROBOTS = "User-agent: *\nAllow: /v/\nDisallow: /\n"
HOST = "https://scontent.cdninstagram.com"
MAX_LIMIT, HEAVY_LIMIT = 50, 10
FIRST_POST = 17_900_000_000_000_000
FIRST_CHILD = 17_800_000_000_000_000
FIRST_VIDEO = 17_700_000_000_000_000
# An album has at most ten photos.
PLACES = 10
SPENT, GOOD = "00_AfSpent", "00_AfGood"


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the API or of its image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path.startswith("/v/t51.29350-15/"):
        return _photo(request, generation)
    match = re.fullmatch(r"/v\d+\.\d+/(.+)", request.path)
    if match is None:
        return error(2500, f"Unknown path components: {request.path}")
    return refused(request, generation) or _node(stock, request, match.group(1), generation)


def error(code: int, message: str, subcode: int | None = None, **headers: str) -> SiteResponse:
    """Return an error object with its status."""
    inner: dict[str, Any] = {"message": message, "type": "OAuthException", "code": code}
    if subcode:
        inner["error_subcode"] = subcode
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    status = {1: 500, 4: 403}.get(code, 400)
    return as_json({"error": inner | {"fbtrace_id": "AbCdEf"}}, status, named)


def refused(request: SiteRequest, generation: str) -> SiteResponse | None:
    """Return the error response for a missing token or an error generation, or None."""
    if not request.token:
        return error(104, "An access token is required to request this resource.")
    if generation == "expired-token":
        # The error message of the API repeats the token.
        message = f"Error validating access token {request.token}: Session has expired"
        return error(190, message, 463)
    if generation == "limited":
        usage = '{"17841400000000000":[{"type":"instagram","estimated_time_to_regain_access":23}]}'
        return error(4, "Application request limit reached", x_business_use_case_usage=usage)
    if generation == "hashtag-limit" and request.path.endswith("ig_hashtag_search"):
        return error(18, "Maximum number of hashtags queried in 7 days", 2207034)
    return None


def _node(stock: Stock, request: SiteRequest, path: str, generation: str) -> SiteResponse:
    if path == "ig_hashtag_search":
        return _hashtag(stock, request.query.get("q", ""))
    node, _, edge = path.partition("/")
    if edge in ("recent_media", "top_media"):
        label = next((label for label in stock.counts() if hashtag_id(label) == node), None)
        if label is None:
            return error(
                100, f"Unsupported get request. Object with ID '{node}' does not exist", 33
            )
        return _media_list(stock, request, label, edge, generation)
    if edge == "recently_searched_hashtags":
        first = next(iter(stock.counts()), "polo")
        return as_json({"data": [{"id": hashtag_id(first), "name": normalize_word(first)}]})
    number = int(node) - FIRST_POST if node.isdecimal() else -1
    if 0 <= number < len(stock.items):
        return as_json(media(stock, number, GOOD))
    return as_json({"username": "sample.shop", "id": node})


def hashtag_id(label: str) -> str:
    """Return the API's id of a label."""
    return f"1784{zlib.crc32(label.encode()):013}"


def _hashtag(stock: Stock, query: str) -> SiteResponse:
    label = stock.vocabulary.label_or_hashtag(query)
    if label not in stock.counts():
        return error(24, "The requested resource does not exist", 2207024)
    return as_json({"data": [{"id": hashtag_id(label)}]})


def _media_list(
    stock: Stock, request: SiteRequest, label: str, edge: str, generation: str
) -> SiteResponse:
    """Return a page of the posts under a label.

    Recent media are the first two thirds of the posts, top media the last two thirds.
    """
    numbers = [n for n, item in enumerate(stock.items) if label in item.labels]
    third = len(numbers) // 3
    numbers = numbers[third:] if edge == "top_media" else numbers[: len(numbers) - third]
    limit = min(MAX_LIMIT, number_in(request.query.get("limit"), 25))
    if generation == "heavy" and limit > HEAVY_LIMIT:
        message = "Please reduce the amount of data you're asking for, then retry your request"
        return error(1, message)
    start = number_in(request.query.get("after", "")[3:], 0)
    shown = numbers[start : start + limit]
    address = SPENT if generation == "expiring" else GOOD
    data = [media(stock, number, address) for number in shown]
    if start == 0:
        data.append(video(label))
    content: dict[str, Any] = {"data": data}
    if start + limit < len(numbers):
        after = f"QVF{start + limit}"
        # As in the real API, the URL of the next page contains the access token.
        following = f"{request.path}?access_token={request.token}&limit={limit}&after={after}"
        content["paging"] = {
            "cursors": {"after": after},
            "next": f"https://graph.facebook.com{following}",
        }
    return as_json(content)


def media(stock: Stock, number: int, signature: str) -> dict[str, Any]:
    """Return a post of the stock, its image URLs with a signature."""
    item = stock.items[number]
    shared = {
        "id": str(FIRST_POST + number),
        "permalink": f"https://www.instagram.com/p/{item.sku}/",
        "caption": caption(item, stock),
        "timestamp": f"2026-11-{number % 20 + 1:02}T09:{number % 60:02}:00+0000",
        "like_count": number % 50,
        "comments_count": number % 7,
    }
    if len(item.photos) == 1:
        address = photo_address(item.photos[0], signature)
        return shared | {"media_type": "IMAGE", "media_url": address}
    children = [
        {
            "id": str(FIRST_CHILD + number * PLACES + place),
            "media_type": "IMAGE",
            "media_url": photo_address(photo, signature),
        }
        for place, photo in enumerate(item.photos)
    ]
    return shared | {"media_type": "CAROUSEL_ALBUM", "children": {"data": children}}


def video(label: str) -> dict[str, Any]:
    """Return a post without images."""
    number = FIRST_VIDEO + zlib.crc32(label.encode())
    return {
        "id": str(number),
        "media_type": "VIDEO",
        "media_url": f"{HOST}/v/t50.2886-16/{number}_n.mp4?oh={GOOD}&oe=6F20AB16",
        "permalink": f"https://www.instagram.com/reel/{number}/",
        "caption": f"#{tag(label)} in motion",
        "timestamp": "2026-11-20T07:30:00+0000",
        "like_count": 9,
        "comments_count": 1,
    }


def photo_address(photo: StockPhoto, signature: str) -> str:
    """Return the signed URL of a photo."""
    return f"{HOST}/v/t51.29350-15{photo.path}?_nc_cat=1&oh={signature}&oe=6F20AB12"


def _photo(request: SiteRequest, generation: str) -> SiteResponse | PhotoRequest:
    if generation == "expiring" and request.query.get("oh") != GOOD:
        return plain("URL signature expired", 403)
    return PhotoRequest(request.path.removeprefix("/v/t51.29350-15"), None)
