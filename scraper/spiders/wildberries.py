"""Spider of Wildberries: the public JSON of its search, without a key.

The formats are those observed from 2020 to 2026. A search returns products, or refers to a preset
(a stored search) that has them. Photos are on numbered hosts. A map that the site publishes has the
host of each product; a built-in table is the fallback.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from scrapy import Request
from scrapy.http import Response

from scraper.credentials import Credential
from scraper.errors import LayoutChanged, TemporarilyEmpty
from scraper.middlewares import unicode_headers
from scraper.parsing.fields import (
    clean_text,
    format_retry_after,
    get_nested,
    json_object,
    json_objects,
    parse_count,
)
from scraper.spiders.base import HashtagSpider, Page, Photo, Post, SiteOption

CATALOGUE_URL = "https://catalog.wb.ru"
PRODUCTS_PER_PAGE = 100
# The site shows 60 pages of a search, sometimes up to 100.
MIN_PAGES, MAX_PAGES = 60, 100
# Query parameters of all searches; the others identify a preset.
COMMON_PARAMETERS = {
    *("query", "resultset", "ab_testing", "suppressSpellcheck", "page"),
    *("appType", "curr", "dest", "lang", "sort", "spp"),
}
# No product has more photos.
MAX_PHOTOS_PER_PRODUCT = 60
DEFAULT_PHOTO_SIZE = "big"
NO_PHOTOS = "no photos"
HOST_MAP_URL = "https://cdn.wbbasket.ru/api/v3/upstreams"
# The last volume of the hosts 01, 02, ... (as of November 2026).
LAST_VOLUMES = (
    *(143, 287, 431, 719, 1007, 1061, 1115, 1169, 1313, 1601, 1655, 1919, 2045, 2189, 2405, 2621),
    *(2837, 3053, 3269, 3485, 3701, 3917, 4133, 4349, 4565, 4877, 5189, 5501, 5813, 6125, 6437),
    *(6749, 7061, 7373, 7685, 7997, 8309, 8741, 9173, 9605),
    *(10_373, 11_141, 11_909, 12_677, 13_445, 14_213),
)
# Estimated volumes per host after the end of the table, as the last hosts in it have.
VOLUMES_PER_HOST = 768
# Further hosts to try if the first one does not have a photo.
MAX_FALLBACKS = 2
HOST = re.compile(r"[a-z0-9][a-z0-9-]{0,40}\.(wbbasket|geobasket)\.ru")


@dataclass(frozen=True)
class HostMap:
    """Maps volumes to the hosts of their photos.

    Attributes:
        ranges: First volume, last volume (inclusive) and name of each host.
        mirrors: Hosts that have all photos; if there are any, `ranges` is not used.
    """

    ranges: tuple[tuple[int, int, str], ...]
    mirrors: tuple[str, ...] = ()

    def hosts(self, volume: int) -> tuple[str, ...]:
        """Return the hosts to try for the photos of a volume, most likely first."""
        if self.mirrors:
            first = volume % len(self.mirrors)
            return (*self.mirrors[first:], *self.mirrors[:first])[: MAX_FALLBACKS + 1]
        owners = [
            index for index, (low, high, _) in enumerate(self.ranges) if low <= volume <= high
        ]
        if owners:
            names = [host for _, _, host in self.ranges]
            neighbours = names[owners[-1] + 1 :][:1] + names[: owners[0]][-1:]
            hosts = dict.fromkeys([*(names[index] for index in owners), *neighbours])
            return tuple(hosts)[: MAX_FALLBACKS + 1]
        return self._estimated_hosts(volume)

    def _estimated_hosts(self, volume: int) -> tuple[str, ...]:
        """Return the likely hosts of a volume outside all ranges."""
        _, last_volume, last_host = max(self.ranges, key=lambda host_range: host_range[1])
        match = re.fullmatch(r"basket-(\d+)\..*", last_host)
        if match is None or volume <= last_volume:
            return (last_host,)
        number = int(match.group(1)) + -(-(volume - last_volume) // VOLUMES_PER_HOST)
        return tuple(_basket_host(n) for n in (number, number + 1, max(1, number - 1)))


def _basket_host(number: int) -> str:
    return f"basket-{number:02}.wbbasket.ru"


DEFAULT_HOST_MAP = HostMap(
    tuple(
        (low + 1, high, _basket_host(number))
        for number, (low, high) in enumerate(pairwise((-1, *LAST_VOLUMES)), start=1)
    )
)


def parse_host_map(body: bytes) -> HostMap | None:
    """Parse the host map of a response; return None if it has no valid one."""
    try:
        response = json_object(body, HOST_MAP_URL)
    except LayoutChanged:
        return None
    for section in ("recommend", "origin"):
        for route in json_objects(get_nested(response, section, "mediabasket_route_map")):
            entries = [(_host_name(entry), entry) for entry in _host_entries(route)]
            if route.get("method") == "mod" and entries:
                mirrors = tuple(dict.fromkeys(host for host, _ in entries if host))
                return HostMap((), mirrors) if mirrors else None
            ranges = tuple(
                host_range
                for host, entry in entries
                if host and (host_range := _volume_range(entry, host))
            )
            if ranges:
                return HostMap(ranges)
    return None


def _host_entries(route: dict[str, Any]) -> list[Any]:
    entries = route.get("hosts")
    return entries if isinstance(entries, list) else []


def _host_name(entry: object) -> str | None:
    name = entry if isinstance(entry, str) else get_nested(entry, "host")
    # Other hosts are ignored, so that a manipulated map can't redirect requests to any host.
    return name if isinstance(name, str) and HOST.fullmatch(name) else None


def _volume_range(entry: object, host: str) -> tuple[int, int, str] | None:
    low, high = (
        parse_count(get_nested(entry, "vol_range_from")),
        parse_count(get_nested(entry, "vol_range_to")),
    )
    return (low, high, host) if low is not None and high is not None else None


class Spider(HashtagSpider):
    """Searches Wildberries and reads all pages that it shows."""

    name = "wildberries"
    title = "Wildberries"
    needs = "nothing; a browser's cookie if the site asks for one (status 498)"
    limits_text = (
        "100 products per page, 60 to 100 pages per search; status 429 after too many requests"
    )
    checked = "2026-11"
    site_url = "https://search.wb.ru"
    image_url = "https://basket-01.wbbasket.ru"
    credentials = (
        Credential(
            "WILDBERRIES_TOKEN", "the cookie x_wbaas_token of a visit in a browser", required=False
        ),
    )
    site_options: ClassVar[Mapping[str, SiteOption]] = {
        "api-version": SiteOption("v18", "version of the search API"),
        "sort": SiteOption("popular", "order of the products", ("popular", "newly", "rate")),
        "photo-size": SiteOption(
            DEFAULT_PHOTO_SIZE,
            "size of the photos; big: 900x1200, hq: larger",
            ("big", "hq", "c516x688"),
        ),
        "region": SiteOption("-1257786", "the site's id of the buyer's region (dest)"),
    }

    host_map = DEFAULT_HOST_MAP

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page.

        Args:
            query: The word.
            cursor: The query of a page, or a path and query; None for the first page.
        """
        common = {
            **{"appType": "1", "curr": "rub", "dest": self.chosen["region"], "lang": "ru"},
            **{"sort": self.chosen["sort"], "spp": "30"},
        }
        page = dict(parse_qsl(urlsplit(cursor).query if cursor else "page=1"))
        path = urlsplit(cursor).path if cursor else ""
        if path:
            is_site = self.requested_url == self.site_url
            root = CATALOGUE_URL if is_site else self.requested_url
            return self._api_request(f"{root}{path}", common | page)
        search = {
            "query": query,
            "resultset": "catalog",
            "ab_testing": "false",
            "suppressSpellcheck": "false",
        }
        version = self.chosen["api-version"]
        url = f"{self.requested_url}/exactmatch/ru/common/{version}/search"
        return self._api_request(url, search | common | page)

    def _api_request(self, url: str, parameters: Mapping[str, str]) -> Request:
        token = self.secrets.get("WILDBERRIES_TOKEN")
        cookies = {"x_wbaas_token": token} if token else {}
        return Request(f"{url}?{urlencode(parameters)}", cookies=cookies)

    def read(self, body: bytes, url: str) -> Page:
        """Parse a page, with the photo size of the options and the hosts of the site's map."""
        return _read(body, url, self.host_map, self.chosen["photo-size"])

    def setup_request(self) -> Request | None:
        """Return the request of the site's map of image hosts."""
        return self.image_request(HOST_MAP_URL)

    def set_up(self, body: bytes, url: str = "") -> None:
        """Use the map of image hosts in a response, if it is valid."""
        self.host_map = parse_host_map(body) or DEFAULT_HOST_MAP

    def explain_refusal(self, response: Response) -> str | None:
        """Return what the bot protection of the site requires."""
        if response.status == 498:
            is_set = "WILDBERRIES_TOKEN" in self.secrets
            problem = "has expired or is wrong" if is_set else "is missing"
            return (
                f"Wildberries requires the cookie of a browser (HTTP 498), and it {problem}: open"
                " www.wildberries.ru, copy the value of the cookie x_wbaas_token, and set"
                " WILDBERRIES_TOKEN to it"
            )
        if response.status == 429:
            when = format_retry_after(unicode_headers(response))
            return f"Wildberries' rate limit is reached (HTTP 429); continue {when}"
        if response.status == 403:
            return (
                "Wildberries blocks this network address (HTTP 403): try again later, or from a"
                " network in the countries that it serves"
            )
        return None


