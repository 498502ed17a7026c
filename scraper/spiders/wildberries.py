"""Wildberries: public JSON of its search, no key. Facts seen 2020 to 2026.

A search answers with products, or leads to a preset that has them. Photos lie on numbered hosts; a
map that the site publishes says which has what, and a table of ours where it can't be had.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from scraper.credentials import Credential
from scraper.errors import LayoutChanged, NotNow
from scraper.reading import inside, json_object, number, objects, retry_after, text
from scraper.spiders.base import Answer, Ask, HashtagSpider, Page, Photo, Post, Setting

CATALOGUE = "https://catalog.wb.ru"
ROUTES = "https://cdn.wbbasket.ru/api/v3/upstreams"
PER_PAGE = 100
# The site shows 60 pages of a search, sometimes up to 100.
FEWEST_PAGES, MOST_PAGES = 60, 100
# What every request says, beside what a preset is.
COMMON = {
    *("query", "resultset", "ab_testing", "suppressSpellcheck", "page"),
    *("appType", "curr", "dest", "lang", "sort", "spp"),
}
# More photos than any product has.
MOST_PHOTOS = 60
NO_PHOTOS = "no photos"
# Which products a host has, by the upper end of id div 100000: hosts 01, 02, … (seen 2026).
UPPER_ENDS = (
    *(143, 287, 431, 719, 1007, 1061, 1115, 1169, 1313, 1601, 1655, 1919, 2045, 2189, 2405, 2621),
    *(2837, 3053, 3269, 3485, 3701, 3917, 4133, 4349, 4565, 4877, 5189, 5501, 5813, 6125, 6437),
    *(6749, 7061, 7373, 7685, 7997, 8309, 8741, 9173, 9605),
)
# What a host beyond the table has, as the last ones do.
STEP = 432
# Hosts to try where the first does not have a photo.
OTHERS = 2
HOST = re.compile(r"[a-z0-9][a-z0-9-]{0,40}\.(wbbasket|geobasket)\.ru")


@dataclass(frozen=True)
class Routes:
    """Which host has the photos of a volume (id div 100000).

    `ranges`: first volume, last volume, host. `mirrors`: hosts that have all.
    """

    ranges: tuple[tuple[int, int, str], ...]
    mirrors: tuple[str, ...] = ()

    def hosts(self, volume: int) -> tuple[str, ...]:
        """Where to ask, the likeliest first."""
        if self.mirrors:
            first = volume % len(self.mirrors)
            return (*self.mirrors[first:], *self.mirrors[:first])[: OTHERS + 1]
        owners = [i for i, (low, high, _) in enumerate(self.ranges) if low <= volume <= high]
        if owners:
            names = [host for _, _, host in self.ranges]
            near = names[owners[-1] + 1 :][:1] + names[: owners[0]][-1:]
            return tuple(dict.fromkeys([*(names[i] for i in owners), *near]))[: OTHERS + 1]
        return self._beyond(volume)

    def _beyond(self, volume: int) -> tuple[str, ...]:
        _, end, last = max(self.ranges, key=lambda one: one[1])
        known = re.fullmatch(r"basket-(\d+)\..*", last)
        if known is None or volume <= end:
            return (last,)
        guess = int(known.group(1)) + -(-(volume - end) // STEP)
        return tuple(_basket(n) for n in (guess, guess + 1, max(1, guess - 1)))


def _basket(number: int) -> str:
    return f"basket-{number:02}.wbbasket.ru"


BUILT_IN = Routes(
    tuple(
        (low + 1, high, _basket(n))
        for n, (low, high) in enumerate(pairwise((-1, *UPPER_ENDS)), start=1)
    )
)


class Spider(HashtagSpider):
    """Wildberries' search, all pages that it shows."""

    title = "Wildberries"
    needs = "nothing; a browser's cookie where the site asks for one (status 498)"
    limits = "100 products a page, 60 to 100 pages a search; many requests are answered with 429"
    checked = "2026-11"
    site_url = "https://search.wb.ru"
    image_url = "https://basket-01.wbbasket.ru"
    credentials = (
        Credential(
            "WILDBERRIES_TOKEN", "the cookie x_wbaas_token of a visit in a browser", required=False
        ),
    )
    settings: ClassVar[Mapping[str, Setting]] = {
        "api-version": Setting("v18", "the version of the search"),
        "sort": Setting("popular", "which products come first", ("popular", "newly", "rate")),
        "photo-size": Setting("big", "big is 900x1200, hq larger", ("big", "hq", "c516x688")),
        "region": Setting("-1257786", "where a buyer is, as the site numbers places (dest)"),
    }

    routes = BUILT_IN

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """The first page of the search, or the one that CURSOR is: a query, or a path and query."""
        common = {
            **{"appType": "1", "curr": "rub", "dest": self.chosen["region"], "lang": "ru"},
            **{"sort": self.chosen["sort"], "spp": "30"},
        }
        more = dict(parse_qsl(urlsplit(cursor).query if cursor else "page=1"))
        path = urlsplit(cursor).path if cursor else ""
        if path:
            root = CATALOGUE if self.asked_url == self.site_url else self.asked_url
            return self._ask(f"{root}{path}", common | more)
        asked = {"query": query, "resultset": "catalog", "ab_testing": "false"}
        root = f"{self.asked_url}/exactmatch/ru/common/{self.chosen['api-version']}/search"
        return self._ask(root, asked | {"suppressSpellcheck": "false"} | common | more)

    def _ask(self, address: str, query: Mapping[str, str]) -> Ask:
        token = self.secrets.get("WILDBERRIES_TOKEN")
        cookies = {"x_wbaas_token": token} if token else {}
        return Ask(f"{address}?{urlencode(query)}", cookies=cookies)

    def read(self, body: bytes, url: str) -> Page:
        """See the function `read`; photos are where the site's own map says."""
        return _read(body, url, self.routes, self.chosen["photo-size"])

    def set_up_request(self) -> Ask | None:
        """The site's map of photo hosts."""
        return self.image_request(ROUTES)

    def set_up(self, body: bytes) -> None:
        """Use the map in BODY, where it is one."""
        self.routes = read_routes(body) or BUILT_IN

    def refusal(self, answer: Answer) -> str | None:
        """What the guard of the site wants."""
        if answer.status == 498:
            given = "is spent or wrong" if "WILDBERRIES_TOKEN" in self.secrets else "is missing"
            return (
                f"Wildberries wants the cookie of a browser (HTTP 498), and it {given}: open"
                " www.wildberries.ru, copy the value of the cookie x_wbaas_token, and set"
                " WILDBERRIES_TOKEN to it"
            )
        if answer.status == 429:
            when = retry_after(answer.headers)
            return f"Wildberries had too many requests from here (HTTP 429); go on {when}"
        if answer.status == 403:
            return (
                "Wildberries refuses this network address (HTTP 403): try again later, or from a"
                " network in the countries that it serves"
            )
        return None


