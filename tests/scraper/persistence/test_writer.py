"""Tests of batched writes to the catalogue while other processes change it."""

import asyncio
import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataset.catalogue.session import Sessions, open_catalogue
from dataset.duplicates.hamming import MAX_DISTANCE_BITS
from dataset.errors import Failure
from dataset.images.io import open_photo
from dataset.images.store import ImageStore
from dataset.maintenance.takedown import MAX_COPY_DISTANCE_BITS, take_down
from scraper.decoding.inspection import AcceptedImage, RejectedImage, inspect_image
from scraper.items import Photo, Post
from scraper.persistence import frontier
from scraper.persistence.frontier import save_posts
from scraper.persistence.writer import BATCH_IMAGES, EXACT, NEW, CatalogueWriter
from scraper.persistence.writer import NEAR as COPY
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import catalogue_of, rows


def store_image(store: ImageStore, body: bytes) -> AcceptedImage:
    """Decode an image and put it into the store, as a crawl does."""
    outcome = inspect_image(body)
    assert isinstance(outcome, AcceptedImage)
    store.put(body, outcome.store_key)
    return outcome


def reencode(number: int, quality: int) -> bytes:
    """Encode an image again: a near duplicate with other bytes."""
    out = io.BytesIO()
    open_photo(photo_bytes(number)).save(out, "JPEG", quality=quality)
    return out.getvalue()


def add_pending(sessions: Sessions, *urls: str) -> None:
    """Save a post with a pending image at each URL."""
    posts = [Post(url, url, (Photo(url),)) for url in urls]
    with sessions.begin() as session:
        save_posts(session, frontier.get_or_create_search(session, "x", "polo"), posts)


@pytest.mark.usefixtures("backend")
def test_image_taken_down_by_another_process_is_no_near_duplicate(
    tmp_path: Path,
) -> None:
    sessions, store = open_catalogue(catalogue_of(tmp_path)), ImageStore(tmp_path / "images")
    other_sessions = open_catalogue(catalogue_of(tmp_path))
    writer, first = CatalogueWriter(sessions, store), store_image(store, photo_bytes(1))
    # Within the distance of near duplicates, but too far to match the image that was taken down.
    second = store_image(store, reencode(1, 60))
    views = first.fingerprint.views ^ np.uint64((1 << (MAX_COPY_DISTANCE_BITS + 3)) - 1)
    second = replace(second, fingerprint=replace(second.fingerprint, views=views))
    assert MAX_COPY_DISTANCE_BITS < MAX_COPY_DISTANCE_BITS + 3 <= MAX_DISTANCE_BITS

    add_pending(sessions, *(f"https://x.test/{number}.jpg" for number in (1, 2, 3)))

    async def crawl() -> list[object]:
        outcomes = [await writer.save("https://x.test/1.jpg", first)]
        take_down(other_sessions, store, first.sha256, "a person")
        return [*outcomes, await writer.save("https://x.test/2.jpg", second)]

    assert asyncio.run(crawl()) == [NEW, NEW]
    assert rows(tmp_path, "SELECT sha256 FROM images") == [(second.sha256,)]
    assert rows(tmp_path, "SELECT count(*) FROM resemblances") == [(0,)]
    for opened in (sessions, other_sessions):
        opened.kw["bind"].dispose()


@pytest.mark.usefixtures("backend")
def test_reused_image_id_creates_no_duplicate_pair(tmp_path: Path) -> None:
    sessions, store = open_catalogue(catalogue_of(tmp_path)), ImageStore(tmp_path / "images")
    writer, first = CatalogueWriter(sessions, store), store_image(store, photo_bytes(1))

    def near_duplicate(quality: int, bits: int) -> AcceptedImage:
        image = store_image(store, reencode(1, quality))
        views = first.fingerprint.views ^ np.uint64((1 << bits) - 1)
        return replace(image, fingerprint=replace(image.fingerprint, views=views))

    add_pending(sessions, *(f"https://x.test/{number}.jpg" for number in (1, 2, 3)))

    async def crawl() -> list[object]:
        outcomes = [await writer.save("https://x.test/1.jpg", first)]
        # SQLite reuses its row id for the next image.
        take_down(sessions, store, first.sha256, "a person")
        outcomes.append(
            await writer.save(
                "https://x.test/2.jpg", near_duplicate(60, MAX_COPY_DISTANCE_BITS + 2)
            )
        )
        return [
            *outcomes,
            await writer.save(
                "https://x.test/3.jpg", near_duplicate(70, MAX_COPY_DISTANCE_BITS + 3)
            ),
        ]

    assert asyncio.run(crawl()) == [NEW, NEW, COPY]
    assert rows(tmp_path, "SELECT count(*) FROM resemblances") == [(1,)]
    sessions.kw["bind"].dispose()


