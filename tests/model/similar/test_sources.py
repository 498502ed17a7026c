"""Items of an index from feeds."""

from pathlib import Path

import pytest

from dataset.errors import BadInput
from dataset.selection.crops import PoseOptions
from dataset.utils.engines import LOCAL_ENGINE
from dataset.vocabulary import load_vocabulary
from model.feeds.sources import FetchOptions, ImageFetcher
from model.similar.sources import IndexEntry, open_index_source

NO_CROP = PoseOptions("none", None, "none")


def entries(path: Path, columns: dict[str, str] | None = None) -> list[IndexEntry]:
    """Return the items of a feed."""
    with ImageFetcher(FetchOptions(path.parent / "fetched")) as fetcher:
        source = open_index_source(path, None, load_vocabulary(), fetcher, columns)
        return list(source.entries(NO_CROP, LOCAL_ENGINE))


def test_photos_of_an_item_are_views_of_one_product(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text(
        "id;image;tag;Price;currency\n1;a.jpg|b.jpg|ftp://a.example/c.jpg;Dresses;1.299;руб\n"
        "2;d.jpg;hat;2.500;\n3;;hat;9;\n"
    )
    items = entries(path)
    facts = [(e.item.id, e.item.image, e.item.product, e.item.label) for e in items]
    assert facts == [
        ("1", "a.jpg", "1", "dress"),
        ("1#2", "b.jpg", "1", "dress"),
        ("1#3", "ftp://a.example/c.jpg", "1", "dress"),
        ("2", "d.jpg", "", "hat"),
        ("3", "", "", "hat"),
    ]
    assert [e.problem.partition(":")[0] for e in items] == ["", "", "URL with ftp", "", "no image"]
    assert [(e.item.price, e.item.currency) for e in items[:4]] == [
        *[(1299, "RUB")] * 3,
        (2500, ""),
    ]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("key,image,tag\n1,a.jpg,hat\n")
    assert [entry.item.id for entry in entries(path, {"id": "key"})] == ["1"]
    with pytest.raises(BadInput, match="no such file"):
        entries(tmp_path / "other.csv")