def read_routes(body: bytes) -> Routes | None:
    """The map of photo hosts in BODY; None where there is none that we can read."""
    try:
        answer = json_object(body, ROUTES)
    except LayoutChanged:
        return None
    for part in ("recommend", "origin"):
        for route in objects(inside(answer, part, "mediabasket_route_map")):
            named = [(_host(one), one) for one in _hosts(route)]
            if route.get("method") == "mod" and named:
                mirrors = tuple(dict.fromkeys(host for host, _ in named if host))
                return Routes((), mirrors) if mirrors else None
            ranges = tuple(row for host, one in named if host and (row := _range(one, host)))
            if ranges:
                return Routes(ranges)
    return None


def _hosts(route: dict[str, Any]) -> list[Any]:
    found = route.get("hosts")
    return found if isinstance(found, list) else []


def _host(one: object) -> str | None:
    name = one if isinstance(one, str) else inside(one, "host")
    # A map with another host in it would send us anywhere.
    return name if isinstance(name, str) and HOST.fullmatch(name) else None


def _range(one: object, host: str) -> tuple[int, int, str] | None:
    low, high = number(inside(one, "vol_range_from")), number(inside(one, "vol_range_to"))
    return (low, high, host) if low is not None and high is not None else None


def read(body: bytes, url: str) -> Page:
    """The products of a page of a search or a preset, and the way on.

    Raises:
        LayoutChanged: neither products nor a word that there are none.
        NotNow: products are promised, and none is there yet.
    """
    return _read(body, url, BUILT_IN, "big")


def _read(body: bytes, url: str, routes: Routes, size: str) -> Page:
    answer = json_object(body, url)
    # Until 2025 the products stood inside of `data`.
    holder = answer if "products" in answer else inside(answer, "data")
    records, total = inside(holder, "products"), number(inside(holder, "total"))
    total = total if total is not None else number(answer.get("total"))
    if isinstance(records, list) and records:
        return _full(records, url, total, routes, size)
    if (led := _redirect(answer, url)) is not None:
        return Page((), led, total)
    if not isinstance(records, list) or not isinstance(answer.get("metadata"), dict):
        raise LayoutChanged("neither products nor a search's metadata in the answer", url)
    page = _page_number(url)
    if total and page <= FEWEST_PAGES and (page - 1) * PER_PAGE < total:
        raise NotNow(f"Wildberries promises {total} products and sent none ({url})")
    return Page((), None, total or 0)


