"""The API of Openverse in the format that `scraper/spiders/openverse.py` parses."""

import uuid
from typing import Any

from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto

# wrong-key: no token for the key; limited: 429.
GENERATIONS = ("today", "wrong-key", "limited")
ROBOTS = "User-agent: *\nAllow: /\n"
API, HOST = "https://api.openverse.org/v1/images/", "https://live.staticflickr.com"
PAGE_SIZE, MAX_PAGE_SIZE, MAX_RESULTS = 20, 500, 240
TOKEN = "DLBYIcfnKfolaXKcmMC8RIDCavc2hW"
# Code, version and path of the URL of licenses, in turn.
LICENSES = (
    ("by-sa", "2.0", "licenses/by-sa/2.0"),
    ("cc0", "1.0", "publicdomain/zero/1.0"),
    ("by-nc", "4.0", "licenses/by-nc/4.0"),
)


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the API or of an image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path.startswith("/65535/"):
        name = request.path.rpartition("/")[2]
        return PhotoRequest(f"/{name[:1]}/{name[1:2]}/{name}", None)
    if request.path == "/v1/auth_tokens/token/":
        if generation == "wrong-key":
            return as_json({"error": "invalid_client"}, 401)
        fields = {"expires_in": 36_000, "token_type": "Bearer", "scope": "read write"}
        return as_json({"access_token": TOKEN, **fields})
    if generation == "limited":
        return as_json({"detail": "Request was throttled."}, 429, {"Retry-After": "2"})
    if request.path != "/v1/images/":
        return as_json({"detail": "Not found."}, 404)
    return _search(stock, request)


def _search(stock: Stock, request: SiteRequest) -> SiteResponse:
    query, has_key = request.query, request.token == TOKEN
    size = number_in(query.get("page_size"), PAGE_SIZE)
    page = max(1, number_in(query.get("page"), 1))
    if request.token and not has_key:
        return as_json({"detail": "Authentication credentials were not provided."}, 401)
    if size > (MAX_PAGE_SIZE if has_key else PAGE_SIZE):
        return _refusal(f"page_size may not exceed {PAGE_SIZE} for anonymous requests")
    if page * size > MAX_RESULTS:
        return _refusal(f"pagination depth may not exceed {MAX_RESULTS} for anonymous requests")
    licenses = set(filter(None, query.get("license", "").split(",")))
    known = {code for code, *_ in LICENSES} | {"pdm", "by", "by-nd", "by-nc-sa", "by-nc-nd"}
    if unknown := licenses - known - {"sampling+"}:
        detail = f"Invalid input given for fields. 'license' -> License '{unknown}' does not exist."
        return as_json({"error": "InputError", "detail": detail, "fields": ["license"]}, 400)
    word = query.get("q", query.get("tags", "")).strip('"')
    matching = [
        entry
        for number, item in enumerate(stock.items)
        if item in stock.search(word)
        for entry in (result(item, photo, number) for photo in item.photos)
        if not licenses or entry["license"] in licenses
    ]
    count = len(matching) if has_key else min(len(matching), MAX_RESULTS)
    shown = matching[(page - 1) * size : page * size]
    rest = {"page_count": -(-count // size), "page_size": size, "page": page, "results": shown}
    available = {
        "X-RateLimit-Available-anon_burst": "19",
        "X-RateLimit-Available-anon_sustained": "199",
    }
    return as_json({"result_count": count, **rest}, 200, {} if has_key else available)


def _refusal(detail: str) -> SiteResponse:
    return as_json({"detail": detail}, 401)


def result(item: Item, photo: StockPhoto, number: int) -> dict[str, Any]:
    """Return a result, one per photo."""
    name = photo.path.rpartition("/")[2]
    code, version, path = LICENSES[number % len(LICENSES)]
    license_url = f"https://creativecommons.org/{path}/"
    image_id = str(uuid.uuid5(uuid.NAMESPACE_URL, photo.path))
    labels = [
        {"accuracy": None, "name": label, "unstable__provider": "flickr"} for label in item.labels
    ]
    machine = {"accuracy": 0.95, "name": "clothing", "unstable__provider": "machine_example"}
    terms = f"To view a copy of this license, visit {license_url}."
    return {
        "id": image_id,
        "title": item.name,
        "indexed_on": "2026-08-27T17:39:48Z",
        "foreign_landing_url": f"https://www.flickr.com/photos/{number}/{name.partition('.')[0]}",
        "url": f"{HOST}/65535/{name}",
        "creator": item.brand,
        "creator_url": f"https://www.flickr.com/photos/{number}",
        "license": code,
        "license_version": version,
        "license_url": license_url,
        "provider": "flickr",
        "source": "flickr",
        "category": "photograph",
        "filesize": None,
        "filetype": name.rpartition(".")[2],
        "tags": [*labels, machine],
        "attribution": f'"{item.name}" by {item.brand} is licensed under {code.upper()}. {terms}',
        "fields_matched": ["title"],
        "mature": False,
        "height": 800,
        "width": 600,
        "thumbnail": f"{API}{image_id}/thumb/",
        "detail_url": f"{API}{image_id}/",
        "related_url": f"{API}{image_id}/related/",
    }
