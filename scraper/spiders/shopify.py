"""Spider of Shopify shops: the product JSON that a shop publishes, without a key.

`products.json` lists all products, newest first, but at most 25,000. The products of a larger shop,
or of one that empties this list, are read from its collections. Products whose tags or type have a
word of the search are posts. The formats are those observed from 2020 to 2026.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urljoin, urlsplit, urlunsplit

from scrapy import Request
from scrapy.http import Response

from scraper.errors import LayoutChanged
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    absolute_url,
    check_count,
    clean_text,
    explain_challenge,
    format_retry_after,
    get_nested,
    html_page,
    html_text,
    is_html,
    json_object,
    json_object_or_empty,
    json_objects,
    parse_count,
    parse_datetime,
    parse_price,
)
from scraper.parsing.hashtags import (
    fragment_of,
    fragment_values,
    group_words,
    has_word,
    words_in_fragment,
)
from scraper.spiders.base import Access, HashtagSpider, Page, Photo, Post, SiteOption

# The largest page, and the largest product of page and limit.
PRODUCTS_PER_PAGE, MAX_DEPTH = 250, 25_000
# Collections per request; their names are part of the cursor.
COLLECTIONS_PER_PAGE = 50
MAX_QUERY_CHARS = 500
# Tags and images of a product; Shopify itself allows 250 of each.
MAX_TAGS = MAX_IMAGES = 1_000
# If this many products have no photo at all, the format has changed.
MIN_PRODUCTS_WITH_PHOTOS = 10
OTHER_PRODUCTS, NO_PHOTOS = "no tag or type with a word of the label", "no photos"
EMPTIED = "collections whose products the shop does not list"
# The size that themes write into the name of an image, as in `polo_600x.jpg`.
SIZE_SUFFIX = re.compile(
    r"_(?:pico|icon|thumb|small|compact|medium|large|grande|master|original|\d{1,4}x\d{0,4}|x\d{1,4})"
    r"(?:_crop_(?:top|center|bottom|left|right))?(?:@[23]x)?(?:\.progressive)?(?=\.\w{3,4}$)"
)
SCALE_SUFFIX = re.compile(r"@[23]x(?=\.\w{3,4}$)")
COLOUR_OPTIONS = {"color", "colour", "colors", "farbe", "couleur", "цвет", "kleur", "colore"}
CURRENCY_IN_SCRIPT = re.compile(
    rb"""Shopify\.currency\s*=\s*\{\s*"active"\s*:\s*"([A-Z]{3})"|"priceCurrency"\s*:\s*"([A-Z]{3})\""""
)


