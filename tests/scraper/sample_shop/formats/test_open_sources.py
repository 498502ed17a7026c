"""Contract tests of the formats of open sources: captures, spiders, whole crawls, refusals."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import fashion_tagger
from scraper.sample_shop.formats import (
    commons,
    flickr,
    mastodon,
    openverse,
    shop,
    shopify,
    woocommerce,
)
from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse
from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from scraper.sample_shop.stock import Stock
from scraper.spiders.base import spider_class
from scraper.spiders.shop import parse_json_ld, read
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl
from tests.support.http_responses import http_response
from tests.support.response_shapes import assert_known
from tests.support.shop_stock import shop as stock_of

CAPTURES = Path(fashion_tagger.__file__).parent.parent / "shared/sites"
RECORDED = Path(__file__).parents[3] / "recorded"
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason=f"{CAPTURES} is not there")
FORMATS = {
    "shopify": shopify,
    "woocommerce": woocommerce,
    "shop": shop,
    "commons": commons,
    "openverse": openverse,
    "mastodon": mastodon,
    "flickr": flickr,
}
SECRETS = {
    "FLICKR_KEY": "a-key-of-flickr",
    "OPENVERSE_CLIENT_ID": "a-client-id",
    "OPENVERSE_CLIENT_SECRET": "a-client-secret",
}


@pytest.fixture(scope="module")
def stock() -> Stock:
    return stock_of(45)


def capture(name: str) -> Any:
    return json.loads((CAPTURES / name).read_bytes())


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_bytes())


def respond(
    site: str, stock: Stock, target: str, generation: str | None = None, body: str = ""
) -> SiteResponse:
    site_format, request = FORMATS[site], SiteRequest(target, body=body)
    response = site_format.respond(stock, request, generation or site_format.GENERATIONS[0])
    assert isinstance(response, SiteResponse)
    return response


def answer_json(site: str, stock: Stock, target: str, generation: str | None = None) -> Any:
    return json.loads(respond(site, stock, target, generation).body)


@needs_captures
def test_answers_have_the_shape_of_the_captures(stock: Stock) -> None:
    products = answer_json("shopify", stock, "/products.json?limit=3&page=1")
    assert_known(products, capture("shopify/products_2026.capture.json"))
    api = "/wp-json/wc/store/v1/products"
    captured = [
        record
        for year in (2021, 2026)
        for record in capture(f"woocommerce/store_products_{year}.capture.json")
    ]
    assert_known(answer_json("woocommerce", stock, f"{api}?per_page=3"), captured)
    variations = answer_json("woocommerce", stock, f"{api}?type=variation&parent=50000")
    assert_known(variations, captured)
    results = answer_json("openverse", stock, "/v1/images/?q=%22polo%22")
    item_2026 = capture("openverse/images_item_2026.capture.json")
    captured = capture("openverse/images_search.documented.json")
    captured["results"].append(item_2026)
    assert_known(results, captured)
    details = {error["body"]["detail"] for error in capture("openverse/errors.documented.json")}
    for query in ("page_size=21", "page=13", "page_size=20&page=14"):
        assert answer_json("openverse", stock, f"/v1/images/?{query}")["detail"] in details
    statuses = answer_json("mastodon", stock, "/api/v1/timelines/tag/polo?limit=3")
    assert_known(statuses, capture("mastodon/tag_timeline.capture.json"))
    assert_known(
        answer_json("mastodon", stock, "/api/v2/instance"),
        capture("mastodon/instance_v2.capture.json"),
    )
    assert answer_json("mastodon", stock, "/api/v1/timelines/tag/polo", "members") == capture(
        "mastodon/error_401.capture.json"
    )
    form = "api_key=x&method=flickr.photos.search&tags=polo&license=2,4,9"
    assert_known(
        json.loads(respond("flickr", stock, "/services/rest/", body=form).body),
        capture("flickr/photos_search.capture.json"),
    )
    search = "/w/api.php?action=query&generator=search&gsrlimit=3&gsrsearch=x%20%22polo%22"
    older = answer_json("commons", stock, search, "older")["query"]["pages"]
    # The capture has other properties of images than the spider requests.
    known = [
        *capture("commons/allimages_continue.capture.json")["query"]["pages"].values(),
        *recorded("commons/polo.json")["query"]["pages"],
        {"imageinfo": [{"descriptionshorturl": "", "user": "", "size": 1, "timestamp": ""}]},
    ]
    assert_known(list(older.values()), known)


@needs_captures
def test_sitemaps_and_descriptions_have_the_shape_of_the_captures(stock: Stock) -> None:
    for target, name in (
        ("/sitemap.xml", "sitemap_index_2026.capture.xml"),
        ("/sitemap_products.xml", "sitemap_products_2026.capture.xml"),
    ):
        text = (CAPTURES / "jsonld" / name).read_text()
        start = text.split(">")[1].split()[0].strip()
        assert start in respond("shop", stock, target).body.decode()
    page = (CAPTURES / "jsonld/three_blocks_2026.capture.html").read_text()
    blocks = [text.partition("</script>")[0] for text in page.split('ld+json">')[1:]]
    (captured,), (crumbs,) = (parse_json_ld(block) for block in blocks[:2])
    own = shop.product(stock.items[0])
    assert_known({name: value for name, value in own.items() if name in captured}, captured)
    assert set(own) - set(captured) == {"keywords", "color", "brand"}
    assert_known(shop.breadcrumbs(stock.items[0]), crumbs)


def test_descriptions_of_every_generation_say_the_same(stock: Stock) -> None:
    polo = stock.items[3]
    url = shop.HOST + shop.product_path(polo)
    for generation in ("json-ld", "graph", "broken", "microdata", "opengraph"):
        (post,) = read(shop.product_page(polo, stock, generation).encode(), url).posts
        assert (post.title, post.brand, post.price, post.currency, post.url) == (
            *("Поло", "Берёзка & Ко", 1999.0, "RUB"),
            url,
        )
        assert [photo.url for photo in post.photos] == [
            f"{shop.IMAGES}/photos{photo.path}" for photo in polo.photos
        ], generation
        assert "polo" in (*post.attributes, *post.hashtags)


# A search that has its posts on several pages, by generation.
@pytest.mark.parametrize(
    ("site", "generation"),
    [
        *(("shopify", generation) for generation in ("today", "emptied")),
        *(("woocommerce", generation) for generation in ("today", "older", "jetpack")),
        *(("commons", generation) for generation in ("today", "older", "late")),
        *(("mastodon", generation) for generation in ("today", "old")),
        ("openverse", "today"),
        ("shop", "json-ld"),
        ("flickr", "today"),
    ],
)
def test_spider_reads_all_pages(stock: Stock, site: str, generation: str) -> None:
    spider_type = spider_class(site)
    required = (one.name for one in spider_type.credentials if one.required)
    spider = spider_type(credentials=dict.fromkeys(required, "a-key"))
    posts, cursor = set[str](), None
    query = " or ".join(spider.queries(["polo"])[0])
    for _ in range(30):
        request = spider.first_or_next_request(query, cursor)
        target = request.url.removeprefix(spider.requested_url)
        response = respond(site, stock, target, generation, request.body.decode())
        page = spider.read(response.body, request.url)
        posts |= {post.site_id for post in page.posts} | set(page.detail_urls)
        for photo in (photo for post in page.posts for photo in post.photos):
            path = "/" + photo.url.split("/", 3)[3]
            found = FORMATS[site].respond(stock, SiteRequest(path), generation)
            assert isinstance(found, PhotoRequest) and found.path in stock.by_path
        cursor = page.next_cursor
        if cursor is None:
            break
    expected = {"openverse": 90, "commons": 90, "flickr": 90, "mastodon": 35}.get(site, 45)
    # Products of WooCommerce count twice: with the addresses of their variations.
    assert len(posts) == expected * (1 + (site == "woocommerce"))


@pytest.mark.parametrize(
    ("site", "generation", "target", "text"),
    [
        ("shopify", "closed", "/products.json", "does not let programs"),
        ("shopify", "limited", "/products.json", "rate limit"),
        ("shopify", "headless", "/products.json", "not a Shopify shop"),
        ("woocommerce", "guarded", "/wp-json/wc/store/v1/products", "security plugin"),
        ("woocommerce", "no-api", "/wp-json/wc/store/products", "no Store API"),
        ("woocommerce", "firewall", "/wp-json/wc/store/v1/products", "firewall"),
        ("shop", "challenge", "/products/x", "Cloudflare"),
        ("openverse", "limited", "/v1/images/", "rate limit"),
        ("mastodon", "members", "/api/v1/timelines/tag/polo", "MASTODON_TOKEN"),
        ("mastodon", "limited", "/api/v2/instance", "rate limit"),
    ],
)
def test_refusals_are_those_that_spiders_name(
    stock: Stock, site: str, generation: str, target: str, text: str
) -> None:
    served, spider = respond(site, stock, target, generation), spider_class(site)()
    response = http_response(served.status, served.body, served.headers, spider.site_url + target)
    assert not spider.is_readable(response)
    assert text in (spider.explain_refusal(response) or "")


@pytest.fixture
def shops(tmp_path: Path) -> Iterator[dict[str, SampleShop]]:
    photos = class_folder(tmp_path / "photos", "dress", 4)
    with ExitStack() as stack:
        options = {"photos": photos, "duplicates": 0, "double_tagged": 0}
        yield {
            site: stack.enter_context(serve(ShopOptions(site=site, **options)))  # type: ignore[arg-type]
            for site in FORMATS
        }


@pytest.mark.parametrize(
    "backend", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.usefixtures("backend")
def test_crawl_of_all_open_sources(shops: dict[str, SampleShop], tmp_path: Path) -> None:
    address = [
        f"--{kind}-url={site}={server.url}"
        for kind in ("site", "image")
        for site, server in shops.items()
    ]
    named = sorted({server.options for server in shops.values()})
    options = ("--tags", "dress", *" ".join(named).split())
    sites = ",".join(shops)
    status, output = crawl(
        shops["shop"], tmp_path, *options, site=sites, secrets=SECRETS, address=address
    )
    assert status == 0, output
    # The token of Openverse's key allows pages of 240 results.
    assert shops["openverse"].requests["/v1/auth_tokens/token/"] == 1
    assert any("page_size=240" in target for target in shops["openverse"].requests)
    secrets = (*SECRETS.values(), openverse.TOKEN)
    assert not any(secret in output for secret in secrets)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret.encode() in data for secret in secrets for data in files)
    counts = dict(
        rows(
            tmp_path,
            "SELECT site, count(*) FROM posts JOIN sightings ON sightings.post_id = posts.id"
            " WHERE state = 'stored' GROUP BY site",
        )
    )
    assert {site.partition(":")[0]: count for site, count in counts.items()} == dict.fromkeys(
        FORMATS, 4
    )
    licenses = rows(
        tmp_path,
        "SELECT site, count(license), count(source_page) FROM sightings"
        " JOIN posts ON posts.id = post_id GROUP BY site",
    )
    assert {(site.partition(":")[0], *counts) for site, *counts in licenses} == {
        *((site, 0, 0) for site in ("shopify", "woocommerce", "shop")),
        ("mastodon", 0, 4),
        *((site, 4, 4) for site in ("commons", "openverse", "flickr")),
    }
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(4,)]
