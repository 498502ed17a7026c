"""Tests of site-specific behaviour in whole crawls of the sample shop."""

from pathlib import Path

import pytest

from scraper.sample_shop.server import ShopOptions, serve
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

PHOTOS = 5


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folder(tmp_path / "photos", "dress", PHOTOS)


def options(photos: Path, site: str, generation: str) -> ShopOptions:
    return ShopOptions(
        photos=photos, site=site, generation=generation, duplicates=0, double_tagged=0
    )


@pytest.fixture
def crawl_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "generation",
    [
        *("older", "preset", "hesitant", "moved"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("today", "mirrors", "no-map")),
    ],
)
def test_wildberries_images_are_found_on_every_host_layout(
    photos: Path, crawl_folder: Path, generation: str
) -> None:
    with serve(options(photos, "wildberries", generation)) as shop:
        status, output = crawl(shop, crawl_folder, "--tags", "dress", site="wildberries")
    assert status == 0, output
    assert rows(crawl_folder, "SELECT state, reason, count(*) FROM sightings GROUP BY 1, 2") == [
        ("stored", None, PHOTOS)
    ]
    formats = {image_format for (image_format,) in rows(crawl_folder, "SELECT format FROM images")}
    assert formats == {"JPEG" if generation == "older" else "WEBP"}


@pytest.mark.parametrize(
    ("generation", "message"),
    [("limited", "continue in about 1 second"), ("guarded", "set WILDBERRIES_TOKEN")],
)
def test_wildberries_error_responses_are_explained(
    photos: Path, crawl_folder: Path, generation: str, message: str
) -> None:
    with serve(options(photos, "wildberries", generation)) as shop:
        status, output = crawl(shop, crawl_folder, "--tags", "dress", site="wildberries")
    assert (status, message in output) == (1, True), output
    assert rows(crawl_folder, "SELECT state FROM searches") == [("failed",)]


def test_wildberries_accepts_a_browser_cookie(photos: Path, crawl_folder: Path) -> None:
    secrets = {"WILDBERRIES_TOKEN": "1.1000.verysecret"}
    with serve(options(photos, "wildberries", "guarded")) as shop:
        status, output = crawl(
            shop, crawl_folder, "--tags", "dress", "-v", site="wildberries", secrets=secrets
        )
    assert status == 0, output
    assert "verysecret" not in output
    files = [path for path in crawl_folder.rglob("*") if path.is_file()]
    assert [path for path in files if b"verysecret" in path.read_bytes()] == []


def test_lamoda_redirects_to_a_category_are_followed(photos: Path, crawl_folder: Path) -> None:
    with serve(options(photos, "lamoda", "category")) as shop:
        status, output = crawl(shop, crawl_folder, "--tags", "dress")
        assert any(target.startswith("/c/2500/clothes-dress/") for target in shop.requests)
    assert status == 0, output
    assert rows(crawl_folder, "SELECT count(*) FROM images WHERE state = 'stored'") == [(PHOTOS,)]


def test_redirect_loops_are_explained(photos: Path, crawl_folder: Path) -> None:
    with serve(options(photos, "lamoda", "circle")) as shop:
        status, output = crawl(shop, crawl_folder, "--tags", "dress")
    assert status == 1
    assert "in a loop: it accepts only network addresses in Russia" in output
