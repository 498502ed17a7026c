"""Tests of the shop's Lamoda pages, also as parsed by the spider."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from parsel import Selector

from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.formats import lamoda
from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse
from scraper.sample_shop.stock import Stock
from scraper.spiders.lamoda import read
from tests.support.response_shapes import assert_known
from tests.support.shop_stock import item, shop

RECORDED = Path(__file__).parents[3] / "recorded" / "lamoda"
URL = "https://www.lamoda.ru/catalogsearch/result/?q=polo&page={}"


def page(stock: Stock, target: str, generation: str = "state") -> SiteResponse:
    response = lamoda.respond(stock, SiteRequest(target), generation)
    assert isinstance(response, SiteResponse)
    return response


def state_of(text: str) -> Any:
    match = re.search(r"<script>var __NUXT__ = (.*?);</script>", text)
    assert match
    return json.loads(match.group(1))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1 товар"),
        (2, "2 товара"),
        (5, "5 товаров"),
        (11, "11 товаров"),
        (12, "12 товаров"),
        (21, "21 товар"),
        (104, "104 товара"),
        (111, "111 товаров"),
        (1234, "1\u00a0234 товара"),
        (1000000, "1\u00a0000\u00a0000 товаров"),
    ],
)
def test_product_count_is_in_russian(number: int, text: str) -> None:
    assert lamoda.product_count(number) == text


def test_state_has_sixty_products_per_page_and_pagination() -> None:
    text = page(shop(130), "/catalogsearch/result/?q=polo&page=2").body.decode()
    payload = state_of(text)["payload"]["state"]["payload"]
    assert payload["pagination"] == {"pages": 3, "items_per_page": 60, "page": 2}
    assert len(payload["products"]) == 60
    first = payload["products"][0]
    assert first["sku"] == "MP002XW00060"
    assert first["brand"] == {"name": "Берёзка & Ко"}
    assert first["price_amount"] == 1999
    assert first["gallery"] == [
        "/M/P/MP002XW00060_22861704_1_v1.jpg",
        "/M/P/MP002XW00060_22861704_2_v1.jpg",
    ]
    assert text.count('<div class="x-product-card__card"') == 60
    assert '<span class="d-catalog-header__product-counter">130 товаров</span>' in text


def test_cards_generation_has_no_state() -> None:
    text = page(shop(2), "/catalogsearch/result/?q=polo", "cards").body.decode()
    assert "__NUXT__" not in text
    assert "_brand_163e7_21 x-product-card-description__brand-name" in text
    assert "//a.lmcdn.ru/img236x341/M/P/MP002XW00000_22861704_1_v1.jpg" in text
    assert "Берёзка &amp; Ко" in text
    assert 'href="/p/mp002xw00000/clothes-polo/"' in text


def test_old_generation_has_data_attributes() -> None:
    text = page(shop(1), "/catalogsearch/result/?q=polo", "old").body.decode()
    assert '<div class="products-list-item" data-sku="MP002XW00000"' in text
    assert 'data-brand="Берёзка &amp; Ко"' in text
    assert 'data-color-family="red"' in text
    assert "x-product-card" not in text


@pytest.mark.parametrize(("generation", "photos"), [("state", 2), ("cards", 1), ("old", 2)])
def test_spider_parses_every_generation(generation: str, photos: int) -> None:
    stock = shop(61)
    first = page(stock, "/catalogsearch/result/?q=polo", generation)
    result = read(first.body, URL.format(1))
    assert result.total == 61
    assert len(result.posts) == 60
    post = result.posts[7]
    assert (post.site_id, post.title, post.brand) == ("MP002XW00007", "Поло", "Берёзка & Ко")
    assert post.price == 1999
    assert len(post.photos) == photos
    assert result.next_cursor == "/catalogsearch/result/?q=polo&page=2"
    last = read(page(stock, result.next_cursor, generation).body, URL.format(2))
    assert [post.site_id for post in last.posts] == ["MP002XW00060"]
    assert last.next_cursor is None


def test_spider_parses_empty_pages() -> None:
    nothing = page(shop(3), "/catalogsearch/result/?q=%D1%82%D0%B0%D0%BF%D0%BA%D0%B8")
    assert "Поиск не дал результатов" in nothing.body.decode()
    assert read(nothing.body, URL.format(1)).posts == ()
    past = page(shop(3), "/catalogsearch/result/?q=polo&page=9")
    assert read(past.body, URL.format(9)).posts == ()


def test_text_is_escaped() -> None:
    name = "</script><script>alert(1)</script><!-- \" ' &"
    stock = Stock((item(1, name=name, labels=("<b>",)),), load_vocabulary())
    for generation in ("state", "cards", "old"):
        response = page(stock, "/catalogsearch/result/?q=%3Cb%3E", generation)
        text = response.body.decode()
        assert "<script>alert" not in text.replace("<\\/script><script>alert", "")
        assert "<h1>&lt;b&gt;</h1>" in text
        assert read(response.body, URL.format(1)).posts[0].title == name.replace("  ", " ")
    text = page(stock, "/catalogsearch/result/?q=%3Cb%3E").body.decode()
    assert text.count("</script>") == 1
    assert state_of(text)["payload"]["state"]["payload"]["products"][0]["name"] == name


def test_product_page_and_product_api() -> None:
    stock = shop(2)
    text = page(stock, "/p/mp002xw00001/clothes-polo/").body.decode()
    assert "//a.lmcdn.ru/img600x866/M/P/MP002XW00001_22861704_2_v1.jpg" in text
    response = page(stock, "/api/v1/product/get?sku=MP002XW00001&is_hybrid_supported=true")
    assert response.content_type == "application/json"
    record = json.loads(response.body)
    assert record["sku"] == "MP002XW00001"
    assert record["prices"] == {"original": {"price": 1999}}
    assert record["breadcrumbs"][-1] == {"label": "Поло"}
    assert len(record["gallery"]) == 2


@pytest.mark.parametrize(
    "target", ["/", "/p/NONE/", "/api/v1/product/get?sku=NONE", "/api/v1/product/get", "/p//"]
)
def test_missing_resources_are_404(target: str) -> None:
    assert page(shop(1), target).status == 404


def test_image_paths_select_the_size() -> None:
    stock = shop(1)
    path = "/M/P/X_1_1_v1.jpg"
    assert lamoda.respond(stock, SiteRequest(f"/img600x866{path}")) == PhotoRequest(
        path, (600, 866)
    )
    assert lamoda.respond(stock, SiteRequest(f"/img46x66{path}")) == PhotoRequest(path, (46, 66))
    assert lamoda.respond(stock, SiteRequest(f"/product{path}")) == PhotoRequest(path, None)
    assert page(stock, f"/img100x100{path}").status == 404


def test_robots_txt_and_geo_blocking() -> None:
    assert "Disallow: /checkout/\n" in page(shop(1), "/robots.txt").body.decode()
    blocked = page(shop(1), "/catalogsearch/result/?q=polo", "blocked")
    assert blocked.status == 403
    assert json.loads(blocked.body)["code"] == 10403


def test_search_redirects_to_a_category() -> None:
    redirect = page(shop(61), "/catalogsearch/result/?q=polo", "category")
    assert (redirect.status, redirect.headers["Location"]) == (302, "/c/2500/clothes-polo/?sf=1")
    url = "https://www.lamoda.ru/c/2500/clothes-polo/?sf=1"
    result = read(page(shop(61), "/c/2500/clothes-polo/?sf=1", "category").body, url)
    assert (len(result.posts), result.total) == (60, 61)
    assert result.next_cursor == "/c/2500/clothes-polo/?sf=1&page=2"
    last = read(page(shop(61), result.next_cursor, "category").body, f"{url}&page=2")
    assert (len(last.posts), last.next_cursor) == (1, None)
    assert page(shop(1), "/c/2777/clothes-polo/", "category").status == 404


def test_circle_generation_redirects_to_itself() -> None:
    redirect = page(shop(1), "/catalogsearch/result/?q=polo", "circle")
    assert (redirect.status, redirect.headers["Location"]) == (307, "/catalogsearch/result/?q=polo")


def test_state_and_cards_match_the_recorded_pages() -> None:
    state = state_of(page(shop(2), "/catalogsearch/result/?q=polo").body.decode())
    # The recorded state has a trailing comma, which is invalid JSON.
    recorded_state = state_of(
        (RECORDED / "polo.html").read_text(encoding="utf-8").replace(",}", "}")
    )
    assert_known(state["payload"], recorded_state["payload"])
    for generation, case in (("cards", "cards"), ("old", "older")):
        text = page(shop(2), "/catalogsearch/result/?q=polo", generation).body.decode()
        recorded = Selector((RECORDED / f"{case}.html").read_text(encoding="utf-8"))
        assert product_markup(Selector(text)) <= product_markup(recorded), generation


def product_markup(page: Selector) -> set[str]:
    """Return the stable class names and data attributes of the products on a page."""
    classes = page.css("[class*='product-card'], [class*='products-list']").xpath("@class").getall()
    names = {name for text in classes for name in text.split() if not name.startswith("_")}
    return names | {name for card in page.css("[data-sku]") for name in card.attrib if "-" in name}
