"""Tests of whole crawls of the sample shop over HTTP on loopback."""

import contextlib
import io
import json
import sqlite3
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import imagehash
import pytest
from PIL import Image
from sqlalchemy.orm import Session

from dataset.catalogue.models import Search
from dataset.images.io import sha256_of
from scraper.items import Page
from scraper.persistence import frontier
from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from scraper.spiders import lamoda
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl, run, start

RECORDED = Path(__file__).parents[1] / "recorded" / "lamoda"
POLOS, DRESSES = 70, 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for label, count, first in (("polo", POLOS, 0), ("dress", DRESSES, 500)):
        class_folder(folder, label, count, first, (300, 400))
    return folder


@pytest.fixture
def shop(photos: Path) -> Iterator[SampleShop]:
    with serve(ShopOptions(photos=photos, duplicates=0.1, double_tagged=0)) as shop:
        yield shop


def test_crawl_stores_each_image_once_with_unchanged_bytes(
    shop: SampleShop, photos: Path, tmp_path: Path
) -> None:
    status, output = crawl(shop, tmp_path, "--tags", "polo")
    assert status == 0, output
    originals = {sha256_of(path.read_bytes()) for path in (photos / "polo").iterdir()}
    stored = dict(rows(tmp_path, "SELECT sha256, store_key FROM images"))
    assert originals <= set(stored)
    for sha, key in stored.items():
        assert sha256_of((tmp_path / "images" / key).read_bytes()) == sha
    # The 7 additional products are near duplicates or identical files.
    assert rows(tmp_path, "SELECT count(*) FROM posts") == [(POLOS + 7,)]
    assert rows(tmp_path, "SELECT count(DISTINCT cluster_id) FROM images") == [(POLOS,)]
    assert rows(tmp_path, "SELECT DISTINCT state FROM searches") == [("finished",)]
    for target, times in shop.requests.items():
        assert times == 1, target


def test_catalogue_matches_the_shop(shop: SampleShop, tmp_path: Path) -> None:
    crawl(shop, tmp_path, "--tags", "dress", "--max-images", "3")
    posts = rows(tmp_path, "SELECT site_id, title, brand, price, currency, url FROM posts")
    products = shop.stock.by_sku
    assert len(posts) >= DRESSES
    for sku, title, brand, price, currency, url in posts:
        assert (title, brand, price) == (
            products[sku].name,
            products[sku].brand,
            products[sku].price,
        )
        assert (currency, url) == ("RUB", f"{shop.url}/p/{sku.lower()}/")
    image = rows(tmp_path, "SELECT store_key, phash, width, height, format, bytes FROM images")[0]
    data = (tmp_path / "images" / image[0]).read_bytes()
    with Image.open(io.BytesIO(data)) as photo:
        expected = (str(imagehash.phash(photo)), *photo.size, "JPEG", len(data))
    assert image[1:] == expected


def test_max_images_counts_earlier_runs(shop: SampleShop, tmp_path: Path) -> None:
    for limit, expected in (("5", 5), ("5", 5), ("9", 9)):
        status, output = crawl(shop, tmp_path, "--tags", "polo", "--max-images", limit)
        assert status == 0
        assert "limit" in output
        assert rows(tmp_path, "SELECT count(*) FROM images") == [(expected,)]


def test_search_without_results_is_finished(shop: SampleShop, tmp_path: Path) -> None:
    status, output = crawl(shop, tmp_path, "--tags", "кимоно")
    assert status == 0
    assert "finished" in output
    assert rows(tmp_path, "SELECT hashtag, state, total FROM searches") == [
        ("кимоно", "finished", 0)
    ]


