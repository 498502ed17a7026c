"""Tests of repeated crawls: new images, stopped runs, retries and back-off."""

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dataset.catalogue import workers
from dataset.catalogue.models import now
from dataset.catalogue.session import open_catalogue
from dataset.images.store import ImageStore
from dataset.maintenance.takedown import take_down
from scraper.persistence import frontier
from scraper.sample_shop.http import SiteRequest, SiteResponse, plain
from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from scraper.spiders.base import Page, Photo, Post
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl


@contextlib.contextmanager
def open_shop(folder: Path, site: str = "lamoda", count: int = 5) -> Iterator[SampleShop]:
    photos = class_folder(
        folder / site, "кимоно", count, 0 if site == "lamoda" else 900, (120, 160)
    )
    with serve(ShopOptions(photos=photos, site=site, duplicates=0, double_tagged=0)) as shop:
        yield shop


def test_later_run_fetches_only_new_images(tmp_path: Path) -> None:
    with open_shop(tmp_path) as shop:
        full_stock = shop.stock
        shop.stock = replace(full_stock, items=full_stock.items[2:])
        assert crawl(shop, tmp_path, "--tags", "кимоно")[0] == 0
        shop.stock = full_stock
        status, output = crawl(shop, tmp_path, "--tags", "кимоно")
        image_requests = {
            target: times for target, times in shop.requests.items() if "/img" in target
        }
    assert (status, len(image_requests), set(image_requests.values())) == (0, 5, {1}), output
    assert rows(tmp_path, "SELECT count(*) FROM posts") == [(5,)]


def page_of(*numbers: int, cursor: str | None = None) -> Page:
    posts = (Post(str(n), "https://x.test", (Photo(f"https://x.test/{n}.jpg"),)) for n in numbers)
    return Page(tuple(posts), cursor)


def test_finished_search_is_renewed_until_nothing_is_new(tmp_path: Path) -> None:
    sessions = open_catalogue(str(tmp_path / "c.sqlite"))
    with sessions.begin() as session:
        search = frontier.get_or_create_search(session, "lamoda", "polo")
        frontier.save_page(session, search, page_of(1, 2))
        session.flush()
        # A search that the same run has finished is not renewed.
        frontier.reopen_finished(
            session, "lamoda", "polo", now() - timedelta(minutes=1), full=False
        )
        assert search.state == "finished"
        frontier.reopen_finished(
            session, "lamoda", "polo", now() + timedelta(minutes=1), full=False
        )
        assert (search.state, search.cursor, search.again) == ("open", None, True)
        assert frontier.has_new_posts(session, search, page_of(2, 3))
        assert frontier.has_new_posts(session, search, page_of())
        assert not frontier.has_new_posts(session, search, page_of(2, 1))
        # Posts known from another search are new to this one.
        other = frontier.get_or_create_search(session, "lamoda", "dress")
        assert frontier.has_new_posts(session, other, page_of(2, 1))


def test_process_continues_the_run_of_a_stopped_one(tmp_path: Path) -> None:
    sessions = open_catalogue(str(tmp_path / "c.sqlite"))
    with sessions.begin() as session:
        first = workers.register(session)
        started = workers.run_started(session, first)
        workers.unregister(session, first, is_complete=False)
    time.sleep(1.1)
    with sessions.begin() as session:
        second = workers.register(session)
        assert workers.run_started(session, second) == started
        workers.unregister(session, second, is_complete=True)
        third = workers.register(session)
        assert workers.run_started(session, third) > started


def test_retry_failed_fetches_failed_images_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_shop(tmp_path) as shop:
        original_respond, is_broken = shop.respond, True

        def respond(request: SiteRequest) -> SiteResponse:
            return (
                plain("", 404)
                if is_broken and "/product" in request.path
                else original_respond(request)
            )

        monkeypatch.setattr(shop, "respond", respond)
        # The shop has no sizes: all URLs of an image return 404.
        monkeypatch.setattr("scraper.sample_shop.formats.lamoda.SIZES", ((1, 1),), raising=True)
        crawl(shop, tmp_path, "--tags", "кимоно")
        assert rows(tmp_path, "SELECT DISTINCT reason FROM sightings") == [("HTTP 404",)]
        is_broken = False
        status, output = crawl(shop, tmp_path, "--tags", "кимоно", "--retry-failed")
    assert status == 0, output
    assert rows(tmp_path, "SELECT count(*) FROM images WHERE state = 'stored'") == [(5,)]


def test_backoff_of_a_host_persists_across_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def respond(request: SiteRequest) -> SiteResponse:
        requests.append(request.path)
        busy = SiteResponse(429, "text/plain", b"", {"Retry-After": "3600"})
        return plain("") if request.path == "/robots.txt" else busy

    with open_shop(tmp_path) as shop:
        monkeypatch.setattr(shop, "respond", respond)
        assert crawl(shop, tmp_path, "--tags", "кимоно")[0] == 1
        assert len(requests) == 2
        status, output = crawl(shop, tmp_path, "--tags", "кимоно")
    assert (status, len(requests)) == (1, 2)
    assert "asked to be left alone until" in output and "in about 60 minutes" in output


def test_sites_are_crawled_concurrently_and_reported_as_json(tmp_path: Path) -> None:
    with open_shop(tmp_path) as lamoda, open_shop(tmp_path, "wildberries", 3) as wildberries:
        address = [
            text
            for site, shop in (("lamoda", lamoda), ("wildberries", wildberries))
            for text in ("--site-url", f"{site}={shop.url}", "--image-url", f"{site}={shop.url}")
        ]
        status, output = crawl(
            lamoda,
            tmp_path,
            *("wildberries", "--tags", "кимоно", "--json", "report.json", "--min-per-class", "10"),
            address=address,
        )
    assert status == 0, output
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    searches = {
        (line["site"], line["posts"], line["new"], line["ended"]) for line in report["searches"]
    }
    assert searches == {("lamoda", 5, 5, "finished"), ("wildberries", 3, 3, "finished")}
    (label,) = report["labels"]
    assert (label["photos"], label["missing"], label["exhausted"]) == (8, 2, True)
    assert "кимоно: 8 of 10 photos, 2 missing, as these sites have no more" in output


