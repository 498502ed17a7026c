"""Tests of the Wildberries spider on recorded responses."""

from pathlib import Path

import pytest

from scraper.errors import LayoutChanged, TemporarilyEmpty
from scraper.spiders.wildberries import DEFAULT_HOST_MAP, HostMap, Spider, parse_host_map, read
from tests.support.http_responses import http_response

RECORDED = Path(__file__).parents[2] / "recorded" / "wildberries"
SEARCH = "https://search.wb.ru/exactmatch/ru/common/v18/search?query=polo&page=1"


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.json").read_bytes()


def test_product_has_all_images_and_attributes() -> None:
    page = read(recorded("polo"), SEARCH)
    first, second, third = page.posts
    assert first.url == "https://www.wildberries.ru/catalog/187654321/detail.aspx"
    assert (first.site_id, first.brand, first.title) == (
        "187654321",
        "Baon",
        "Поло хлопковое #базовый_гардероб",
    )
    # The price of the cheapest size in roubles; the site uses kopecks.
    assert (first.price, first.currency) == (1999.5, "RUB")
    assert first.attributes == ("темно-синий", "белый", "футболки-поло")
    assert [photo.url for photo in first.photos] == [
        f"https://basket-12.wbbasket.ru/vol1876/part187654/187654321/images/big/{n}.webp"
        for n in (1, 2, 3)
    ]
    assert first.photos[0].fallbacks == (
        "https://basket-12.wbbasket.ru/vol1876/part187654/187654321/images/big/1.jpg",
        "https://basket-13.wbbasket.ru/vol1876/part187654/187654321/images/big/1.webp",
        "https://basket-11.wbbasket.ru/vol1876/part187654/187654321/images/big/1.webp",
    )
    assert (second.price, second.attributes, len(second.photos)) == (15990.0, (), 1)
    assert (third.price, third.currency, third.brand) == (None, None, None)
    assert (page.total, page.next_cursor) == (250, "?page=2")


def test_old_response_format_is_read() -> None:
    page = read(recorded("older"), SEARCH.replace("v18", "v4"))
    (post,) = page.posts
    assert (post.site_id, post.price, len(post.photos)) == ("28740123", 1999.0, 2)
    assert post.photos[0].url.startswith("https://basket-02.wbbasket.ru/vol287/part28740/28740123")
    assert page.next_cursor is None


@pytest.mark.parametrize(
    "where",
    ['"products": [], "data": {"products": LIST}', '"products": null, "data": {"products": LIST}'],
)
def test_products_are_read_at_both_levels(where: str) -> None:
    body = f'{{"metadata": {{}}, {where}, "total": 1}}'.replace("LIST", '[{"id": 7, "pics": 2}]')
    assert [len(post.photos) for post in read(body.encode(), SEARCH).posts] == [2]


def test_null_list_is_empty_if_the_total_is_zero() -> None:
    for content in ('"products": null, "total": 0', '"data": {"products": null, "total": 0}'):
        page = read(f'{{"metadata": {{}}, {content}}}'.encode(), SEARCH)
        assert (page.posts, page.next_cursor, page.total) == ((), None, 0)
    with pytest.raises(TemporarilyEmpty):
        read(b'{"metadata": {}, "products": null, "total": 5}', SEARCH)
    for content in ('"products": null', '"data": null, "total": 0', '"cards": [{"id": 7}]'):
        with pytest.raises(LayoutChanged):
            read(f'{{"metadata": {{}}, {content}}}'.encode(), SEARCH)


@pytest.mark.parametrize(
    ("page", "following"),
    [(1, "?page=2"), (2, "?page=3"), (3, None), (100, None)],
)
def test_paging_ends_at_the_total_and_at_the_page_limit(page: int, following: str | None) -> None:
    assert read(recorded("polo"), f"{SEARCH[:-1]}{page}").next_cursor == following


def test_search_continues_in_its_preset() -> None:
    first = read(recorded("preset"), SEARCH)
    assert (first.posts, first.next_cursor) == ((), "?preset=10062&_st0=cG9sbw%3D%3D~0.1&page=1")
    url = Spider().search_request("polo", first.next_cursor).url
    assert "/exactmatch/ru/common/v18/search?query=polo&" in url
    assert "preset=10062&_st0=cG9sbw%3D%3D~0.1&page=1" in url
    page = read(recorded("polo"), url)
    assert page.next_cursor == "?preset=10062&_st0=cG9sbw%3D%3D~0.1&page=2"


def test_old_preset_format_is_read() -> None:
    first = read(recorded("preset_older"), SEARCH)
    assert first.next_cursor == "/presets/bucket_71/catalog?preset=10062&page=1"
    url = Spider().search_request("polo", first.next_cursor).url
    assert url.startswith("https://catalog.wb.ru/presets/bucket_71/catalog?appType=1&curr=rub&")
    page = read(recorded("polo"), url)
    assert page.next_cursor == "/presets/bucket_71/catalog?preset=10062&page=2"


def test_preset_that_refers_to_a_preset_does_not_loop() -> None:
    with pytest.raises(TemporarilyEmpty):
        read(recorded("preset"), f"{SEARCH}&preset=10062")


