"""Items of a feed and their photos."""

from pathlib import Path

import pytest

from dataset.feeds.product_feed import open_feed
from dataset.selection.crops import PoseOptions
from dataset.vocabulary import load_vocabulary
from model.feeds.sources import FeedSource, FetchOptions, ImageFetcher, read_inside


@pytest.mark.parametrize(
    ("crop", "zones"),
    [("person", [None, None]), ("zone", ["upper", "lower"]), ("none", [None, None])],
)
def test_photos_have_a_zone_if_the_crop_depends_on_it(
    tmp_path: Path, crop: str, zones: list[str | None]
) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("id,image,tag\n1,a.jpg,polo\n2,a.jpg,jeans\n")
    with ImageFetcher(FetchOptions(tmp_path / "fetched")) as fetcher:
        options = (load_vocabulary(), fetcher, PoseOptions(crop=crop).uses_zones)
        items = list(FeedSource(open_feed(path, {}), tmp_path, *options).items(0))
    assert [item.photo and item.photo.zone for item in items] == zones
    assert not (tmp_path / "fetched").exists()


@pytest.mark.parametrize("name", ["../out.jpg", "a/../../out.jpg", "/etc/passwd", "a\0.jpg", "a"])
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.jpg").write_bytes(b"x")
    (tmp_path / "root" / "a").mkdir(parents=True)
    with pytest.raises((ValueError, OSError)):
        read_inside(tmp_path / "root", name)
