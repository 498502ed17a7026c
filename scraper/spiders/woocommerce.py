"""Spider of WooCommerce shops: the public Store API of a shop on WordPress, without a key.

A search looks up the tags and categories that have one of its words, and reads the products of
each. Without such a tag or category, it reads products with a word in their names. The formats are
those observed from 2021 to 2026.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit

from scrapy import Request
from scrapy.http import Response

from scraper.errors import LayoutChanged
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    absolute_url,
    clean_text,
    explain_challenge,
    format_retry_after,
    get_nested,
    html_page,
    html_text,
    is_html,
    json_list,
    json_object_or_empty,
    json_objects,
    parse_count,
)
from scraper.parsing.hashtags import fragment_of, fragment_values, group_words, has_word
from scraper.spiders.base import Access, HashtagSpider, Page, Photo, Post, SiteOption

ROOT, API = "/wp-json/", "wc/store/v1/products"
# Versions before 6.4 have the same API under this path only.
OLDER_API = "wc/store/products"
API_PATH = re.compile(r"wc/store(?:/v1)?/products(?:/tags|/categories)?")
# The largest page that the API serves.
PER_PAGE = 100
MAX_QUERY_CHARS = 500
NO_PHOTOS, PROTECTED, OTHER_PRODUCTS = (
    "no photos",
    "behind a password",
    "no name with a word of the label",
)
# Image proxy of the plugin Jetpack: the path begins with the host of the original.
JETPACK = re.compile(r"i\d\.wp\.com")
COLOUR_ATTRIBUTES = {"color", "colour", "farbe", "couleur", "цвет", "kleur", "colore"}


@dataclass(frozen=True)
class ListingStage:
    """A request of a search, and what follows it; it is part of the cursor.

    Attributes:
        words: The words of the search.
        path: Path of the request in the API.
        left: Words that are looked up, or searched in names, after this request.
        tags: Ids of the tags with a word of the search.
        categories: Ids of such categories.
    """

    words: str
    path: str
    left: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @classmethod
    def of(cls, url: str) -> "ListingStage":
        """Return the stage of a URL."""
        values = fragment_values(url)
        lists = {
            name: tuple(filter(None, values.get(name, "").split(",")))
            for name in ("left", "tags", "categories")
        }
        return cls(values.get("words", ""), _api_path(url), **lists)

    def cursor(self, **parameters: str) -> str:
        """Return the cursor of a request with some parameters."""
        query = urlencode({**parameters, "per_page": str(PER_PAGE), "page": "1"} | parameters)
        values = {name: ",".join(getattr(self, name)) for name in ("left", "tags", "categories")}
        return f"{self.path}?{query}{fragment_of(self.words, **values)}"

    @property
    def products_path(self) -> str:
        """Path of the products in the version of the API that the shop has."""
        return OLDER_API if self.path.startswith(OLDER_API) else API

    @property
    def search_words(self) -> tuple[str, ...]:
        """The words to look up: without those that contain another one, which finds them, too."""
        words = self.words.split(" or ")
        return tuple(
            word
            for word in words
            if not any(other != word and other in word for other in words) and "," not in word
        )


class Spider(HashtagSpider):
    """Reads the products of the tags and categories of a WooCommerce shop."""

    name = "woocommerce"
    title = "WooCommerce shop"
    access = Access.SERVER
    needs = "nothing; the shop's host: --set shop=example.com"
    limits_text = "100 products per page, all pages; shops limit requests only by their firewalls"
    checked = "2026-11"
    site_url = "https://shop.example.com"
    image_url = "https://images.example.com"
    server_option = "shop"
    # A search has several lists: a known product on one says nothing about the others.
    renews = True
    site_options: ClassVar = {
        "shop": SiteOption(
            "", "the shop's host, with its folder if it has one", example="shop.example.com"
        ),
        "variations": SiteOption(
            "read", "photos of the variations, a request per product", ("read", "skip")
        ),
    }

    # Relative to the shop's URL, unless the API is on another host.
    api_root = ROOT

    def queries(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return all words as one search."""
        return group_words(words, lambda group: sum(map(len, group)) <= MAX_QUERY_CHARS)

    def lookup_request(self, query: str) -> Request:
        """Return the request of the tags with the first word of a search."""
        stage = ListingStage(query, f"{API}/tags")
        first, *left = stage.search_words
        return self._request(replace(stage, left=tuple(left)).cursor(search=first))

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page; a cursor is a path in the API with query and fragment."""
        return self._request(cursor or ListingStage(query, API).cursor(search=query))

    def _request(self, cursor: str) -> Request:
        path, _, rest = cursor.partition("?")
        root = self.api_root
        # Without readable addresses, the root is `/?rest_route=/`.
        separator = "&" if "?" in root else "?"
        base = root if "://" in root else self.requested_url + root
        return Request(f"{base}{path}{separator}{rest}")

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; without the photos of variations if the user skips them."""
        page = read(body, self.own_url(url))
        return page if self.chosen["variations"] == "read" else replace(page, detail_urls=())

    def select_detail(self, detail: Page, page: Page, url: str) -> Page:
        """Return the photos of the variations of a page's products."""
        ids = {post.site_id for post in page.posts}
        return Page(tuple(post for post in detail.posts if post.site_id in ids))

    def setup_request(self) -> Request:
        """Return the request of the shop's front page, which names the root of its API."""
        return Request(f"{self.requested_url}/")

    def set_up(self, body: bytes, url: str = "") -> None:
        """Use the root of the API that the front page names."""
        root = absolute_url(
            html_page(body, url).css('link[rel="https://api.w.org/"]::attr(href)').get(), url
        )
        if root is None:
            return
        for prefix in (self.server_url, self.requested_url):
            if root.startswith(f"{prefix}/"):
                self.api_root = root[len(prefix) :]
                return
        parts = urlsplit(root)
        query = f"?{parts.query}" if parts.query else ""
        # A mirror has the paths of all hosts of the shop.
        self.api_root = f"{parts.path}{query}" if self.has_mirror else root

    def is_readable(self, response: Response) -> bool:
        """Return whether a response is JSON, or reports that the shop has an older API only."""
        if response.status == 404 and _error_code(response) == "rest_no_route":
            return not _api_path(response.url).startswith(OLDER_API)
        return response.status == 200 and not is_html(response.body)

    def explain_refusal(self, response: Response) -> str | None:
        """Return why a shop does not list its products, and what to do."""
        shop, status = urlsplit(self.server_url).netloc, response.status
        if status == 429:
            when = format_retry_after(unicode_headers(response))
            return f"the rate limit of {shop} is reached (HTTP 429); continue {when}"
        if is_html(response.body):
            challenge = explain_challenge(status, response.body)
            reason = challenge or _page_meaning(status)
        else:
            reason = _error_meaning(status, json_object_or_empty(response.body))
        return f"{shop}: {reason}" if reason else None


