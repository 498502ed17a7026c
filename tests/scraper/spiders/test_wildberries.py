"""Facts about recorded Wildberries answers, written by hand."""

from pathlib import Path

import pytest

from scraper.baskets import BUILT_IN, Routes, read_routes
from scraper.errors import LayoutChanged, NotNow
from scraper.spiders.base import Answer
from scraper.spiders.wildberries import Spider, read

RECORDED = Path(__file__).parents[2] / "recorded" / "wildberries"
SEARCH = "https://search.wb.ru/exactmatch/ru/common/v18/search?query=polo&page=1"


def recorded(name: str) -> bytes:
    return (RECORDED / f"{name}.json").read_bytes()


def test_a_product_has_all_its_photos_and_what_the_shop_says_of_it() -> None:
    page = read(recorded("polo"), SEARCH)
    first, second, third = page.posts
    assert first.url == "https://www.wildberries.ru/catalog/187654321/detail.aspx"
    assert (first.site_id, first.brand, first.title) == (
        "187654321",
        "Baon",
        "Поло хлопковое #базовый_гардероб",
    )
    # The cheapest size, in roubles: the site counts in kopecks.
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


def test_the_older_answer_is_read_too() -> None:
    page = read(recorded("older"), SEARCH.replace("v18", "v4"))
    (post,) = page.posts
    assert (post.site_id, post.price, len(post.photos)) == ("28740123", 1999.0, 2)
    assert post.photos[0].url.startswith("https://basket-02.wbbasket.ru/vol287/part28740/28740123")
    assert page.next_cursor is None


@pytest.mark.parametrize(
    "where",
    ['"products": [], "data": {"products": LIST}', '"products": null, "data": {"products": LIST}'],
)
def test_products_count_wherever_they_stand(where: str) -> None:
    body = f'{{"metadata": {{}}, {where}, "total": 1}}'.replace("LIST", '[{"id": 7, "pics": 2}]')
    assert [len(post.photos) for post in read(body.encode(), SEARCH).posts] == [2]


def test_a_list_that_is_null_is_empty_where_a_total_says_so() -> None:
    for answer in ('"products": null, "total": 0', '"data": {"products": null, "total": 0}'):
        page = read(f'{{"metadata": {{}}, {answer}}}'.encode(), SEARCH)
        assert (page.posts, page.next_cursor, page.total) == ((), None, 0)
    with pytest.raises(NotNow):
        read(b'{"metadata": {}, "products": null, "total": 5}', SEARCH)
    for answer in ('"products": null', '"data": null, "total": 0', '"cards": [{"id": 7}]'):
        with pytest.raises(LayoutChanged):
            read(f'{{"metadata": {{}}, {answer}}}'.encode(), SEARCH)


@pytest.mark.parametrize(
    ("page", "following"),
    [(1, "?page=2"), (2, "?page=3"), (3, None), (100, None)],
)
def test_paging_ends_with_the_total_and_with_what_the_site_shows(
    page: int, following: str | None
) -> None:
    assert read(recorded("polo"), f"{SEARCH[:-1]}{page}").next_cursor == following


def test_a_search_that_leads_to_a_preset_goes_on_there() -> None:
    led = read(recorded("preset"), SEARCH)
    assert (led.posts, led.next_cursor) == ((), "?preset=10062&_st0=cG9sbw%3D%3D~0.1&page=1")
    asked = Spider().search_request("polo", led.next_cursor).url
    assert "/exactmatch/ru/common/v18/search?query=polo&" in asked
    assert "preset=10062&_st0=cG9sbw%3D%3D~0.1&page=1" in asked
    page = read(recorded("polo"), asked)
    assert page.next_cursor == "?preset=10062&_st0=cG9sbw%3D%3D~0.1&page=2"


def test_a_preset_of_years_ago_names_its_shelf() -> None:
    led = read(recorded("preset_older"), SEARCH)
    assert led.next_cursor == "/presets/bucket_71/catalog?preset=10062&page=1"
    asked = Spider().search_request("polo", led.next_cursor).url
    assert asked.startswith("https://catalog.wb.ru/presets/bucket_71/catalog?appType=1&curr=rub&")
    page = read(recorded("polo"), asked)
    assert page.next_cursor == "/presets/bucket_71/catalog?preset=10062&page=2"


