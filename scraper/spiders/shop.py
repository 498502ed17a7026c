"""Spider of any shop: its sitemap lists the pages, and each page describes its product.

Descriptions are JSON-LD of schema.org in the shapes and with the defects that pages have,
microdata, and OpenGraph, each filling what the one before it lacks. Products whose name, category
or keywords have a word of the search are posts. The formats are those observed until 2026.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import unescape
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from bs4 import BeautifulSoup, Tag
from scrapy import Request
from scrapy.http import Response

from dataset.catalogue.models import NO_CREDIT
from scraper.errors import LayoutChanged, SiteRefused
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    absolute_url,
    clean_text,
    element_text,
    explain_challenge,
    format_retry_after,
    html_soup,
    html_text,
    is_html,
    license_code,
    license_url,
    parse_count,
    parse_json,
    parse_price,
    without_trailing_commas,
)
from scraper.parsing.hashtags import (
    fragment_of,
    fragment_values,
    group_words,
    has_word,
    words_in_fragment,
)
from scraper.spiders.base import Access, Credit, HashtagSpider, Page, Photo, Post, SiteOption

# Pages of products that are saved together; the sitemap is read from the cache for the next ones.
PRODUCTS_PER_PAGE = 100
# As many for a check.
CHECKED_PRODUCTS = 10
# Sitemaps that the cursor names.
# A sitemap may have 50,000 pages and 50 MB: https://www.sitemaps.org/protocol.html
MAX_SITEMAPS, MAX_LOCATIONS, MAX_SITEMAP_BYTES = 500, 100_000, 52_428_800
# Indexes of sitemaps that a search reads, and values of the fragment that are handed on.
MAX_INDEXES, KEPT_VALUES = 100, ("path", "page-size", "indexes")
DEFAULT_SITEMAPS = ("/sitemap.xml", "/sitemap_index.xml")
# JSON-LD of a page: characters, quotation marks of a block to repair, objects and lists, offers.
MAX_OFFER_DEPTH = 3
MAX_JSON_LD_CHARS, MAX_QUOTES, MAX_NODES, MAX_OFFERS = 2_000_000, 200_000, 20_000, 1_000
MAX_QUERY_CHARS = 500
OTHER_PRODUCTS, NOINDEX = "no name or category with a word of the label", "noindex"
MISSING_SITEMAPS = "sitemaps that are missing"
OTHER_HOSTS = "pages of another host than that of --set shop"
LOCATION = re.compile(r"<(?:(\w+):)?loc\b[^<>]*>\s*(?:<!\[CDATA\[)?\s*([^<\]]*)", re.IGNORECASE)
SITEMAP_LINE = re.compile(r"^\s*sitemap\s*:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
PRODUCT_SITEMAP = re.compile(r"product|produkt|produit|tovar|item|goods")
NO_PAGE = re.compile(r"\.(?:jpe?g|png|gif|webp|svg|pdf|css|js|xml|zip|mp4)$", re.IGNORECASE)
PRODUCT_TYPES = {"product", "productgroup", "individualproduct", "productmodel", "someproducts"}
# Properties with other products, or with persons.
RELATED = {
    *("isrelatedto", "issimilarto", "isaccessoryorsparepartfor", "isconsumablefor", "review"),
    *("reviews", "author", "seller", "manufacturer", "publisher", "hasvariant", "isvariantof"),
}
# Items of microdata inside of a product that describe it.
INNER_TYPES = {"offer", "aggregateoffer", "brand", "imageobject", ""}
# Around the JSON of a script element: comments of HTML, CDATA sections.
WRAPPING = re.compile(
    r"^\s*(?:/[/*]\s*)?(?:<!--|<!\[CDATA\[)\s*(?:\*/)?|(?:/[/*]\s*)?(?:-->|\]\]>)\s*(?:\*/)?\s*$"
)
AFTER_STRING = re.compile(r"\s*(?:[:}\]]|,\s*[\"\[{\d\-tfn}\]]|\Z)")
# Properties of microdata, and elements around them, that are read.
MAX_PROPERTIES, MAX_DEPTH = 3_000, 200
# Properties that an element gives at once.
MAX_NAMES = 5
NO_INDEX = re.compile(r"\b(?:noindex|noimageindex|none)\b", re.IGNORECASE)


class Spider(HashtagSpider):
    """Reads the product pages of a shop, and keeps those with a word of the search."""

    name = "shop"
    title = "Shop with a sitemap"
    access = Access.SERVER
    needs = "nothing; the shop's host: --set shop=example.com"
    limits_text = "a request per product page, at the shop's rate"
    checked = "2026-11"
    site_url = "https://shop.example.com"
    image_url = "https://images.example.com"
    server_option = "shop"
    shares_lists = True
    # A later run reads the whole sitemap: new products may be anywhere in it.
    renews = True
    site_options: ClassVar = {
        "shop": SiteOption("", "the shop's host", example="shop.example.com"),
        "path": SiteOption("", "read only pages with this text in their path, such as /products/"),
        "sitemap": SiteOption("", "path or URL of the sitemap, if robots.txt does not name it"),
        "page-size": SiteOption(
            str(PRODUCTS_PER_PAGE),
            "product pages that are requested and saved together",
            (str(PRODUCTS_PER_PAGE), str(CHECKED_PRODUCTS)),
        ),
    }
    check_options: ClassVar = {"page-size": str(CHECKED_PRODUCTS)}

    def queries(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """Return all words as one search: it reads the whole shop."""
        return group_words(words, lambda group: sum(map(len, group)) <= MAX_QUERY_CHARS)

    def lookup_request(self, query: str) -> Request:
        """Return the request of robots.txt, which names the sitemaps."""
        names = ("path", "sitemap", "page-size")
        values = {name: self.chosen[name] for name in names if self.chosen[name]}
        origin = urljoin(self.requested_url, "/robots.txt")
        return Request(origin + fragment_of(query, **values))

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a sitemap; a cursor is its URL with a fragment."""
        return self.page_of_url(cursor or f"{self.server_url}/{fragment_of(query)}")

    def page_of_url(self, url: str) -> Request:
        """Return the request of a page or sitemap; a mirror has the paths of all hosts."""
        if not self.has_mirror:
            return Request(url)
        mirror, parts = urlsplit(self.requested_url), urlsplit(url)
        return Request(urlunsplit(parts._replace(scheme=mirror.scheme, netloc=mirror.netloc)))

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page; see the function `read`."""
        return read(body, self.own_url(url))

    def select_detail(self, detail: Page, page: Page, url: str) -> Page:
        """Return the product of a page if it has a word of the search."""
        words = words_in_fragment(url)
        posts = tuple(
            post
            for post in detail.posts
            if has_word([post.title, *post.hashtags, *post.attributes], words)
        )
        count = len(detail.posts) - len(posts)
        return Page(posts, skipped={**detail.skipped, **({OTHER_PRODUCTS: count} if count else {})})

    def is_readable(self, response: Response) -> bool:
        """Return whether a response is a page, or a robots.txt or sitemap that may be missing."""
        if _is_robots_txt(response.url) or _is_sitemap(response.url):
            return response.status in (200, 404, 410)
        is_hidden = any(
            NO_INDEX.search(value.decode("latin-1"))
            for value in response.headers.getlist("X-Robots-Tag")
        )
        return response.status == 200 and not (is_hidden and is_html(response.body))

    def explain_refusal(self, response: Response) -> str | None:
        """Return why a page can't be read."""
        shop, status = urlsplit(self.server_url).netloc, response.status
        if (text := explain_challenge(status, response.body)) is not None:
            return f"{shop}: {text}"
        if status == 429:
            when = format_retry_after(unicode_headers(response))
            return f"the rate limit of {shop} is reached (HTTP 429); continue {when}"
        if status in (401, 403, 307):
            return (
                f"{shop} does not let programs read its pages (HTTP {status}): respect this,"
                " or ask its owner"
            )
        if status == 200:
            return f"{shop} asks robots not to use the page (X-Robots-Tag)"
        return None


