"""Tests of the sample shop over HTTP on loopback."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from dataset.errors import BadInput, Failure
from scraper.sample_shop.server import SampleShop, ShopOptions, open_shop, run, serve
from tests.support.shop_photos import class_folders


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[SampleShop]:
    options = ShopOptions(photos=class_folders(tmp_path), duplicates=0.0, double_tagged=0.0)
    with serve(options) as running:
        yield running


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size


def first_path(shop: SampleShop) -> str:
    return shop.stock.search("polo")[0].photos[0].path


def test_one_connection_serves_pages_and_photos(shop: SampleShop) -> None:
    with httpx.Client(base_url=shop.url) as client:
        search = client.get("/catalogsearch/result/", params={"q": "поло"})
        assert search.status_code == 200
        assert search.http_version == "HTTP/1.1"
        assert search.headers["content-type"] == "text/html; charset=utf-8"
        assert "3 товара" in search.text
        sku = shop.stock.search("polo")[0].sku
        assert client.get(f"/p/{sku.lower()}/any/").status_code == 200
        assert client.get("/robots.txt").text.startswith("User-agent: *\nDisallow: /checkout/")
        assert client.get("/img600x866/M/P/none.jpg").status_code == 404
        missing = client.get("/nothing")
        assert missing.status_code == 404
        client_addresses = [
            r.extensions["network_stream"].get_extra_info("client_addr") for r in (search, missing)
        ]
        assert client_addresses[0] == client_addresses[1]


def test_photos_are_served_in_the_sizes_of_the_site(shop: SampleShop) -> None:
    path = first_path(shop)
    sizes = {
        folder: size_of(httpx.get(f"{shop.url}/{folder}{path}").content)
        for folder in ("img46x66", "img236x341", "img600x866", "product")
    }
    # 700 x 1000 pixels fitted into each box: the width is the limit.
    assert sizes["product"] == (700, 1000)
    assert sizes["img600x866"] == (600, 857)
    assert sizes["img236x341"] == (236, 337)
    assert sizes["img46x66"] == (46, 66)


def test_originals_and_photos_that_fit_are_served_unchanged(tmp_path: Path) -> None:
    source = class_folders(tmp_path)
    small = source / "polo" / "0.jpg"
    Image.new("RGB", (60, 80), "red").save(small)
    with serve(ShopOptions(photos=source, duplicates=0.0)) as shop:
        photo = next(p for p in shop.stock.by_path.values() if p.origin == small)
        for folder in ("product", "img600x866", "img236x341"):
            response = httpx.get(f"{shop.url}/{folder}{photo.path}")
            assert response.content == small.read_bytes()
            assert response.headers["content-type"] == "image/jpeg"
        assert size_of(httpx.get(f"{shop.url}/img46x66{photo.path}").content) == (46, 61)


def test_png_original_is_unchanged_and_its_sizes_are_jpeg(tmp_path: Path) -> None:
    (tmp_path / "hat").mkdir()
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(tmp_path / "hat" / "a.PNG")
    with serve(ShopOptions(photos=tmp_path)) as shop:
        path = shop.stock.items[0].photos[0].path
        original = httpx.get(f"{shop.url}/product{path}")
        assert original.headers["content-type"] == "image/png"
        sized = httpx.get(f"{shop.url}/img236x341{path}")
        assert sized.headers["content-type"] == "image/jpeg"
        assert sized.content[:2] == b"\xff\xd8"
        assert size_of(sized.content) == (30, 30)


def test_duplicates_are_exact_reencoded_and_resized(tmp_path: Path) -> None:
    with serve(ShopOptions(photos=class_folders(tmp_path), duplicates=1.0)) as shop:
        served = {}
        for item in shop.stock.items:
            photo = item.photos[0]
            assert isinstance(photo.origin, Path)
            data = httpx.get(f"{shop.url}/product{photo.path}").content
            served[photo.change] = (data == photo.origin.read_bytes(), size_of(data))
    assert served[None] == served["exact"] == (True, (700, 1000))
    assert served["re-encoded"] == (False, (700, 1000))
    assert served["resized"] == (False, (490, 700))


def test_head_returns_the_length_without_body(shop: SampleShop) -> None:
    with httpx.Client(base_url=shop.url) as client:
        path = f"/product{first_path(shop)}"
        head, get = client.head(path), client.get(path)
    assert head.content == b""
    assert int(head.headers["content-length"]) == len(get.content)
    assert shop.requests[path] == 2


def test_every_request_is_counted_with_its_query(shop: SampleShop) -> None:
    for _ in range(3):
        httpx.get(f"{shop.url}/catalogsearch/result/?q=polo&page=2")
    assert shop.requests == {"/catalogsearch/result/?q=polo&page=2": 3}


def test_concurrent_requests_share_a_drawn_photo() -> None:
    with serve(ShopOptions(per_label=1, duplicates=0.0)) as shop:
        path = shop.stock.items[0].photos[0].path
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(httpx.get, f"{shop.url}/img600x866{path}") for _ in range(4)]
            bodies = {future.result().content for future in futures}
    assert len(bodies) == 1
    assert size_of(bodies.pop()) == (600, 866)


def test_deleted_photo_is_a_server_error(shop: SampleShop) -> None:
    photo = shop.stock.by_path[first_path(shop)]
    assert isinstance(photo.origin, Path)
    photo.origin.unlink()
    assert httpx.get(f"{shop.url}/product{photo.path}").status_code == 500


def test_port_is_released_on_exit(tmp_path: Path) -> None:
    source = class_folders(tmp_path)
    with serve(ShopOptions(photos=source)) as shop:
        port = int(shop.url.rpartition(":")[2])
    with serve(ShopOptions(photos=source, port=port)) as again:
        assert httpx.get(f"{again.url}/robots.txt").status_code == 200


def test_port_in_use_is_reported(shop: SampleShop) -> None:
    port = int(shop.url.rpartition(":")[2])
    with pytest.raises(Failure, match=rf"127\.0\.0\.1:{port}.*name another --port"):
        open_shop(ShopOptions(per_label=1, port=port))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ShopOptions(site="ozon"), "--site ozon: choose from .*lamoda"),
        (ShopOptions(generation="future"), "--generation future: lamoda has state"),
        (ShopOptions(photos=Path("absent")), "absent is not a folder"),
        (ShopOptions(photos=Path("a"), key_points=Path("b.json")), "omit --photos"),
    ],
)
def test_invalid_options_are_rejected(options: ShopOptions, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(options)


PROGRAM = """
import sys
from pathlib import Path
from scraper.sample_shop.server import ShopOptions, run
run(ShopOptions(per_label=1, key_points=Path("people.json"), url_file=Path("shop.url")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no Ctrl-C signal to another process")
def test_run_prints_its_url_and_exits_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    shop = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        text=True,
        # Background jobs of a shell, and their child processes, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    try:
        url = _wait_for(tmp_path / "shop.url")
        assert httpx.get(f"{url}/catalogsearch/result/?q=coat").status_code == 200
        shop.send_signal(signal.SIGINT)
        output, _ = shop.communicate(timeout=60)
    finally:
        shop.kill()
        shop.wait()
    assert shop.returncode == 0
    assert f"crawl lamoda --tags coat --site-url {url} --image-url {url}" in output
    annotations = json.loads((tmp_path / "people.json").read_text())
    # One product per label for six labels, with two poses each.
    assert len(annotations["images"]) == 12
    assert {image["file_name"] for image in annotations["images"]} == {
        path.name for path in (tmp_path / "people").iterdir()
    }


def _wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.exists():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")