def read(body: bytes, url: str) -> Page:
    """Parse the products of a page of a search or preset, and the cursor of the next page.

    Raises:
        LayoutChanged: It has neither products nor a report that there are none.
        TemporarilyEmpty: It announces products and has none.
    """
    return _read(body, url, DEFAULT_HOST_MAP, DEFAULT_PHOTO_SIZE)


def _read(body: bytes, url: str, host_map: HostMap, photo_size: str) -> Page:
    response = json_object(body, url)
    records, total = _products(response)
    if records:
        return _parse_products(records, url, total, host_map, photo_size)
    if (preset_cursor := _preset_cursor(response, url)) is not None:
        return Page((), preset_cursor, total)
    if records is None or not isinstance(response.get("metadata"), dict):
        raise LayoutChanged("neither products nor the metadata of a search in the response", url)
    page_number = _page_number(url)
    if total and page_number <= MIN_PAGES and (page_number - 1) * PRODUCTS_PER_PAGE < total:
        raise TemporarilyEmpty(f"Wildberries announces {total} products and sends none ({url})")
    return Page((), None, total or 0)


def _products(response: dict[str, Any]) -> tuple[list[Any] | None, int | None]:
    """Return the products of a page and the total of the search; None for a missing value."""
    # Until 2025, both were in `data`.
    parents = [parent for parent in (response, response.get("data")) if isinstance(parent, dict)]
    totals = [
        total for parent in parents if (total := parse_count(parent.get("total"))) is not None
    ]
    lists = [parent["products"] for parent in parents if isinstance(parent.get("products"), list)]
    # An empty list may be null if there is a total.
    if totals and any(parent.get("products", ()) is None for parent in parents):
        lists.append([])
    return max(lists, key=len, default=None), totals[0] if totals else None