def read(body: bytes, url: str) -> Page:
    """Parse a robots.txt, a sitemap, or the page of a product.

    Raises:
        LayoutChanged: It is none of these, or the page has no product with a photo.
        SiteRefused: It is a challenge page.
    """
    if _is_robots_txt(url):
        return _parse_robots_txt(body, url)
    text = _sitemap_text(body, url)
    if text is not None:
        return _parse_sitemap(text, url)
    if _is_sitemap(url):
        if (meaning := explain_challenge(200, body)) is not None:
            raise SiteRefused(f"{urlsplit(url).netloc}: {meaning}")
        skipped = {} if _is_guess(url) else {MISSING_SITEMAPS: 1}
        return Page((), _next_sitemap(url), skipped=skipped, is_lookup=True)
    if not is_html(body):
        raise LayoutChanged("neither a sitemap nor a web page", url)
    return _parse_product_page(body, url)


# Sitemaps.


def _is_robots_txt(url: str) -> bool:
    return urlsplit(url).path == "/robots.txt"


def _is_sitemap(url: str) -> bool:
    """Return whether a sitemap is requested."""
    return "then" in fragment_values(url)


def _is_guess(url: str) -> bool:
    """Return whether a sitemap is requested that nothing names, and that may be missing."""
    return "guess" in fragment_values(url)


