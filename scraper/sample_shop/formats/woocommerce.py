"""A WooCommerce shop in the format that `scraper/spiders/woocommerce.py` parses."""

import re
from html import escape
from typing import Any

from scraper.sample_shop.http import (
    PhotoRequest,
    SiteRequest,
    SiteResponse,
    as_json,
    html,
    number_in,
    plain,
)
from scraper.sample_shop.stock import Item, Stock, StockPhoto

# older: only the address of versions before 6.4; plain-addresses: no readable addresses; jetpack:
# photos behind the plugin's image proxy. The others are refusals.
GENERATIONS = ("today", "older", "plain-addresses", "jetpack", "no-api", "guarded", "firewall")
ROBOTS = "User-agent: *\nDisallow: /wp-admin/\n"
# What a crawl of the shop needs beside its URLs.
OPTIONS = "--set shop=shop.example.com"
HOST = "https://shop.example.com"
UPLOADS = "/wp-content/uploads/2026/11/"
API = re.compile(r"/?wc/store(/v1)?/products(?:/(tags|categories))?")
MAX_PER_PAGE = 100
FIRST_PRODUCT, FIRST_VARIATION, FIRST_IMAGE, FIRST_TAG, FIRST_CATEGORY = (
    *(50_000, 500_000, 5_000_000, 1_700, 20),
)
PLACES = 10


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the shop to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if UPLOADS in request.path:
        name = request.path.rpartition("/")[2]
        return PhotoRequest(f"/{name[:1]}/{name[1:2]}/{name}", None)
    if generation == "plain-addresses":
        route = request.query.get("rest_route", "")
    else:
        route = (
            request.path.removeprefix("/wp-json") if request.path.startswith("/wp-json/") else ""
        )
    match = API.fullmatch(route)
    if match is None:
        return front_page(generation) if request.path == "/" else html("<h1>404</h1>", 404)
    return _refusal(generation, match) or _list(stock, request, match[2], generation)


def front_page(generation: str = "today") -> SiteResponse:
    """Return the page that names the root of the API."""
    root = "/?rest_route=/" if generation == "plain-addresses" else "/wp-json/"
    return html(f'<html><head><link rel="https://api.w.org/" href="{HOST}{root}"></head></html>')


def _refusal(generation: str, match: re.Match[str]) -> SiteResponse | None:
    if generation == "firewall":
        return html("<h1>403 Forbidden</h1>", 403)
    if generation == "guarded":
        return error("rest_login_required", "REST API restricted to authenticated users.", 401)
    if generation == "no-api" or (generation == "older" and match[1]):
        message = "No route was found matching the URL and request method."
        return error("rest_no_route", message, 404)
    return None


def error(code: str, message: str, status: int) -> SiteResponse:
    """Return an error of the API."""
    return as_json({"code": code, "message": message, "data": {"status": status}}, status)


