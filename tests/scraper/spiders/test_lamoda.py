"""Tests of the Lamoda spider on recorded pages."""

import json
import time
from pathlib import Path

import pytest

from scraper.errors import LayoutChanged
from scraper.spiders.base import Photo
from scraper.spiders.lamoda import Spider, read
from tests.scraper.spiders.test_contract import without_each
from tests.support.http_responses import http_response

RECORDED = Path(__file__).parents[2] / "recorded" / "lamoda"
SEARCH = "https://www.lamoda.ru/catalogsearch/result/?q=%D0%BF%D0%BE%D0%BB%D0%BE"


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def test_embedded_state_has_all_images_of_a_product() -> None:
    page = read(recorded("polo.html"), SEARCH)
    first, second = page.posts
    assert (first.site_id, first.title, first.brand) == ("MP002XW1G7O5", "Поло", "Baon")
    assert (first.price, first.currency) == (2999.0, "RUB")
    assert first.url == "https://www.lamoda.ru/p/mp002xw1g7o5/"
    assert [photo.url for photo in first.photos] == [
        "https://a.lmcdn.ru/img600x866/M/P/MP002XW1G7O5_22861704_1_v1.jpg",
        "https://a.lmcdn.ru/img600x866/M/P/MP002XW1G7O5_22861705_2_v1.jpg",
        "https://a.lmcdn.ru/img600x866/M/P/MP002XW1G7O5_22861706_3_v1_2x.jpg",
    ]
    assert first.photos[0].fallbacks == (
        "https://a.lmcdn.ru/product/M/P/MP002XW1G7O5_22861704_1_v1.jpg",
        "https://a.lmcdn.ru/img236x341/M/P/MP002XW1G7O5_22861704_1_v1.jpg",
    )
    assert (second.title, second.price) == ("Поло мужское Lacoste", 15990.0)


def test_state_with_a_missing_field_gives_no_crash_and_no_empty_page() -> None:
    text = recorded("polo.html").decode()
    state = json.loads(
        text[text.index("{", text.index("__NUXT__")) : text.rindex(";</")][:-2] + "}"
    )
    complete = {"MP002XW1G7O5", "RTLADA204601"}
    for reduced in without_each(state):
        body = f"<script>window.__NUXT__ = {json.dumps(reduced)};</script>".encode()
        try:
            page = read(body, SEARCH)
        except LayoutChanged:
            continue
        assert page.posts and {post.site_id for post in page.posts} <= complete


def script(state: str) -> bytes:
    return f"<html><body><script>{state}</script></body></html>".encode()


def product(sku: str, **more: object) -> dict[str, object]:
    gallery = [f"/M/P/{sku}_1_1_v1.jpg", f"/M/P/{sku}_1_2_v1.jpg"]
    return {"sku": sku, "name": "Поло, ]}", "gallery": gallery, **more}


@pytest.mark.parametrize(
    "state",
    [
        # The notation since 2021: unquoted names outside, JSON inside.
        "var __NUXT__ = {\n  layout: 'default',\n  payload: {state: {payload: PAYLOAD,\n"
        '    settings: {"a": 1}}},\n  user: {isAuth: false, name: void 0},\n};',
        "window.__NUXT__={layout:'it\\'s \"so\"',"
        'payload:{"state":{"payload":PAYLOAD}},error:null}',
        'window.__NUXT__ = {"data": [{"banner": null}, {"catalog": PAYLOAD}], "state": {}}',
        'window.__NUXT__ = {"state": {"search": {"result": PAYLOAD,},},}',
    ],
    ids=["names bare", "payload quoted", "in a list", "deeper"],
)
def test_state_is_found_in_every_notation(state: str) -> None:
    payload = {"products": [product("A1"), {"type": "banner"}, product("B2")]}
    body = script(state.replace("PAYLOAD", json.dumps(payload, ensure_ascii=False)))
    page = read(body, SEARCH)
    assert [(post.site_id, len(post.photos)) for post in page.posts] == [("A1", 2), ("B2", 2)]
    assert page.posts[0].title == "Поло, ]}"


