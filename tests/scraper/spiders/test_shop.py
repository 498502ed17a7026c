"""Tests of the spider of shops with a sitemap: descriptions, defects, hostile pages, a crawl."""

import contextlib
import gzip
import json
import time
from pathlib import Path

import pytest
from scrapy.http import Response

import fashion_tagger
from scraper.errors import LayoutChanged, SiteRefused
from scraper.spiders.base import Credit, Post
from scraper.spiders.shop import (
    MISSING_SITEMAPS,
    NOINDEX,
    OTHER_HOSTS,
    Spider,
    parse_json_ld,
    read,
)
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import crawl
from tests.support.photo_site import PhotoSite, serving

POLO = Path(__file__).parents[2] / "recorded" / "shop" / "polo.html"
CAPTURES = Path(fashion_tagger.__file__).parent.parent / "shared/sites/jsonld"
SHOP = "https://shop.example.com"
PAGE = f"{SHOP}/products/pique-polo"
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason=f"{CAPTURES} is not there")


def captured(name: str, url: str) -> Post:
    (post,) = read((CAPTURES / f"{name}.capture.html").read_bytes(), url).posts
    return post


def page_with(*blocks: object, head: str = "") -> bytes:
    scripts = "".join(
        f'<script type="application/ld+json">{b if isinstance(b, str) else json.dumps(b)}</script>'
        for b in blocks
    )
    return f"<html><head>{head}{scripts}</head></html>".encode()


def product(**more: object) -> dict[str, object]:
    return {"@type": "Product", "name": "Polo", "image": "/i/1.jpg", **more}


def test_json_ld_microdata_and_open_graph_are_one_product() -> None:
    (post,) = read(POLO.read_bytes(), f"{PAGE}?variant=3").posts
    assert (post.site_id, post.url) == ("/products/pique-polo", PAGE)
    assert (post.title, post.brand) == ("Piqué Polo & Co", "Baon")
    assert (post.price, post.currency) == (24.5, "EUR")
    assert post.attributes == ("Clothing", "Polo Shirts", "Navy", "Men")
    assert post.hashtags == ("summer", "cotton")
    first, second = post.photos
    assert (first.url, first.credit) == (f"{SHOP}/i/polo-1.jpg?w=900&h=900", Credit())
    assert second.url == f"{SHOP}/i/polo-2.jpg"
    terms = "https://creativecommons.org/licenses/by/4.0/"
    assert second.credit == Credit("by", terms, "User One", "Photo: User One", PAGE)


@needs_captures
def test_captured_json_ld() -> None:
    url = "https://advancedcastle.com/products/6-pack-battery-powered-smoke-detectors"
    post = captured("three_blocks_2026", url)
    assert (post.title, post.price, post.currency) == ("بكج 6 كواشف دخان ببطارية", 160.0, "SAR")
    assert len(post.photos) == 2 and post.attributes == ("كاشف دخان",)
    post = captured("graph_image_string_2026", "https://alsweed.sa/x/p698258674")
    assert (post.title, post.price, len(post.photos)) == ("دينمو ماء إيطالي", 129.0, 1)


@needs_captures
def test_captured_microdata_and_open_graph() -> None:
    post = captured("microdata_aggregate_offer", "https://www.monsterpetsupplies.co.uk/x")
    assert post.title == "Johnsons 4 Fleas Cats & Kittens Tablets"
    assert (post.price, post.currency, post.brand) == (5.29, "GBP", "Johnsons")
    # Not the picture that the site shares for all pages.
    assert "cat_kitten_flea_tabs" in post.photos[0].url
    post = captured("opengraph_product", "https://www.fye.com/x.html")
    assert (post.price, post.currency, len(post.photos)) == (17.99, "USD", 1)


@needs_captures
def test_captured_sitemaps() -> None:
    url = "https://advancedcastle.com/sitemap.xml#words=polo&then="
    page = read((CAPTURES / "sitemap_index_2026.capture.xml").read_bytes(), url)
    assert page.is_lookup and page.next_cursor is not None
    assert page.next_cursor.startswith("https://advancedcastle.com/sitemap_products.xml#words=polo")
    # As served: not well-formed.
    page = read((CAPTURES / "sitemap_products_2026.capture.xml").read_bytes(), page.next_cursor)
    assert len(page.detail_urls) == 10 and page.next_cursor is None


