"""Lamoda's pages in the format that `scraper/spiders/lamoda.py` parses."""

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

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

PER_PAGE = 60
SIZES = ((46, 66), (236, 341), (600, 866))
IMAGES = "//a.lmcdn.ru"
# state: cards and embedded JSON; cards: no JSON; old: the cards before 2021; category: a search
# redirects to a category; blocked: geo-blocking; circle: a redirect loop. endless-pages: the
# products repeat on new page numbers; repeating-pages: the third page redirects to the first.
GENERATIONS = (
    *("state", "cards", "old", "category", "blocked", "circle"),
    *("endless-pages", "repeating-pages"),
)
ROBOTS = """User-agent: *
Disallow: /checkout/
Disallow: /closed-sale/
Allow: /
"""


def respond(
    stock: Stock, request: SiteRequest, generation: str = "state"
) -> SiteResponse | PhotoRequest:
    """Return the response of the site to a request; 404 for unknown paths."""
    query = request.query
    if request.path == "/robots.txt":
        return plain(ROBOTS)
    if photo := _photo(request.path):
        return photo
    if generation == "blocked":
        return foreign_address("203.0.113.7")
    page = max(1, number_in(query.get("page"), 1))
    if request.path == "/catalogsearch/result/":
        return _found(stock, query.get("q", ""), page, generation)
    if match := re.fullmatch(r"/c/(\d+)/[^/]*/", request.path):
        label = _labels(stock).get(match.group(1))
        return html(search_page(stock, label, page)) if label else html("<h1>404</h1>", 404)
    return _product(stock, request.path, query) or html("<h1>404</h1>", 404)


def _found(stock: Stock, word: str, page: int, generation: str) -> SiteResponse:
    if generation == "circle":
        return _redirect(f"/catalogsearch/result/?q={quote(word)}", 307)
    if generation == "repeating-pages" and page > 2:
        return _redirect(f"/catalogsearch/result/?q={quote(word)}", 302)
    label = stock.vocabulary.label_or_hashtag(word)
    number = next((n for n, name in _labels(stock).items() if name == label), None)
    if generation == "category" and number:
        return _redirect(f"/c/{number}/clothes-{quote(label)}/?sf=1", 302)
    return html(search_page(stock, word, page, generation))


def _redirect(target: str, status: int) -> SiteResponse:
    return SiteResponse(status, "text/html", b"", {"Location": target})


def _labels(stock: Stock) -> dict[str, str]:
    """Return the label of each category by its number."""
    return {str(2500 + n): label for n, label in enumerate(stock.counts())}


def foreign_address(address: str) -> SiteResponse:
    """Return the geo-blocking response for foreign IP addresses."""
    return as_json({"code": 10403, "data": {"ip": address}}, 403)


def search_page(stock: Stock, query: str, page: int, generation: str = "state") -> str:
    """Return a page (numbered from 1) of the search results."""
    matching = stock.search(query)
    if not matching:
        return _page(query, "<h1>Поиск не дал результатов</h1>")
    total = len(matching)
    if generation in ("endless-pages", "repeating-pages"):
        # There is always another page.
        total, matching = (page + 1) * PER_PAGE, matching * (page * PER_PAGE // len(matching) + 1)
    shown = matching[(page - 1) * PER_PAGE : page * PER_PAGE]
    card = old_card if generation == "old" else current_card
    body = [
        f"<h1>{escape(query)}</h1>",
        f'<span class="d-catalog-header__product-counter">{product_count(total)}</span>',
        '<div class="grid__catalog">',
        *(card(item) for item in shown),
        "</div>",
        _pager(query, page, _pages(total)),
    ]
    if generation not in ("cards", "old"):
        body.append(_script(search_state(shown, page, total)))
    return _page(query, "\n".join(body))


def product_count(number: int) -> str:
    """Return a number with the matching Russian plural of "product": 1 234 товара."""
    if number % 10 == 1 and number % 100 != 11:
        word = "товар"
    elif number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14):
        word = "товара"
    else:
        word = "товаров"
    return f"{number:,} {word}".replace(",", "\N{NO-BREAK SPACE}")


def search_state(shown: Sequence[Item], page: int, total: int) -> dict[str, Any]:
    """Return the state that a search page embeds."""
    pagination = {"pages": _pages(total), "items_per_page": PER_PAGE, "page": page}
    payload = {"products": [_record(item) for item in shown], "pagination": pagination}
    return {"layout": "default", "payload": {"state": {"payload": payload}}}


