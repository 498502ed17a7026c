"""Tests of the spider of Shopify shops: recorded pages, collections, refusals, whole crawls."""

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scrapy.http import Response

import fashion_tagger
from dataset.errors import BadInput
from scraper.errors import LayoutChanged
from scraper.spiders.base import Photo
from scraper.spiders.shopify import EMPTIED, OTHER_PRODUCTS, Spider, original_url, read
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import crawl
from tests.support.photo_site import PhotoSite, serving

POLO = Path(__file__).parents[2] / "recorded" / "shopify" / "polo.json"
CAPTURE = (
    Path(fashion_tagger.__file__).parent.parent / "shared/sites/shopify/products_2026.capture.json"
)
SHOP = "https://shop.example.com"
LIST = f"{SHOP}/products.json?limit=250&page=1#words=polo+or+polo+shirt"
CDN = "https://cdn.shopify.com/s/files/1/0001"


def product(number: int, tags: object = ("polo",), **more: object) -> dict[str, Any]:
    image = {"id": number + 10**6, "src": f"{CDN}/files/{number}.jpg?v=1"}
    return {
        "id": number,
        "title": f"Product {number}",
        "handle": f"product-{number}",
        "product_type": "",
        "tags": tags,
        "variants": [{"price": "10.00", "available": True}],
        "images": [image],
        **more,
    }


def products(*records: Mapping[str, Any]) -> bytes:
    return json.dumps({"products": records}).encode()


def test_products_with_a_word_in_tags_or_type() -> None:
    page = read(POLO.read_bytes(), LIST)
    first, second = page.posts
    assert (first.site_id, first.title, first.brand) == ("7001", "Piqué Polo & Co", "Baon")
    assert first.url == f"{SHOP}/products/pique-polo"
    # The cheapest variant is sold out; the currency is not in this response.
    assert (first.price, first.currency) == (24.5, None)
    assert first.hashtags == ("Summer", "Polo", "blue")
    assert first.attributes == ("Shop All", "Clothing", "Polo Shirts", "Navy")
    assert str(first.posted) == "2026-03-09 13:55:36"
    assert first.photos == (
        Photo(f"{CDN}/files/polo.jpg?v=1", (f"{CDN}/files/polo_600x.jpg?v=1",), "91"),
        Photo(f"{CDN}/files/polo_back.jpg?v=2", (), "92"),
    )
    assert (second.hashtags, second.price) == (("sale", "white"), 199.0)
    assert second.photos[0].url == f"{CDN}/products/striped.png?v=3"
    assert (page.next_cursor, page.skipped) == (None, {})
    other = read(POLO.read_bytes(), LIST.replace("polo", "dress"))
    assert (other.posts, other.skipped) == ((), {OTHER_PRODUCTS: 2})
    assert other.listed_ids == ("/7001", "/7002")


@pytest.mark.skipif(not CAPTURE.exists(), reason=f"{CAPTURE} is not there")
def test_captured_page() -> None:
    page = read(CAPTURE.read_bytes(), f"{SHOP}/products.json?limit=250&page=1#words=0-3+months")
    assert [post.site_id for post in page.posts] == ["10135971496231", "9933021905191"]
    assert [len(post.photos) for post in page.posts] == [1, 3]
    assert [post.price for post in page.posts] == [520.0, 350.0]
    assert page.posts[1].title == "Muslin Cap Mitten Booties | Pink Heart"
    assert page.skipped == {OTHER_PRODUCTS: 1}


@pytest.mark.parametrize(
    ("tags", "product_type", "is_match"),
    [
        (["Polo"], "", True),
        (["polo-shirt"], "", True),
        (["POLOSHIRT"], "", True),
        ("mens, Polo Shirts", "", True),
        ([], "Mens > Polo Shirts", True),
        ([], "Shop All;Clothing/Polos", True),
        (["Men&#39;s polo"], None, True),
        (["apolo"], "", False),
        (["water-polos-x"], "", True),
        (["interpol", "shirt"], "Pololo", False),
        (None, None, False),
        ([None, 7, {}], 7, False),
    ],
)
def test_words_are_matched_as_whole_words(
    tags: object, product_type: object, is_match: bool
) -> None:
    page = read(products(product(1, tags, product_type=product_type)), LIST)
    assert bool(page.posts) is is_match


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("polo_600x.jpg", "polo.jpg"),
        ("polo_925x.webp", "polo.webp"),
        ("polo_x600.jpg", "polo.jpg"),
        ("polo_600x600_crop_center.jpg", "polo.jpg"),
        ("polo_600x600_crop_center@2x.jpg", "polo.jpg"),
        ("polo@2x.png", "polo.png"),
        ("polo_grande.jpg", "polo.jpg"),
        ("polo_1024x1024.progressive.jpg", "polo.jpg"),
        ("polo_2.jpg", "polo_2.jpg"),
        ("polo_6x9cm.jpg", "polo_6x9cm.jpg"),
    ],
)
def test_sizes_are_removed_from_image_urls(name: str, original: str) -> None:
    assert original_url(f"{CDN}/files/{name}?v=12&width=300") == f"{CDN}/files/{original}?v=12"
    own = "https://shop.example.com/cdn/shop/files/"
    assert original_url(f"{own}{name}") == f"{own}{original}"
    assert original_url(f"https://other.example/{name}?x=1") == f"https://other.example/{name}?x=1"


