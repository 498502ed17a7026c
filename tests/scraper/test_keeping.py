"""Batched writes to the catalogue, while other processes change it."""

import asyncio
import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.catalogue.session import open_catalogue
from dataset.duplicates.hamming import MAX_DISTANCE_BITS
from dataset.errors import Failure
from dataset.images.io import open_photo
from dataset.images.store import ImageStore
from dataset.maintenance.takedown import MAX_COPY_DISTANCE_BITS, take_down
from scraper.examining import Fetched, examine
from scraper.keeping import BATCH, Keeper
from scraper.outcomes import EXACT, NEW
from scraper.outcomes import NEAR as COPY
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import catalogue_of, rows


def came(store: ImageStore, body: bytes) -> Fetched:
    """BODY in STORE, as a crawl puts it there."""
    found = examine(body)
    assert isinstance(found, Fetched)
    store.put(body, found.store_key)
    return found


def copy_of(number: int, quality: int) -> bytes:
    """Photo NUMBER, saved once more: other bytes, the same photo."""
    out = io.BytesIO()
    open_photo(photo_bytes(number)).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.mark.usefixtures("backend")
def test_a_near_photo_that_another_process_takes_down_meanwhile_is_none_any_more(
    tmp_path: Path,
) -> None:
    sessions, store = open_catalogue(catalogue_of(tmp_path)), ImageStore(tmp_path / "images")
    others = open_catalogue(catalogue_of(tmp_path))
    crawling, first = Keeper(sessions, store), came(store, photo_bytes(1))
    # Near enough to be looked at more closely, and too far to be known as what was taken down.
    second = came(store, copy_of(1, 60))
    views = first.fingerprint.views ^ np.uint64((1 << (MAX_COPY_DISTANCE_BITS + 3)) - 1)
    second = replace(second, fingerprint=replace(second.fingerprint, views=views))
    assert MAX_COPY_DISTANCE_BITS < MAX_COPY_DISTANCE_BITS + 3 <= MAX_DISTANCE_BITS

    async def crawl() -> list[object]:
        said = [await crawling.keep("https://x.test/1.jpg", first)]
        take_down(others, store, first.sha256, "a person")
        return [*said, await crawling.keep("https://x.test/2.jpg", second)]

    assert asyncio.run(crawl()) == [NEW, NEW]
    assert rows(tmp_path, "SELECT sha256 FROM images") == [(second.sha256,)]
    assert rows(tmp_path, "SELECT count(*) FROM resemblances") == [(0,)]
    for made in (sessions, others):
        made.kw["bind"].dispose()


@pytest.mark.usefixtures("backend")
def test_a_number_that_was_another_photos_makes_no_pair_twice(tmp_path: Path) -> None:
    sessions, store = open_catalogue(catalogue_of(tmp_path)), ImageStore(tmp_path / "images")
    crawling, first = Keeper(sessions, store), came(store, photo_bytes(1))

    def changed(quality: int, bits: int) -> Fetched:
        one = came(store, copy_of(1, quality))
        views = first.fingerprint.views ^ np.uint64((1 << bits) - 1)
        return replace(one, fingerprint=replace(one.fingerprint, views=views))

    async def crawl() -> list[object]:
        said = [await crawling.keep("https://x.test/1.jpg", first)]
        # SQLite gives its number to the next one.
        take_down(sessions, store, first.sha256, "a person")
        said.append(
            await crawling.keep("https://x.test/2.jpg", changed(60, MAX_COPY_DISTANCE_BITS + 2))
        )
        return [
            *said,
            await crawling.keep("https://x.test/3.jpg", changed(70, MAX_COPY_DISTANCE_BITS + 3)),
        ]

    assert asyncio.run(crawl()) == [NEW, NEW, COPY]
    assert rows(tmp_path, "SELECT count(*) FROM resemblances") == [(1,)]
    sessions.kw["bind"].dispose()


@pytest.mark.usefixtures("backend")
def test_copies_in_one_batch_and_of_another_process_are_known(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    with contextlib.ExitStack() as stack:
        opened = [open_catalogue(catalogue_of(tmp_path)) for _ in range(2)]
        for sessions in opened:
            stack.callback(sessions.kw["bind"].dispose)
        mine, its = (Keeper(sessions, store) for sessions in opened)
        bodies = [photo_bytes(1), photo_bytes(1), copy_of(1, 80), photo_bytes(2)]

        async def crawl() -> list[object]:
            batch = [
                mine.keep(f"https://x.test/{number}.jpg", came(store, body))
                for number, body in enumerate(bodies)
            ]
            said: list[object] = list(await asyncio.gather(*batch))
            late = [copy_of(2, 80), photo_bytes(2)]
            for number, body in enumerate(late):
                said.append(await its.keep(f"https://y.test/{number}.jpg", came(store, body)))
            return said

        assert len(bodies) < BATCH
        assert asyncio.run(crawl()) == [NEW, EXACT, COPY, NEW, COPY, EXACT]
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT cluster_id) FROM images") == [(4, 2)]


def test_no_row_says_stored_of_what_is_not_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, store = open_catalogue(str(tmp_path / "c.sqlite")), ImageStore(tmp_path / "images")
    crawling, one = Keeper(sessions, store), came(store, photo_bytes(1))
    rows_at_sync: list[int] = []

    def fails(_: object) -> None:
        rows_at_sync.extend(count for (count,) in rows(tmp_path, "SELECT count(*) FROM images"))
        raise Failure("the disk is broken")

    monkeypatch.setattr(ImageStore, "sync", fails)
    with pytest.raises(Failure, match="the disk is broken"):
        asyncio.run(crawling.keep("https://x.test/1.jpg", one))
    assert rows_at_sync == [0] and rows(tmp_path, "SELECT count(*) FROM images") == [(0,)]
    sessions.kw["bind"].dispose()