def current_card(item: Item) -> str:
    """Return a product card in the current markup, including hashed class names."""
    name, brand = escape(item.name), escape(item.brand)
    image = f"{IMAGES}/img236x341{item.photos[0].path}"
    return f"""<div class="x-product-card__card" id="{item.sku}">
<a class="x-product-card__link x-product-card__hit-area" href="{product_path(item)}">
<img class="x-product-card__pic-img" src="{image}" alt="{name} {brand}">
<div class="x-product-card-description">
<span class="_price_163e7_8 x-product-card-description__price-single">{_rubles(item.price)}</span>
<div class="_brand_163e7_21 x-product-card-description__brand-name">{brand}</div>
<div class="_name_163e7_24 x-product-card-description__product-name">{name}</div>
</div></a></div>"""


def old_card(item: Item) -> str:
    """Return a product card in the markup before 2021."""
    gallery = json.dumps([photo.path for photo in item.photos])
    values = {
        "sku": item.sku,
        "brand": item.brand,
        "name": item.name,
        "price": str(item.price),
        "price-origin": str(item.price),
        "gender": item.gender,
        "category": item.category,
        "color-family": item.colour,
        "gallery": gallery,
        "src": f"{IMAGES}/img236x341{item.photos[0].path}",
    }
    data = " ".join(f'data-{name}="{escape(value)}"' for name, value in values.items())
    link = (
        f'<a class="products-list-item__link" href="{product_path(item)}">{escape(item.name)}</a>'
    )
    return f'<div class="products-list-item" {data}>{link}</div>'


def product_path(item: Item) -> str:
    """Return the path of a product page."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"clothes {item.labels[0]} {item.brand}".lower()).strip("-")
    return f"/p/{item.sku.lower()}/{slug}/"


def product_page(item: Item) -> str:
    """Return the HTML page of a product."""
    name, brand = escape(item.name), escape(item.brand)
    images = "\n".join(
        f'<img src="{IMAGES}/img600x866{photo.path}" alt="{name}">' for photo in item.photos
    )
    title = f"<h1>{brand} {name}</h1><span>{_rubles(item.price)}</span>"
    state = {"layout": "default", "payload": {"state": {"product": product_record(item)}}}
    return _page(item.name, f"{title}\n{images}\n{_script(state)}")


def product_record(item: Item) -> dict[str, Any]:
    """Return the response of `/api/v1/product/get`."""
    crumbs = ("Женщинам" if item.gender == "women" else "Мужчинам", "Одежда", item.category)
    return {
        "sku": item.sku,
        "title": item.name,
        "brand": {"name": item.brand},
        "gallery": [photo.path for photo in item.photos],
        "breadcrumbs": [{"label": label} for label in crumbs],
        "prices": {"original": {"price": item.price}},
        "attributes": [{"key": "color_family", "title": "Цвет", "value": item.colour}],
    }


def _record(item: Item) -> dict[str, Any]:
    return {
        "sku": item.sku,
        "name": item.name,
        "seo_title": f"{item.name} {item.brand}",
        "brand": {"name": item.brand},
        "price_amount": item.price,
        "gallery": [photo.path for photo in item.photos],
        "thumbnail": item.photos[0].path,
        "sizes": [{"full_sku": f"{item.sku}R{size}"} for size in (440, 460)],
        "color_family": item.colour,
    }


def _photo(path: str) -> PhotoRequest | None:
    if path.startswith("/product/"):
        return PhotoRequest(path.removeprefix("/product"), None)
    for width, height in SIZES:
        start = f"/img{width}x{height}"
        if path.startswith(start + "/"):
            return PhotoRequest(path.removeprefix(start), (width, height))
    return None


def _product(stock: Stock, path: str, query: dict[str, str]) -> SiteResponse | None:
    if path == "/api/v1/product/get":
        item = stock.by_sku.get(query.get("sku", "").upper())
        return as_json(product_record(item)) if item else as_json({"code": 404}, 404)
    match = re.fullmatch(r"/p/([A-Za-z0-9]+)(/[^/]*)?/?", path)
    item = stock.by_sku.get(match.group(1).upper()) if match else None
    return html(product_page(item)) if item else None


def _pages(total: int) -> int:
    return -(-total // PER_PAGE)


def _rubles(price: int) -> str:
    return f"{price:,} ₽".replace(",", "\N{NO-BREAK SPACE}")


def _pager(query: str, page: int, pages: int) -> str:
    if page >= pages:
        return ""
    href = escape(f"/catalogsearch/result/?q={quote(query)}&page={page + 1}")
    return f'<a class="pager__next" href="{href}">Дальше</a>'


def _script(state: dict[str, Any]) -> str:
    # Text in the JSON must not end the script, nor open a comment in it.
    text = json.dumps(state, ensure_ascii=False).replace("</", "<\\/").replace("<!--", "<\\u0021--")
    return f"<script>var __NUXT__ = {text};</script>"


def _page(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="ru"><head><meta charset="utf-8"><title>{escape(title)}</title></head>
<body>
{body}
</body></html>
"""
