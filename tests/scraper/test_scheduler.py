"""Tests of the scheduler: images that are downloaded while the search continues."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scrapy import Request

from dataset.catalogue.session import open_catalogue
from dataset.images.store import ImageStore
from scraper.crawl.searches import Search
from scraper.crawl.summary import SearchStats
from scraper.errors import SiteRefused
from scraper.items import ImageItem
from scraper.persistence.claims import PendingImage
from scraper.persistence.writer import CatalogueWriter
from scraper.sample_shop.http import SiteRequest, SiteResponse
from scraper.sample_shop.server import ShopOptions, serve
from scraper.scheduler import MAX_ACTIVE_IMAGES, CatalogueScheduler, SearchRun
from tests.support.catalogues import catalogue_of, rows
from tests.support.crawls import class_folder, start


class Crawl:
    """A search with given claims, and an engine whose downloads can be held or fail.

    Attributes:
        claims: Names of the images of each claim, one letter per image.
        claiming: Set when a claim starts.
        downloaded: Names of the downloaded images.
        held: Events that a download waits for, by name.
        failing: Names of images whose host asks for a long pause.
        released: Names of the released images.
    """

    def __init__(self, folder: Path, *claims: str) -> None:
        self.claims, self.claiming = list(claims), threading.Event()
        self.downloaded: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        self.failing: set[str] = set()
        self.released: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        crawler: Any = SimpleNamespace(engine=self, spider=SimpleNamespace(backoffs=None))
        self.scheduler = CatalogueScheduler(crawler)
        sessions, store = open_catalogue(catalogue_of(folder)), ImageStore(folder / "images")
        scheduler: Any = self.scheduler
        scheduler.context = SimpleNamespace(writer=CatalogueWriter(sessions, store))
        scheduler.planner = SimpleNamespace(claim=self._claim, release=self._release)
        scheduler.spider = SimpleNamespace(name="x", claimed_image_request=_image_request)
        self.search = Search(SearchStats("x", "polo", "polo"))
        self.run = SearchRun(scheduler, self.search)
        scheduler._runs[id(self.search)] = self.run

    def crawl(self, request: Request) -> None:
        """Schedule a request and start all that may be, as Scrapy's engine does."""
        self.scheduler.enqueue_request(request)
        self._start_requests()

    def _start_requests(self) -> None:
        while (request := self.scheduler.next_request()) is not None:
            self.tasks.append(asyncio.ensure_future(self._download(request)))

    async def _download(self, request: Request) -> None:
        image: PendingImage = request.cb_kwargs["image"]
        if image.url in self.held:
            await self.held[image.url].wait()
        item = ImageItem(image, self.search)
        if image.url in self.failing:
            item.error = SiteRefused("x.test is busy")
        else:
            self.downloaded.append(image.url)
        self.scheduler._on_item(item)
        self._start_requests()

    def _claim(self, _session: object, _search: Search) -> Sequence[PendingImage]:
        self.claiming.set()
        # Long enough for another download to end meanwhile.
        time.sleep(0.1)
        names = self.claims.pop(0) if self.claims else ""
        return [PendingImage(name, (), name, None) for name in names]

    def _release(self, _session: object, urls: Sequence[str]) -> None:
        self.released.extend(sorted(urls))

    async def wait_for_downloads(self) -> None:
        """Wait for all downloads."""
        await asyncio.gather(*self.tasks)


def _image_request(image: PendingImage, search: Search) -> Request:
    arguments = {"image": image, "search": search, "index": 0}
    return Request(f"https://x.test/{image.url}", cb_kwargs=arguments)


def test_downloads_continue_while_the_search_continues(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path, "ab", "", "cd")

    async def main() -> None:
        crawl.held["a"] = asyncio.Event()
        await crawl.run._request_images()
        await asyncio.sleep(0)
        assert (crawl.downloaded, crawl.run._active) == (["b"], 1)
        await crawl.run._request_images()
        await asyncio.sleep(0)
        assert sorted(crawl.downloaded) == ["b", "c", "d"]
        crawl.held["a"].set()
        await crawl.wait_for_downloads()
        assert (sorted(crawl.downloaded), crawl.run._active) == (["a", "b", "c", "d"], 0)

    asyncio.run(main())


def test_download_that_ends_during_a_claim_loses_no_image(tmp_path: Path) -> None:
    crawl = Crawl(tmp_path, "a", "", "bc")

    async def main() -> None:
        crawl.held["a"] = asyncio.Event()
        await crawl.run._request_images()
        crawl.claiming.clear()
        following = asyncio.ensure_future(crawl.run._request_images())
        await asyncio.to_thread(crawl.claiming.wait, 10)
        # The engine asks for the next request before the claim has returned.
        crawl.held["a"].set()
        await following
        await crawl.wait_for_downloads()

    asyncio.run(main())
    assert sorted(crawl.downloaded) == ["a", "b", "c"]


def test_refusing_host_ends_the_search_after_active_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crawl = Crawl(tmp_path, "ab", "", "c", "d")

    async def steps() -> None:
        for _ in range(3):
            await crawl.run._request_images()

    async def main() -> None:
        crawl.held["a"] = asyncio.Event()
        crawl.failing.add("c")
        crawl.scheduler.planner.begin = lambda *_: None  # type: ignore[method-assign]
        monkeypatch.setattr(crawl.run, "_run_steps", steps)
        asyncio.get_running_loop().call_later(0.8, crawl.held["a"].set)
        with pytest.raises(SiteRefused):
            await crawl.run.run()

    asyncio.run(main())
    assert sorted(crawl.downloaded) == ["a", "b"]
    assert "c" in crawl.released and not {"a", "b"} & set(crawl.released)


def test_number_of_active_images_is_limited(tmp_path: Path) -> None:
    names = "".join(map(chr, range(ord("a"), ord("a") + MAX_ACTIVE_IMAGES + 5)))
    crawl = Crawl(tmp_path, names)

    async def main() -> None:
        crawl.held = {name: asyncio.Event() for name in names}
        following = asyncio.ensure_future(crawl.run._request_images())
        while len(crawl.tasks) < MAX_ACTIVE_IMAGES:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert len(crawl.tasks) == MAX_ACTIVE_IMAGES
        for event in crawl.held.values():
            event.set()
        await following
        await crawl.wait_for_downloads()

    asyncio.run(main())
    assert sorted(crawl.downloaded) == sorted(names)


def test_next_page_is_requested_during_a_slow_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = class_folder(tmp_path / "photos", "polo", 70, size=(150, 200))
    with serve(ShopOptions(photos=stock)) as shop:
        original_respond, first_image, next_page = shop.respond, threading.Lock(), threading.Event()
        waited: list[bool] = []

        def respond(request: SiteRequest) -> SiteResponse:
            if "page=2" in request.target:
                next_page.set()
            if request.path.startswith("/img") and first_image.acquire(blocking=False):
                waited.append(next_page.wait(60))
            return original_respond(request)

        monkeypatch.setattr(shop, "respond", respond)
        process = start(shop, tmp_path, "--tags", "polo")
        output = process.communicate(timeout=120)
    assert (process.returncode, waited) == (0, [True]), output
    assert rows(tmp_path, "SELECT DISTINCT state FROM sightings") == [("stored",)]