@pytest.mark.usefixtures("backend")
def test_copies_within_a_batch_and_across_processes_are_detected(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    with contextlib.ExitStack() as stack:
        opened = [open_catalogue(catalogue_of(tmp_path)) for _ in range(2)]
        for sessions in opened:
            stack.callback(sessions.kw["bind"].dispose)
        writer, other_writer = (CatalogueWriter(sessions, store) for sessions in opened)
        bodies = [photo_bytes(1), photo_bytes(1), reencode(1, 80), photo_bytes(2)]

        add_pending(opened[0], *(f"https://x.test/{number}.jpg" for number in range(4)))
        add_pending(opened[0], *(f"https://y.test/{number}.jpg" for number in range(2)))

        async def crawl() -> list[object]:
            batch = [
                writer.save(f"https://x.test/{number}.jpg", store_image(store, body))
                for number, body in enumerate(bodies)
            ]
            outcomes: list[object] = list(await asyncio.gather(*batch))
            late = [reencode(2, 80), photo_bytes(2)]
            for number, body in enumerate(late):
                outcomes.append(
                    await other_writer.save(
                        f"https://y.test/{number}.jpg", store_image(store, body)
                    )
                )
            return outcomes

        assert len(bodies) < BATCH_IMAGES
        assert asyncio.run(crawl()) == [NEW, EXACT, COPY, NEW, COPY, EXACT]
    assert rows(tmp_path, "SELECT count(*), count(DISTINCT cluster_id) FROM images") == [(4, 2)]


def test_no_row_is_stored_if_its_file_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, store = open_catalogue(str(tmp_path / "c.sqlite")), ImageStore(tmp_path / "images")
    writer, image = CatalogueWriter(sessions, store), store_image(store, photo_bytes(1))
    add_pending(sessions, "https://x.test/1.jpg")
    rows_at_sync: list[int] = []

    def failing_sync(_: object) -> None:
        rows_at_sync.extend(count for (count,) in rows(tmp_path, "SELECT count(*) FROM images"))
        raise Failure("the disk is broken")

    monkeypatch.setattr(ImageStore, "sync", failing_sync)
    with pytest.raises(Failure, match="the disk is broken"):
        asyncio.run(writer.save("https://x.test/1.jpg", image))
    assert rows_at_sync == [0] and rows(tmp_path, "SELECT count(*) FROM images") == [(0,)]
    sessions.kw["bind"].dispose()


@pytest.mark.parametrize("is_taken_down", [True, False])
def test_image_that_no_post_waits_for_is_not_stored(tmp_path: Path, is_taken_down: bool) -> None:
    sessions, store = open_catalogue(str(tmp_path / "c.sqlite")), ImageStore(tmp_path / "images")
    writer, image = CatalogueWriter(sessions, store), store_image(store, photo_bytes(1))
    url = "https://x.test/1.jpg"
    add_pending(sessions, url)
    if is_taken_down:
        # While the image is downloaded.
        take_down(sessions, store, url, "a person")
        result = asyncio.run(writer.save(url, image))
        assert isinstance(result, RejectedImage) and result.reason == "taken down"
    else:
        # Its claim was lost, and other processes have reached the limit of its tag.
        assert asyncio.run(writer.save(url, image, may_store=lambda *_: False)) is None
        assert rows(tmp_path, "SELECT state FROM sightings") == [("pending",)]
    assert rows(tmp_path, "SELECT count(*) FROM images WHERE state = 'stored'") == [(0,)]
    assert not [path for path in (tmp_path / "images").rglob("*.*") if path.is_file()]
    sessions.kw["bind"].dispose()


def test_file_of_a_stored_image_is_kept_if_a_copy_is_not_stored(tmp_path: Path) -> None:
    sessions, store = open_catalogue(str(tmp_path / "c.sqlite")), ImageStore(tmp_path / "images")
    writer, image = CatalogueWriter(sessions, store), store_image(store, photo_bytes(1))
    add_pending(sessions, "https://x.test/1.jpg", "https://x.test/2.jpg")

    async def crawl() -> list[object]:
        first = await writer.save("https://x.test/1.jpg", image)
        return [first, await writer.save("https://x.test/2.jpg", image, may_store=lambda *_: False)]

    assert asyncio.run(crawl()) == [NEW, None]
    assert store.read(image.store_key) == photo_bytes(1)
    sessions.kw["bind"].dispose()
