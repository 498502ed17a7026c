"""A Shopify shop in the format that `scraper/spiders/shopify.py` parses."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
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
from scraper.sample_shop.stock import Item, Stock

# emptied: only the collections list products. The others are refusals.
GENERATIONS = ("today", "emptied", "password", "closed", "limited", "headless")
ROBOTS = """User-agent: *
Disallow: /admin
Disallow: /cart
Disallow: /search
Disallow: /collections/*sort_by*
Disallow: /*preview_theme_id*
"""
# What a crawl of the shop needs beside its URLs.
OPTIONS = "--set shop=shop.example.com"
HOST = "https://cdn.shopify.com"
FILES = "/s/files/1/0001/0002/0003/files/"
MAX_LIMIT, MAX_DEPTH = 250, 25_000
FIRST_PRODUCT, FIRST_VARIANT, FIRST_IMAGE = 10_100_000_000_000, 51_000_000_000_000, 53 * 10**12
# A product has at most as many variants and images.
APART = 100
NEWEST = datetime(2026, 11, 20, 9, 30, tzinfo=timezone.utc)
SIZES = ("S", "M")


def respond(
    stock: Stock, request: SiteRequest, generation: str = "today"
) -> SiteResponse | PhotoRequest:
    """Return the response of the shop or of its image host to a request."""
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if request.path.startswith(FILES):
        name = request.path.removeprefix(FILES)
        return PhotoRequest(f"/{name[:1]}/{name[1:2]}/{name}", None)
    if request.path == "/password":
        return html("<form action='/password'><input type='password' name='password'></form>")
    if (refusal := _refusal(request, generation)) is not None:
        return refusal
    return _page(stock, request, generation) or html("<h1>404 Not Found</h1>", 404)


def _refusal(request: SiteRequest, generation: str) -> SiteResponse | None:
    if generation == "password":
        return SiteResponse(302, "text/html", b"", {"Location": "/password"})
    if generation == "limited":
        return SiteResponse(430, "text/html", b"", {"Retry-After": "2"})
    if request.path.endswith(".json"):
        if generation == "closed":
            return html("<h1>403 Forbidden</h1>", 403)
        if generation == "headless":
            return html("<html><div id='app'></div></html>")
    return None


def _page(stock: Stock, request: SiteRequest, generation: str) -> SiteResponse | None:
    numbers = range(len(stock.items))
    if request.path == "/products.json":
        return _products(stock, request, () if generation == "emptied" else numbers)
    if request.path == "/collections.json":
        handles = enumerate(stock.counts().items())
        return as_json({"collections": [collection(n, label, c) for n, (label, (c, _)) in handles]})
    if match := re.fullmatch(r"/collections/([^/]+)/products\.json", request.path):
        label = next((name for name in stock.counts() if _handle(name) == match[1]), None)
        matching = [number for number in numbers if label in stock.items[number].labels]
        return _products(stock, request, matching)
    item = stock.by_sku.get(request.path.removeprefix("/products/").upper())
    return html(product_page(item)) if item else None


def _products(stock: Stock, request: SiteRequest, numbers: Sequence[int]) -> SiteResponse:
    limit = min(MAX_LIMIT, number_in(request.query.get("limit"), 30))
    page = max(1, number_in(request.query.get("page"), 1))
    if page * limit > MAX_DEPTH:
        return as_json({"errors": "Page * Limit exceeds the 25000 limit."}, 400)
    shown = numbers[(page - 1) * limit : page * limit]
    return as_json({"products": [product(stock.items[number], number) for number in shown]})


def _handle(label: str) -> str:
    return re.sub(r"\W+", "-", label.lower())


def collection(number: int, label: str, count: int) -> dict[str, Any]:
    """Return a collection, which has the products of a label."""
    return {
        "id": FIRST_PRODUCT + number,
        "title": label.capitalize(),
        "handle": _handle(label),
        "image": None,
        "products_count": count,
    }


def product(item: Item, number: int) -> dict[str, Any]:
    """Return a product; product 0 is the newest."""
    time = (NEWEST - timedelta(minutes=number)).isoformat()
    product_id = FIRST_PRODUCT + number
    dates = {"created_at": time, "updated_at": time}
    return {
        "id": product_id,
        "title": f"{item.name} {item.brand}",
        "handle": item.sku.lower(),
        "body_html": f"<p>{escape(item.name)}</p>",
        "published_at": time,
        **dates,
        "vendor": item.brand,
        "product_type": item.category,
        "tags": [*item.labels, item.gender],
        "variants": [
            _variant(item, size, FIRST_VARIANT + number * APART + place)
            | {"position": place, "product_id": product_id}
            | dates
            for place, size in enumerate(SIZES, 1)
        ],
        "images": [
            {
                "id": FIRST_IMAGE + number * APART + place,
                **dates,
                "position": place,
                "product_id": product_id,
                "variant_ids": [],
                "src": f"{HOST}{FILES}{photo.path.rpartition('/')[2]}?v=1",
                "width": 600,
                "height": 800,
            }
            for place, photo in enumerate(item.photos, 1)
        ],
        "options": [
            {"name": "Size", "position": 1, "values": list(SIZES)},
            {"name": "Color", "position": 2, "values": [item.colour]},
        ],
    }


def _variant(item: Item, size: str, variant_id: int) -> dict[str, Any]:
    return {
        "id": variant_id,
        "title": f"{size} / {item.colour}",
        "option1": size,
        "option2": item.colour,
        "option3": None,
        "sku": f"{item.sku}-{size}",
        "requires_shipping": True,
        "taxable": True,
        "featured_image": None,
        "available": True,
        "price": f"{item.price}.00",
        "grams": 0,
        "compare_at_price": None,
    }


def product_page(item: Item) -> str:
    """Return the page of a product, which shows the currency."""
    return (
        "<html><head>"
        f'<meta property="og:title" content="{escape(item.name)}">'
        f'<meta property="og:price:amount" content="{item.price}.00">'
        '<meta property="og:price:currency" content="RUB">'
        "</head></html>"
    )
