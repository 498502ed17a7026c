"""Wildberries: public JSON of its search, no key. Facts seen 2020 to 2026.

A search answers with products, or leads to a preset that has them. Photos lie on numbered hosts; a
map that the site publishes has the host of each product; a built-in table is the fallback.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from scraper import limits
from scraper.baskets import BUILT_IN, ROUTES, Routes, read_routes
from scraper.credentials import Credential
from scraper.errors import LayoutChanged, NotNow
from scraper.reading import inside, json_object, number, objects, text
from scraper.spiders.base import Answer, Ask, HashtagSpider, Page, Photo, Post, Setting

CATALOGUE = "https://catalog.wb.ru"
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
            when = limits.retry_after(answer.headers)
            return f"Wildberries had too many requests from here (HTTP 429); continue {when}"
        if answer.status == 403:
            return (
                "Wildberries refuses this network address (HTTP 403): try again later, or from a"
                " network in the countries that it serves"
            )
        return None


def read(body: bytes, url: str) -> Page:
    """The products of a page of a search or a preset, and the way on.

    Raises:
        LayoutChanged: neither products nor a word that there are none.
        NotNow: products are promised, and none is there yet.
    """
    return _read(body, url, BUILT_IN, "big")


def _read(body: bytes, url: str, routes: Routes, size: str) -> Page:
    answer = json_object(body, url)
    records, total = _products(answer)
    if records:
        return _full(records, url, total, routes, size)
    if (led := _redirect(answer, url)) is not None:
        return Page((), led, total)
    if records is None or not isinstance(answer.get("metadata"), dict):
        raise LayoutChanged("neither products nor a search's metadata in the answer", url)
    page = _page_number(url)
    if total and page <= FEWEST_PAGES and (page - 1) * PER_PAGE < total:
        raise NotNow(f"Wildberries promises {total} products and sent none ({url})")
    return Page((), None, total or 0)


def _products(answer: dict[str, Any]) -> tuple[list[Any] | None, int | None]:
    """The list of products, None where there is none, and how many the search finds."""
    # Until 2025 both stood inside of `data`.
    places = [one for one in (answer, answer.get("data")) if isinstance(one, dict)]
    totals = [known for one in places if (known := number(one.get("total"))) is not None]
    lists = [one["products"] for one in places if isinstance(one.get("products"), list)]
    # An empty list may be null; the total beside it says so.
    if totals and any(one.get("products", ()) is None for one in places):
        lists.append([])
    return max(lists, key=len, default=None), totals[0] if totals else None


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
