"""Tests of the shop's Wildberries API, also as parsed by the spider."""

import json
from pathlib import Path
from typing import Any

import pytest

from scraper.errors import TemporarilyEmpty
from scraper.sample_shop.formats import wildberries
from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse
from scraper.sample_shop.stock import Stock
from scraper.spiders.base import Post
from scraper.spiders.wildberries import Spider
from tests.support.response_shapes import assert_known
from tests.support.shop_stock import shop

RECORDED = Path(__file__).parents[3] / "recorded" / "wildberries"


def page(stock: Stock, generation: str = "today", **request: Any) -> Any:
    spider = Spider("http://127.0.0.1:1")
    target = spider.search_request("polo", request.pop("cursor", None)).url.partition(":1/")[2]
    response = wildberries.respond(stock, SiteRequest(f"/{target}", **request), generation)
    assert isinstance(response, SiteResponse) and response.status == 200
    return json.loads(response.body)


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_bytes())


@pytest.mark.parametrize(("generation", "case"), [("today", "polo"), ("older", "older")])
def test_responses_match_the_recorded_ones(generation: str, case: str) -> None:
    assert_known(page(shop(3), generation), recorded(case))


def test_preset_and_host_map_match_the_recorded_ones() -> None:
    assert_known(page(shop(3), "preset"), recorded("preset"))
    assert_known(wildberries.upstreams(), recorded("upstreams"))
    assert_known(wildberries.upstreams("mirrors"), recorded("mirrors"))


@pytest.mark.parametrize("generation", ["today", "older", "preset"])
def test_spider_parses_all_pages(generation: str) -> None:
    stock, spider = shop(230), Spider()
    spider.set_up(json.dumps(wildberries.upstreams()).encode())
    posts: list[Post] = []
    cursor, pages = None, 0
    while pages == 0 or cursor is not None:
        body = json.dumps(page(stock, generation, cursor=cursor)).encode()
        parsed = spider.read(body, spider.search_request("polo", cursor).url)
        posts += parsed.posts
        cursor, pages = parsed.next_cursor, pages + 1
    assert [post.site_id for post in posts] == [str(10_000_019 + 400_009 * n) for n in range(230)]
    assert {len(post.photos) for post in posts} == {2}
    assert {post.price for post in posts} == {1999.0}
    assert pages == {"today": 3, "older": 3, "preset": 4}[generation]


def test_hesitant_generation_answers_the_second_request() -> None:
    spider, url = Spider(), Spider().search_request("polo", None).url
    with pytest.raises(TemporarilyEmpty):
        spider.read(json.dumps(page(shop(3), "hesitant")).encode(), url)
    second = page(shop(3), "hesitant", times=2)
    assert len(spider.read(json.dumps(second).encode(), url).posts) == 3


def test_images_are_on_the_host_of_the_map() -> None:
    stock = shop(1)
    path = "/vol100/part10000/10000019/images"
    default_host = {"x-forwarded-host": "basket-01.wbbasket.ru"}
    photo = stock.items[0].photos[1].path

    def respond(target: str, generation: str = "today", **headers: str) -> object:
        return wildberries.respond(stock, SiteRequest(target, headers or default_host), generation)

    assert respond(f"{path}/big/2.webp") == PhotoRequest(photo, (900, 1200), "WEBP")
    assert respond(f"{path}/hq/2.webp") == PhotoRequest(photo, None, "WEBP")
    assert respond(f"{path}/big/2.jpg", "older") == PhotoRequest(photo, (900, 1200), "JPEG")
    for target in (f"{path}/big/3.webp", f"{path}/huge/1.webp", f"{path}/big/1.jpg"):
        response = respond(target)
        assert isinstance(response, SiteResponse) and response.status == 404
    moved = respond(f"{path}/big/2.webp", "moved")
    assert isinstance(moved, SiteResponse) and moved.status == 404
    next_host = {"x-forwarded-host": "basket-02.wbbasket.ru"}
    assert isinstance(respond(f"{path}/big/2.webp", "moved", **next_host), PhotoRequest)


def test_bot_check_and_rate_limit() -> None:
    stock = shop(1)
    target = "/exactmatch/ru/common/v18/search?query=polo"
    for generation, status in (("limited", 429), ("guarded", 498)):
        response = wildberries.respond(stock, SiteRequest(target), generation)
        assert isinstance(response, SiteResponse) and response.status == status
    with_cookie = SiteRequest(target, {"cookie": "x_wbaas_token=1"})
    response = wildberries.respond(stock, with_cookie, "guarded")
    assert isinstance(response, SiteResponse) and response.status == 200