def _parse_robots_txt(body: bytes, url: str) -> Page:
    """Return the cursor of the first sitemap."""
    values = fragment_values(url)
    named = [values["sitemap"]] if values.get("sitemap") else []
    if not named and not is_html(body):
        named = SITEMAP_LINE.findall(body.decode("utf-8", "replace"))
    urls = [found for value in named if (found := absolute_url(value, url))]
    if urls:
        return Page((), _sitemap_cursor(url, _product_sitemaps(urls)), is_lookup=True)
    guesses = [urljoin(url, path) for path in DEFAULT_SITEMAPS]
    return Page((), _sitemap_cursor(url, guesses, guess="1"), is_lookup=True)


def _sitemap_cursor(url: str, urls: Sequence[str], **values: str) -> str | None:
    """Return the cursor of the first of some sitemaps, with the others."""
    if not urls:
        return None
    kept = {name: value for name, value in fragment_values(url).items() if name in KEPT_VALUES}
    following = list(dict.fromkeys(urls))[1:MAX_SITEMAPS]
    fragment = {**kept, "then": " ".join(following), **values}
    words = fragment_values(url).get("words", "")
    return f"{urls[0].partition('#')[0]}{fragment_of(words, **fragment)}"


def _next_sitemap(url: str) -> str | None:
    """Return the cursor of the sitemap after the one of a URL."""
    following = fragment_values(url).get("then", "").split()
    is_guess = {"guess": "1"} if _is_guess(url) else {}
    if not following and is_guess:
        shop = urlsplit(url).netloc
        raise SiteRefused(
            f"{shop} names no sitemap in its robots.txt and has none at"
            f" {' or '.join(DEFAULT_SITEMAPS)}: name it, as in --set sitemap=/sitemaps/products.xml"
        )
    return _sitemap_cursor(url, following, **is_guess)


def _product_sitemaps(urls: Sequence[str]) -> list[str]:
    """Return the sitemaps of products, if their names tell which these are; otherwise all."""
    unique = list(dict.fromkeys(urls))
    products = [url for url in unique if PRODUCT_SITEMAP.search(url.lower().replace("sitemap", ""))]
    return products or unique


def _sitemap_text(body: bytes, url: str) -> str | None:
    """Return the text of a sitemap, which may be compressed; None if the body is none.

    Raises:
        LayoutChanged: It is larger than sitemaps may be.
    """
    if body[:2] == b"\x1f\x8b":
        decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            body = decompressor.decompress(body, MAX_SITEMAP_BYTES)
        except zlib.error as error:
            raise LayoutChanged(f"a sitemap that can't be decompressed ({error})", url) from error
        if decompressor.unconsumed_tail:
            raise LayoutChanged("a sitemap of more than 50 MB", url)
    start = body[:2000].lower()
    if b"<urlset" not in start and b"<sitemapindex" not in start:
        return None
    return body.decode("utf-8", "replace")


