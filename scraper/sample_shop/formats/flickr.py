"""Flickr's API in the format that `scraper/spiders/flickr.py` parses."""

import zlib
from typing import Any

from scraper.parsing.hashtags import to_hashtag
from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto

# wrong-key: the key is invalid; down: the search is not available. The parameters are in the body
# of a request.
GENERATIONS = ("today", "wrong-key", "down")
ROBOTS = "User-agent: *\nDisallow: /services/\n"
HOST = "https://live.staticflickr.com"
FIRST_PHOTO, NEWEST, MAX_PER_PAGE = 49_500_000_000, 1_795_000_000, 500
# Ids, names and URLs of licenses, used in turn.
LICENSES = (
    (4, "CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/"),
    (9, "Public Domain Dedication (CC0)", "https://creativecommons.org/publicdomain/zero/1.0/"),
    (2, "CC BY-NC 2.0", "https://creativecommons.org/licenses/by-nc/2.0/"),
)
ALL_RIGHTS = {"id": 0, "name": "All Rights Reserved", "url": ""}
PLACES = 10


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the API or of the image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path.startswith("/7372/"):
        name = request.path.rpartition("/")[2]
        return PhotoRequest(f"/{name[:1]}/{name[1:2]}/{name}", None)
    form = request.query | request.form
    if request.path != "/services/rest/":
        return plain("not found", 404)
    if generation == "wrong-key" or not form.get("api_key"):
        return failure(100, "Invalid API Key (Key has invalid format)")
    if form.get("method") == "flickr.photos.licenses.getInfo":
        listed = [{"id": number, "name": name, "url": url} for number, name, url in LICENSES]
        return as_json({"licenses": {"license": [ALL_RIGHTS, *listed]}, "stat": "ok"})
    if generation == "down":
        return failure(105, "Service currently unavailable")
    return _search(stock, form)


def failure(code: int, message: str) -> SiteResponse:
    """Return an error, which has HTTP status 200."""
    return as_json({"stat": "fail", "code": code, "message": message})


def _search(stock: Stock, form: dict[str, str]) -> SiteResponse:
    labels = {stock.vocabulary.label_or_hashtag(tag) for tag in form.get("tags", "").split(",")}
    licenses = form.get("license", "").split(",")
    latest = number_in(form.get("max_upload_date"), 0) or NEWEST
    matching = [
        record
        for number, item in enumerate(stock.items)
        if labels & set(item.labels)
        for place, photo in enumerate(item.photos)
        if (record := record_of(item, photo, number * PLACES + place))["license"] in licenses
        and int(record["dateupload"]) <= latest
    ]
    size = min(MAX_PER_PAGE, number_in(form.get("per_page"), 100))
    page = max(1, number_in(form.get("page"), 1))
    shown = matching[(page - 1) * size : page * size]
    counts = {"page": page, "pages": -(-len(matching) // size), "perpage": size}
    return as_json(
        {"photos": {**counts, "total": str(len(matching)), "photo": shown}, "stat": "ok"}
    )


def record_of(item: Item, photo: StockPhoto, number: int) -> dict[str, Any]:
    """Return the record of a photo; photo 0 is the newest."""
    url = f"{HOST}/7372/{photo.path.rpartition('/')[2]}"
    return {
        "id": str(FIRST_PHOTO + number),
        "owner": f"{zlib.crc32(item.brand.encode()):08}@N00",
        "ownername": item.brand,
        "title": item.name,
        "description": {"_content": ""},
        **{"ispublic": 1, "isfriend": 0, "isfamily": 0},
        "license": str(LICENSES[number // PLACES % len(LICENSES)][0]),
        "dateupload": str(NEWEST - 60 * number),
        "tags": " ".join(to_hashtag(label).lower() for label in item.labels),
        **{"url_l": url, "width_l": 600, "height_l": 800},
    }
