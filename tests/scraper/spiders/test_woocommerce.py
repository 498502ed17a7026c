"""Tests of the spider of WooCommerce shops: recorded pages, lookups, refusals, whole crawls."""

import json
from pathlib import Path

import pytest
from scrapy.http import Response

import fashion_tagger
from scraper.errors import LayoutChanged
from scraper.spiders.base import Page, Photo
from scraper.spiders.woocommerce import OTHER_PRODUCTS, PROTECTED, Spider, original_url, read
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import crawl
from tests.support.photo_site import PhotoSite, serving

POLO = Path(__file__).parents[2] / "recorded" / "woocommerce" / "polo.json"
CAPTURES = Path(fashion_tagger.__file__).parent.parent / "shared/sites/woocommerce"
ROOT = "https://shop.example.com/wp-json/"
PRODUCTS = f"{ROOT}wc/store/v1/products?"
SEARCH = f"{PRODUCTS}search=polo&per_page=100&page=1#words=polo"


def named_terms(*terms: tuple[int, str]) -> bytes:
    return json.dumps(
        [{"id": number, "name": name, "slug": name.lower(), "count": 1} for number, name in terms]
    ).encode()


def test_products_of_a_tag() -> None:
    page = read(POLO.read_bytes(), f"{PRODUCTS}tag=41&per_page=100&page=1#words=polo")
    first, second = page.posts
    assert (first.site_id, first.title, first.brand) == ("501", "Men’s Polo & Co", "Baon")
    assert first.url == "https://shop.example.com/product/mens-polo/"
    assert (first.price, first.currency, first.hashtags) == (18.5, "EUR", ("Polo",))
    assert first.attributes == ("Polos & Tees", "Navy")
    jetpack = "https://i0.wp.com/shop.example.com/wp-content/uploads/2026/08/polo.jpg"
    original = "https://shop.example.com/wp-content/uploads/2026/08/polo.jpg"
    assert first.photos == (Photo(original, (f"{jetpack}?fit=800%2C800&ssl=1",), "11"),)
    assert (second.price, second.currency) == (499.0, "INR")
    variations = f"{PRODUCTS}type=variation&parent=501&per_page=100"
    assert (page.next_cursor, page.detail_urls) == (None, (variations,))
    skips = Spider(options={"shop": "shop.example.com", "variations": "skip"})
    assert skips.read(POLO.read_bytes(), SEARCH).detail_urls == ()


@pytest.mark.skipif(not CAPTURES.exists(), reason=f"{CAPTURES} is not there")
def test_captured_pages() -> None:
    body = (CAPTURES / "store_products_2021.capture.json").read_bytes()
    page = read(body, f"{PRODUCTS}category=1376&per_page=100&page=1#words=polo")
    polo = page.posts[1]
    assert (polo.title, polo.price, polo.currency) == ("Polo", 20.0, "USD")
    assert polo.photos[0].url == (
        "https://hichamwootest.wpcomstaging.com/wp-content/uploads/2020/08/polo-2.jpg"
    )
    assert [len(post.photos) for post in page.posts] == [2, 1, 1]
    body = (CAPTURES / "store_products_2026.capture.json").read_bytes()
    page = read(body, f"{PRODUCTS}tag=1707&per_page=100&page=1#words=accessories")
    (post,) = page.posts
    assert post.title == "Boutique’s Medium Size Pearl Necklace"
    assert (post.price, post.currency) == (229.0, "USD")
    assert post.hashtags == ("Accessories", "Accessories: Jewelry", "MED SIZE NECKLACE")
    assert post.attributes == ("Pearl",) and len(page.detail_urls) == 1


def follow(url: str, body: bytes) -> tuple[Page, str]:
    """Return the page of a response and the URL of the next one."""
    page = read(body, url)
    assert page.next_cursor is not None
    return page, ROOT + page.next_cursor


def test_tags_and_categories_are_looked_up_first() -> None:
    spider = Spider(options={"shop": "shop.example.com"})
    # A word that another one contains finds its tags, too.
    assert spider.queries(["polo", "poloshirt"]) == [("polo", "poloshirt")]
    url = spider.lookup_request("polo or poloshirt or поло").url
    assert url.startswith(f"{ROOT}wc/store/v1/products/tags?search=polo&per_page=100&page=1#")
    page, url = follow(url, named_terms((5, "Polo Shirts"), (6, "Apollo"), (7, "Water-Polo")))
    assert page.is_lookup and not page.posts
    assert "/tags?search=%D0%BF%D0%BE%D0%BB%D0%BE&" in url
    _, url = follow(url, named_terms((9, "Поло")))
    assert "/categories?search=polo&" in url
    _, url = follow(url, named_terms((31, "Polos &amp; Tees")))
    _, url = follow(url, b"[]")
    assert url.startswith(f"{PRODUCTS}tag=5%2C7%2C9&per_page=100&page=1#")
    full = json.dumps([{**json.loads(POLO.read_bytes())[1], "id": n} for n in range(1, 101)])
    _, second = follow(url, full.encode())
    assert "tag=5%2C7%2C9&per_page=100&page=2" in second
    # Past the end, the response is an empty list; the categories follow.
    _, url = follow(second, b"[]")
    assert url.startswith(f"{PRODUCTS}category=31&per_page=100&page=1#")
    assert read(POLO.read_bytes(), url).next_cursor is None


