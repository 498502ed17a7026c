"""Photos at URLs of a feed, from a local server."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset.errors import DownloadFailed, Failure
from dataset.images.store import UrlImageCache
from model.feeds.sources import FetchOptions, ImageFetcher
from tests.support.catalogue_data import photo_bytes
from tests.support.photo_site import STALLS, PhotoSite, serving

PHOTO = photo_bytes(1, (200, 260))


@pytest.fixture
def site() -> Iterator[PhotoSite]:
    photos = {f"/{number}.jpg": PHOTO for number in range(20)}
    with serving({**photos, "/secret/a.jpg": PHOTO, "/page": b"<html>no photo</html>"}) as one:
        yield one


def options(folder: Path) -> FetchOptions:
    return FetchOptions(folder / "fetched", "me@shop.example", 20, allow_private=True)


def test_each_photo_is_requested_once_and_failures_have_a_reason(
    tmp_path: Path, site: PhotoSite
) -> None:
    good = [f"{site.url}/{number}.jpg" for number in range(20)]
    bad = {
        f"{site.url}/gone": "HTTP 404",
        f"{site.url}/page": "broken or no image",
        f"{site.url}/secret/a.jpg": "robots.txt",
        "http://[no": "invalid URL",
        "http://two\nlines/": "unprintable characters",
        "http://half\ud800/": "unprintable characters",
    }
    with ImageFetcher(options(tmp_path)) as fetcher:
        for url in (*good, *good, *bad):
            fetcher.prefetch(url)
        assert {fetcher.read(url) for url in good} == {PHOTO}
        for url, why in bad.items():
            for _ in range(2):
                with pytest.raises(DownloadFailed, match=why):
                    fetcher.read(url)
    assert {site.requests[f"/{number}.jpg"] for number in range(20)} == {1}
    assert (site.requests["/gone"], site.requests["/secret/a.jpg"]) == (1, 0)
    assert all("me@shop.example" in one and "feed" in one for one in site.agents)
    with ImageFetcher(options(tmp_path)) as fetcher:
        assert fetcher.read(good[0]) == PHOTO
    assert site.requests["/0.jpg"] == 1
    assert UrlImageCache(tmp_path / "fetched").find(good[0]) is not None


def test_private_hosts_are_not_requested(tmp_path: Path, site: PhotoSite) -> None:
    with (
        ImageFetcher(FetchOptions(tmp_path / "fetched")) as fetcher,
        pytest.raises(DownloadFailed, match="private address"),
    ):
        fetcher.read(f"{site.url}/0.jpg")
    assert not site.requests


def test_a_killed_process_is_reported_and_none_remains(tmp_path: Path, site: PhotoSite) -> None:
    with ImageFetcher(options(tmp_path)) as fetcher:
        fetcher.prefetch(f"{site.url}{STALLS}")
        assert fetcher._process is not None
        number = fetcher._process.pid
        while not site.requests[STALLS]:
            time.sleep(0.02)
        os.kill(number, signal.SIGKILL)
        with pytest.raises(Failure, match="repeat the command"):
            fetcher.read(f"{site.url}{STALLS}")
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
