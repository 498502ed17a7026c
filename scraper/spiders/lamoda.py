"""Lamoda (lamoda.ru, .by, .kz): public search pages, no key. Facts seen 2020 to 2026.

A page embeds its state as JSON, with every photo of a product; where there is none, or it does not
hold the products, the cards on the page serve (two generations of them).
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

from parsel import Selector

from scraper.errors import LayoutChanged
from scraper.reading import inside, text, web_page
from scraper.spiders.base import Answer, Ask, HashtagSpider, Page, Photo, Post

IMAGES = "https://a.lmcdn.ru"
PER_PAGE = 60
NOTHING_FOUND = "Поиск не дал результатов"
ABROAD = "it answers addresses in Russia, Belarus and Kazakhstan only, and no proxies"
# Where JSON may begin inside of a JavaScript object, and how many of such places are tried.
PART, MOST_PARTS = re.compile(r"""\b(?:payload|state)["']?\s*:\s*(?=\{)"""), 9
# A string, also one that the page breaks off, or a comma before a bracket.
LAST_COMMA = re.compile(r'("(?:[^"\\]|\\.)*(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)
CURRENCIES = {"ru": "RUB", "by": "BYN", "kz": "KZT"}


class Spider(HashtagSpider):
    """Lamoda's search, all pages of it."""

    title = "Lamoda"
    needs = "nothing; Lamoda answers addresses in Russia, Belarus and Kazakhstan"
    limits = "60 products a page; blocks foreign addresses and proxies"
    checked = "2026-11"
    site_url = "https://www.lamoda.ru"
    image_url = IMAGES
    circles = f"Lamoda sends this network address round in circles: {ABROAD}"

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """The first page of the search, or the path and query that CURSOR is."""
        return Ask(self.asked_url + (cursor or f"/catalogsearch/result/?q={quote(query)}"))

    def read(self, body: bytes, url: str) -> Page:
        """See the function `read`."""
        return read(body, url)

    def refusal(self, answer: Answer) -> str | None:
        """Name the block of foreign addresses, a 403 with code 10403."""
        if answer.status == 403 and b"10403" in answer.body:
            return f"Lamoda blocks this network address (code 10403): {ABROAD}"
        return None


def read(body: bytes, url: str) -> Page:
    """The products of a search or category page, and the way to the next page.

    Raises:
        LayoutChanged: no product is found, and the page does not say that there is none.
    """
    page = web_page(body, url)
    state = _state(page)
    total = _total(page, state)
    if not total and _says(page, NOTHING_FOUND):
        # Products on such a page are advice ("you may like"), not what was asked for.
        return Page((), None, 0)
    records = [*_state_products(state)] or [*_current_cards(page)] or [*_older_cards(page)]
    if records:
        posts = _posts(records, url)
        return Page(posts, _next_cursor(url, len(records), total, _last_page(state)), total)
    if _is_past_the_end(url, total):
        return Page((), None, total)
    raise LayoutChanged("neither products nor “nothing found” on Lamoda's page", url)


def _is_past_the_end(url: str, total: int | None) -> bool:
    """Products went while we were paging: the page after the last one is empty."""
    return total is not None and (_page_number(url) - 1) * PER_PAGE >= total


def _posts(records: list[dict[str, Any]], url: str) -> tuple[Post, ...]:
    posts = tuple(_post(record, url) for record in records)
    if not any(post.photos for post in posts):
        raise LayoutChanged(f"none of {len(posts)} products has a photo", url)
    return posts


def _post(record: dict[str, Any], url: str) -> Post:
    sku = record.get("sku")
    if not isinstance(sku, str) or not re.fullmatch(r"[A-Za-z0-9_-]+", sku):
        raise LayoutChanged(f"a product without its sku: {str(record)[:80]}", url)
    country = (urlsplit(url).hostname or "").rpartition(".")[2]
    return Post(
        site_id=sku.upper(),
        url=urljoin(url, f"/p/{sku.lower()}/"),
        photos=_photos(record),
        title=text(record.get("name")) or text(record.get("seo_title")),
        brand=text(inside(record, "brand", "name")) or text(record.get("brand")),
        price=_price(record),
        currency=CURRENCIES.get(country, "RUB"),
        attributes=_attributes(record),
        record=record,
    )


def _attributes(record: dict[str, Any]) -> tuple[str, ...]:
    """Colour, gender and category, as the state or an older card has them."""
    found = (
        record.get("color_family") or record.get("color-family"),
        record.get("gender"),
        record.get("category") or inside(record, "category", "name"),
    )
    return tuple(dict.fromkeys(word for one in found if (word := text(one))))


def _photos(record: dict[str, Any]) -> tuple[Photo, ...]:
    gallery = record.get("gallery")
    listed = gallery if isinstance(gallery, list) and gallery else [record.get("thumbnail")]
    paths = [_path(address) for address in listed if isinstance(address, str)]
    return tuple(
        Photo(f"{IMAGES}/img600x866{p}", (f"{IMAGES}/product{p}", f"{IMAGES}/img236x341{p}"))
        for p in dict.fromkeys(paths)
        if p
    )


def _path(address: str) -> str | None:
    """`/M/P/MP….jpg` of a photo's ADDRESS in any of its forms: bare path, sized, with host."""
    path = urlsplit(address.strip()).path.lstrip(".")
    path = re.sub(r"^/?(pi/)?(img\d+x\d+|product)/", "/", path)
    return path if re.fullmatch(r"(/[\w.%-]+)+\.(jpe?g|png|webp)", path, re.IGNORECASE) else None


def _price(record: dict[str, Any]) -> float | None:
    for value in (record.get("price_amount"), record.get("price"), record.get("price_text")):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        digits = re.sub(r"[^\d.,]", "", value).rstrip(".,") if isinstance(value, str) else ""
        if re.fullmatch(r"\d+([.,]\d{1,2})?", digits):
            return float(digits.replace(",", "."))
    return None


def _says(page: Selector, words: str) -> bool:
    shown = page.xpath("//text()[not(ancestor::script or ancestor::style)]").getall()
    return words in " ".join(" ".join(shown).split())


def _state(page: Selector) -> dict[str, Any]:
    """What stands behind `__NUXT__ =`, the part that holds the products at least.

    The whole is JSON, or a JavaScript object whose outer names have no quotes; its payload is JSON
    then. Empty where there is neither, as where a function makes the state.
    """
    for script in page.xpath("//script/text()").getall():
        if match := re.search(r"__NUXT__\s*=", script):
            text = script[match.end() :]
            starts = (found.end() for found in islice(PART.finditer(text), MOST_PARTS))
            parts = (_json(text[start:]) for start in starts)
            return next(filter(_holder, chain([_json(_without_last_commas(text))], parts)), {})
    return {}


def _without_last_commas(text: str) -> str:
    # A string is matched first and kept, so that only commas outside of strings go.
    return LAST_COMMA.sub(lambda m: m.group(1) or "", text)


def _json(text: str) -> dict[str, Any]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text.lstrip())
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _state_products(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # Banners stand between the products; what has no sku is none.
    products = inside(_holder(state), "products") or ()
    yield from (p for p in products if isinstance(p, dict) and "sku" in p)


def _holder(state: dict[str, Any]) -> dict[str, Any]:
    """The part of the state that has the list of products: where it was seen, else nearest."""
    level: list[Any] = [inside(state, "payload", "state", "payload"), state]
    while level:
        for part in level:
            if isinstance(part, dict) and _are_products(part.get("products")):
                return part
        level = [value for part in level for value in _within(part)]
    return {}


def _within(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _are_products(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(p, dict) and "sku" in p for p in value)


def _current_cards(page: Selector) -> Iterator[dict[str, Any]]:
    for card in page.css("div.x-product-card__card"):
        link = card.css("a.x-product-card__link[href], a[href*='/p/']").attrib.get("href", "")
        yield {
            "sku": _sku(link),
            "url": link or None,
            "brand": _card_text(card, "brand-name"),
            "name": _card_text(card, "product-name"),
            "price_text": _card_text(card, "price-new", "price-single"),
            "thumbnail": _source(card),
        }


def _card_text(card: Selector, *names: str) -> str | None:
    for name in names:
        found = card.css(f"[class*='x-product-card-description__{name}']")
        if found:
            return text(" ".join(found[0].xpath(".//text()").getall()))
    return None


def _source(card: Selector) -> str | None:
    """The address of the card's photo: a lazy one stands in `data-src`."""
    for image in (*card.css("img.x-product-card__pic-img"), *card.css("img")):
        for name in ("src", "data-src"):
            if _path(value := image.attrib.get(name, "")):
                return value
    return None


def _sku(href: str) -> str | None:
    match = re.search(r"/p/([^/?#]+)", href)
    return match.group(1) if match else None


def _older_cards(page: Selector) -> Iterator[dict[str, Any]]:
    for card in page.css("div.products-list-item[data-sku]"):
        yield {
            **{name.removeprefix("data-"): value for name, value in card.attrib.items()},
            "gallery": _gallery(card.attrib.get("data-gallery", "")),
            "thumbnail": card.attrib.get("data-src", ""),
        }


def _gallery(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _total(page: Selector, state: dict[str, Any]) -> int | None:
    counter = page.css("[class*='d-catalog-header__product-counter']").xpath("string()").get("")
    digits = re.sub(r"\D", "", counter)
    if digits and len(digits) < 10:
        return int(digits)
    total = inside(_holder(state), "pagination", "total")
    return total if isinstance(total, int) else None


def _last_page(state: dict[str, Any]) -> int | None:
    holder = _holder(state)
    pages = inside(holder, "pagination", "pages") or inside(holder, "pages")
    return pages if isinstance(pages, int) else None


def _page_number(url: str) -> int:
    text = parse_qs(urlsplit(url).query).get("page", ["1"])[0]
    return int(text) if text.isdecimal() else 1


def _next_cursor(url: str, count: int, total: int | None, last: int | None) -> str | None:
    """Path and query of the page after URL's, also where the search led to a category."""
    number = _page_number(url)
    if last is not None:
        # Fewer than the total needs, where the site shows the first ten thousand only.
        more = number < last
    else:
        more = number * PER_PAGE < total if total is not None else count >= PER_PAGE
    parts = urlsplit(url)
    query = {**parse_qs(parts.query), "page": [str(number + 1)]}
    return f"{parts.path}?{urlencode(query, doseq=True)}" if more else None