class Spider(HashtagSpider):
    """Reads all products of a Shopify shop, and keeps those with a word of the search."""

    name = "shopify"
    title = "Shopify shop"
    access = Access.SERVER
    needs = "nothing; the shop's host: --set shop=example.com"
    limits_text = (
        "250 products per page, 25,000 per list, then by collections; shops publish no rate limit"
    )
    checked = "2026-11"
    site_url = "https://shop.example.com"
    image_url = "https://cdn.shopify.com"
    server_option = "shop"
    shares_lists = True
    site_options: ClassVar = {
        "shop": SiteOption("", "the shop's host", example="shop.example.com"),
        "page-size": SiteOption(
            str(PRODUCTS_PER_PAGE), "products per page", ("250", "100", "50", "25")
        ),
    }

    currency: str | None = None

    def queries(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return all words as one search: it reads the whole shop."""
        return group_words(words, lambda group: sum(map(len, group)) <= MAX_QUERY_CHARS)

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page; a cursor is a path with a query and a fragment."""
        # robots.txt of some shops forbids `?page=` at the start of a query.
        first = f"/products.json?limit={self.chosen['page-size']}&page=1{fragment_of(query)}"
        return Request(self.requested_url + (cursor or first))

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page, with the currency of the shop."""
        return _read(body, self.own_url(url), self.currency)

    def setup_request(self) -> Request:
        """Return the request of one product, whose page shows the currency."""
        return Request(f"{self.requested_url}/products.json?limit=1&page=1")

    def set_up(self, body: bytes, url: str = "") -> Request | None:
        """Take the currency from a product's page, or request the page of the listed product."""
        if is_html(body):
            self.currency = read_currency(body, url)
            return None
        handle = get_nested(json_object_or_empty(body), "products", 0, "handle")
        if not isinstance(handle, str) or not handle:
            return None
        return Request(f"{self.requested_url}/products/{quote(handle, safe='')}")

    def is_readable(self, response: Response) -> bool:
        """Return whether a response is JSON, or reports the end of a list of 25,000 products."""
        is_end = response.status == 400 and _is_depth_error(json_object_or_empty(response.body))
        return is_end or (response.status == 200 and not is_html(response.body))

    def explain_refusal(self, response: Response) -> str | None:
        """Return why a shop does not list its products, and what to do."""
        shop, status = urlsplit(self.server_url).netloc, response.status
        if is_html(response.body) and (text := explain_challenge(status, response.body)):
            return f"{shop}: {text}"
        if urlsplit(response.url).path.rstrip("/").endswith("/password"):
            return (
                f"{shop} is closed with a password: ask its owner to open it, or crawl another shop"
            )
        if status in (429, 430):
            when = format_retry_after(unicode_headers(response))
            return f"the rate limit of {shop} is reached (HTTP {status}); continue {when}"
        if status in (401, 403):
            return (
                f"{shop} does not let programs read its products (HTTP {status}): respect this,"
                " or ask its owner"
            )
        if status == 404 or (status == 200 and is_html(response.body)):
            found = "a web page instead of products" if status == 200 else "no /products.json"
            return (
                f"{shop} is not a Shopify shop, or has another host for its products ({found}, HTTP"
                f" {status}): check the name; search the source of its pages for"
                " NAME.myshopify.com and name that host, unless the owner has shut it; or crawl the"
                " shop by its sitemap: crawl shop"
            )
        return None


def read(body: bytes, url: str) -> Page:
    """Parse a list of products or collections, and the cursor of the next page.

    Raises:
        LayoutChanged: It is neither.
    """
    return _read(body, url, None)


def _read(body: bytes, url: str, currency: str | None) -> Page:
    response = json_object(body, url)
    if _is_depth_error(response):
        return Page((), _collections_cursor(url, 1), is_lookup=True)
    products, collections = response.get("products"), response.get("collections")
    if isinstance(products, list):
        check_count(products, url)
        return _parse_products(products, url, currency)
    if isinstance(collections, list):
        check_count(collections, url)
        return _parse_collections(collections, url)
    raise LayoutChanged("neither products nor collections in the response", url)


def _is_depth_error(response: dict[str, Any]) -> bool:
    errors = response.get("errors")
    return isinstance(errors, str) and "limit" in errors.lower() and "page" in errors.lower()


def _parse_products(products: list[Any], url: str, currency: str | None) -> Page:
    values, words = fragment_values(url), words_in_fragment(url)
    collection = values.get("collection")
    posts: dict[str, Post] = {}
    listed_ids: dict[str, None] = {}
    other_products, without_photos = 0, 0
    for record in products:
        post = _post(record, url, currency)
        listed_ids[f"{collection or ''}/{post.site_id}"] = None
        if not has_word([*_texts(record), collection], words):
            other_products += 1
        elif not post.photos:
            without_photos += 1
        else:
            posts[post.site_id] = post
    skipped = {
        OTHER_PRODUCTS: other_products,
        NO_PHOTOS: without_photos,
        EMPTIED: int(not products and collection is not None and _number(url, "page") == 1),
    }
    if len(products) >= MIN_PRODUCTS_WITH_PHOTOS and not any(
        isinstance(record.get("images"), list) for record in json_objects(products)
    ):
        raise LayoutChanged(f"none of {len(products)} products has a list of images", url)
    return Page(
        tuple(posts.values()),
        _next_cursor(url, len(products)),
        skipped={reason: count for reason, count in skipped.items() if count},
        listed_ids=tuple(listed_ids),
    )


def _next_cursor(url: str, count: int) -> str | None:
    """Return the cursor of the next page, collection or list of collections.

    Args:
        url: URL of this page.
        count: Number of products on this page.
    """
    values, words = fragment_values(url), fragment_values(url).get("words", "")
    limit, page = _number(url, "limit") or PRODUCTS_PER_PAGE, _number(url, "page") or 1
    is_last = count < limit
    if not is_last and (page + 1) * limit <= MAX_DEPTH:
        path = urlsplit(url).path
        return f"{path}?limit={limit}&page={page + 1}#{urlsplit(url).fragment}"
    if "collection" not in values:
        return None if is_last and (count or page > 1) else _collections_cursor(url, 1)
    handle, _, rest = values.get("then", "").partition(",")
    following = parse_count(values.get("list"))
    if handle:
        return _collection_cursor(handle, rest, following, limit, words)
    return _collections_cursor(url, following) if following else None


def _parse_collections(collections: list[Any], url: str) -> Page:
    handles = [
        handle
        for record in json_objects(collections)
        if (handle := clean_text(record.get("handle")))
        and "," not in handle
        and record.get("products_count") != 0
    ]
    if collections and not any("handle" in record for record in json_objects(collections)):
        raise LayoutChanged(f"none of {len(collections)} collections has a handle", url)
    is_last = len(collections) < (_number(url, "limit") or COLLECTIONS_PER_PAGE)
    following = None if is_last else (_number(url, "page") or 1) + 1
    cursor: str | None
    if handles:
        values = fragment_values(url)
        limit = parse_count(values.get("size")) or PRODUCTS_PER_PAGE
        rest, words = ",".join(handles[1:]), values.get("words", "")
        cursor = _collection_cursor(handles[0], rest, following, limit, words)
    else:
        cursor = _collections_cursor(url, following) if following else None
    return Page((), cursor, is_lookup=True)


def _collection_cursor(
    handle: str, rest: str, following: int | None, limit: int, words: str
) -> str:
    """Return the cursor of the first page of a collection.

    Args:
        handle: Name of the collection.
        rest: Names of the collections after it, joined by commas.
        following: Number of the next list of collections.
        limit: Products per page.
        words: The words of the search.
    """
    values = {"collection": handle, "then": rest, "list": str(following or "")}
    fragment = fragment_of(words, **values)
    path = f"/collections/{quote(handle, safe='')}/products.json"
    return f"{path}?limit={limit}&page=1{fragment}"


def _collections_cursor(url: str, number: int) -> str:
    values = fragment_values(url)
    size = values.get("size") or dict(parse_qsl(urlsplit(url).query)).get("limit", "")
    fragment = fragment_of(values.get("words", ""), size=size)
    return f"/collections.json?limit={COLLECTIONS_PER_PAGE}&page={number}{fragment}"


def _number(url: str, name: str) -> int | None:
    return parse_count(dict(parse_qsl(urlsplit(url).query)).get(name))


def _texts(record: dict[str, Any]) -> list[str | None]:
    """Return the tags and types of a product, in which the words of a search are looked for."""
    return [*_tags(record), *_types(record)]


def _tags(record: dict[str, Any]) -> list[str]:
    tags = record.get("tags")
    # Exports and older shops have one text with commas.
    values = tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, list) else []
    texts = map(html_text, values[:MAX_TAGS])
    return list(dict.fromkeys(text for text in texts if text))