def test_names_are_searched_without_a_tag_or_category() -> None:
    _, url = follow(Spider(options={"shop": "x.example"}).lookup_request("polo").url, b"[]")
    _, url = follow(url, named_terms((31, "Apollo")))
    assert url.startswith(f"{PRODUCTS}search=polo&orderby=date&per_page=100&page=1#")
    assert len(read(POLO.read_bytes(), url).posts) == 2
    other = POLO.read_bytes().replace(b"Polo, striped", b"Apollo mug")
    assert read(other, url).skipped == {OTHER_PRODUCTS: 1}
    assert read(b"[]", url) == Page(())


def test_older_shops_have_the_api_under_another_path() -> None:
    url = Spider(options={"shop": "shop.example.com"}).lookup_request("polo").url
    error = b'{"code":"rest_no_route","message":"x","data":{"status":404}}'
    page, url = follow(url, error)
    assert page.is_lookup and url.startswith(f"{ROOT}wc/store/products/tags?search=polo&")
    for body in (b"[]", named_terms((31, "Polo"))):
        _, url = follow(url, body)
    assert url.startswith(f"{ROOT}wc/store/products?category=31&")
    (details,) = read(POLO.read_bytes(), url).detail_urls
    assert details == f"{ROOT}wc/store/products?type=variation&parent=501&per_page=100"
    with pytest.raises(LayoutChanged):
        read(error, url)


@pytest.mark.parametrize(
    ("href", "products"),
    [
        ("https://shop.example.com/wp-json/", PRODUCTS),
        ("/wp-json/", PRODUCTS),
        ("https://shop.example.com/api/", "https://shop.example.com/api/wc/store/v1/products?"),
        (
            "https://shop.example.com/?rest_route=/",
            "https://shop.example.com/?rest_route=/wc/store/v1/products&",
        ),
        (
            "https://shop.example.com/index.php?rest_route=/",
            "https://shop.example.com/index.php?rest_route=/wc/store/v1/products&",
        ),
        (
            "https://cms.example.com/wp-json/",
            "https://cms.example.com/wp-json/wc/store/v1/products?",
        ),
    ],
)
def test_root_of_the_api_is_that_of_the_front_page(href: str, products: str) -> None:
    spider = Spider(options={"shop": "shop.example.com"})
    assert spider.setup_request().url == "https://shop.example.com/"
    spider.set_up(
        f'<link rel="https://api.w.org/" href="{href}" />'.encode(), "https://shop.example.com/"
    )
    url = spider.lookup_request("polo").url
    tags = products.replace("products", "products/tags") + "search=polo&per_page=100&page=1#"
    assert url.startswith(tags)
    for body in (named_terms((5, "Polo")), b"[]"):
        page = read(body, url)
        url = spider.search_request("polo", page.next_cursor).url
    assert url.startswith(f"{products}tag=5&")
    (details,) = read(POLO.read_bytes(), url).detail_urls
    assert details == f"{products}type=variation&parent=501&per_page=100"


def test_variations_add_their_photos() -> None:
    page = read(POLO.read_bytes(), SEARCH)
    variation = {"id": 502, "parent": 501, "images": [{"id": 13, "src": "https://x.example/b.jpg"}]}
    body = json.dumps([variation, {**variation, "parent": 900}]).encode()
    spider = Spider(options={"shop": "shop.example.com"})
    details = spider.select_detail(spider.read(body, page.detail_urls[0]), page, SEARCH)
    first, second = page.with_details([details]).posts
    assert [photo.key for photo in first.photos] == ["11", "13"]
    assert (first.title, len(second.photos)) == ("Men’s Polo & Co", 1)


@pytest.mark.parametrize(
    ("prices", "price"),
    [
        ({"price": "2500", "currency_minor_unit": 3}, 2.5),
        ({"price": "2500", "currency_minor_unit": 0}, 2500.0),
        ({"price": "2500", "currency_minor_unit": 2}, 25.0),
        ({"price": "", "currency_minor_unit": 2}, None),
        ({"price": "2500"}, None),
        (None, None),
        ({"price": "", "price_range": {"min_amount": "100"}, "currency_minor_unit": 2}, 1.0),
    ],
)
def test_prices_are_in_minor_units(prices: object, price: float | None) -> None:
    record = {**json.loads(POLO.read_bytes())[1], "prices": prices}
    (post,) = read(json.dumps([record]).encode(), SEARCH).posts
    assert (post.price, bool(post.currency)) == (price, False)


