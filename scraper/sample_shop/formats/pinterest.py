"""Pinterest's API v5 and web search in the formats that `scraper/spiders/pinterest.py` parses."""

import json
import re
import zlib
from typing import Any

from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto, caption, tag

# web: robots.txt allows the web search; no-originals: images exist in smaller sizes only; the
# others are error responses.
GENERATIONS = ("today", "web", "no-originals", "wrong-token", "not-approved", "limited")
ROBOTS = "User-agent: *\nDisallow: /resource/\nAllow: /\n"
ROBOTS_WEB = "User-agent: *\nAllow: /\n"
HOST = "https://i.pinimg.com"
API_SIZES = {
    "150x150": (150, 150),
    "400x300": (400, 300),
    "600x": (600, 900),
    "1200x": (1200, 1800),
}
WEB_SIZES = {"236x": (236, 354), "736x": (736, 1104)}
LARGEST_PAGE = 50
FIRST_PIN = 813_744_226_420_000_000
FIRST_VIDEO = 813_744_220_000_000_000
OWNERS = 813_744_000
ACCOUNT = {
    "account_type": "BUSINESS",
    "id": "2783136121146311751",
    "username": "sample.shop",
    "profile_image": f"{HOST}/280x280_RS/5e/57/cd/5e57cd.jpg",
    "website_url": "",
    "business_name": "Sample shop",
}
STORY = {"id": "6001", "type": "story", "title": "Ideas for you", "objects": []}
LIMITS = {"x-ratelimit-limit": "1000, 1000;w=60", "x-ratelimit-remaining": "999"}


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the API, the web search or the image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS_WEB if generation == "web" else ROBOTS)
    if request.path == "/resource/BaseSearchResource/get/":
        return _web_search(stock, request, generation)
    if not request.path.startswith("/v5/"):
        return _photo(request.path, generation)
    if response := refused(request, generation):
        return response
    if request.path == "/v5/user_account":
        return as_json(ACCOUNT)
    if request.path == "/v5/search/partner/pins":
        return _partner_search(stock, request)
    return error(404, 40, "Not found.")