def _parse_sitemap(text: str, url: str) -> Page:
    """Return the next pages of products of a sitemap, or the sitemaps of an index."""
    values, urls = fragment_values(url), _locations(text, url.partition("#")[0])
    # The first sitemap that exists is the only one of the guesses that is read.
    following = [] if _is_guess(url) else values.get("then", "").split()
    if "<sitemapindex" in text[:2000].lower():
        known = [u for u in _product_sitemaps(urls) if u != url.partition("#")[0]]
        count = (parse_count(values.get("indexes")) or 0) + 1
        if count > MAX_INDEXES:
            raise LayoutChanged("sitemaps within sitemaps that do not end", url)
        cursor = _sitemap_cursor(url, [*known, *following], indexes=str(count))
        return Page((), cursor, is_lookup=True)
    part, offset = values.get("path", ""), parse_count(values.get("offset")) or 0
    pages = [u for u in urls if _is_page_of(u, url) and part in unquote(urlsplit(u).path)]
    end = offset + (parse_count(values.get("page-size")) or PRODUCTS_PER_PAGE)
    if end < len(pages):
        cursor = _sitemap_cursor(url, [url, *following], offset=str(end))
    else:
        cursor = _sitemap_cursor(url, following)
    batch = tuple(pages[offset:end])
    # Otherwise nothing would tell why a search finds nothing.
    is_foreign = bool(urls) and not any(_is_page_of(u, url) for u in urls)
    skipped = {OTHER_HOSTS: len(urls)} if is_foreign else {}
    return Page((), cursor, skipped=skipped, listed_ids=batch, detail_urls=batch)


# The pages of a sitemap are saved in parts, each of which reads it.
@lru_cache(maxsize=1)
def _locations(text: str, url: str) -> tuple[str, ...]:
    """Return the URLs that a sitemap lists, without those of images."""
    texts = (match[2] for match in LOCATION.finditer(text) if not match[1])
    found = (unescape(value).strip() for value in islice(texts, MAX_LOCATIONS))
    return tuple(dict.fromkeys(u for value in found if (u := absolute_url(value, url))))


def _is_page_of(page: str, sitemap: str) -> bool:
    """Return whether a page may be a product of the shop that a sitemap is from."""
    host, shop = ((urlsplit(u).hostname or "").removeprefix("www.") for u in (page, sitemap))
    is_own = host == shop or host.endswith(f".{shop}") or shop.endswith(f".{host}")
    return is_own and not NO_PAGE.search(urlsplit(page).path)


# Products.


@dataclass
class Product:
    """What a page says of its product.

    Attributes:
        names: Names, the best first.
        images: URL -> credit of the images.
        brand: Brand.
        prices: Prices; the lowest one counts.
        currency: ISO 4217 code.
        categories: Categories and colours.
        keywords: Keywords.
        record: The description as JSON values.
    """

    names: list[str] = field(default_factory=list)
    images: dict[str, Credit] = field(default_factory=dict)
    brand: str | None = None
    prices: list[float] = field(default_factory=list)
    currency: str | None = None
    categories: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)

    def add_image(self, value: object, url: str, credit: Credit = NO_CREDIT) -> None:
        """Add an image by its URL."""
        if isinstance(value, str) and (image := absolute_url(unescape(value), url)):
            self.images.setdefault(image, credit)


def _parse_product_page(body: bytes, url: str) -> Page:
    page = html_soup(body, url)
    if _forbids_index(page):
        return Page((), skipped={NOINDEX: 1})
    canonical = _canonical_url(page, url)
    nodes = list(_json_ld_nodes(page))
    product = Product()
    has_product = _add_json_ld(product, nodes, canonical)
    has_product = _add_microdata(product, page, canonical) or has_product
    has_product = _add_open_graph(product, page, canonical) or has_product
    if not has_product or not product.names:
        if (meaning := explain_challenge(200, body)) is not None:
            raise SiteRefused(f"{urlsplit(url).netloc}: {meaning}")
        raise LayoutChanged("no product on the page", url)
    if not product.images:
        raise LayoutChanged("a product without a photo", url)
    product.categories += _breadcrumbs(nodes, product.names)
    price = min(product.prices, default=None)
    post = Post(
        site_id=_site_id(canonical),
        url=canonical,
        photos=tuple(Photo(image, (), None, credit) for image, credit in product.images.items()),
        title=product.names[0],
        brand=product.brand,
        price=price,
        currency=product.currency if price is not None else None,
        hashtags=tuple(dict.fromkeys(product.keywords)),
        attributes=tuple(dict.fromkeys(product.categories)),
        record=product.record,
    )
    return Page((post,))


def _site_id(url: str) -> str:
    """Return the path of a product's page, which is its id in the shop."""
    parts = urlsplit(url)
    return unquote(parts.path).rstrip("/") + (f"?{parts.query}" if parts.query else "") or "/"


def _forbids_index(page: BeautifulSoup) -> bool:
    robots = page.find_all("meta", attrs={"name": re.compile(r"^robots$", re.IGNORECASE)})
    return any(NO_INDEX.search(str(meta.get("content", ""))) for meta in robots)