@pytest.mark.parametrize(
    "block",
    [
        {"@graph": [{"@type": "Organization", "name": "X"}, product()]},
        [product()],
        {"@type": "WebPage", "mainEntity": product()},
        {"@type": ["Thing", "http://schema.org/Product"], "name": "Polo", "image": ["/i/1.jpg"]},
        product(image={"@type": "ImageObject", "url": f"{SHOP}/i/1.jpg"}),
        product(image=[{"@type": "ImageObject", "contentUrl": "//shop.example.com/i/1.jpg"}]),
        {"@graph": [{"@id": "#i", "url": "/i/1.jpg"}, product(image={"@id": "#i"})]},
        {
            "@type": "ProductGroup",
            "name": "Polo",
            "hasVariant": [
                product(offers={"@type": "Offer", "price": 9}),
                product(name="Polo, red", offers={"@type": "Offer", "price": 7, "url": PAGE}),
            ],
        },
    ],
    ids=["graph", "list", "main entity", "types", "image object", "list of them", "id", "group"],
)
def test_shapes_of_json_ld(block: object) -> None:
    (post,) = read(page_with(block), PAGE).posts
    assert (post.title, [p.url for p in post.photos]) == ("Polo", [f"{SHOP}/i/1.jpg"])


@pytest.mark.parametrize(
    ("offers", "price"),
    [
        ({"price": "160.00"}, 160.0),
        ({"price": 129}, 129.0),
        ({"price": "1.299,50 €"}, 1299.5),
        ([{"price": "30"}, {"price": "20"}], 20.0),
        ({"lowPrice": "5.29", "highPrice": "9.56"}, 5.29),
        ({"priceSpecification": {"price": "12.5"}}, 12.5),
        ({"priceSpecification": [{"price": 12}, {"price": 15}]}, 12.0),
        ({"offers": [{"price": 4}]}, 4.0),
        ("free", None),
        (None, None),
    ],
)
def test_shapes_of_offers(offers: object, price: float | None) -> None:
    (post,) = read(page_with(product(offers=offers)), PAGE).posts
    assert post.price == price


def test_related_products_are_not_the_product_of_the_page() -> None:
    other = product(name="Skirt", url="/products/skirt", image="/i/skirt.jpg", sku="SKIRT-1")
    own = product(url=PAGE)
    for blocks in (
        (other, own),
        ({"@graph": [other, own]},),
        (other, product(sku="pique-polo")),
        (other, {"@type": "ItemPage", "mainEntity": product()}),
        ({"@type": "ItemList", "itemListElement": [{"item": other}]}, product()),
        (product(isRelatedTo=[other]),),
    ):
        (post,) = read(page_with(*blocks), PAGE).posts
        assert post.title == "Polo", blocks
    listed = {"@type": "ItemList", "itemListElement": [{"item": other}, {"item": other}]}
    with pytest.raises(LayoutChanged):
        read(page_with(listed), f"{SHOP}/collections/all")


@pytest.mark.parametrize(
    "text",
    [
        '// <![CDATA[\n{"a": "b, c"}\n// ]]>',
        '/* <![CDATA[ */{"a": "b, c"}/* ]]> */',
        '<!-- {"a": "b, c"} -->',
        '{"a": "b, c"};',
        '{"a": "b, c",}',
        '{"a": "b, c"}{"other": 1}',
        ' \n\ufeff{"a": "b, c"}',
    ],
)
def test_defects_of_json_ld_are_repaired(text: str) -> None:
    assert parse_json_ld(text) == [{"a": "b, c"}]


def test_strings_with_defects_are_repaired() -> None:
    assert parse_json_ld('{"a": "line\nbreak\ttab"}') == [{"a": "line\nbreak\ttab"}]
    assert parse_json_ld('{"a": "the "best" polo", "b": 1}') == [{"a": 'the "best" polo', "b": 1}]
    assert parse_json_ld('{"a": "size 5", b", "c": ["x"],}') == [{"a": 'size 5", b', "c": ["x"]}]
    for text in ("", "not JSON", '{"a": ', "[" * 5000):
        assert parse_json_ld(text) == []
    # A block that can't be repaired hides no other one.
    (post,) = read(page_with('{"a": ', product()), PAGE).posts
    assert post.title == "Polo"


