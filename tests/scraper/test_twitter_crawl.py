"""Tests of whole X crawls: combined searches, costs, later runs and error responses."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

TOKEN = "AAAAverysecret"
SECRETS = {"TWITTER_TOKEN": TOKEN}
POLOS, DRESSES = 11, 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for label, count, first in (("polo", POLOS, 0), ("dress", DRESSES, 500)):
        class_folder(folder, label, count, first)
    return folder


def shop_options(photos: Path, generation: str) -> ShopOptions:
    return ShopOptions(
        photos=photos, site="twitter", duplicates=0, double_tagged=0, generation=generation
    )


@pytest.fixture
def shop(photos: Path) -> Iterator[SampleShop]:
    with serve(shop_options(photos, "today")) as shop:
        yield shop


def run(shop: SampleShop, folder: Path, *options: str) -> tuple[int, str]:
    return crawl(shop, folder, *options, site="twitter", secrets=SECRETS)


def search_requests(shop: SampleShop) -> list[str]:
    return [target for target in shop.requests if "/tweets/search/" in target]


def test_terms_of_a_label_share_a_search_that_later_runs_continue(
    shop: SampleShop, tmp_path: Path
) -> None:
    options = ("--tags", "polo", "--set", "page-size=10", "-v")
    status, output = run(shop, tmp_path, *options)
    assert status == 0, output
    # The cost is printed before posts are read.
    assert "11 posts in all: at most $0.17; X charges $0.005 per post" in output
    assert "skipped 1 post: sensitive" in output and "skipped 1 post: videos" in output
    assert rows(tmp_path, "SELECT state, pages, posts FROM searches") == [("finished", 2, POLOS)]
    assert rows(tmp_path, "SELECT state, count(*) FROM sightings GROUP BY state") == [
        ("stored", POLOS)
    ]
    tagged = rows(
        tmp_path,
        "SELECT text, count(*) FROM post_hashtags JOIN hashtags ON hashtags.id = hashtag_id"
        " WHERE source = 'search' GROUP BY text ORDER BY text",
    )
    # Only the term in the captions, not every searched term.
    assert tagged == [("polo", POLOS)]
    assert rows(tmp_path, "SELECT count(DISTINCT author) > 1, min(length(url)) FROM posts")[0][0]
    before = len(search_requests(shop))
    status, output = run(shop, tmp_path, *options)
    assert status == 0, output
    (later,) = search_requests(shop)[before:]
    ((newest,),) = rows(tmp_path, "SELECT max(site_id) FROM posts")
    assert f"since_id={newest}" in later
    assert all("name=orig" in target for target in shop.requests if "/media/" in target)
    assert not [path for path in tmp_path.rglob("*") if TOKEN.encode() in file_bytes(path)]
    assert TOKEN not in output and not any(TOKEN in target for target in shop.requests)


def file_bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def test_max_images_counts_images_of_a_combined_search(shop: SampleShop, tmp_path: Path) -> None:
    options = ("--tags", "polo", "--set", "page-size=10", "--max-images")
    for limit in (2, 5):
        status, output = run(shop, tmp_path, *options, str(limit))
        assert (status, "limit" in output) == (0, True), output
        assert rows(tmp_path, "SELECT count(*) FROM images") == [(limit,)]


@pytest.mark.parametrize("generation", ["old-since", "no-orig", "partial"])
def test_crawl_continues_if_x_lacks_data(photos: Path, tmp_path: Path, generation: str) -> None:
    with serve(shop_options(photos, generation)) as shop:
        for _ in range(2 if generation == "old-since" else 1):
            status, output = run(shop, tmp_path, "--tags", "dress")
            assert status == 0, output
    stored = DRESSES - (generation == "partial")
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(stored,)]
    assert rows(tmp_path, "SELECT state FROM searches") == [("finished",)]
    sizes = {target.partition("?")[2] for target in shop.requests if "/media/" in target}
    assert ("name=large" in sizes) == (generation == "no-orig")


def test_dry_run_counts_without_reading_posts(shop: SampleShop, tmp_path: Path) -> None:
    archive = ("--set", "search=all", "--set", "since=2020-01-01")
    for more in ((), archive):
        status, output = run(shop, tmp_path, "--tags", "polo,dress", "--dry-run", *more)
        assert status == 0, output
        total = f"{POLOS + DRESSES} posts in all; posts found by several searches are counted"
        assert f"{total} several times: at most $0.21; X charges" in output
    assert search_requests(shop) == [] and not (tmp_path / "c.sqlite").exists()


def test_check_reports_project_and_remaining_requests(shop: SampleShop, tmp_path: Path) -> None:
    status, output = run(shop, tmp_path, "--check", "--live")
    assert status == 0, output
    assert "ok     token: project 1369785403853424" in output
    assert "ok     limit of searches: 449 of 450 requests are left" in output
    # X charges per post, so the check requests the smallest page.
    (searched,) = search_requests(shop)
    assert "max_results=10" in searched
    assert [line.split()[0] for line in output.splitlines() if "missing" in line] == [
        *("brand", "price", "currency", "attributes")
    ]


@pytest.mark.parametrize(
    ("generation", "options", "message"),
    [
        ("wrong-token", ("--check",), "set TWITTER_TOKEN"),
        ("wrong-token", ("--tags", "polo"), "set TWITTER_TOKEN"),
        ("limited", ("--tags", "polo"), "continue at "),
    ],
)
def test_error_responses_are_explained_without_the_token(
    photos: Path, tmp_path: Path, generation: str, options: tuple[str, ...], message: str
) -> None:
    with serve(shop_options(photos, generation)) as shop:
        status, output = run(shop, tmp_path, *options)
    assert (status, message in output, TOKEN in output) == (1, True, False), output