def test_images_of_jetpack_have_their_original_url() -> None:
    path = "/wp-content/uploads/polo.jpg"
    for host in ("i0", "i1", "i2"):
        url = f"https://{host}.wp.com/shop.example.com{path}?resize=3%2C4&ssl=1"
        assert original_url(url) == f"https://shop.example.com{path}"
    for url in (f"https://x.wp.com/a.com{path}?w=1", "https://i0.wp.com/polo.jpg", f"/x{path}"):
        assert original_url(url) == url


def test_products_behind_a_password_are_skipped() -> None:
    records = json.loads(POLO.read_bytes())
    records[0]["is_password_protected"] = True
    assert read(json.dumps(records).encode(), SEARCH).skipped == {PROTECTED: 1}


@pytest.mark.parametrize(
    ("status", "body", "path", "text"),
    [
        (404, b'{"code":"rest_no_route"}', "/wp-json/wc/store/products", "WooCommerce is off"),
        (401, b'{"code":"rest_forbidden"}', "/wp-json/", "security plugin"),
        (401, b'{"code":"rest_cannot_access"}', "/wp-json/", "rest_cannot_access"),
        (403, b"<html>Forbidden", "/wp-json/", "firewall"),
        (403, b"<script src=//challenges.cloudflare.com>", "/wp-json/", "Cloudflare"),
        (404, b"<!doctype html>", "/wp-json/", "not a WooCommerce shop"),
        (200, b"\n<!doctype html>", "/wp-json/", "not a WooCommerce shop"),
        (
            400,
            b'{"code":"rest_invalid_param","data":{"status":400,"params":{"tag":"bad"}}}',
            "/wp-json/",
            "rest_invalid_param: tag",
        ),
        (429, b"", "/wp-json/", "rate limit"),
    ],
)
def test_refusals_are_named(status: int, body: bytes, path: str, text: str) -> None:
    spider = Spider(options={"shop": "example.com"})
    response = Response(f"https://example.com{path}", status, body=body)
    assert not spider.is_readable(response)
    assert text in (spider.explain_refusal(response) or "")


def shop_bodies() -> dict[str, bytes]:
    """Return a shop with one variable product, whose tag is Polo."""
    api, ends = "/shop/wp-json/wc/store/v1/products", "per_page=100&page=1"
    product, other = json.loads(POLO.read_bytes())
    words = ["polo", "%D0%BF%D0%BE%D0%BB%D0%BE"]
    variation = {"id": 502, "parent": 501, "images": [{"src": "https://example.com/b.jpg"}]}
    product["images"] = [{"id": 3, "src": "https://i0.wp.com/example.com/a.jpg?fit=800"}]
    return {
        "/": b'<html><link rel="https://api.w.org/" href="https://example.com/shop/wp-json/">',
        **{f"{api}/categories?search={word}&{ends}": b"[]" for word in words},
        **{f"{api}/tags?search={word}&{ends}": b"[]" for word in words},
        f"{api}/tags?search=polo&{ends}": named_terms((41, "Polo")),
        f"{api}?tag=41&{ends}": json.dumps([product, {**other, "images": []}]).encode(),
        f"{api}?type=variation&parent=501&per_page=100": json.dumps([variation]).encode(),
        "/a.jpg": photo_bytes(1, (200, 260)),
        "/b.jpg": photo_bytes(2, (200, 260)),
    }


def run(site: PhotoSite, folder: Path, *options: str) -> tuple[int, str]:
    address = ("--set", "shop=example.com", "--site-url", site.url, "--image-url", site.url)
    return crawl(site, folder, "--tags", "polo", *options, site="woocommerce", address=address)


def test_crawl_with_lookups_and_variations(tmp_path: Path) -> None:
    with serving(shop_bodies()) as site:
        # Lookups are no pages of the search.
        status, output = run(site, tmp_path, "--max-pages", "1")
        assert status == 0, output
    stored = rows(tmp_path, "SELECT url, state FROM sightings ORDER BY url")
    assert stored == [
        ("https://example.com/a.jpg", "stored"),
        ("https://example.com/b.jpg", "stored"),
    ]
    assert rows(tmp_path, "SELECT site, pages FROM searches JOIN posts USING (site)") == [
        ("woocommerce:example.com", 1)
    ]


def test_check_shows_the_first_products(tmp_path: Path) -> None:
    with serving(shop_bodies()) as site:
        status, output = run(site, tmp_path, "--check", "--live")
    assert status == 0 and "2 photos in 1 post" in output, output