def _page_meaning(status: int) -> str | None:
    """Return what a web page in place of JSON means."""
    if status in (401, 403):
        return (
            f"its firewall does not let programs read the products (HTTP {status}): respect this,"
            " or ask the owner"
        )
    if status in (200, 404):
        return (
            f"it sends a web page instead of products (HTTP {status}): it is not a WooCommerce"
            " shop, or its API is in a folder: name it, as in --set shop=example.com/shop; or crawl"
            " the shop by its sitemap: crawl shop"
        )
    return None


def _error_meaning(status: int, error: dict[str, Any]) -> str | None:
    """Return what an error of the API means."""
    code = clean_text(error.get("code"))
    shown = f"HTTP {status}{f', {code}' if code else ''}"
    if code == "rest_no_route":
        return (
            f"it has no Store API ({shown}): WooCommerce is off or very old, or its owner has shut"
            " the API; crawl the shop by its sitemap: crawl shop"
        )
    if status in (401, 403):
        return (
            f"a security plugin does not let programs read the products ({shown}): respect this,"
            " or ask the owner"
        )
    if status == 400 and code:
        names = ", ".join(map(str, get_nested(error, "data", "params") or ()))
        return f"it does not accept a parameter ({shown}{f': {names}' if names else ''})"
    return None


def read(body: bytes, url: str) -> Page:
    """Parse a list of products, variations, tags or categories, and the next cursor.

    Raises:
        LayoutChanged: It is none of these.
    """
    stage = ListingStage.of(url)
    if b"rest_no_route" in body[:200] and not stage.path.startswith(OLDER_API):
        older = replace(stage, path=stage.path.replace(API, OLDER_API))
        return Page((), older.cursor(**_parameters(url)), is_lookup=True)
    records = json_list(body, url)
    if stage.path.endswith(("/tags", "/categories")):
        return _parse_terms(records, url, stage)
    if _parameters(url).get("type") == "variation":
        return Page(tuple(_variation(record, url) for record in records))
    if not records and not _is_list_of_stage(url):
        raise LayoutChanged("no products in the response", url)
    return _parse_products(records, url, stage)


