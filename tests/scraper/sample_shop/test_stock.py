"""Tests of the stock: products from folders and drawn ones, duplicates and second labels."""

import re
from pathlib import Path

import pytest

from dataset.errors import BadInput
from dataset.images.io import open_photo
from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.stock import (
    Drawn,
    PhotoBytes,
    Plan,
    drawn_plans,
    folder_plans,
    make_stock,
)
from tests.support.shop_photos import class_folders

WORDS = load_vocabulary()


def plans(count: int, label: str = "polo") -> list[Plan]:
    return [Plan(label, (Drawn(label, number, 0),), True, "red") for number in range(count)]


def test_each_photo_of_a_folder_becomes_a_product(tmp_path: Path) -> None:
    products, skipped = folder_plans(class_folders(tmp_path), WORDS)
    assert [plan.label for plan in products] == ["polo"] * 3 + ["летние платья"] * 2
    assert [plan.origins for plan in products][4] == (tmp_path / "летние платья" / "1.jpg",)
    assert len(skipped) == 2
    assert "1 file skipped, not readable as photos: 1 .txt" in skipped[0]
    assert "cut-off.jpg left out: " in skipped[1]


def test_photos_are_found_by_their_content_and_served_as_jpeg(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "a")
    (source / "polo" / "1.jpg").rename(source / "polo" / "1.jfif")
    open_photo(source / "polo" / "2.jpg").save(source / "polo" / "2.avif")
    products, _ = folder_plans(source, WORDS)
    stock = make_stock(products, WORDS, duplicates=0)
    photos = [photo for item in stock.items for photo in item.photos]
    assert len(photos) == 6
    assert all(photo.path.endswith(".jpg") for photo in photos)
    assert all(PhotoBytes().original(photo).startswith(b"\xff\xd8\xff") for photo in photos)


def test_folders_of_the_same_label_are_merged(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "a")
    (source / "летние платья").rename(source / "Поло")
    products, _ = folder_plans(source, WORDS)
    assert {plan.label for plan in products} == {"polo"}


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent is not a folder; --photos wants"):
        folder_plans(tmp_path / "absent", WORDS)


def test_folder_without_class_folders_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no class folder"):
        folder_plans(tmp_path, WORDS)


def test_skus_and_paths_follow_the_site_format() -> None:
    stock = make_stock(plans(40), WORDS)
    assert len(stock.by_sku) == len(stock.items) == 44
    for item in stock.items:
        assert re.fullmatch(r"MP002XW[A-Z0-9]{5}", item.sku)
        assert re.fullmatch(rf"/M/P/{item.sku}_\d{{8}}_1_v1\.jpg", item.photos[0].path)
        assert item.name == "Поло"


def test_duplicates_alternate_in_kind_and_keep_their_label() -> None:
    stock = make_stock([*plans(30), *plans(30, "dress")], WORDS, duplicates=0.1)
    copies = [item for item in stock.items if item.photos[0].change]
    assert sorted(str(item.photos[0].change) for item in copies) == [
        "exact", "exact", "re-encoded", "re-encoded", "resized", "resized",
    ]  # fmt: skip
    originals = {i.photos[0].origin: i.labels[0] for i in stock.items if not i.photos[0].change}
    assert all(originals[item.photos[0].origin] == item.labels[0] for item in copies)


def test_double_tagged_products_have_two_labels() -> None:
    both = [*plans(50), *plans(50, "dress")]
    stock = make_stock(both, WORDS, duplicates=0, double_tagged=0.05)
    twice = [item for item in stock.items if len(item.labels) == 2]
    assert len(twice) == 5
    assert all(set(item.labels) == {"polo", "dress"} for item in twice)
    assert stock.counts() == {
        "dress": (50 + sum(i.labels[0] == "polo" for i in twice),) * 2,
        "polo": (50 + sum(i.labels[0] == "dress" for i in twice),) * 2,
    }


def test_wrong_tagged_products_have_only_a_wrong_label() -> None:
    both = [*plans(20), *plans(20, "dress")]
    correct = make_stock(both, WORDS, duplicates=0, double_tagged=0)
    stock = make_stock(both, WORDS, duplicates=0, double_tagged=0, wrong_tagged=0.25)
    true_labels = {item.photos[0].origin: item.labels for item in correct.items}
    wrong = [item for item in stock.items if item.labels != true_labels[item.photos[0].origin]]
    assert len(wrong) == round(0.25 * len(true_labels))
    assert all(len(item.labels) == 1 for item in stock.items)
    assert [item for item in stock.items if item.is_wrong_tagged] == wrong
    assert all((item.shown,) == true_labels[item.photos[0].origin] for item in stock.items)


def test_single_label_is_never_double_tagged() -> None:
    stock = make_stock(plans(20), WORDS, double_tagged=1.0)
    assert all(item.labels == ("polo",) for item in stock.items)


def test_same_seed_gives_the_same_stock() -> None:
    assert make_stock(plans(20), WORDS, seed=3).items == make_stock(plans(20), WORDS, seed=3).items
    assert make_stock(plans(20), WORDS, seed=3).items != make_stock(plans(20), WORDS, seed=4).items


def test_drawn_products_have_one_or_two_photos() -> None:
    products = drawn_plans(per_label=4, seed=0)
    assert len(products) == 24
    assert [len(plan.origins) for plan in products[:4]] == [2, 1, 1, 2]
    assert all(plan.womens for plan in products if plan.label == "dress")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("polo", 3),
        ("#Поло", 3),
        ("рубашка  поло", 3),
        ("ЛЕТНИЕ платья", 2),
        ("dress", 0),
        ("джинсы", 0),
        ("", 0),
    ],
)
def test_search_finds_a_label_by_its_terms_or_folder_name(
    tmp_path: Path, query: str, count: int
) -> None:
    products, _ = folder_plans(class_folders(tmp_path), WORDS)
    stock = make_stock(products, WORDS, duplicates=0, double_tagged=0)
    assert len(stock.search(query)) == count
