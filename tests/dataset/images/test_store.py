"""Image stores in a folder and in a bucket of a local S3 server."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataset.errors import BadInput, Failure
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore, RemoteStore, open_store
from tests.dataset.test_build import bytes_below
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl
from tests.support.s3_server import s3_server

KEY = "ab/cd/abcd.jpg"


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ImageStore:
    if request.param == "folder":
        return open_store(tmp_path / "images")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://photos/{tmp_path.name}")


def test_files_are_stored_read_listed_and_removed(store: ImageStore) -> None:
    with store.in_use():
        store.put(photo_bytes(1), KEY)
        store.put(photo_bytes(1), KEY)
    assert store.read(KEY) == photo_bytes(1)
    assert list(store.keys()) == [KEY]
    store.remove(KEY)
    store.remove(KEY)
    assert list(store.keys()) == []
    with pytest.raises(FileNotFoundError):
        store.read(KEY)


@pytest.mark.parametrize("left", [b"", bytes(len(photo_bytes(1)))])
def test_a_truncated_file_is_written_again(tmp_path: Path, left: bytes) -> None:
    store = open_store(tmp_path)
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_bytes(left)
    store.put(photo_bytes(1), KEY)
    assert store.read(KEY) == photo_bytes(1)


def test_a_sync_covers_all_writes_since_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("os.sync", lambda: calls.append((tmp_path / KEY).exists()))
    store = open_store(tmp_path)
    store.sync()
    assert calls == []
    store.put(photo_bytes(1), KEY)
    store.put(photo_bytes(2), "ab/ce/abce.jpg")
    assert calls == []
    store.sync()
    store.sync()
    assert calls == [True]
    # A file that another process wrote may not be on disk either.
    store.put(photo_bytes(1), KEY)
    store.sync()
    assert calls == [True, True]


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dataset.images.store.write_atomically", full)
    with pytest.raises(Failure, match=r"No space left.*free disk space"):
        open_store(tmp_path).put(photo_bytes(1), KEY)


def test_an_unknown_url_is_a_usage_error() -> None:
    with pytest.raises(BadInput, match="nosuch://x"):
        open_store("nosuch://x/y").put(b"x", KEY)


def test_a_missing_bucket_is_reported(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Failure, match="s3://nobody/x"):
        RemoteStore(Path("x"), url="s3://nobody/x").put(b"x", KEY)


def test_a_crawl_fills_a_bucket(s3: dict[str, str], tmp_path: Path) -> None:
    from scraper.sample_shop.server import ShopOptions, serve

    photos = class_folder(tmp_path / "photos", "polo", 5)
    with serve(ShopOptions(photos=photos, duplicates=0, double_tagged=0)) as shop:
        place = ("--images", "s3://photos/crawl")
        status, output = crawl(shop, tmp_path, "--tags", "polo", *place, secrets=s3)
    assert status == 0, output
    keys = {key for (key,) in rows(tmp_path, "SELECT store_key FROM images")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.items():
            patch.setenv(name, value)
        kept = open_store("s3://photos/crawl")
        assert set(kept.keys()) == keys
        assert {sha256_of(kept.read(key)) for key in keys} == set(bytes_below(photos).values())