def _is_list_of_stage(url: str) -> bool:
    """Return whether a list may be empty: further pages, and products of a term or a name."""
    return bool({"tag", "category", "orderby"} & set(_parameters(url)))


def _parse_terms(records: list[Any], url: str, stage: ListingStage) -> Page:
    """Parse a list of tags or categories."""
    words, kind = stage.words.split(" or "), stage.path.rpartition("/")[2]
    ids = dict.fromkeys(getattr(stage, kind))
    for term in records:
        number = parse_count(get_nested(term, "id"))
        if number is None:
            raise LayoutChanged(f"a term without an id: {str(term)[:80]}", url)
        texts = [html_text(term.get("name")), unquote(str(term.get("slug")))]
        if has_word(texts, words) and term.get("count") != 0:
            ids[str(number)] = None
    found = tuple(ids)
    stage = replace(stage, tags=found) if kind == "tags" else replace(stage, categories=found)
    return Page((), _cursor_after_terms(stage, kind, len(records), url), is_lookup=True)


def _cursor_after_terms(stage: ListingStage, kind: str, count: int, url: str) -> str | None:
    """Return the cursor after a page of terms: more terms, the next word, or the products."""
    parameters = _parameters(url)
    if count >= PER_PAGE:
        return stage.cursor(**parameters | {"page": str(_page(url) + 1)})
    if stage.left:
        word, *left = stage.left
        return replace(stage, left=tuple(left)).cursor(search=word)
    if kind == "tags":
        word, *left = stage.search_words
        path = f"{stage.products_path}/categories"
        return replace(stage, path=path, left=tuple(left)).cursor(search=word)
    stage = replace(stage, path=stage.products_path)
    if stage.tags:
        return stage.cursor(tag=",".join(stage.tags))
    if stage.categories:
        return stage.cursor(category=",".join(stage.categories))
    word, *left = stage.search_words
    return replace(stage, left=tuple(left)).cursor(search=word, orderby="date")


def _parse_products(records: list[Any], url: str, stage: ListingStage) -> Page:
    parameters, words = _parameters(url), stage.words.split(" or ")
    posts: dict[str, Post] = {}
    listed_ids: dict[str, None] = {}
    details = []
    skipped = dict.fromkeys((NO_PHOTOS, PROTECTED, OTHER_PRODUCTS), 0)
    for record in records:
        post = _post(record, url)
        listed_ids[post.site_id] = None
        has_variations = bool(record.get("variations"))
        if "search" in parameters and not has_word([post.title], words):
            skipped[OTHER_PRODUCTS] += 1
        elif record.get("is_password_protected") is True:
            skipped[PROTECTED] += 1
        elif not post.photos and not has_variations:
            skipped[NO_PHOTOS] += 1
        else:
            posts[post.site_id] = post
            if has_variations:
                details.append(_variations_url(url, post.site_id))
    return Page(
        tuple(posts.values()),
        _cursor_after_products(stage, len(records), url),
        skipped={reason: count for reason, count in skipped.items() if count},
        listed_ids=tuple(listed_ids),
        detail_urls=tuple(details),
    )


def _cursor_after_products(stage: ListingStage, count: int, url: str) -> str | None:
    """Return the cursor after a page of products: more, those of the categories, or of a word."""
    parameters = _parameters(url)
    if count >= PER_PAGE:
        return stage.cursor(**parameters | {"page": str(_page(url) + 1)})
    if "tag" in parameters and stage.categories:
        return stage.cursor(category=",".join(stage.categories))
    if "search" in parameters and stage.left:
        word, *left = stage.left
        return replace(stage, left=tuple(left)).cursor(search=word, orderby="date")
    return None