def _parse_products(
    records: list[Any], url: str, total: int | None, host_map: HostMap, photo_size: str
) -> Page:
    posts = [_post(record, url, host_map, photo_size) for record in records]
    posts_with_photos = {post.site_id: post for post in posts if post.photos}
    if not posts_with_photos:
        raise LayoutChanged(f"none of {len(posts)} products has a number of photos", url)
    count = sum(not post.photos for post in posts)
    return Page(
        posts=tuple(posts_with_photos.values()),
        next_cursor=_next_cursor(url, len(records), total),
        total=total,
        skipped={NO_PHOTOS: count} if count else {},
    )


def _post(record: object, url: str, host_map: HostMap, photo_size: str) -> Post:
    product_id = parse_count(get_nested(record, "id"))
    if not isinstance(record, dict) or not product_id or product_id >= 10**12:
        raise LayoutChanged(f"a product without an id: {str(record)[:80]}", url)
    price = _price(record)
    photo_count = parse_count(record.get("pics")) or 0
    return Post(
        site_id=str(product_id),
        url=f"https://www.wildberries.ru/catalog/{product_id}/detail.aspx",
        photos=tuple(_photos(product_id, photo_count, host_map, photo_size)),
        title=clean_text(record.get("name")),
        brand=clean_text(record.get("brand")),
        price=price,
        currency="RUB" if price is not None else None,
        attributes=_attributes(record),
        record=record,
    )