def _canonical_url(page: BeautifulSoup, url: str) -> str:
    """Return the URL that a page names as its own, without a fragment."""
    base = url.partition("#")[0]
    link = page.find("link", rel="canonical")
    named = absolute_url(link.get("href"), base) if isinstance(link, Tag) else None
    is_own = (
        named is not None and _is_page_of(named, base) and urlsplit(named).path not in ("", "/")
    )
    return named.partition("#")[0] if named is not None and is_own else base


# JSON-LD.


def _json_ld_nodes(page: BeautifulSoup) -> Iterator[dict[str, Any]]:
    """Yield the top-level objects of all blocks; blocks that can't be repaired are excluded."""
    length = 0
    for script in page.find_all("script"):
        if str(script.get("type", "")).strip().lower().startswith("application/ld+json"):
            text = script.string or ""
            length += len(text)
            if length > MAX_JSON_LD_CHARS:
                return
            for value in parse_json_ld(text):
                values = value if isinstance(value, list) else [value]
                yield from (node for node in values if isinstance(node, dict))


def parse_json_ld(text: str) -> list[Any]:
    """Parse a block of JSON-LD, with the defects that pages have.

    These are comments around it, a semicolon or a further value after it, commas before closing
    brackets, and line breaks, control characters and quotation marks inside of strings.

    Returns:
        The values; none if the block can't be repaired.
    """
    text = WRAPPING.sub("", WRAPPING.sub("", text)).strip().rstrip(";").strip()
    if not text:
        return []
    for repair in (str, without_trailing_commas, _escape_quotes):
        try:
            return [parse_json(repair(text))]
        except (ValueError, RecursionError):
            continue
    try:
        # Another value follows.
        return [parse_json(text, may_have_more=True)]
    except (ValueError, RecursionError):
        return []


def _escape_quotes(text: str) -> str:
    """Return JSON with escaped quotation marks inside of strings, without trailing commas.

    A mark ends a string if what may follow a string follows it.
    """
    if text.count('"') > MAX_QUOTES:
        return text
    parts, start, is_inside = [], 0, False
    for match in re.finditer(r'\\.|"', text, re.DOTALL):
        if match[0] != '"':
            continue
        if not is_inside:
            is_inside = True
        elif AFTER_STRING.match(text, match.end()):
            is_inside = False
        else:
            parts.append(text[start : match.start()] + '\\"')
            start = match.end()
    return without_trailing_commas("".join(parts) + text[start:])


def _types(node: Mapping[str, Any]) -> set[str]:
    value = node.get("@type")
    values = value if isinstance(value, list) else [value]
    return {re.split(r"[/:#]", text)[-1].lower() for text in values if isinstance(text, str)}