def _types(record: dict[str, Any]) -> list[str]:
    """Return the parts of a type, such as `Shop All;Clothing/Outerwear`."""
    text = html_text(record.get("product_type")) or ""
    parts = map(str.strip, re.split(r"[;/>|]", text))
    return list(dict.fromkeys(part for part in parts if part))


def _post(record: object, url: str, currency: str | None) -> Post:
    product_id = parse_count(get_nested(record, "id"))
    if not isinstance(record, dict) or not product_id:
        raise LayoutChanged(f"a product without an id: {str(record)[:80]}", url)
    handle, price = clean_text(record.get("handle")), _price(record)
    path = f"/products/{quote(handle, safe='')}" if handle else f"/products/{product_id}"
    return Post(
        site_id=str(product_id),
        url=urljoin(url, path),
        photos=tuple(_photos(record, url)),
        title=html_text(record.get("title")),
        brand=html_text(record.get("vendor")),
        price=price,
        currency=currency if price is not None else None,
        posted=parse_datetime(record.get("published_at") or record.get("created_at")),
        hashtags=tuple(_tags(record)),
        attributes=tuple(dict.fromkeys((*_types(record), *_colours(record)))),
        record=record,
    )


def _price(record: dict[str, Any]) -> float | None:
    """Return the lowest price of the variants that are sold, or else of all."""
    variants = json_objects(record.get("variants"))
    for group in ([v for v in variants if v.get("available") is True], variants):
        prices = [price for v in group if (price := parse_price(v.get("price"))) is not None]
        if prices:
            return min(prices)
    return None


def _colours(record: dict[str, Any]) -> Iterator[str]:
    for option in json_objects(record.get("options")):
        values = option.get("values")
        if str(option.get("name")).casefold() in COLOUR_OPTIONS and isinstance(values, list):
            yield from filter(None, map(html_text, values))


def _photos(record: dict[str, Any], url: str) -> Iterator[Photo]:
    images = record.get("images")
    listed = images[:MAX_IMAGES] if isinstance(images, list) else []
    featured = [v.get("featured_image") for v in json_objects(record.get("variants"))]
    known = set[str]()
    for image in (*listed, record.get("image"), *featured):
        src = image if isinstance(image, str) else get_nested(image, "src")
        image_url = absolute_url(src, url)
        if image_url is None or (original := original_url(image_url)) in known:
            continue
        known.add(original)
        number = parse_count(get_nested(image, "id"))
        fallbacks = (image_url,) if image_url != original else ()
        yield Photo(original, fallbacks, str(number) if number else None)


def original_url(url: str) -> str:
    """Return the URL of an image without the sizes in its name and query."""
    parts = urlsplit(url)
    path = SCALE_SUFFIX.sub("", SIZE_SUFFIX.sub("", parts.path))
    # The version stays: a file may be replaced by another one of the same name.
    version = re.search(r"(?:^|&)(v=\d+)", parts.query)
    is_shopify = "/s/files/" in parts.path or "/cdn/shop/" in parts.path
    if not is_shopify:
        return url
    return urlunsplit(parts._replace(path=path, query=version[1] if version else ""))


def read_currency(body: bytes, url: str) -> str | None:
    """Return the ISO 4217 code of the currency on the page of a product."""
    page = html_page(body, url)
    for name in ("og:price:currency", "product:price:currency"):
        for value in page.css(f'meta[property="{name}"]::attr(content)').getall():
            if re.fullmatch(r"[A-Za-z]{3}", value.strip()):
                return value.strip().upper()
    match = CURRENCY_IN_SCRIPT.search(body)
    return (match[1] or match[2]).decode() if match else None
