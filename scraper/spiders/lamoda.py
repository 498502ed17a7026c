"""Spider of Lamoda (lamoda.ru, .by, .kz): public search pages, without a key.

The page layouts are those observed from 2020 to 2026. A page embeds its state as JSON, with all
photos of each product. If there is no state, or it has no products, the product cards of the page
are read with Beautiful Soup; there are two generations of them.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag
from parsel import Selector
from scrapy import Request
from scrapy.http import Response

from scraper.errors import LayoutChanged
from scraper.parsing.fields import (
    clean_text,
    element_text,
    get_nested,
    html_page,
    html_soup,
    parse_count,
    parse_json,
    without_trailing_commas,
)
from scraper.spiders.base import HashtagSpider, Page, Photo, Post

IMAGE_URL = "https://a.lmcdn.ru"
PRODUCTS_PER_PAGE = 60
# Cards of a page, nodes of a card and elements around them; a hostile page nests them deeply.
MAX_CARDS, MAX_CARD_NODES, MAX_CARD_DEPTH = 240, 500, 20
CARD = "x-product-card__card"
NO_RESULTS = "Поиск не дал результатов"
GEO_BLOCKING = "it accepts only network addresses in Russia, Belarus and Kazakhstan, and no proxies"
GEO_BLOCKING_CODE = b"10403"
# Where JSON may begin inside a JavaScript object.
NESTED_OBJECT = re.compile(r"""\b(?:payload|state)["']?\s*:\s*(?=\{)""")
MAX_NESTED_OBJECTS = 9
PRODUCT_LINK = re.compile(r"/p/([^/?#]+)")
# XPath condition of elements whose text a browser does not show.
HIDDEN_ELEMENT = """
    self::head or self::script or self::style or self::template or self::noscript
    or @hidden or @aria-hidden = 'true'
    or contains(translate(@style, 'DISPLAYNOEVBTHU: ', 'displaynoevbthu:'), 'display:none')
    or contains(translate(@style, 'DISPLAYNOEVBTHU: ', 'displaynoevbthu:'), 'visibility:hidden')
    or contains(concat(' ', @class, ' '), ' hidden ')
    or contains(concat(' ', @class, ' '), ' d-none ')
    or contains(concat(' ', @class, ' '), ' sr-only ')
    or contains(concat(' ', @class, ' '), ' visually-hidden ')
"""
# Top-level domain -> ISO 4217 code.
CURRENCIES = {"ru": "RUB", "by": "BYN", "kz": "KZT"}


class Spider(HashtagSpider):
    """Searches Lamoda and reads all pages of the results."""

    name = "lamoda"
    title = "Lamoda"
    needs = "nothing; Lamoda accepts network addresses in Russia, Belarus and Kazakhstan"
    limits_text = "60 products per page; blocks foreign addresses and proxies"
    checked = "2026-11"
    site_url = "https://www.lamoda.ru"
    image_url = IMAGE_URL
    redirect_loop_meaning = f"Lamoda redirects this network address in a loop: {GEO_BLOCKING}"

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page; a cursor is a path with a query."""
        return Request(self.requested_url + (cursor or f"/catalogsearch/result/?q={quote(query)}"))

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; see the function `read`."""
        return read(body, url)

    def explain_refusal(self, response: Response) -> str | None:
        """Return that foreign addresses are blocked, if the response has the code of the block."""
        if response.status == 403 and GEO_BLOCKING_CODE in response.body:
            return f"Lamoda blocks this network address (code 10403): {GEO_BLOCKING}"
        return None


def read(body: bytes, url: str) -> Page:
    """Parse the products of a search or category page and the cursor of the next page.

    Raises:
        LayoutChanged: No product is found, and the page does not report that there are none.
    """
    page = html_page(body, url)
    state = _parse_state(page)
    total = _total(page, state)
    if not total and _has_text(page, NO_RESULTS):
        # Products on such a page are recommendations and not results of the search.
        return Page((), None, 0)
    records = [*_state_products(state)] or _cards(html_soup(body, url))
    if records:
        posts = _posts(records, url)
        return Page(posts, _next_cursor(url, len(records), total, _last_page(state)), total)
    if _is_after_last_page(url, total):
        return Page((), None, total)
    raise LayoutChanged("neither products nor a report of no results on Lamoda's page", url)


def _is_after_last_page(url: str, total: int | None) -> bool:
    """Return whether a page is after the last one; products may be removed during a crawl."""
    return total is not None and (_page_number(url) - 1) * PRODUCTS_PER_PAGE >= total