@contextlib.contextmanager
def site(
    responses: dict[str, tuple[int, dict[str, str], bytes]],
) -> Iterator[tuple[str, list[str]]]:
    """Serve responses by path, and 404 otherwise; yield the URL and the requested paths."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            status, headers, body = responses.get(urlsplit(self.path).path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
        server.shutdown()


def test_changed_layout_fails_and_the_next_run_retries(tmp_path: Path) -> None:
    page = b"<html><body><article>A new design</article></body></html>"
    with site({"/catalogsearch/result/": (200, {}, page)}) as (url, requests):
        for times in (1, 2):
            done = run(tmp_path, "crawl", "lamoda", "--tags", "кимоно", "--site-url", url)
            assert done.returncode == 1
            assert "layout changed" in done.stdout
            assert "layout changed" in done.stderr
            assert sum("/catalogsearch/" in path for path in requests) == times
    connection = sqlite3.connect(tmp_path / "catalogue.sqlite")
    assert connection.execute("SELECT state FROM searches").fetchall() == [("failed",)]
    connection.close()


def test_robots_txt_is_obeyed(tmp_path: Path) -> None:
    robots = b"User-agent: *\nDisallow: /catalogsearch/\n"
    with site({"/robots.txt": (200, {}, robots)}) as (url, requests):
        done = run(tmp_path, "crawl", "lamoda", "--tags", "кимоно", "--site-url", url)
    assert requests == ["/robots.txt"]
    assert done.returncode == 1
    assert "robots.txt forbids it" in done.stderr


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [(500, b"", "HTTP 500"), (200, b"User-agent: *\nAllow: /\n" + b"#" * 600_000, "too large")],
)
def test_robots_txt_that_cannot_be_read_forbids(
    tmp_path: Path, status: int, body: bytes, problem: str
) -> None:
    with site({"/robots.txt": (status, {}, body)}) as (url, requests):
        done = run(tmp_path, "crawl", "lamoda", "--tags", "кимоно", "--site-url", url)
    assert set(requests) == {"/robots.txt"}
    assert done.returncode == 1
    assert f"robots.txt can't be read ({problem}), which forbids all" in done.stderr


def test_missing_robots_txt_allows(tmp_path: Path) -> None:
    page = (RECORDED / "nothing.html").read_bytes()
    with site({"/catalogsearch/result/": (200, {}, page)}) as (url, requests):
        done = run(tmp_path, "crawl", "lamoda", "--tags", "кимоно", "--site-url", url)
    assert (done.returncode, requests[0]) == (0, "/robots.txt"), done.stderr


def test_noai_images_are_rejected_and_counted(tmp_path: Path) -> None:
    page = (RECORDED / "older.html").read_bytes()
    photo = "/img600x866/F/E/FE913CMCLMM1_7110810_1_v1.jpg"
    responses = {
        "/catalogsearch/result/": (200, {}, page),
        photo: (200, {"X-Robots-Tag": "noai"}, photo_bytes(1)),
        photo.replace("7110810_1", "7110811_2"): (200, {}, photo_bytes(2)),
    }
    with site(responses) as (url, _):
        done = run(
            tmp_path, "crawl", "lamoda", "--tags", "кимоно", "--site-url", url, "--image-url", url
        )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "images").glob("*/*/*"))) == 1
    stats = json.loads(run(tmp_path, "catalogue", "stats", "--json").stdout)
    assert stats["rejected"] == [{"site": "lamoda", "reason": "noai", "photos": 1}]


def test_geo_blocking_is_explained(tmp_path: Path) -> None:
    body = (RECORDED / "blocked.json").read_bytes()
    with site({"/catalogsearch/result/": (403, {}, body)}) as (url, _):
        done = run(tmp_path, "crawl", "lamoda", "--tags", "кимоно", "--site-url", url)
    assert done.returncode == 1
    assert "blocks this network address" in done.stderr
    assert "Traceback" not in done.stderr


def test_unreachable_site_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "crawl", "lamoda", "--tags", "polo", "--site-url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in done.stderr
    assert "no connection" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["crawl", "lamada", "--tags", "polo"], "there are: "),
        (["crawl", "lamoda", "--tags", " , "], "--tags is missing"),
        (["crawl", "lamoda"], "--tags"),
        (["crawl", "lamoda", "--tags", "polo", "--site-url", "ftp://x"], "ftp://x"),
        (["crawl", "lamoda", "--tags", "polo", "--max-images", "0"], "--max-images"),
        (["crawl", "lamoda", "--tags", "polo", "--vocabulary", "none.toml"], "none.toml"),
    ],
)
def test_usage_error_names_the_input(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def _break_reading(*_: object) -> object:
    raise ZeroDivisionError("a defect")


def _break_lamoda() -> None:
    lamoda.Spider.read = _break_reading  # type: ignore[method-assign,assignment]


def _break_saving() -> None:
    save = frontier.save_page

    def save_page(session: Session, search: Search, page: Page, **options: bool) -> None:
        if search.hashtag == "polo":
            raise OverflowError("a value that no column takes")
        save(session, search, page, **options)

    frontier.save_page = save_page  # type: ignore[assignment]


def test_defect_in_a_page_ends_its_search_and_not_other_sites(
    shop: SampleShop, photos: Path, tmp_path: Path
) -> None:
    with serve(ShopOptions(photos=photos, site="wildberries")) as other:
        shops = {"lamoda": shop, "wildberries": other}
        address = [
            f"--{kind}-url={name}={server.url}"
            for kind in ("site", "image")
            for name, server in shops.items()
        ]
        options = ("--tags", "dress", "--max-images", "3", "--json", "result.json")
        process = start(
            shop,
            tmp_path,
            *options,
            site="lamoda,wildberries",
            address=address,
            before=_break_lamoda,
        )
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "ZeroDivisionError: a defect" in err
    assert "Traceback" not in out + err
    searches = json.loads((tmp_path / "result.json").read_text())["searches"]
    ends = {(search["site"], search["ended"]) for search in searches}
    assert ends == {("lamoda", "layout changed"), ("wildberries", "limit")}


def test_page_that_cannot_be_saved_ends_its_search_and_not_others(
    shop: SampleShop, tmp_path: Path
) -> None:
    options = ("--tags", "polo,dress", "--max-images", "3", "--json", "result.json")
    process = start(shop, tmp_path, *options, before=_break_saving)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and "OverflowError: a value that no column takes" in err
    assert "Traceback" not in out + err
    searches = json.loads((tmp_path / "result.json").read_text())["searches"]
    ends = {search["search"]: search["ended"] for search in searches}
    assert ends["polo"] == "error" and ends["dress"] == "limit", ends