def test_lists_end_with_a_short_page_and_continue_with_collections_at_the_limit() -> None:
    full = products(*(product(number) for number in range(1, 251)))
    page = read(full, LIST)
    assert page.next_cursor == "/products.json?limit=250&page=2#words=polo+or+polo+shirt"
    last = f"{SHOP}/products.json?limit=250&page=100#words=polo"
    collections = "/collections.json?limit=50&page=1#words=polo&size=250"
    assert read(full, last).next_cursor == collections
    error = b'{"errors":"Page * Limit exceeds the 25000 limit."}'
    page = read(error, last)
    assert (page.next_cursor, page.is_lookup) == (collections, True)
    assert read(products(product(1)), last).next_cursor is None
    # A shop may empty the list of all products, and not those of its collections.
    assert read(b'{"products":[]}', LIST).next_cursor is not None


def test_collections_are_read_one_after_the_other() -> None:
    listed = [
        {"handle": "shirts", "products_count": 3},
        {"handle": "none", "products_count": 0},
        {"handle": "поло", "products_count": 9},
    ]
    url = f"{SHOP}/collections.json?limit=3&page=1#words=polo&size=50"
    page = read(json.dumps({"collections": listed}).encode(), url)
    assert page.is_lookup and page.next_cursor is not None
    assert page.next_cursor.startswith("/collections/shirts/products.json?limit=50&page=1#")
    emptied = read(b'{"products":[]}', SHOP + page.next_cursor)
    assert emptied.skipped == {EMPTIED: 1}
    assert emptied.next_cursor is not None
    assert emptied.next_cursor.startswith("/collections/%D0%BF%D0%BE%D0%BB%D0%BE/products.json?")
    # Two collections may have the same products, which is no pagination loop.
    second = read(products(product(1)), SHOP + emptied.next_cursor)
    assert second.listed_ids == ("поло/1",)
    assert second.next_cursor == "/collections.json?limit=50&page=2#words=polo&size=50"
    assert read(b'{"collections":[]}', SHOP + second.next_cursor).next_cursor is None