def _list(stock: Stock, request: SiteRequest, kind: str | None, generation: str) -> SiteResponse:
    query = request.query
    per_page = number_in(query.get("per_page"), 10)
    if not 0 < per_page <= MAX_PER_PAGE:
        return error("rest_invalid_param", "Invalid parameter(s): per_page", 400)
    if kind is not None:
        records = [
            term
            for term in terms(stock, kind)
            if query.get("search", "").lower() in term["name"].lower()
        ]
    elif query.get("type") == "variation":
        records = _variations(stock, number_in(query.get("parent"), 0), generation)
    else:
        numbers = _found(stock, query)
        records = [product(stock, number, generation) for number in numbers]
    page = max(1, number_in(query.get("page"), 1))
    totals = {"X-WP-Total": str(len(records)), "X-WP-TotalPages": str(-(-len(records) // per_page))}
    return as_json(records[(page - 1) * per_page : page * per_page], 200, totals)


def _found(stock: Stock, query: dict[str, str]) -> list[int]:
    """Return the indices of the products of some tags or categories, or with a word in the name."""
    labels = list(stock.counts())
    ids = set(query.get("tag", query.get("category", "")).split(","))
    first = FIRST_TAG if "tag" in query else FIRST_CATEGORY
    chosen = {label for n, label in enumerate(labels) if str(first + n) in ids}
    word = query.get("search", "").lower()
    return [
        number
        for number, item in enumerate(stock.items)
        if (chosen & set(item.labels) if ids != {""} else word in item.name.lower())
    ]


def terms(stock: Stock, kind: str) -> list[dict[str, Any]]:
    """Return the tags, or the categories, which have the Russian names."""
    first = FIRST_TAG if kind == "tags" else FIRST_CATEGORY
    terms = []
    for number, (label, (count, _)) in enumerate(stock.counts().items()):
        words = stock.vocabulary.words_of(label)
        name = label if kind == "tags" else words[-1]
        terms.append(_term(first + number, name) | {"description": "", "parent": 0, "count": count})
    return terms


def _term(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "name": escape(name), "slug": re.sub(r"\W+", "-", name.lower())}


def product(stock: Stock, number: int, generation: str = "today") -> dict[str, Any]:
    """Return a product; one with several photos has the others as variations."""
    item, labels = stock.items[number], list(stock.counts())
    link = f"{HOST}/product/{item.sku.lower()}/"
    numbers = range(1, len(item.photos))
    attribute = {"id": 2, "name": "Color", "taxonomy": "pa_color", "has_variations": bool(numbers)}
    return {
        "id": FIRST_PRODUCT + number,
        "name": escape(f"{item.name} {item.brand}"),
        "slug": item.sku.lower(),
        "parent": 0,
        "type": "variable" if numbers else "simple",
        "variation": "",
        "permalink": link,
        "sku": item.sku,
        "short_description": "",
        "description": f"<p>{escape(item.name)}</p>",
        "on_sale": False,
        "prices": _prices(item),
        "images": [_image(item.photos[0], number * PLACES, generation)],
        "categories": [],
        "tags": [
            _term(FIRST_TAG + labels.index(label), label) | {"link": f"{HOST}/product-tag/{n}/"}
            for n, label in enumerate(item.labels)
        ],
        "brands": [],
        "attributes": [attribute | {"terms": [_term(600, item.colour)]}],
        "variations": [
            {
                "id": FIRST_VARIATION + number * PLACES + place,
                "attributes": [{"name": "Color", "value": item.colour}],
            }
            for place in numbers
        ],
        "is_in_stock": True,
        "is_password_protected": False,
    }


def _prices(item: Item) -> dict[str, Any]:
    kopecks = str(item.price * 100)
    return {
        **{"price": kopecks, "regular_price": kopecks, "sale_price": kopecks, "price_range": None},
        **{"currency_code": "RUB", "currency_symbol": "&#8381;", "currency_minor_unit": 2},
    }


def _image(photo: StockPhoto, number: int, generation: str) -> dict[str, Any]:
    name = photo.path.rpartition("/")[2]
    src = f"{HOST}{UPLOADS}{name}"
    if generation == "jetpack":
        src = f"https://i0.wp.com/{src.removeprefix('https://')}?fit=600%2C800&ssl=1"
    return {
        **{"id": FIRST_IMAGE + number, "src": src, "thumbnail": src, "srcset": "", "sizes": ""},
        **{"name": name, "alt": ""},
    }


def _variations(stock: Stock, parent: int, generation: str) -> list[dict[str, Any]]:
    """Return the variations of a product, each with one photo."""
    number = parent - FIRST_PRODUCT
    if not 0 <= number < len(stock.items):
        return []
    whole, item = product(stock, number, generation), stock.items[number]
    return [
        whole
        | {"id": variation["id"], "parent": parent, "type": "variation", "variations": []}
        | {"images": [_image(item.photos[place], number * PLACES + place, generation)]}
        for place, variation in enumerate(whole["variations"], 1)
    ]
