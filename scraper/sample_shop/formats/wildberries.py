"""Wildberries' JSON API in the format that `scraper/spiders/wildberries.py` parses."""

import re
from collections.abc import Sequence
from typing import Any

from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock

# older: the list is in `data`, images are JPEGs. preset: a search refers to a preset. hesitant: the
# first response for a page is empty. moved: images are on the host after the mapped one. mirrors:
# each host has all images. no-map: no host map. limited: 429. guarded: 498 without the cookie.
GENERATIONS = (
    *("today", "older", "preset", "hesitant", "moved", "mirrors", "no-map", "limited", "guarded"),
)
ROBOTS = "User-agent: *\nAllow: /\n"
PER_PAGE = 100
# Product ids are far apart, so that the images are on many hosts.
FIRST, APART = 10_000_019, 400_009
# Volumes (id // 100000) per image host, and number of hosts; these differ from the real site.
VOLUMES, HOSTS = 500, 30
SIZES = {"big": (900, 1200), "c516x688": (516, 688), "c246x328": (246, 328), "hq": None}
PRESET = "preset=10062&_st0=cG9sbw==~0.1"
COOKIE = "x_wbaas_token="


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the site or of one of its image hosts to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path == "/api/v3/upstreams":
        return plain("", 404) if generation == "no-map" else as_json(upstreams(generation))
    if match := re.fullmatch(r"/vol(\d+)/part(\d+)/(\d+)/images/(\w+)/(\d+)\.(\w+)", request.path):
        return _photo(stock, request, match, generation)
    if refused := _refused(request, generation):
        return refused
    if re.fullmatch(r"/exactmatch/ru/common/v\d+/search", request.path):
        return _search(stock, request, generation)
    return plain("404 page not found", 404)


def _refused(request: SiteRequest, generation: str) -> SiteResponse | None:
    if generation == "limited":
        return SiteResponse(429, "text/plain", b"", {"Retry-After": "1"})
    if generation == "guarded" and COOKIE not in request.headers.get("cookie", ""):
        return SiteResponse(498, "text/html", b"<html><title>...</title></html>")
    return None


def _search(stock: Stock, request: SiteRequest, generation: str) -> SiteResponse:
    word = request.query.get("query", "")
    matching = [n for n, item in enumerate(stock.items) if _label(stock, word) in item.labels]
    if generation == "preset" and matching and "preset" not in request.query:
        led = {"catalog_type": "preset", "catalog_value": PRESET, "is_empty": True}
        return as_json({"metadata": _metadata(word) | led, "products": [], "total": len(matching)})
    page = max(1, number_in(request.query.get("page"), 1))
    shown = matching[(page - 1) * PER_PAGE : page * PER_PAGE]
    if generation == "hesitant" and request.times == 1:
        shown = []
    products = [product(stock.items[n], n, generation) for n in shown]
    if generation == "older":
        header = {"state": 0, "version": 2, "params": {"curr": "rub", "spp": 0, "version": 2}}
        return as_json({"metadata": _metadata(word), **header, "data": {"products": products}})
    return as_json({"metadata": _metadata(word), "products": products, "total": len(matching)})


def _label(stock: Stock, word: str) -> str:
    return stock.vocabulary.label_or_hashtag(word)


def _metadata(word: str) -> dict[str, Any]:
    return {"name": word, "catalog_type": "", "catalog_value": "", "normquery": word.lower()}


def number_of(place: int) -> int:
    """Return the id of the product at a stock index."""
    return FIRST + APART * place


def product(item: Item, place: int, generation: str = "today") -> dict[str, Any]:
    """Return a product in the format of a search."""
    shared = {
        "id": number_of(place),
        "root": number_of(place) - 7,
        "kindId": 2 if item.gender == "women" else 1,
        "brand": item.brand,
        "brandId": sum(item.brand.encode()),
        "name": item.name,
        "subjectId": 185,
        "feedbacks": place % 300,
        "pics": len(item.photos),
        "colors": [{"name": item.colour, "id": 128}],
    }
    if generation == "older":
        kopecks = item.price * 100
        sizes: Sequence[dict[str, Any]] = [{"name": "S", "origName": "44", "rank": 1}]
        return shared | {"priceU": 2 * kopecks, "salePriceU": kopecks, "rating": 5, "sizes": sizes}
    sizes = [_size("S", 1, item.price), _size("M", 2, item.price + 50)]
    more = {"entity": item.category.lower(), "supplier": f"ООО {item.brand}", "supplierId": 12345}
    return shared | more | {"sizes": sizes}


def _size(name: str, number: int, roubles: int) -> dict[str, Any]:
    kopecks = roubles * 100
    price = {"basic": 2 * kopecks, "product": kopecks, "total": kopecks, "logistics": 0}
    return {"name": name, "origName": str(42 + 2 * number), "optionId": number, "price": price}


def upstreams(generation: str = "today") -> dict[str, Any]:
    """Return the map of image hosts."""
    if generation == "mirrors":
        hosts: list[dict[str, Any]] = [{"host": f"cdn-0{n}.geobasket.ru"} for n in (1, 2)]
        return {"recommend": {"mediabasket_route_map": [{"method": "mod", "hosts": hosts}]}}
    hosts = [
        {
            "host": host_of(n * VOLUMES),
            "vol_range_from": n * VOLUMES,
            "vol_range_to": (n + 1) * VOLUMES - 1,
        }
        for n in range(HOSTS)
    ]
    return {"recommend": {"mediabasket_route_map": [{"method": "range", "hosts": hosts}]}}


def host_of(volume: int) -> str:
    """Return the host that has the images of a volume, including volumes beyond the map."""
    return f"basket-{volume // VOLUMES + 1:02}.wbbasket.ru"


def _photo(
    stock: Stock, request: SiteRequest, match: re.Match[str], generation: str
) -> SiteResponse | PhotoRequest:
    volume, part, number, size, place, ending = match.groups()
    index, rest = divmod(int(number) - FIRST, APART)
    there = rest == 0 and 0 <= index < len(stock.items)
    right = int(number) // 100_000 == int(volume) and int(number) // 1000 == int(part)
    photos = stock.items[index].photos if there else ()
    expected = "jpg" if generation == "older" else "webp"
    if not right or not 0 < int(place) <= len(photos) or size not in SIZES or ending != expected:
        return plain("", 404)
    if not _has(request.headers.get("x-forwarded-host"), int(volume), generation):
        return plain("", 404)
    kind = "JPEG" if ending == "jpg" else "WEBP"
    return PhotoRequest(photos[int(place) - 1].path, SIZES[size], kind)


def _has(host: str | None, volume: int, generation: str) -> bool:
    """Return whether a host has the images of a volume.

    A crawl with `--site-url` names the original host in X-Forwarded-Host.
    """
    if host is None or generation == "no-map":
        return True
    if generation == "mirrors":
        return host.endswith(".geobasket.ru")
    return host == host_of(volume + (VOLUMES if generation == "moved" else 0))