HOSTILE = {
    "words of a tag": products(product(1, ["a " * 2_400_000 + "polo"])),
    "tags": products(product(1, ["<b>polo"] * 600_000)),
    "images": products(
        product(1, images=[{"src": f"/s/files/{n}_1x.jpg"} for n in range(200_000)])
    ),
    "products": products(*[product(1)] * 2_001),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lists_take_less_than_a_minute(name: str) -> None:
    # A quadratic algorithm would take hours; these pages take seconds.
    start = time.process_time()
    with contextlib.suppress(LayoutChanged):
        read(HOSTILE[name], LIST)
    assert time.process_time() - start < 60


def test_product_without_an_id_is_a_changed_layout() -> None:
    for body in (
        products(product(0)),
        b'{"products":[7]}',
        b'{"products":{}}',
        b'{"collections":7}',
    ):
        with pytest.raises(LayoutChanged):
            read(body, LIST)


def refusal(status: int, body: bytes, path: str = "/products.json") -> str:
    spider = Spider(options={"shop": "example.com"})
    response = Response(f"https://example.com{path}", status, body=body)
    assert not spider.is_readable(response)
    return spider.explain_refusal(response) or ""


@pytest.mark.parametrize(
    ("status", "body", "path", "text"),
    [
        (200, b"<html><form>", "/password", "closed with a password"),
        (200, b"\xef\xbb\xbf\n<!DOCTYPE html>", "/products.json", "not a Shopify shop"),
        (404, b"<html>", "/products.json", "myshopify.com"),
        (404, b"", "/products.json", "crawl shop"),
        (401, b"", "/products.json", "does not let programs"),
        (403, b"", "/products.json", "does not let programs"),
        (403, b"<title>Just a moment...</title>", "/products.json", "Cloudflare"),
        (503, b"<script src=//challenges.cloudflare.com>", "/products.json", "Cloudflare"),
        (429, b"", "/products.json", "rate limit"),
        (430, b"", "/products.json", "rate limit"),
    ],
)
def test_refusals_are_named(status: int, body: bytes, path: str, text: str) -> None:
    assert text in refusal(status, body, path)


def test_shop_must_be_named() -> None:
    with pytest.raises(BadInput, match="--set shop=shop"):
        Spider().check_arguments()
    for value in ("a b", "http://", "https://user@x.example", "x.example?y=1"):
        with pytest.raises(BadInput, match="write the host"):
            Spider(options={"shop": value})
    for value in ("Example.com", "https://example.com/", " example.com "):
        spider = Spider(options={"shop": value})
        spider.check_arguments()
        assert (spider.name, spider.requested_url) == ("shopify:example.com", "https://example.com")
    mirrored = Spider("http://127.0.0.1:8000", options={"shop": "example.com"})
    assert (mirrored.name, mirrored.requested_url) == (
        "shopify:example.com",
        "http://127.0.0.1:8000",
    )
    page = mirrored.read(POLO.read_bytes(), LIST.replace(SHOP, "http://127.0.0.1:8000"))
    assert page.posts[0].url == "https://example.com/products/pique-polo"


def test_currency_is_that_of_a_product_page() -> None:
    spider = Spider(options={"shop": "example.com"})
    request = spider.set_up(products(product(7)), "https://example.com/products.json")
    assert request is not None and request.url == "https://example.com/products/product-7"
    assert spider.set_up(b'<meta property="og:price:currency" content="EUR">', request.url) is None
    assert spider.read(POLO.read_bytes(), LIST).posts[0].currency == "EUR"
    spider.set_up(
        b'<script>Shopify.currency = {"active":"GBP","rate":"1.0"};</script>', request.url
    )
    assert spider.currency == "GBP"
    spider.set_up(b"<html></html>", request.url)
    assert spider.currency is None


def shop_bodies(url: str, pages: int, matching: int) -> dict[str, bytes]:
    """Return a shop of `pages` pages of 250 products, of which the last `matching` are polos."""
    count = pages * 250
    records = [
        product(
            number,
            ["polo"] if number > count - matching else ["dress"],
            images=[{"id": number, "src": f"{url}/cdn/shop/files/{number}_600x.jpg?v=1"}],
        )
        for number in range(1, count + 1)
    ]
    bodies = {
        f"/products.json?limit=250&page={page + 1}": products(*records[page * 250 :][:250])
        for page in range(pages)
    }
    bodies[f"/products.json?limit=250&page={pages + 1}"] = products()
    bodies["/products.json?limit=1&page=1"] = products(records[0])
    bodies["/products/product-1"] = b'<html><meta property="og:price:currency" content="EUR">'
    for number in range(count - matching + 1, count + 1):
        bodies[f"/cdn/shop/files/{number}.jpg?v=1"] = photo_bytes(number, (200, 260))
    return bodies


def run(site: PhotoSite, folder: Path, *options: str) -> tuple[int, str]:
    address = ("--set", "shop=example.com", "--site-url", site.url, "--image-url", site.url)
    return crawl(site, folder, "--tags", "polo", *options, site="shopify", address=address)


@pytest.mark.slow
@pytest.mark.parametrize("pages", [4, 40])
def test_crawl_of_thousands_of_products(tmp_path: Path, pages: int) -> None:
    with serving({}) as site:
        site.bodies |= shop_bodies("https://example.com", pages, 3)
        status, output = run(site, tmp_path)
        assert status == 0, output
        # A later run stops at the first page without a new product.
        status, output = run(site, tmp_path)
        assert status == 0, output
    assert rows(tmp_path, "SELECT DISTINCT site, currency FROM posts") == [
        ("shopify:example.com", "EUR")
    ]
    assert rows(tmp_path, "SELECT state, count(*) FROM sightings GROUP BY 1") == [("stored", 3)]
    assert all("obeys robots.txt" in agent for agent in site.agents)


def test_lists_are_downloaded_once_for_all_tags(tmp_path: Path) -> None:
    with serving({}) as site:
        site.bodies |= shop_bodies("https://example.com", 3, 3)
        status, output = run(site, tmp_path, "--tags", "jeans,skirt")
        assert status == 0, output
    assert rows(tmp_path, "SELECT count(*), sum(pages) FROM searches") == [(3, 12)]
    assert rows(tmp_path, "SELECT state, count(*) FROM sightings GROUP BY 1") == [("stored", 3)]
    lists = {path: n for path, n in site.requests.items() if "limit=250" in path}
    assert len(lists) == 4 and set(lists.values()) == {1}


def test_crawl_names_refusals_with_the_remedy(tmp_path: Path) -> None:
    with serving({"/password": b"<html><form action='/password'>"}) as site:
        site.redirects = {f"/products.json?limit={limit}&page=1": "/password" for limit in (1, 250)}
        status, output = run(site, tmp_path)
        assert status == 1 and "example.com is closed with a password" in output, output
        site.bodies["/robots.txt"] = b"User-agent: *\nDisallow: /products.json\n"
        status, output = run(site, tmp_path)
        assert status == 1 and "robots.txt forbids it" in output, output
    status, output = crawl(
        site, tmp_path, "--tags", "polo", site="shopify", address=("--max-pages", "1")
    )
    assert status == 2 and "--set shop=shop.example.com" in output, output
