"""Items of a feed and their photos."""

from pathlib import Path

import pytest

from dataset.feeds.product_feed import open_feed
from dataset.vocabulary import load_vocabulary
from model.feeds.sources import FeedSource, FetchOptions, ImageFetcher, read_inside


def test_a_photo_is_the_same_input_whatever_its_tag(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("id,image,tag\n1,a.jpg,polo\n2,a.jpg,jeans\n")
    with ImageFetcher(FetchOptions(tmp_path / "fetched")) as fetcher:
        source = FeedSource(open_feed(path, {}), tmp_path, load_vocabulary(), fetcher)
        first, second = (item.photo for item in source.items(0))
    assert first and second and first.crop is second.crop is None
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/passwd", "a\0.jpg", "a"])
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.jpg").write_bytes(b"x")
    (tmp_path / "root" / "a").mkdir(parents=True)
    with pytest.raises((ValueError, OSError)):
        read_inside(tmp_path / "root", name)