def test_state_built_by_a_function_falls_back_to_the_cards() -> None:
    state = 'window.__NUXT__=(function(a,b){return {payload:{products:[{sku:a,name:b}]}}}("A1",1));'
    page = read(recorded("cards.html") + script(state), SEARCH)
    assert [post.site_id for post in page.posts] == ["MP002XW1G7O5", "RTLADA204601"]
    with pytest.raises(LayoutChanged):
        read(script(state), SEARCH)


@pytest.mark.parametrize("piece", ['payload: {"a": {', '\\"', '"', ",", "{"])
def test_malformed_state_is_parsed_in_linear_time(piece: str) -> None:
    for start in ("{", '{"'):
        with pytest.raises(LayoutChanged):
            read(script(f"window.__NUXT__ = {start}" + piece * 30_000), SEARCH)


def test_image_urls_of_the_old_layout() -> None:
    item = product("A1", gallery=["//a.lmcdn.ru/pi/img236x341/R/A/RA084AMAISF6_6203977_1_v2.jpg"])
    page = read(script(f"var __NUXT__ = {json.dumps({'products': [item]})}"), SEARCH)
    (photo,) = page.posts[0].photos
    assert photo.url == "https://a.lmcdn.ru/img600x866/R/A/RA084AMAISF6_6203977_1_v2.jpg"


def test_last_page_follows_the_pagination_of_the_site() -> None:
    state = {"products": [product("A1")], "pagination": {"pages": 167, "total": 12_345}}
    body = script(f"var __NUXT__ = {json.dumps(state)}")
    assert read(body, f"{SEARCH}&page=166").next_cursor is not None
    assert read(body, f"{SEARCH}&page=167").next_cursor is None


def test_next_page_follows_the_total() -> None:
    page = read(recorded("polo.html"), SEARCH)
    assert page.total == 1234
    assert page.next_cursor == "/catalogsearch/result/?q=%D0%BF%D0%BE%D0%BB%D0%BE&page=2"
    before_last = read(recorded("polo.html"), f"{SEARCH}&page=20")
    assert before_last.next_cursor == "/catalogsearch/result/?q=%D0%BF%D0%BE%D0%BB%D0%BE&page=21"
    assert read(recorded("polo.html"), f"{SEARCH}&page=21").next_cursor is None


def test_category_pages_are_paged_by_their_own_url() -> None:
    url = "https://www.lamoda.by/c/2512/clothes-polo/?sort=new"
    page = read(recorded("polo.html"), url)
    assert page.next_cursor == "/c/2512/clothes-polo/?sort=new&page=2"
    assert page.posts[0].url == "https://www.lamoda.by/p/mp002xw1g7o5/"
    assert page.posts[0].currency == "BYN"


def test_cards_are_read_if_the_state_is_not_json() -> None:
    first, second = read(recorded("cards.html"), SEARCH).posts
    assert (first.site_id, first.brand, first.title) == ("MP002XW1G7O5", "Baon", "Поло")
    assert first.price == 2999.0
    assert [photo.url for photo in second.photos] == [
        "https://a.lmcdn.ru/img600x866/R/T/RTLADA204601_18123456_1_v1.jpg"
    ]
    assert second.price == 15990.0


def card(inner: str) -> bytes:
    head = '<div class="_card_1 x-product-card__card"><a href="/p/ab12/polo/">'
    return (
        f'{head}<img src="//a.lmcdn.ru/img236x341/A/B/AB12_1_1_v1.jpg"></a>{inner}</div>'.encode()
    )


@pytest.mark.parametrize(
    ("inner", "title", "price"),
    [
        ('<b class="x-product-card-description__product-name_9f">Polo</b>', "Polo", None),
        ('<b class="a x-product-card-description__product-name"><i>Po</i> lo</b>', "Po lo", None),
        ("<b class=x-product-card-description__price-single>1&nbsp;999 &#8381;", None, 1999.0),
        ('<b class="x-product-card-description__price-old">3 999 ₽</b>', None, None),
        ("", None, None),
    ],
)
def test_values_of_a_card(inner: str, title: str | None, price: float | None) -> None:
    page = read(card(inner) + b"<div class=x-product-card-description__brand-name>Other", SEARCH)
    (post,) = page.posts
    assert (post.site_id, post.title, post.price, post.brand) == ("AB12", title, price, None)
    assert post.photos[0].url == "https://a.lmcdn.ru/img600x866/A/B/AB12_1_1_v1.jpg"


