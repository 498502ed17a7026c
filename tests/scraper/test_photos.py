"""Tests of image downloads that run while the search continues."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataset.catalogue.session import open_catalogue
from dataset.images.store import ImageStore
from scraper import photos
from scraper.claims import Wanted
from scraper.errors import SiteRefused
from scraper.keeping import Keeper
from scraper.photos import Photos
from scraper.sample_shop.http import Asked, Reply
from scraper.sample_shop.server import ShopOptions, serve
from tests.support.catalogues import catalogue_of, rows
from tests.support.crawls import class_folder, start


class Search:
    """A search with given claims, whose downloads can be held or fail.

    Attributes:
        claims: Names of the images of each claim, one letter per image.
        claiming: Set when a claim starts.
        came: Names of the downloaded images.
        holds: Events that a download waits for, by name.
        fails: Names of images whose download fails.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *claims: str) -> None:
        sessions, store = open_catalogue(catalogue_of(folder)), ImageStore(folder / "images")
        means = SimpleNamespace(keeper=Keeper(sessions, store), store=store)
        self.work: Any = SimpleNamespace(means=means, worker=1)
        self.claims, self.claiming = list(claims), threading.Event()
        self.downloaded: list[str] = []
        self.held: dict[str, asyncio.Event] = {}
        self.failing: set[str] = set()
        monkeypatch.setattr(photos, "_claim", self._claim)
        monkeypatch.setattr(photos, "fetch_one", self._fetch_one)

    def photos(self) -> Photos:
        unused: Any = None
        return Photos(self.work, unused, unused)

    def _claim(self, *_: object) -> Sequence[Wanted]:
        self.claiming.set()
        # Long enough for another download to end meanwhile.
        time.sleep(0.1)
        return [
            Wanted(name, (), name, None) for name in (self.claims.pop(0) if self.claims else "")
        ]

    async def _fetch_one(self, _work: Any, _download: Any, _tally: Any, wanted: Wanted) -> None:
        if wanted.url in self.held:
            await self.held[wanted.url].wait()
        if wanted.url in self.failing:
            raise SiteRefused("x.test is busy")
        self.downloaded.append(wanted.url)


def test_downloads_continue_while_the_search_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path, monkeypatch, "ab", "", "cd")

    async def main() -> None:
        search.held["a"] = asyncio.Event()
        downloads = search.photos()
        await downloads.fetch()
        assert (search.downloaded, downloads.under_way) == (["b"], True)
        await downloads.fetch()
        assert sorted(search.downloaded) == ["b", "c", "d"]
        search.held["a"].set()
        await downloads.landed()
        assert (sorted(search.downloaded), downloads.under_way) == (["a", "b", "c", "d"], False)

    asyncio.run(main())


def test_download_that_ends_during_a_claim_loses_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path, monkeypatch, "a", "", "bc")

    async def main() -> None:
        search.held["a"] = asyncio.Event()
        downloads = search.photos()
        await downloads.fetch()
        search.claiming.clear()
        following = asyncio.ensure_future(downloads.fetch())
        await asyncio.to_thread(search.claiming.wait, 10)
        # The free download slot looks for the next image before the claim has returned.
        search.held["a"].set()
        await following
        await downloads.landed()

    asyncio.run(main())
    assert sorted(search.downloaded) == ["a", "b", "c"]


def test_refusing_host_ends_the_search_after_active_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Search(tmp_path, monkeypatch, "ab", "", "c", "d")
    released: list[str] = []

    def give_back(_session: object, urls: Sequence[str], worker: int) -> None:
        released.extend(sorted(urls))

    monkeypatch.setattr(photos.claims, "give_back", give_back)

    async def main() -> None:
        search.held["a"] = asyncio.Event()
        search.failing.add("c")
        downloads = search.photos()
        await downloads.fetch()
        asyncio.get_running_loop().call_later(0.5, search.held["a"].set)
        with pytest.raises(SiteRefused):
            await downloads.fetch()

    asyncio.run(main())
    assert sorted(search.downloaded) == ["a", "b"]
    assert "c" in released and not {"a", "b"} & set(released)


def test_next_page_is_requested_during_a_slow_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = class_folder(tmp_path / "photos", "polo", 70, size=(150, 200))
    with serve(ShopOptions(photos=stock)) as shop:
        original_reply, first_image, next_page = shop.reply, threading.Lock(), threading.Event()
        waited: list[bool] = []

        def reply(request: Asked) -> Reply:
            if "page=2" in request.target:
                next_page.set()
            if request.path.startswith("/img") and first_image.acquire(blocking=False):
                waited.append(next_page.wait(60))
            return original_reply(request)

        monkeypatch.setattr(shop, "reply", reply)
        process = start(shop, tmp_path, "--tags", "polo")
        output = process.communicate(timeout=120)
    assert (process.returncode, waited) == (0, [True]), output
    assert rows(tmp_path, "SELECT DISTINCT state FROM sightings") == [("stored",)]
