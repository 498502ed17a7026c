"""The API of Wikimedia Commons in the format that `scraper/spiders/commons.py` parses."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto, content_type

# older: pages in an object by their ids; late: the metadata of half of a page come with a second
# response; busy: the first response reports a replication lag.
GENERATIONS = ("today", "older", "late", "busy")
ROBOTS = "User-agent: *\nAllow: /wiki/\nDisallow: /w/\n"
# What a crawl needs beside the URLs: robots.txt forbids the API.
OPTIONS = "--set api-terms=accept"
HOST, UPLOADS = "https://commons.wikimedia.org", "https://upload.wikimedia.org"
FILES = "/wikipedia/commons"
THUMBNAIL = re.compile(r"/wikipedia/commons/thumb/./../([^/]+)/(\d+)px-[^/]+")
WIDTHS = (20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, 3840)
FIRST_PAGE, PLACES = 18_000_000, 10
# Code, short name and URL of licenses, in turn.
LICENSES = (
    ("cc-by-sa-4.0", "CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0"),
    ("cc0", "CC0", "http://creativecommons.org/publicdomain/zero/1.0/deed.en"),
    ("pd", "Public domain", None),
    ("cc-by-3.0-de", "CC BY 3.0 de", "https://creativecommons.org/licenses/by/3.0/de/deed.en"),
)


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the API or of the image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if match := THUMBNAIL.fullmatch(request.path):
        width = int(match[2])
        if width not in WIDTHS:
            return plain("Use thumbnail steps", 429)
        return PhotoRequest(_photo_path(match[1]), (width, 10 * width))
    if request.path.startswith(f"{FILES}/"):
        return PhotoRequest(_photo_path(request.path.rpartition("/")[2]), None)
    if request.path != "/w/api.php":
        return plain("not found", 404)
    if generation == "busy" and request.times == 1:
        lag = {"code": "maxlag", "info": "Waiting for a database server: 6 seconds lagged."}
        return as_json({"error": lag}, 200, {"Retry-After": "1"})
    return _query(stock, request, generation)


def _photo_path(name: str) -> str:
    return f"/{name[:1]}/{name[1:2]}/{name}"


def _query(stock: Stock, request: SiteRequest, generation: str) -> SiteResponse:
    query = request.query
    if query.get("generator") == "categorymembers":
        words, prefix = query.get("gcmtitle", "").removeprefix("Category:"), "gcm"
    else:
        words, prefix = query.get("gsrsearch", "").partition('"')[2].rstrip('"'), "gsr"
    matching = [
        (item, photo, FIRST_PAGE + number * PLACES + place)
        for number, item in enumerate(stock.items)
        if item in stock.search(words)
        for place, photo in enumerate(item.photos)
    ]
    limit = number_in(query.get(f"{prefix}limit"), 10)
    start = number_in(query.get(f"{prefix}offset"), 0)
    shown, is_second = matching[start : start + limit], query.get("iicontinue") is not None
    if not shown:
        return as_json({"batchcomplete": True})
    pages = [page(*entry, width=number_in(query.get("iiurlwidth"), 0) or None) for entry in shown]
    if generation == "late":
        for number, record in enumerate(pages):
            if (number % 2 == 1) != is_second:
                del record["imageinfo"]
    return as_json(_response(pages, generation, is_second, prefix, start, limit, len(matching)))


def _response(
    pages: Sequence[dict[str, Any]],
    generation: str,
    is_second: bool,
    prefix: str,
    start: int,
    limit: int,
    total: int,
) -> dict[str, Any]:
    is_old = generation == "older"
    listed = {str(record["pageid"]): record for record in pages} if is_old else list(pages)
    result: dict[str, Any] = {"query": {"pages": listed}}
    if generation == "late" and not is_second:
        position = {f"{prefix}offset": start} if start else {}
        return {"continue": {"iicontinue": "2", **position, "continue": "||imageinfo"}, **result}
    if start + limit < total:
        offset = start + limit
        result["continue"] = {f"{prefix}offset": offset, "continue": f"{prefix}offset||"}
    return {"batchcomplete": "" if is_old else True, **result}


def page(item: Item, photo: StockPhoto, page_id: int, width: int | None = None) -> dict[str, Any]:
    """Return the page of a file with the information of its image."""
    name = photo.path.rpartition("/")[2]
    title, path = f"File:{name}", f"a/ab/{quote(name)}"
    info: dict[str, Any] = {
        "timestamp": "2026-11-20T09:15:02Z",
        "user": item.brand,
        "size": 1_000_000,
        "width": 2400,
        "height": 3200,
        "url": f"{UPLOADS}{FILES}/{path}",
        "descriptionurl": f"{HOST}/wiki/{quote(title)}",
        "descriptionshorturl": f"{HOST}/w/index.php?curid={page_id}",
        "mime": content_type(name),
        "extmetadata": metadata(item, page_id),
    }
    if width:
        thumbnail = f"{UPLOADS}{FILES}/thumb/{path}/{width}px-{quote(name)}"
        info["thumburl"] = f"{thumbnail}?utm_source=commons"
    return {"pageid": page_id, "ns": 6, "title": title, "imageinfo": [info]}


def metadata(item: Item, page_id: int) -> dict[str, Any]:
    """Return the metadata of a file; some values are HTML."""
    code, name, url = LICENSES[page_id // PLACES % len(LICENSES)]
    author = f'<a href="//commons.wikimedia.org/wiki/User:{quote(item.brand)}">{item.brand}</a>'
    values = {
        "Artist": author,
        "AttributionRequired": "false" if url is None else "true",
        "Categories": "|".join((*item.labels, item.colour, "Media with locations")),
        "Credit": '<span class="int-own-work" lang="en">Own work</span>',
        "ImageDescription": f"<b>{item.name}</b>",
        "License": code,
        "LicenseShortName": name,
        "Restrictions": "",
        "UsageTerms": name,
    }
    if url is not None:
        values["LicenseUrl"] = url
    return {key: {"value": value, "source": "commons-desc-page"} for key, value in values.items()}
