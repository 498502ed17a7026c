"""Tests of whole Pinterest crawls: both searches, robots.txt and error responses."""

from pathlib import Path

import pytest

from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

TOKEN = "pina_verysecret"
PINS = 28
WEB = ("--set", "search=web")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return class_folder(tmp_path_factory.mktemp("photos"), "dress", PINS)


def shop_options(photos: Path, generation: str) -> ShopOptions:
    return ShopOptions(
        photos=photos, site="pinterest", duplicates=0, double_tagged=0, generation=generation
    )


def run(shop: SampleShop, folder: Path, *options: str, token: str = TOKEN) -> tuple[int, str]:
    return crawl(shop, folder, *options, site="pinterest", secrets={"PINTEREST_TOKEN": token})


def count_web_searches(shop: SampleShop) -> int:
    return sum("/resource/" in target for target in shop.requests)


def test_partner_search_fetches_the_largest_available_images(photos: Path, tmp_path: Path) -> None:
    with serve(shop_options(photos, "no-originals")) as shop:
        status, output = run(shop, tmp_path, "--tags", "dress", "-v")
    assert status == 0, output
    assert "skipped" in output and "posts: videos" in output
    assert rows(tmp_path, "SELECT state, count(*) FROM sightings") == [("stored", PINS)]
    sizes = [target.split("/")[1] for target in shop.requests if target.endswith(".jpg")]
    assert (sizes.count("originals"), sizes.count("1200x"), len(sizes)) == (PINS, PINS, 2 * PINS)
    assert TOKEN not in output and not any(TOKEN in target for target in shop.requests)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_web_search_runs_without_token_if_robots_txt_allows_it(
    photos: Path, tmp_path: Path
) -> None:
    with serve(shop_options(photos, "web")) as shop:
        assert run(shop, tmp_path, "--tags", "dress", "--max-images", "9")[0] == 0
        status, output = run(shop, tmp_path, "--tags", "dress", *WEB, token="")
    assert status == 0, output
    # Two pages for each of the four terms; posts of the other search are kept.
    assert count_web_searches(shop) == 8
    assert rows(tmp_path, "SELECT count(*) FROM posts") == [(PINS,)]
    assert max(times for target, times in shop.requests.items() if ".jpg" in target) == 1
    assert rows(tmp_path, "SELECT DISTINCT state FROM searches") == [("finished",)]
    assert all("/originals/" in target for target in shop.requests if target.endswith(".jpg"))


def test_web_search_is_not_requested_if_robots_txt_forbids_it(photos: Path, tmp_path: Path) -> None:
    with serve(shop_options(photos, "today")) as shop:
        for options in (("--tags", "dress"), ("--check",)):
            status, output = run(shop, tmp_path, *options, *WEB, token="")
            assert (status, "robots.txt forbids it" in output) == (1, True), output
    assert count_web_searches(shop) == 0


def test_check_reports_account_and_remaining_requests(photos: Path, tmp_path: Path) -> None:
    with serve(shop_options(photos, "today")) as shop:
        status, output = run(shop, tmp_path, "--check", "--tags", "dress")
    assert status == 0, output
    assert "ok     account: @sample.shop (business)" in output
    assert f"ok     search for 'dress': {PINS} posts, on the only page, 1 skipped: videos" in output
    assert "ok     limit of searches: 999 of 1000 requests are left" in output


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ("wrong-token", "set PINTEREST_TOKEN"),
        ("not-approved", "not approved for partner search"),
        ("limited", "continue in about 23 minutes"),
    ],
)
def test_error_responses_are_explained_without_the_token(
    photos: Path, tmp_path: Path, generation: str, message: str
) -> None:
    with serve(shop_options(photos, generation)) as shop:
        status, output = run(shop, tmp_path, "--tags", "dress")
    assert (status, message in output, TOKEN in output) == (1, True, False), output
