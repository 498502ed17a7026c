"""Tests that each fault of the sample shop is rejected, retried or ends the search."""

import time
from collections import Counter
from pathlib import Path

import pytest

from dataset.errors import BadInput
from scraper.sample_shop.http import PHOTO_FAULTS, SiteRequest, faults_named, html
from scraper.sample_shop.server import ShopOptions, serve
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

REASONS = {
    "server-error": "HTTP 500",
    "stall": "timeout",
    "slow-drip": "timeout",
    "cut-off": "cut off",
    "wrong-length": "broken or no image",
    "wrong-type": None,
    "page-for-photo": "broken or no image",
    "broken-image": "broken or no image",
    "huge-file": "too large",
    "huge-image": "too many pixels",
    "bomb-image": "too many pixels",
    "gzip-bomb": "too large",
    "polyglot": "photo and program in one",
    "noai": "noai",
    "private-redirect": "private address",
    "redirect-loop": "too many redirects",
    "changing-image": None,
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    return class_folder(folder, "кимоно", 2 * len(PHOTO_FAULTS), 0, (150, 200))


def shop_options(photos: Path, *faults: str) -> ShopOptions:
    return ShopOptions(photos=photos, duplicates=0, double_tagged=0, faults=faults)


def test_faulty_images_are_rejected_with_a_reason_or_stored(photos: Path, tmp_path: Path) -> None:
    assert set(REASONS) == set(PHOTO_FAULTS)
    with serve(shop_options(photos, "photos")) as shop:
        status, output = crawl(shop, tmp_path, "--tags", "кимоно", "--timeout", "3")
        reason_of_url = dict(rows(tmp_path, "SELECT url, reason FROM sightings"))
        paths = sorted(shop.stock.by_path)
    assert status == 0, output
    assert "Traceback" not in output
    reason_of_path = {
        "/" + url.partition("img600x866/")[2]: reason for url, reason in reason_of_url.items()
    }
    names = list(PHOTO_FAULTS)
    reason_of_fault = {names[n // 2]: reason_of_path[path] for n, path in enumerate(paths) if n % 2}
    assert reason_of_fault == REASONS
    assert {reason_of_path[path] for n, path in enumerate(paths) if n % 2 == 0} == {None}
    rejected = Counter(filter(None, REASONS.values()))
    for reason, count in rejected.items():
        assert f"rejected {count} photo" in output and reason in output
    stored = rows(tmp_path, "SELECT count(*) FROM images WHERE state = 'stored'")
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    assert stored == [(len(files),)] == [(2 * len(names) - rejected.total(),)]


def test_retry_after_is_respected(photos: Path, tmp_path: Path) -> None:
    with serve(shop_options(photos, "rate-limit")) as shop:
        start = time.monotonic()
        status, output = crawl(shop, tmp_path, "--tags", "кимоно", "--max-images", "1")
        requests = [n for target, n in shop.requests.items() if "catalogsearch" in target]
    assert (status, requests) == (0, [2]), output
    assert time.monotonic() - start >= 2
    assert rows(tmp_path, "SELECT count(*) FROM pauses") == [(1,)]


@pytest.mark.parametrize("fault", ["endless-pages", "repeating-pages"])
def test_endless_search_is_reported(photos: Path, tmp_path: Path, fault: str) -> None:
    with serve(shop_options(photos, fault)) as shop:
        status, output = crawl(shop, tmp_path, "--tags", "кимоно")
        pages = sum(n for target, n in shop.requests.items() if "catalogsearch" in target)
    assert status == 1
    assert output.count("pagination loop") == 2, output
    assert pages < 10
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(2 * len(PHOTO_FAULTS),)]
    assert rows(tmp_path, "SELECT state FROM searches") == [("failed",)]


def test_page_with_noai_gives_no_images(photos: Path, tmp_path: Path) -> None:
    with serve(shop_options(photos, "page-noai")) as shop:
        status, output = crawl(shop, tmp_path, "--tags", "кимоно")
        requests = [target for target in shop.requests if "/img" in target]
    assert (status, requests) == (0, [])
    assert f"rejected {2 * len(PHOTO_FAULTS)} photos: noai" in output


def test_unknown_fault_is_rejected() -> None:
    with pytest.raises(BadInput, match="choose from photos"):
        faults_named(["earthquake"], ())
    with pytest.raises(BadInput, match="use --site lamoda"):
        faults_named(["endless-pages"], ("today",))


def test_changed_layout_fault_removes_the_page_content() -> None:
    changed = faults_named(["changed-layout"], ()).of_page(html("products"), SiteRequest("/search"))
    assert b"products" not in changed.body and changed.status == 200
