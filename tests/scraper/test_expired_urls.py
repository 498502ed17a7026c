"""Tests of signed image URLs that expire: they are refreshed and fetched once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

SECRETS = {"INSTAGRAM_TOKEN": "EAAGverysecret", "INSTAGRAM_USER": "17841400000000000"}
PHOTOS = 12


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[SampleShop]:
    options = ShopOptions(
        photos=class_folder(tmp_path / "photos", "dress", PHOTOS),
        site="instagram",
        duplicates=0,
        double_tagged=0,
        generation="expiring",
    )
    with serve(options) as shop:
        yield shop


def test_expired_image_urls_are_refreshed_once_and_no_token_is_stored(
    shop: SampleShop, tmp_path: Path
) -> None:
    for _ in range(2):
        status, output = crawl(
            shop, tmp_path, "--tags", "dress", "-v", site="instagram", secrets=SECRETS
        )
        assert status == 0, output
        assert "EAAGverysecret" not in output
    assert rows(tmp_path, "SELECT state, count(*) FROM sightings") == [("stored", PHOTOS)]
    assert rows(tmp_path, "SELECT count(*) FROM images") == [(PHOTOS,)]
    valid = [t for t in shop.requests if t.startswith("/v/") and "oh=00_AfGood" in t]
    expired = [t for t in shop.requests if t.startswith("/v/") and "oh=00_AfSpent" in t]
    assert (len(valid), len(expired)) == (PHOTOS, PHOTOS)
    # A later run looks for new posts only, and fetches no image twice.
    assert {shop.requests[target] for target in valid + expired} == {1}
    assert {path for path in tmp_path.rglob("*") if b"EAAGvery" in file_bytes(path)} == set()


def file_bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