def test_a_card_ends_where_a_card_inside_of_it_begins() -> None:
    name = '<b class="x-product-card-description__product-name">Polo</b>'
    body = card(card(name).decode().replace("ab12", "cd34"))
    assert [(post.site_id, post.title) for post in read(body, SEARCH).posts] == [
        ("AB12", None),
        ("CD34", "Polo"),
    ]


HOSTILE = {
    "nested cards": b"<div class=x-product-card__card><a href=/p/a1/><img src=x>" * 11_000,
    "nested texts": b"<div class=x-product-card__card><a href=/p/a1/>"
    + b"<b class=x-product-card-description__brand-name>" * 33_000,
    "NUL characters": b"<div>" + b"\0" * 9_000_000,
    "payloads": b"<script>__NUXT__ = {" + b'payload: {"a":' * 700_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_less_than_a_minute(name: str) -> None:
    # A quadratic algorithm would take hours; these pages take seconds.
    start = time.process_time()
    with pytest.raises(LayoutChanged):
        read(HOSTILE[name], SEARCH)
    assert time.process_time() - start < 60


def test_old_cards_are_read() -> None:
    page = read(recorded("older.html"), SEARCH)
    (hat,) = page.posts
    assert (hat.site_id, hat.brand, hat.title, hat.price) == ("FE913CMCLMM1", "Ferz", "Шапка", 1010)
    assert [photo.url[-34:] for photo in hat.photos] == [
        "/F/E/FE913CMCLMM1_7110810_1_v1.jpg",
        "/F/E/FE913CMCLMM1_7110811_2_v1.jpg",
    ]
    assert page.next_cursor is None


def test_page_without_results_ends_the_search() -> None:
    advice = recorded("nothing.html").replace(b"</body>", recorded("older.html") + b"</body>")
    for body in (recorded("nothing.html"), advice):
        page = read(body, SEARCH)
        assert (page.posts, page.next_cursor, page.total) == ((), None, 0)


@pytest.mark.parametrize(
    "body",
    [
        recorded("no_posts.html"),
        b"",
        b"<html><body>Loading</body></html>",
        recorded("polo.html")[:150],
        recorded("polo.html").replace(b'"sku": "MP002XW1G7O5"', b'"sku": 7'),
        recorded("older.html").replace(b"lmcdn.ru/img236x341", b"lmcdn.ru/none?"),
    ],
    ids=["no products", "empty", "no list", "cut off", "sku re-typed", "no photos"],
)
def test_page_without_products_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged, match="layout changed"):
        read(body, SEARCH)


def test_page_after_the_last_is_empty() -> None:
    page = read(recorded("no_posts.html").replace(b"1 234", b"60"), f"{SEARCH}&page=2")
    assert (page.posts, page.next_cursor) == ((), None)


def test_site_url_and_image_url_redirect_requests() -> None:
    spider = Spider("http://127.0.0.1:8000/", "http://127.0.0.1:8001")
    assert spider.search_request("рубашка поло", None).url == (
        "http://127.0.0.1:8000/catalogsearch/result/?q="
        "%D1%80%D1%83%D0%B1%D0%B0%D1%88%D0%BA%D0%B0%20%D0%BF%D0%BE%D0%BB%D0%BE"
    )
    photo = Photo("https://a.lmcdn.ru/img600x866/M/P/X_1.jpg")
    assert spider.image_request(photo.url).url == "http://127.0.0.1:8001/img600x866/M/P/X_1.jpg"
    assert Spider().image_request(photo.url).url == photo.url


def test_geo_blocking_is_explained() -> None:
    body = recorded("blocked.json")
    assert json.loads(body)["code"] == 10403
    explanation = Spider().explain_refusal(http_response(403, body)) or ""
    assert "blocks this network address" in explanation
    assert Spider().explain_refusal(http_response(500)) is None