def test_pages_without_a_product_or_against_robots() -> None:
    for body in (b"<html><p>About us", page_with({"@type": "Article", "name": "x"})):
        with pytest.raises(LayoutChanged, match="no product"):
            read(body, PAGE)
    with pytest.raises(LayoutChanged, match="without a photo"):
        read(page_with(product(image=None)), PAGE)
    for content in ("noindex", "noimageindex, follow", "none"):
        head = f'<meta name="Robots" content="{content}">'
        assert read(page_with(product(), head=head), PAGE).skipped == {NOINDEX: 1}
    with pytest.raises(SiteRefused, match="Cloudflare"):
        read(b"<html><title>Just a moment...</title>", PAGE)


def test_sitemaps_are_found_and_followed() -> None:
    spider = Spider(options={"shop": "shop.example.com", "path": "/p/"})
    url = spider.lookup_request("polo or поло").url
    assert url.startswith(f"{SHOP}/robots.txt#words=")
    robots = b"User-agent: *\nSITEMAP: https://cdn.example/blog.xml\nSitemap: /products-1.xml.gz\n"
    page = read(robots, url)
    assert page.is_lookup and page.next_cursor is not None
    assert page.next_cursor.startswith(f"{SHOP}/products-1.xml.gz#")
    locations = "".join(
        f"<url><loc><![CDATA[{SHOP}/p/{n}?a=1&amp;b=2]]></loc><image:image><image:loc>"
        f"{SHOP}/p/{n}.jpg</image:loc></image:image></url>"
        for n in range(150)
    )
    others = f"<url><loc>{SHOP}/about</loc></url><url><loc>https://other.example/p/1</loc></url>"
    sitemap = gzip.compress(f"<urlset>{locations}{others}</urlset>".encode())
    page = read(sitemap, page.next_cursor)
    assert len(page.detail_urls) == 100 and page.detail_urls[0] == f"{SHOP}/p/0?a=1&b=2"
    assert page.next_cursor is not None
    page = read(sitemap, page.next_cursor)
    assert (len(page.detail_urls), page.next_cursor) == (50, None)


def test_missing_sitemaps_are_guessed_and_named() -> None:
    url = Spider(options={"shop": "shop.example.com"}).lookup_request("polo").url
    first = read(b"", url).next_cursor
    assert first is not None and first.startswith(f"{SHOP}/sitemap.xml#")
    assert Spider().is_readable(Response(first, 404))
    second = read(b"<html>404</html>", first).next_cursor
    assert second is not None and second.startswith(f"{SHOP}/sitemap_index.xml#")
    with pytest.raises(SiteRefused, match="--set sitemap="):
        read(b"", second)
    named = Spider(options={"shop": "shop.example.com", "sitemap": "/a.xml"})
    cursor = read(b"", named.lookup_request("polo").url).next_cursor
    assert cursor is not None and cursor.startswith(f"{SHOP}/a.xml#")
    assert read(b"<html>404</html>", cursor).skipped == {MISSING_SITEMAPS: 1}


def test_refusals_are_named() -> None:
    spider = Spider(options={"shop": "shop.example.com"})
    for status, body, text in (
        (403, b"", "respect this, or ask its owner"),
        (403, b"<script src=//x.perimeterx.net>", "PerimeterX"),
        (503, b"<title>Just a moment...", "Cloudflare"),
        (429, b"", "rate limit"),
    ):
        response = Response(PAGE, status, body=body)
        assert not spider.is_readable(response)
        assert text in (spider.explain_refusal(response) or "")
    hidden = Response(PAGE, 200, {"X-Robots-Tag": "noindex"}, b"<html>")
    assert not spider.is_readable(hidden) and "X-Robots-Tag" in str(spider.explain_refusal(hidden))


def test_sitemaps_that_name_each_other_end() -> None:
    index = "<sitemapindex><loc>https://shop.example/{}</loc><loc>https://shop.example/c</loc>"
    cursor: str | None = "https://shop.example/a#words=polo&then="
    seen = set()
    while cursor is not None and cursor not in seen:
        seen.add(cursor)
        assert len(seen) < 150
        try:
            cursor = read(
                index.format("b" if "/a#" in cursor else "a").encode(), cursor
            ).next_cursor
        except LayoutChanged as error:
            assert "do not end" in error.message
            break


def test_pages_of_another_host_are_counted() -> None:
    body = b"<urlset><loc>https://other.example/p/1</loc><loc>https://other.example/p/2</loc>"
    page = read(body, "https://shop.example/s.xml#words=polo&then=")
    assert (page.detail_urls, page.skipped) == ((), {OTHER_HOSTS: 2})