def _photos(product_id: int, count: int, host_map: HostMap, photo_size: str) -> Iterator[Photo]:
    volume = product_id // 100_000
    path = f"/vol{volume}/part{product_id // 1000}/{product_id}/images/{photo_size}"
    host, *other_hosts = host_map.hosts(volume)
    for number in range(1, min(count, MAX_PHOTOS_PER_PRODUCT) + 1):
        yield Photo(
            f"https://{host}{path}/{number}.webp",
            (
                # Old photos are JPEG files.
                f"https://{host}{path}/{number}.jpg",
                *(f"https://{other}{path}/{number}.webp" for other in other_hosts),
            ),
            key=f"{product_id}_{number}",
        )


def _price(record: dict[str, Any]) -> float | None:
    """Return the price of the cheapest size in roubles; the site uses kopecks."""
    prices = [size.get("price") for size in json_objects(record.get("sizes"))]
    for name in ("product", "total", "basic"):
        amounts = [parse_count(get_nested(price, name)) for price in prices]
        if known_amounts := [amount for amount in amounts if amount]:
            return min(known_amounts) / 100
    older_amount = parse_count(record.get("salePriceU")) or parse_count(record.get("priceU"))
    return older_amount / 100 if older_amount else None


def _attributes(record: dict[str, Any]) -> tuple[str, ...]:
    """Return colours, kind and category of a product."""
    colours = [clean_text(colour.get("name")) for colour in json_objects(record.get("colors"))]
    words = (*colours, clean_text(record.get("entity")), clean_text(record.get("subjectName")))
    return tuple(dict.fromkeys(word for word in words if word))


def _preset_cursor(response: dict[str, Any], url: str) -> str | None:
    """Return the cursor of the first page of the preset that a response refers to.

    Returns:
        The cursor; None if there is no preset, or if the URL already has one.
    """
    metadata = response.get("metadata")
    preset_query = get_nested(metadata, "catalog_value") or response.get("query")
    if (
        not isinstance(preset_query, str)
        or len(preset_query) > 1000
        or "preset" in _parameters(url)
    ):
        return None
    preset = _preset_parameters(dict(parse_qsl(preset_query)))
    if "preset" not in preset:
        return None
    shard = response.get("shardKey")
    is_path = isinstance(shard, str) and re.fullmatch(r"\w{1,40}(/\w{1,40}){0,2}", shard)
    return f"{f'/{shard}/catalog' if is_path else ''}?{urlencode(preset | {'page': '1'})}"


def _preset_parameters(parameters: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if name not in COMMON_PARAMETERS}


def _parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def _page_number(url: str) -> int:
    return parse_count(_parameters(url).get("page")) or 1


def _next_cursor(url: str, count: int, total: int | None) -> str | None:
    """Return the cursor of the next page of the same search or preset; None on the last page.

    Args:
        url: URL of this page.
        count: Number of products on this page.
        total: Number of products of all pages, if known.
    """
    page_number = _page_number(url)
    if total is not None:
        has_more = page_number * PRODUCTS_PER_PAGE < total
    else:
        has_more = count >= PRODUCTS_PER_PAGE
    if not has_more or page_number >= MAX_PAGES:
        return None
    preset = _preset_parameters(_parameters(url))
    if "preset" not in preset:
        return f"?page={page_number + 1}"
    path = urlsplit(url).path
    shard_path = "" if "/exactmatch/" in path else path
    return f"{shard_path}?{urlencode(preset | {'page': str(page_number + 1)})}"