def _post(record: object, url: str) -> Post:
    product_id = parse_count(get_nested(record, "id"))
    if not isinstance(record, dict) or not product_id:
        raise LayoutChanged(f"a product without an id: {str(record)[:80]}", url)
    price = _price(record)
    return Post(
        site_id=str(product_id),
        url=absolute_url(record.get("permalink"), url) or urljoin(url, f"/?p={product_id}"),
        photos=tuple(_photos(record, url)),
        title=html_text(record.get("name")),
        brand=next(_names(record.get("brands")), None),
        price=price,
        currency=clean_text(get_nested(record, "prices", "currency_code"))
        if price is not None
        else None,
        hashtags=tuple(_names(record.get("tags"))),
        attributes=tuple(dict.fromkeys((*_names(record.get("categories")), *_colours(record)))),
        record=record,
    )


def _variation(record: object, url: str) -> Post:
    """Return a post with the id of a variation's product, to which its photos belong."""
    parent = parse_count(get_nested(record, "parent"))
    parent = parent or parse_count(_parameters(url).get("parent"))
    if not isinstance(record, dict) or not parent:
        raise LayoutChanged(f"a variation without a product: {str(record)[:80]}", url)
    return Post(str(parent), url, tuple(_photos(record, url)))


def _price(record: dict[str, Any]) -> float | None:
    """Return the price, or the lowest one of the variations; the API has it in minor units."""
    prices = record.get("prices")
    unit = parse_count(get_nested(prices, "currency_minor_unit"))
    amounts = (
        get_nested(prices, "price_range", "min_amount"),
        get_nested(prices, "price"),
        get_nested(prices, "regular_price"),
    )
    amount = next((a for value in amounts if (a := parse_count(value)) is not None), None)
    return None if amount is None or unit is None or unit > 4 else amount / 10**unit


def _names(records: object) -> Iterator[str]:
    names = (html_text(record.get("name")) for record in json_objects(records))
    yield from dict.fromkeys(name for name in names if name)


def _colours(record: dict[str, Any]) -> Iterator[str]:
    for attribute in json_objects(record.get("attributes")):
        name = (html_text(attribute.get("name")) or "").casefold()
        taxonomy = str(attribute.get("taxonomy")).removeprefix("pa_")
        if name in COLOUR_ATTRIBUTES or taxonomy in COLOUR_ATTRIBUTES:
            yield from _names(attribute.get("terms"))


def _photos(record: dict[str, Any], url: str) -> Iterator[Photo]:
    known = set[str]()
    for image in json_objects(record.get("images")):
        src = html_text(image.get("src"))
        image_url = absolute_url(src, url)
        if image_url is None or (original := original_url(image_url)) in known:
            continue
        known.add(original)
        number = parse_count(image.get("id"))
        fallbacks = (image_url,) if image_url != original else ()
        yield Photo(original, fallbacks, str(number) if number else None)


def original_url(url: str) -> str:
    """Return the URL of the original of an image that Jetpack's proxy serves."""
    parts = urlsplit(url)
    host, _, path = parts.path.lstrip("/").partition("/")
    if not JETPACK.fullmatch(parts.hostname or "") or "." not in host or not path:
        return url
    return f"https://{host}/{path}"


def _variations_url(url: str, product_id: str) -> str:
    """Return the URL of a product's variations, on the API that a page is from."""
    query = urlencode({"type": "variation", "parent": product_id, "per_page": str(PER_PAGE)})
    before = url.partition("#")[0]
    if "rest_route=" in before:
        root = before.partition("?")[0]
        return f"{root}?rest_route=/{_products_path(url)}&{query}"
    return f"{before.partition('/wc/store')[0]}/{_products_path(url)}?{query}"


def _products_path(url: str) -> str:
    return OLDER_API if _api_path(url).startswith(OLDER_API) else API


def _api_path(url: str) -> str:
    """Return the path of a request in the API."""
    parts = urlsplit(url)
    match = API_PATH.search(unquote(f"{parts.path}?{parts.query}"))
    return match[0] if match else API


def _parameters(url: str) -> dict[str, str]:
    """Return the parameters of a request, without the path that may be among them."""
    parameters = dict(parse_qsl(urlsplit(url).query))
    parameters.pop("rest_route", None)
    return parameters


def _page(url: str) -> int:
    return parse_count(_parameters(url).get("page")) or 1


def _error_code(response: Response) -> str | None:
    return clean_text(json_object_or_empty(response.body).get("code"))