def _walk(nodes: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield all objects, without those of related products and persons, with their property."""
    stack: list[tuple[Any, str]] = [(node, "") for node in reversed(nodes)]
    count = 0
    while stack and count < MAX_NODES:
        value, name = stack.pop()
        count += 1
        if isinstance(value, list):
            stack += [(item, name) for item in reversed(value) if isinstance(item, dict | list)]
        elif isinstance(value, dict):
            yield value, name
            children = [
                (item, name if key == "item" else key.lower())
                for key, item in value.items()
                if isinstance(item, dict | list) and key.lower() not in RELATED
            ]
            stack += reversed(children)


def _add_json_ld(product: Product, nodes: Sequence[dict[str, Any]], url: str) -> bool:
    """Add the product of a page's JSON-LD; return whether there is one."""
    found = [(node, name) for node, name in _walk(nodes) if _types(node) & PRODUCT_TYPES]
    node = _main_product(found, url)
    if node is None:
        return False
    by_id = {
        node["@id"]: node
        for node, _ in _walk(nodes)
        if isinstance(node.get("@id"), str) and len(node) > 1
    }
    _add_node(product, node, url, by_id)
    product.record = node
    variants = _as_list(node.get("hasVariant"))
    for variant in variants:
        if isinstance(variant, dict):
            _add_node(product, by_id.get(str(variant.get("@id")), variant), url, by_id)
    return True


def _main_product(found: Sequence[tuple[dict[str, Any], str]], url: str) -> dict[str, Any] | None:
    """Return the product that a page is about; others on it are related ones or a list."""
    path = _site_id(url)
    for node, name in found:
        variants = [item for item in _as_list(node.get("hasVariant")) if isinstance(item, dict)]
        urls = [
            value
            for item in (node, *variants)
            for value in (item.get("url"), item.get("@id"), *_offer_urls(item))
        ]
        is_own = any(_is_same_page(value, url) for value in urls)
        sku = str(node.get("sku") or node.get("productID") or "")
        if is_own or name in ("mainentity", "mainentityofpage") or (len(sku) > 3 and sku in path):
            return node
    # Without a match, the products of a list are not the page's own.
    own = [node for node, name in found if name != "itemlistelement"]
    return next((node for node in own if node.get("offers") or node.get("image")), None) or next(
        iter(own), None
    )


def _offer_urls(node: Mapping[str, Any]) -> Iterator[object]:
    for offer in _as_list(node.get("offers")):
        if isinstance(offer, dict):
            yield offer.get("url")


def _is_same_page(value: object, url: str) -> bool:
    other = absolute_url(unescape(value), url) if isinstance(value, str) and value else None
    if other is None or value == "#":
        return False
    paths = [unquote(urlsplit(u).path).rstrip("/") for u in (other, url)]
    return paths[0] == paths[1] and bool(paths[0])


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _texts_of(value: object) -> Iterator[str]:
    """Yield the texts of a property: strings, or the names of objects."""
    for item in _as_list(value):
        text = html_text(item.get("name") if isinstance(item, dict) else item)
        if text:
            yield text


def _add_node(
    product: Product, node: Mapping[str, Any], url: str, by_id: Mapping[str, dict[str, Any]]
) -> None:
    """Add the properties of a product or variant."""
    product.names += _texts_of(node.get("name"))
    for value in _as_list(node.get("image")):
        image = by_id.get(str(value.get("@id")), value) if isinstance(value, dict) else value
        _add_image(product, image, url)
    product.brand = product.brand or next(_texts_of(node.get("brand")), None)
    for value in _texts_of(node.get("category")):
        product.categories += filter(None, map(str.strip, re.split(r"[>/;|]", value)))
    product.categories += _texts_of(node.get("color"))
    for value in _texts_of(node.get("keywords")):
        product.keywords += filter(None, map(str.strip, value.split(",")))
    for offer in _as_list(node.get("offers"))[:MAX_OFFERS]:
        _add_offer(product, offer)


def _add_image(product: Product, image: object, url: str) -> None:
    if not isinstance(image, dict):
        product.add_image(image, url)
        return
    terms = next((text for text in _as_list(image.get("license")) if isinstance(text, str)), None)
    credit = Credit(
        license=license_code(terms),
        license_url=license_url(terms) if terms and "/" in terms else None,
        author=next(_texts_of(image.get("creator")), None),
        attribution=html_text(image.get("creditText")) or html_text(image.get("copyrightNotice")),
        source_page=url if terms else None,
    )
    sources = (*_as_list(image.get("contentUrl")), *_as_list(image.get("url")))
    for source in sources[:1] if sources else ():
        product.add_image(source, url, credit)


def _add_offer(product: Product, offer: object, depth: int = 0) -> None:
    """Add the price of an offer, an aggregate of offers, or a price specification."""
    if not isinstance(offer, dict) or depth > MAX_OFFER_DEPTH:
        return
    product.currency = product.currency or _currency(offer.get("priceCurrency"))
    for name in ("lowPrice", "price"):
        if (price := parse_price(offer.get(name))) is not None:
            product.prices.append(price)
            return
    for name in ("priceSpecification", "offers"):
        for inner in _as_list(offer.get(name))[:MAX_OFFERS]:
            _add_offer(product, inner, depth + 1)


def _currency(value: object) -> str | None:
    text = (clean_text(value) or "").upper()
    return text if re.fullmatch(r"[A-Z]{3}", text) else None


def _breadcrumbs(nodes: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Return the categories above a product, without the front page and the product itself."""
    for node, _ in _walk(nodes):
        if "breadcrumblist" in _types(node):
            items = _as_list(node.get("itemListElement"))
            texts = [_crumb(item) for item in items if isinstance(item, dict)]
            return [text for text in texts[1:] if text and text not in names]
    return []


def _crumb(item: Mapping[str, Any]) -> str | None:
    inner = item.get("item")
    return next(_texts_of(item.get("name")), None) or (
        next(_texts_of(inner.get("name")), None) if isinstance(inner, dict) else None
    )


# Microdata.


def _is_product_scope(tag: Tag) -> bool:
    kind = str(tag.get("itemtype", "")).strip().rstrip("/").rpartition("/")[2]
    return tag.has_attr("itemscope") and kind.lower() in PRODUCT_TYPES


def _add_microdata(product: Product, page: BeautifulSoup, url: str) -> bool:
    """Add the first product of a page's microdata; return whether there is one."""
    scope = next((tag for tag in page.find_all(itemscope=True) if _is_product_scope(tag)), None)
    if scope is None:
        return False
    has_images, has_prices = bool(product.images), bool(product.prices)
    for tag in scope.find_all(itemprop=True, limit=MAX_PROPERTIES):
        inner = _inner_types(tag, scope)
        if not INNER_TYPES.issuperset(inner):
            continue
        for name in str(tag["itemprop"]).lower().split(maxsplit=MAX_NAMES)[:MAX_NAMES]:
            is_known = (has_images and name in ("image", "contenturl")) or (
                has_prices and name in ("price", "lowprice")
            )
            if not is_known:
                _add_property(product, name, tag, url, inner)
    return True


def _inner_types(tag: Tag, scope: Tag) -> list[str]:
    """Return the types of the items between a property and the product, from the inside out."""
    types = []
    for parent in islice(tag.parents, MAX_DEPTH):
        if parent is scope:
            break
        if parent.has_attr("itemscope"):
            types.append(str(parent.get("itemtype", "")).rstrip("/").rpartition("/")[2].lower())
    return types


def _add_property(
    product: Product,
    name: str,
    tag: Tag,
    url: str,
    inner: Sequence[str],
) -> None:
    """Add a property.

    Args:
        product: The product.
        name: Name of the property.
        tag: The element.
        url: URL of the page.
        inner: Types of the items between the property and the product.
    """
    value = _property_value(tag)
    text = html_text(value)
    is_own = not inner
    if name == "name" and is_own and text:
        product.names.append(text)
    elif name in ("image", "contenturl"):
        product.add_image(value, url)
    elif name == "brand" or (name == "name" and inner[:1] == ["brand"]):
        product.brand = product.brand or text
    elif name in ("category", "color") and is_own and text:
        product.categories += filter(None, map(str.strip, re.split(r"[>/;|]", text)))
    elif name in ("price", "lowprice"):
        if (price := parse_price(text)) is not None:
            product.prices.append(price)
    elif name == "pricecurrency":
        product.currency = product.currency or _currency(value)


def _property_value(tag: Tag) -> str:
    """Return the value of an element with a property, as microdata defines it."""
    names = {"img": ("data-src", "src"), "link": ("href",), "a": ("href",), "source": ("src",)}
    for name in ("content", *names.get(tag.name, ())):
        if tag.get(name):
            return str(tag[name])
    return element_text(tag)


# OpenGraph.


def _add_open_graph(product: Product, page: BeautifulSoup, url: str) -> bool:
    """Add what OpenGraph says and other descriptions lack; return whether it is a product."""
    values: dict[str, list[str]] = {}
    for meta in page.find_all("meta"):
        name = str(meta.get("property") or meta.get("name") or "").lower()
        if (content := str(meta.get("content") or "").strip()) and name:
            values.setdefault(name, []).append(content)
    first = {name: texts[0] for name, texts in values.items()}
    title = html_text(first.get("og:title"))
    amount = first.get("product:price:amount") or first.get("og:price:amount")
    is_product = "product" in first.get("og:type", "").lower() or amount is not None
    if not product.names and title:
        product.names.append(title)
    # Without a title, the image is the one that the site shows for all of its pages.
    if not product.images and title:
        for image in values.get("og:image:secure_url") or values.get("og:image", []):
            product.add_image(image, url)
    if not product.prices and (price := parse_price(amount)) is not None:
        product.prices.append(price)
    currency = first.get("product:price:currency") or first.get("og:price:currency")
    product.currency = product.currency or _currency(currency)
    product.brand = product.brand or html_text(first.get("product:brand") or first.get("og:brand"))
    if not product.categories and (category := html_text(first.get("product:category"))):
        product.categories += filter(None, map(str.strip, re.split(r"[>/;|]", category)))
    if not product.record:
        product.record = {
            name: texts for name, texts in values.items() if name.startswith(("og:", "product:"))
        }
    return is_product