def test_a_preset_that_leads_to_a_preset_is_no_circle() -> None:
    with pytest.raises(NotNow):
        read(recorded("preset"), f"{SEARCH}&preset=10062")


def test_nothing_found_is_an_end_and_nothing_yet_is_not() -> None:
    page = read(recorded("nothing"), SEARCH)
    assert (page.posts, page.next_cursor, page.total) == ((), None, 0)
    with pytest.raises(NotNow, match="promises 115 products and sent none"):
        read(recorded("promised"), SEARCH)
    # There are no products behind the last page and behind the last one that the site shows.
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
def test_an_answer_without_what_makes_a_product_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        read(body, SEARCH)


def test_a_product_without_photos_is_left_out_and_counted() -> None:
    page = read(recorded("polo").replace(b'"pics": 1', b'"pics": 0'), SEARCH)
    assert (len(page.posts), page.skipped) == (2, {"no photos": 1})


@pytest.mark.parametrize(
    ("volume", "hosts"),
    [
        (0, ("basket-01", "basket-02")),
        (143, ("basket-01", "basket-02")),
        (144, ("basket-02", "basket-03", "basket-01")),
        (9605, ("basket-40", "basket-39")),
        # Beyond the table each host has 432 volumes more.
        (9606, ("basket-41", "basket-42", "basket-40")),
        (10_038, ("basket-42", "basket-43", "basket-41")),
    ],
)
def test_the_table_says_where_photos_are(volume: int, hosts: tuple[str, ...]) -> None:
    assert BUILT_IN.hosts(volume) == tuple(f"{host}.wbbasket.ru" for host in hosts)


def test_the_site_s_own_map_comes_first() -> None:
    routes = read_routes(recorded("upstreams"))
    assert routes is not None
    assert routes.hosts(1876) == ("basket-03.wbbasket.ru", "basket-02.wbbasket.ru")
    assert routes.hosts(1901)[0] == "basket-04.wbbasket.ru"
    spider = Spider()
    spider.set_up(recorded("upstreams"))
    page = spider.read(recorded("polo"), SEARCH)
    assert page.posts[0].photos[0].url.startswith("https://basket-03.wbbasket.ru/vol1876/")


def test_mirrors_have_all_and_foreign_hosts_are_not_believed() -> None:
    routes = read_routes(recorded("mirrors"))
    first, second = (f"mow-basket-cdn-0{n}.geobasket.ru" for n in (1, 2))
    assert routes == Routes((), (first, second))
    assert (routes.hosts(4), routes.hosts(5)) == ((first, second), (second, first))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"recommend": {"mediabasket_route_map": [7]}}'])
def test_without_a_map_the_table_serves(body: bytes) -> None:
    spider = Spider()
    spider.set_up(body)
    assert spider.routes is BUILT_IN


def test_the_version_the_order_and_the_size_are_settings() -> None:
    chosen = {"api-version": "v20", "sort": "newly", "photo-size": "hq", "region": "-1"}
    spider = Spider(settings=chosen)
    url = spider.search_request("рубашка поло", None).url
    assert "/common/v20/search?query=%D1%80" in url
    assert "sort=newly" in url and "dest=-1&" in url and url.endswith("&page=1")
    assert "/images/hq/1.webp" in spider.read(recorded("polo"), url).posts[0].photos[0].url


def test_the_browser_s_cookie_stays_out_of_the_address() -> None:
    ask = Spider(credentials={"WILDBERRIES_TOKEN": "1.1000.abc"}).search_request("polo", None)
    assert ask.cookies == {"x_wbaas_token": "1.1000.abc"}
    assert "abc" not in ask.url
    assert Spider().search_request("polo", None).cookies == {}


def test_refusals_say_what_to_do() -> None:
    spider = Spider()
    assert "continue in about 7 minutes" in str(
        spider.refusal(Answer(429, b"", {"retry-after": "401"}))
    )
    assert "and it is missing" in str(spider.refusal(Answer(498, b"", {})))
    given = Spider(credentials={"WILDBERRIES_TOKEN": "1.1000.abc"})
    assert "is spent or wrong" in str(given.refusal(Answer(498, b"", {})))
    assert "network" in str(spider.refusal(Answer(403, b"", {})))
    assert spider.refusal(Answer(500, b"", {})) is None