def error(status: int, code: int, message: str, **headers: str) -> SiteResponse:
    """Return an error object with its status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return as_json({"code": code, "message": message}, status, named)


def refused(request: SiteRequest, generation: str) -> SiteResponse | None:
    """Return the error response for a missing token or an error generation, or None."""
    if not request.token:
        return error(401, 2, "Authentication failed.")
    if generation == "wrong-token":
        # Some error responses repeat the token.
        return error(401, 2, f"Authentication failed for {request.token}.")
    if generation == "not-approved" and request.path != "/v5/user_account":
        return error(403, 29, "You are not permitted to access that resource.")
    if generation == "limited":
        return error(429, 8, "This request exceeded a rate limit.", retry_after="1380")
    return None


def _partner_search(stock: Stock, request: SiteRequest) -> SiteResponse:
    query = request.query
    country, limit = query.get("country_code", ""), number_in(query.get("limit"), 10)
    if "term" not in query or not re.fullmatch("[A-Z]{2}", country) or limit > LARGEST_PAGE:
        return error(400, 1, "Invalid request: term, country_code or limit")
    matching, start = _found(stock, query["term"]), number_in(query.get("bookmark", "")[3:], 0)
    shown = matching[start : start + limit]
    pins = [pin(stock, number) for number in shown]
    if start == 0 and shown:
        pins.append(video_pin(stock, shown[0]))
    more = f"Y2J{start + limit}" if start + limit < len(matching) else None
    return as_json({"items": pins, "bookmark": more}, 200, LIMITS)


def _found(stock: Stock, term: str) -> list[int]:
    label = stock.vocabulary.label_or_hashtag(term)
    return [number for number, item in enumerate(stock.items) if label in item.labels]


def pin(stock: Stock, number: int) -> dict[str, Any]:
    """Return a pin of the stock in the format of the API."""
    item = stock.items[number]
    albums = [_sizes(photo, API_SIZES) for photo in item.photos]
    media: dict[str, Any] = {"media_type": "image", "images": albums[0]}
    if len(albums) > 1:
        shared = {"item_type": "image", "title": item.name, "description": None, "link": None}
        items = [shared | {"images": images} for images in albums]
        media = {"media_type": "multiple_images", "items": items}
    return _pin(FIRST_PIN + number, number, item, caption(item, stock), media)


def _pin(
    site_id: int, number: int, item: Item, description: str, media: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": str(site_id),
        "created_at": f"2026-11-{number % 20 + 1:02}T09:{number % 60:02}:00",
        "link": f"https://shop.example/{item.sku}",
        "title": item.name,
        "description": description,
        "alt_text": item.colour,
        "dominant_color": "#F2F2F2",
        "board_id": str(OWNERS),
        "board_owner": {"username": _owner(item)},
        "media": media,
    }


def video_pin(stock: Stock, number: int) -> dict[str, Any]:
    """Return a video pin, which has no image but its cover."""
    item = stock.items[number]
    media = {
        "media_type": "video",
        "cover_image_url": f"{HOST}/videos/thumbnails/originals/{item.sku}.jpg",
        "duration": 15000.0,
        "width": 720,
        "height": 1280,
        "images": _sizes(item.photos[0], API_SIZES),
    }
    return _pin(FIRST_VIDEO + number, number, item, f"#{tag(item.labels[0])} in motion", media)


def _web_search(stock: Stock, request: SiteRequest, generation: str) -> SiteResponse:
    """Return a page of the public web search."""
    if generation == "limited":
        return web_failure(429, "Too many requests", {"Retry-After": "1380"})
    try:
        options = json.loads(request.query.get("data", ""))["options"]
        query, size, bookmarks = (
            options["query"],
            int(options["page_size"]),
            options.get("bookmarks"),
        )
    except (ValueError, KeyError, TypeError):
        return web_failure(400, "Invalid data")
    if "x-pinterest-pws-handler" not in request.headers:
        return web_failure(403, "Invalid resource request")
    matching, start = _found(stock, query), number_in(str((bookmarks or [""])[0])[3:], 0)
    shown = matching[start : start + size]
    results = [web_pin(stock, number) for number in shown]
    if start == 0 and shown:
        results += [web_video(stock, shown[0]), STORY]
    end = start + size >= len(matching)
    bookmark = "-end-" if end else f"Y2J{start + size}"
    response = {"status": "success", "code": 0, "message": "ok", "data": {"results": results}}
    asked_for = {"query": query, "scope": "pins", "page_size": size, "bookmarks": [bookmark]}
    resource = {"name": "BaseSearchResource", "options": asked_for}
    return as_json({"resource_response": response | {"bookmark": bookmark}, "resource": resource})


def web_failure(status: int, message: str, headers: dict[str, str] | None = None) -> SiteResponse:
    """Return an error response of the web search."""
    content = {"status": "failure", "code": status, "message": message, "data": None}
    return as_json({"resource_response": content}, status, headers)


def web_pin(stock: Stock, number: int) -> dict[str, Any]:
    """Return a pin of the stock in the format of the web search."""
    item = stock.items[number]
    albums = [_web_sizes(photo) for photo in item.photos]
    slots = [{"id": str(n), "title": None, "images": images} for n, images in enumerate(albums, 1)]
    return {
        "id": str(FIRST_PIN + number),
        "type": "pin",
        "title": "",
        "grid_title": item.name,
        "description": caption(item, stock),
        "created_at": f"Fri, 20 Nov 2026 09:{number % 60:02}:00 +0000",
        "pinner": {"id": str(OWNERS), "username": _owner(item), "full_name": item.brand},
        "videos": None,
        "carousel_data": {"carousel_slots": slots} if len(slots) > 1 else None,
        "images": albums[0],
    }


def web_video(stock: Stock, number: int) -> dict[str, Any]:
    """Return a video pin of the web search, which has no image but its cover."""
    listed = {"V_720P": {"url": f"https://v1.pinimg.com/videos/720p/{number}.mp4"}}
    changed = {"id": str(FIRST_VIDEO + number), "videos": {"video_list": listed}}
    return web_pin(stock, number) | changed


def _web_sizes(photo: StockPhoto) -> dict[str, Any]:
    orig = {"width": 1000, "height": 1500, "url": f"{HOST}/originals{_folders(photo)}"}
    return _sizes(photo, WEB_SIZES) | {"orig": orig}


def _sizes(photo: StockPhoto, sizes: dict[str, tuple[int, int]]) -> dict[str, Any]:
    return {
        name: {"width": width, "height": height, "url": f"{HOST}/{name}{_folders(photo)}"}
        for name, (width, height) in sizes.items()
    }


def _folders(photo: StockPhoto) -> str:
    """Return the path of an image: as on the site, three folders of two letters and the name."""
    name = photo.path.rpartition("/")[2]
    crc = f"{zlib.crc32(name.encode()):08x}"
    return f"/{crc[:2]}/{crc[2:4]}/{crc[4:6]}/{name}"


def _owner(item: Item) -> str:
    return f"brand_{zlib.crc32(item.brand.encode()) % 100_000}"


def _photo(path: str, generation: str) -> SiteResponse | PhotoRequest:
    match = re.fullmatch(r"/(\w+)/\w\w/\w\w/\w\w/((\w)(\w)[^/]*)", path)
    boxes = API_SIZES | WEB_SIZES | {"originals": None}
    if match is None or match.group(1) not in boxes:
        return plain("no such photo", 404)
    size, name, *folders = match.groups()
    if size == "originals" and generation == "no-originals":
        # The image host returns this for missing files.
        return plain("<Error><Code>AccessDenied</Code></Error>", 403)
    return PhotoRequest("/" + "/".join([*folders, name]), boxes[size])