def _posts(records: list[dict[str, Any]], url: str) -> tuple[Post, ...]:
    posts = tuple(_post(record, url) for record in records)
    if not any(post.photos for post in posts):
        raise LayoutChanged(f"none of {len(posts)} products has a photo", url)
    return posts


def _post(record: dict[str, Any], url: str) -> Post:
    sku = record.get("sku")
    if not isinstance(sku, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", sku):
        raise LayoutChanged(f"a product without a SKU: {str(record)[:80]}", url)
    country = (urlsplit(url).hostname or "").rpartition(".")[2]
    return Post(
        site_id=sku.upper(),
        url=urljoin(url, f"/p/{sku.lower()}/"),
        photos=_photos(record),
        title=clean_text(record.get("name")) or clean_text(record.get("seo_title")),
        brand=clean_text(get_nested(record, "brand", "name")) or clean_text(record.get("brand")),
        price=_price(record),
        currency=CURRENCIES.get(country, "RUB"),
        attributes=_attributes(record),
        record=record,
    )


def _attributes(record: dict[str, Any]) -> tuple[str, ...]:
    """Return colour, gender and category, from the state or an older card."""
    values = (
        record.get("color_family") or record.get("color-family"),
        record.get("gender"),
        record.get("category") or get_nested(record, "category", "name"),
    )
    return tuple(dict.fromkeys(word for value in values if (word := clean_text(value))))


def _photos(record: dict[str, Any]) -> tuple[Photo, ...]:
    gallery = record.get("gallery")
    urls = gallery if isinstance(gallery, list) and gallery else [record.get("thumbnail")]
    paths = [_image_path(url) for url in urls if isinstance(url, str)]
    return tuple(
        Photo(
            f"{IMAGE_URL}/img600x866{path}",
            (f"{IMAGE_URL}/product{path}", f"{IMAGE_URL}/img236x341{path}"),
        )
        for path in dict.fromkeys(paths)
        if path
    )


def _image_path(url: str) -> str | None:
    """Return the path of an image without its size, such as `/M/P/MP….jpg`.

    Args:
        url: A path, with or without a size, or a URL with a host.
    """
    path = urlsplit(url.strip()).path.lstrip(".")
    path = re.sub(r"^/?(pi/)?(img\d+x\d+|product)/", "/", path)
    return path if re.fullmatch(r"(/[\w.%-]+)+\.(jpe?g|png|webp)", path, re.IGNORECASE) else None


def _price(record: dict[str, Any]) -> float | None:
    for value in (record.get("price_amount"), record.get("price"), record.get("price_text")):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        digits = re.sub(r"[^\d.,]", "", value).rstrip(".,") if isinstance(value, str) else ""
        if re.fullmatch(r"\d+([.,]\d{1,2})?", digits):
            return float(digits.replace(",", "."))
    return None


def _has_text(page: Selector, text: str) -> bool:
    """Return whether the visible text of a page contains a text."""
    if text not in " ".join(page.xpath("string()").get("").split()):
        return False
    visible_texts = page.xpath(f"//text()[not(ancestor::*[{HIDDEN_ELEMENT}])]").getall()
    return text in " ".join(" ".join(visible_texts).split())


def _parse_state(page: Selector) -> dict[str, Any]:
    """Return the value that a script assigns to `__NUXT__`, or its part with the products.

    The value is JSON, or a JavaScript object with unquoted names whose payload is JSON. The result
    is empty if it is neither, for example if a function creates the state.
    """
    for script in page.xpath("//script/text()").getall():
        if match := re.search(r"__NUXT__\s*=", script):
            text = script[match.end() :]
            starts = (
                nested.end() for nested in islice(NESTED_OBJECT.finditer(text), MAX_NESTED_OBJECTS)
            )
            parts = (_parse_object(text[start:]) for start in starts)
            whole = _parse_object(without_trailing_commas(text))
            return next(filter(_products_parent, chain([whole], parts)), {})
    return {}


def _parse_object(text: str) -> dict[str, Any]:
    """Return the JSON object at the start of a text; an empty one if there is none."""
    try:
        value = parse_json(text, may_have_more=True)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _state_products(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # Banners between the products have no SKU.
    products = get_nested(_products_parent(state), "products") or ()
    yield from (product for product in products if isinstance(product, dict) and "sku" in product)


def _products_parent(state: dict[str, Any]) -> dict[str, Any]:
    """Return the object with the list of products: at its known place, else the least nested."""
    level: list[Any] = [get_nested(state, "payload", "state", "payload"), state]
    while level:
        for value in level:
            if isinstance(value, dict) and _is_product_list(value.get("products")):
                return value
        level = [child for value in level for child in _children(value)]
    return {}


def _children(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _is_product_list(value: object) -> bool:
    return isinstance(value, list) and any(
        isinstance(product, dict) and "sku" in product for product in value
    )


def _cards(page: BeautifulSoup) -> list[dict[str, Any]]:
    """Return the products of the cards of a page, which has one generation of them."""
    current = page.find_all("div", class_=CARD, limit=MAX_CARDS)
    older = page.find_all("div", {"class": "products-list-item", "data-sku": True}, limit=MAX_CARDS)
    return [_current_card(card) for card in current] or [_older_card(card) for card in older]


def _current_card(card: Tag) -> dict[str, Any]:
    elements = list(_card_elements(card))
    links = [element for element in elements if element.name == "a" and element.get("href")]
    own = [link for link in links if "x-product-card__link" in link.get_attribute_list("class")]
    href = next((str(link["href"]) for link in (*own, *links) if _sku(str(link["href"]))), "")
    return {
        "sku": _sku(href),
        "url": href or None,
        "brand": _card_text(elements, "brand-name"),
        "name": _card_text(elements, "product-name"),
        "price_text": _card_text(elements, "price-new", "price-single"),
        "thumbnail": _card_image_url(elements),
    }


def _card_elements(card: Tag) -> Iterator[Tag]:
    """Yield the elements of a card, or those before a card inside of it."""
    for node in islice(card.next_elements, MAX_CARD_NODES):
        if isinstance(node, Tag):
            parents = islice(node.parents, MAX_CARD_DEPTH)
            if CARD in node.get_attribute_list("class") or not any(p is card for p in parents):
                return
            yield node


def _card_text(elements: Iterable[Tag], *names: str) -> str | None:
    """Return the text of the first element that exists in a card.

    Args:
        elements: The elements of the card.
        names: Ends of the names of the elements' classes, which may be followed by a hash.
    """
    for name in names:
        for element in elements:
            if f"x-product-card-description__{name}" in " ".join(
                map(str, element.get_attribute_list("class"))
            ):
                return clean_text(element_text(element))
    return None


def _card_image_url(elements: Iterable[Tag]) -> str | None:
    """Return the URL of the image of a card; lazily loaded images have it in `data-src`."""
    images = [element for element in elements if element.name == "img"]
    own = [img for img in images if "x-product-card__pic-img" in img.get_attribute_list("class")]
    for image in (*own, *images):
        for name in ("src", "data-src"):
            if _image_path(value := str(image.get(name, ""))):
                return value
    return None


def _sku(href: str) -> str | None:
    match = PRODUCT_LINK.search(href)
    return match.group(1) if match else None


def _older_card(card: Tag) -> dict[str, Any]:
    return {
        **{name.removeprefix("data-"): card[name] for name in card.attrs},
        "gallery": _parse_gallery(str(card.get("data-gallery", ""))),
        "thumbnail": card.get("data-src", ""),
    }


def _parse_gallery(text: str) -> list[Any]:
    try:
        value = parse_json(text)
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _total(page: Selector, state: dict[str, Any]) -> int | None:
    counter = page.css("[class*='d-catalog-header__product-counter']").xpath("string()").get("")
    digits = re.sub(r"\D", "", counter)
    if digits and len(digits) < 10:
        return int(digits)
    return parse_count(get_nested(_products_parent(state), "pagination", "total"))


def _last_page(state: dict[str, Any]) -> int | None:
    parent = _products_parent(state)
    return parse_count(get_nested(parent, "pagination", "pages") or get_nested(parent, "pages"))


def _page_number(url: str) -> int:
    return parse_count(parse_qs(urlsplit(url).query).get("page", ["1"])[0]) or 1


def _next_cursor(url: str, count: int, total: int | None, last_page: int | None) -> str | None:
    """Return the path and query of the next page; None if this is the last one.

    A search may be redirected to a category, whose path the next page has, too.

    Args:
        url: URL of this page.
        count: Number of products on this page.
        total: Number of products of all pages, if known.
        last_page: Number of the last page, if known.
    """
    page_number = _page_number(url)
    if last_page is not None:
        # The site shows only the first ten thousand products, which may be fewer than the total.
        has_more = page_number < last_page
    elif total is not None:
        has_more = page_number * PRODUCTS_PER_PAGE < total
    else:
        has_more = count >= PRODUCTS_PER_PAGE
    parts = urlsplit(url)
    query = {**parse_qs(parts.query), "page": [str(page_number + 1)]}
    return f"{parts.path}?{urlencode(query, doseq=True)}" if has_more else None