def test_no_results_end_the_search_and_missing_results_are_retried() -> None:
    page = read(recorded("nothing"), SEARCH)
    assert (page.posts, page.next_cursor, page.total) == ((), None, 0)
    with pytest.raises(TemporarilyEmpty, match="announces 115 products and sends none"):
        read(recorded("promised"), SEARCH)
    # There are no products after the last page, nor after the page limit of the site.
    for number in (3, 61):
        assert read(recorded("promised"), f"{SEARCH[:-1]}{number}").next_cursor is None


@pytest.mark.parametrize(
    "body",
    [
        recorded("polo").replace(b'"id": 187654321', b'"id": "x"'),
        recorded("polo").replace(b'"pics"', b'"pictures"'),
        recorded("nothing").replace(b'"products": []', b'"products": {}'),
        recorded("nothing").replace(b'"metadata"', b'"data"'),
        b"[" * 100_000,
        '{"products": []}'.encode("utf-16"),
    ],
    ids=["no number", "no photos", "no list", "no metadata", "deep", "another encoding"],
)
def test_response_without_products_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        read(body, SEARCH)


def test_products_without_images_are_skipped_and_counted() -> None:
    page = read(recorded("polo").replace(b'"pics": 1', b'"pics": 0'), SEARCH)
    assert (len(page.posts), page.skipped) == (2, {"no photos": 1})


# Number of a host -> its last volume.
NEWEST = ((41, 10_373), (42, 11_141), (43, 11_909), (44, 12_677), (45, 13_445))


@pytest.mark.parametrize(
    ("volume", "hosts"),
    [
        (0, ("basket-01", "basket-02")),
        (143, ("basket-01", "basket-02")),
        (144, ("basket-02", "basket-03", "basket-01")),
        (9605, ("basket-40", "basket-41", "basket-39")),
        # From here on, a host has 768 volumes.
        (9606, ("basket-41", "basket-42", "basket-40")),
        *((high, (f"basket-{n}", f"basket-{n + 1}", f"basket-{n - 1}")) for n, high in NEWEST),
        (14_213, ("basket-46", "basket-45")),
        # Beyond the table, as many are assumed.
        (14_214, ("basket-47", "basket-48", "basket-46")),
        (14_981, ("basket-47", "basket-48", "basket-46")),
        (14_982, ("basket-48", "basket-49", "basket-47")),
    ],
)
def test_built_in_table_of_image_hosts(volume: int, hosts: tuple[str, ...]) -> None:
    assert DEFAULT_HOST_MAP.hosts(volume) == tuple(f"{host}.wbbasket.ru" for host in hosts)


def test_host_map_of_the_site_has_priority() -> None:
    host_map = parse_host_map(recorded("upstreams"))
    assert host_map is not None
    assert host_map.hosts(1876) == ("basket-03.wbbasket.ru", "basket-02.wbbasket.ru")
    assert host_map.hosts(1901)[0] == "basket-04.wbbasket.ru"
    spider = Spider()
    spider.set_up(recorded("upstreams"))
    page = spider.read(recorded("polo"), SEARCH)
    assert page.posts[0].photos[0].url.startswith("https://basket-03.wbbasket.ru/vol1876/")


def test_mirrors_are_used_and_foreign_hosts_are_ignored() -> None:
    host_map = parse_host_map(recorded("mirrors"))
    first, second = (f"mow-basket-cdn-0{n}.geobasket.ru" for n in (1, 2))
    assert host_map == HostMap((), (first, second))
    assert (host_map.hosts(4), host_map.hosts(5)) == ((first, second), (second, first))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"recommend": {"mediabasket_route_map": [7]}}'])
def test_built_in_table_is_used_without_a_map(body: bytes) -> None:
    spider = Spider()
    spider.set_up(body)
    assert spider.host_map is DEFAULT_HOST_MAP


def test_version_order_region_and_size_are_options() -> None:
    options = {"api-version": "v20", "sort": "newly", "photo-size": "hq", "region": "-1"}
    spider = Spider(options=options)
    url = spider.search_request("рубашка поло", None).url
    assert "/common/v20/search?query=%D1%80" in url
    assert "sort=newly" in url and "dest=-1&" in url and url.endswith("&page=1")
    assert "/images/hq/1.webp" in spider.read(recorded("polo"), url).posts[0].photos[0].url


def test_browser_cookie_is_not_part_of_the_url() -> None:
    request = Spider(credentials={"WILDBERRIES_TOKEN": "1.1000.abc"}).search_request("polo", None)
    assert request.cookies == {"x_wbaas_token": "1.1000.abc"}
    assert "abc" not in request.url
    assert Spider().search_request("polo", None).cookies == {}


def test_error_responses_are_explained_with_a_remedy() -> None:
    spider = Spider()
    limited = http_response(429, headers={"Retry-After": "401"})
    assert "continue in about 7 minutes" in str(spider.explain_refusal(limited))
    assert "and it is missing" in str(spider.explain_refusal(http_response(498)))
    with_cookie = Spider(credentials={"WILDBERRIES_TOKEN": "1.1000.abc"})
    explanation = str(with_cookie.explain_refusal(http_response(498)))
    assert "has expired or is wrong" in explanation
    assert "network" in str(spider.explain_refusal(http_response(403)))
    assert spider.explain_refusal(http_response(500)) is None