def test_max_pages_is_a_limit(tmp_path: Path) -> None:
    photos = class_folder(tmp_path / "photos", "кимоно", 3)
    options = ShopOptions(photos=photos, duplicates=0, double_tagged=0, faults=("endless-pages",))
    with serve(options) as shop:
        status, output = crawl(shop, tmp_path, "--tags", "кимоно", "--max-pages", "2")
        pages = [target for target in shop.requests if "catalogsearch" in target]
    assert (status, len(pages)) == (0, 2), output
    assert "limit" in output
    assert rows(tmp_path, "SELECT state FROM searches") == [("open",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--site-url", "wildberries=http://127.0.0.1:9"), "wildberries is not crawled"),
        (("wildberries", "--site-url", "http://127.0.0.1:9"), "name the site: --site-url"),
        (("wildberries", "--check"), "--check takes one site"),
        (("--contact", "two\nlines"), "--contact"),
        (("--since", "yesterday"), "--since"),
    ],
)
def test_invalid_options_are_rejected(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    with open_shop(tmp_path, count=1) as shop:
        address = () if "--site-url" in options else None
        status, output = crawl(
            shop, tmp_path, "--tags", "polo", *options, address=address or ("--max-pages", "1")
        )
    assert (status, message in output) == (2, True), output


def test_posts_before_since_are_skipped() -> None:
    from scraper.persistence.frontier import TOO_OLD, PagingGuard

    def post_of_day(day: int) -> Post:
        return Post(str(day), "https://x.test", (), posted=datetime(2026, 1, day))

    since, paging = datetime(2026, 1, 15), PagingGuard()
    page = paging.without_old_posts(
        Page((post_of_day(20), post_of_day(10), Post("x", "u", ())), "c"), since
    )
    assert [post.site_id for post in page.posts] == ["20", "x"]
    assert (page.skipped, page.next_cursor) == ({TOO_OLD: 1}, "c")
    for day, cursor, following in ((9, "d", "d"), (8, "e", None)):
        page = Page((post_of_day(day),), cursor, is_by_date=True)
        assert paging.without_old_posts(page, since).next_cursor == following
    # A list by popularity may have new posts after any number of old ones.
    assert paging.without_old_posts(Page((post_of_day(7),), "f"), since).next_cursor == "f"


def test_taken_down_images_are_not_fetched_again(tmp_path: Path) -> None:
    with open_shop(tmp_path, count=3) as shop:
        crawl(shop, tmp_path, "--tags", "кимоно")
        ((key, post),) = rows(
            tmp_path,
            "SELECT store_key, p.url FROM images i JOIN sightings s ON s.image_id = i.id"
            " JOIN posts p ON p.id = s.post_id LIMIT 1",
        )
        sessions, store = (
            open_catalogue(str(tmp_path / "c.sqlite")),
            ImageStore(tmp_path / "images"),
        )
        take_down(sessions, store, key, "me")
        take_down(sessions, store, post, "me")
        # The same product with another SKU: its image is recognized by its hash.
        item = next(item for item in shop.stock.items if item.sku.lower() in post)
        copy = replace(
            item, sku="MP002XW00000", photos=(replace(item.photos[0], path="/M/P/X.jpg"),)
        )
        shop.stock = replace(shop.stock, items=(*shop.stock.items, copy))
        status, output = crawl(shop, tmp_path, "--tags", "кимоно", "--full")
    assert status == 0, output
    assert "skipped 1 post: taken down" in output and "rejected 1 photo: taken down" in output
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(2,)]
    assert not (tmp_path / "images" / key).exists()


def test_url_taken_down_before_download_is_not_requested(
    tmp_path: Path,
) -> None:
    with open_shop(tmp_path, count=4) as shop:
        crawl(shop, tmp_path, "--tags", "кимоно", "--max-images", "1")
        ((url,), *_) = rows(tmp_path, "SELECT url FROM sightings WHERE state = 'pending'")
        sessions = open_catalogue(str(tmp_path / "c.sqlite"))
        take_down(sessions, ImageStore(tmp_path / "images"), url, "me")
        status, output = crawl(shop, tmp_path, "--tags", "кимоно")
        requests = [target for target in shop.requests if url.endswith(target)]
    assert (status, requests) == (0, []), output
    rejected = rows(tmp_path, "SELECT url FROM sightings WHERE reason = 'taken down'")
    assert rejected == [(url,)], output
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(3,)]


def test_images_of_a_busy_host_stay_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_shop(tmp_path) as shop:
        original_respond = shop.respond

        def respond(request: SiteRequest) -> SiteResponse:
            busy = SiteResponse(429, "text/plain", b"", {"Retry-After": "3600"})
            return busy if "/img" in request.path else original_respond(request)

        monkeypatch.setattr(shop, "respond", respond)
        # Two tags find the same images; neither waits for the other.
        status, output = crawl(shop, tmp_path, "--tags", "кимоно,Кимоно")
    assert (status, "asked to be left alone" in output) == (1, True), output
    states = dict(rows(tmp_path, "SELECT state, count(*) FROM sightings GROUP BY state"))
    assert states["pending"] >= 1 and "stored" not in states
    assert rows(tmp_path, "SELECT count(*) FROM sightings WHERE worker_id > 0") == [(0,)]