def _full(records: list[Any], url: str, total: int | None, routes: Routes, size: str) -> Page:
    posts = [_post(record, url, routes, size) for record in records]
    shown = {post.site_id: post for post in posts if post.photos}
    if not shown:
        raise LayoutChanged(f"none of {len(posts)} products says how many photos it has", url)
    skipped = {NO_PHOTOS: bare} if (bare := sum(not post.photos for post in posts)) else {}
    return Page(tuple(shown.values()), _next(url, len(records), total), total, None, skipped)


def _post(record: object, url: str, routes: Routes, size: str) -> Post:
    item = number(inside(record, "id"))
    if not isinstance(record, dict) or not item or item >= 10**12:
        raise LayoutChanged(f"a product without its number: {str(record)[:80]}", url)
    price = _price(record)
    return Post(
        site_id=str(item),
        url=f"https://www.wildberries.ru/catalog/{item}/detail.aspx",
        photos=tuple(_photos(item, number(record.get("pics")) or 0, routes, size)),
        title=text(record.get("name")),
        brand=text(record.get("brand")),
        price=price,
        currency="RUB" if price is not None else None,
        attributes=_attributes(record),
        record=record,
    )


def _photos(item: int, count: int, routes: Routes, size: str) -> Iterator[Photo]:
    volume = item // 100_000
    path = f"/vol{volume}/part{item // 1000}/{item}/images"
    first, *others = routes.hosts(volume)
    for place in range(1, min(count, MOST_PHOTOS) + 1):
        yield Photo(
            f"https://{first}{path}/{size}/{place}.webp",
            (
                # Photos of years ago are JPEGs still.
                f"https://{first}{path}/{size}/{place}.jpg",
                *(f"https://{host}{path}/{size}/{place}.webp" for host in others),
            ),
            key=f"{item}_{place}",
        )


def _price(record: dict[str, Any]) -> float | None:
    """What a buyer pays, in roubles: the least of the sizes; the site counts in kopecks."""
    prices = [one.get("price") for one in objects(record.get("sizes"))]
    for name in ("product", "total", "basic"):
        if known := [kopecks for one in prices if (kopecks := number(inside(one, name)))]:
            return min(known) / 100
    older = number(record.get("salePriceU")) or number(record.get("priceU"))
    return older / 100 if older else None


def _attributes(record: dict[str, Any]) -> tuple[str, ...]:
    """Colours and subject."""
    colours = [text(one.get("name")) for one in objects(record.get("colors"))]
    words = (*colours, text(record.get("entity")), text(record.get("subjectName")))
    return tuple(dict.fromkeys(word for word in words if word))


def _redirect(answer: dict[str, Any], url: str) -> str | None:
    """The first page of the preset that ANSWER leads to; None where it doesn't, or did before."""
    metadata = answer.get("metadata")
    led = inside(metadata, "catalog_value") or answer.get("query")
    if not isinstance(led, str) or len(led) > 1000 or "preset" in dict(parse_qsl(_query(url))):
        return None
    preset = {name: value for name, value in parse_qsl(led) if name not in COMMON}
    if "preset" not in preset:
        return None
    shard = answer.get("shardKey")
    good = isinstance(shard, str) and re.fullmatch(r"\w{1,40}(/\w{1,40}){0,2}", shard)
    return f"{f'/{shard}/catalog' if good else ''}?{urlencode(preset | {'page': '1'})}"


def _query(url: str) -> str:
    return urlsplit(url).query


def _page_number(url: str) -> int:
    return number(dict(parse_qsl(_query(url))).get("page")) or 1


def _next(url: str, count: int, total: int | None) -> str | None:
    """The page after URL's, of the same search or preset."""
    page = _page_number(url)
    more = page * PER_PAGE < total if total is not None else count >= PER_PAGE
    if not more or page >= MOST_PAGES:
        return None
    asked, path = dict(parse_qsl(_query(url))), urlsplit(url).path
    preset = {name: value for name, value in asked.items() if name not in COMMON}
    if "preset" not in preset:
        return f"?page={page + 1}"
    shard = "" if "/exactmatch/" in path else path
    return f"{shard}?{urlencode(preset | {'page': str(page + 1)})}"