SCRIPT = b'<script type="application/ld+json">'
HOSTILE = {
    "elements": b"<div>" * 33_000,
    "too many elements": b"<" * 9_000_000,
    "properties": b"<p itemscope itemtype=http://schema.org/Product>"
    + b"<i itemprop=name>x" * 30_000,
    "deep JSON": SCRIPT + b'{"a":[' * 1_600_000,
    "quotes": SCRIPT + b'{"@type":"Product","name":"' + b'a"b, ' * 1_900_000 + b'"}',
    "blanks": SCRIPT + b"[," + b" " * 9_900_000,
    "commas": SCRIPT + b"[" + b", " * 4_900_000,
    "comments": SCRIPT + b"/*" * 4_900_000,
    "backslashes": SCRIPT + b'{"a":"' + b"\\" * 9_900_000,
    "blocks": (SCRIPT + b'{"@type":"Product"}</script>') * 15_000,
    "offers": SCRIPT + b'{"@type":"Product","offers":[' + b'{"price":"1"},' * 140_000 + b"{}]}",
    "metas": b'<meta property="og:image" content="/a">' * 33_000,
    "sitemap": b"<urlset>" + b"<loc>" * 1_990_000,
    "names of a property": b"<p itemscope itemtype=http://schema.org/Product><i itemprop='"
    + b"name " * 1_900_000,
    "price": b"<p itemscope itemtype=http://schema.org/Product><i itemprop=price>"
    + b"1" * 9_800_000,
    "open locations": b"<urlset>" + b"<loc " * 1_900_000,
    "too large": b"x" * 10_000_001,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_less_than_a_minute(name: str) -> None:
    # A quadratic algorithm would take hours; these pages take seconds.
    start = time.process_time()
    with contextlib.suppress(LayoutChanged):
        read(HOSTILE[name], PAGE)
    assert time.process_time() - start < 60


def shop_bodies(count: int) -> dict[str, bytes]:
    """Return a shop whose products are polos and skirts in turn."""
    names = [f"{'Polo' if n % 2 else 'Skirt'} {n}" for n in range(count)]
    locations = "".join(
        f"<url><loc>https://www.shop.example/p/{n}</loc></url>" for n in range(count)
    )
    pages = {
        f"/p/{n}": page_with(product(name=name, image=f"https://cdn.example/{n}.jpg"))
        for n, name in enumerate(names)
    }
    return {
        "/robots.txt": b"User-agent: *\nDisallow: /p/3\nSitemap: https://shop.example/s.xml\n",
        "/s.xml": b"<sitemapindex><sitemap><loc>https://shop.example/p.xml</loc></sitemap>"
        b"</sitemapindex>",
        "/p.xml": f"<urlset>{locations}<url><loc>https://shop.example/gone</loc></url></urlset>".encode(),
        **pages,
        **{f"/{n}.jpg": photo_bytes(n, (200, 260)) for n in range(count)},
    }


def run(site: PhotoSite, folder: Path, *options: str) -> tuple[int, str]:
    address = ("--set", "shop=shop.example", "--site-url", site.url, "--image-url", site.url)
    return crawl(site, folder, *options, site="shop", address=address)


def test_crawl_requests_each_page_once_for_all_tags(tmp_path: Path) -> None:
    with serving(shop_bodies(6)) as site:
        status, output = run(site, tmp_path, "--tags", "polo,skirt")
    assert status == 0, output
    # robots.txt forbids product 3.
    assert rows(tmp_path, "SELECT title FROM posts ORDER BY title") == [
        (f"{name}",) for name in ("Polo 1", "Polo 5", "Skirt 0", "Skirt 2", "Skirt 4")
    ]
    assert rows(tmp_path, "SELECT DISTINCT state FROM sightings") == [("stored",)]
    assert {site.requests[f"/p/{n}"] for n in range(6)} == {0, 1}
    # robots.txt is also read for its rules.
    assert [site.requests[path] for path in ("/s.xml", "/p.xml", "/robots.txt")] == [1, 1, 2]
    assert "pages that can't be read" in output, output


def test_crawl_of_a_shop_that_refuses_all_pages_fails(tmp_path: Path) -> None:
    with serving(shop_bodies(3)) as site:
        site.statuses = {f"/p/{n}": 403 for n in range(3)} | {"/gone": 403}
        status, output = run(site, tmp_path, "--tags", "polo")
    assert status == 1 and "respect this, or ask its owner" in output, output
