"""Prices, photos, names of columns and categories as feeds of different countries write them."""

import unicodedata
from pathlib import Path
from typing import Any, Literal

import pytest

from dataset.feeds.cells import (
    TagLists,
    category_levels,
    category_name,
    describe_photo,
    detect_price_style,
    find_inside,
    normalize_name,
    parse_price,
    split_photos,
)


@pytest.mark.parametrize(
    ("text", "price", "currency"),
    [
        ("20", 20, ""),
        ("0", 0, ""),
        ("1299.00 USD", 1299, "USD"),
        ("1 299,50 EUR", 1299.5, "EUR"),
        ("1\u00a0299 ₽", 1299, "RUB"),
        ("1\u202f299,50\u00a0€", 1299.5, "EUR"),
        ("$1,299", 1299, "USD"),
        ("1,299.50", 1299.5, ""),
        ("1.299,50 €", 1299.5, "EUR"),
        ("1.299.000", 1299000, ""),
        ("1'299.00 CHF", 1299, "CHF"),
        ("1’299.–", 1299, ""),
        ("1299,-", 1299, ""),
        ("0,999", 0.999, ""),
        ("1.299", 1299, ""),
        ("1.299 €", 1299, "EUR"),
        ("1.250 KWD", 1.25, "KWD"),
        (",89 €", 0.89, "EUR"),
        (".89 $", 0.89, "USD"),
        ("R$1.299", 1299, "BRL"),
        ("R$ 1.299,90", 1299.9, "BRL"),
        ("₹1,29,999.00", 129999, "INR"),
        ("Rs. 12,34,567", 1234567, "INR"),
        ("USD 15", 15, "USD"),
        ("1299р.", 1299, "RUB"),
        ("1 299 руб.", 1299, "RUB"),
        ("1299 RUR", 1299, "RUB"),
        ("от 1299", 1299, ""),
        ("12,50 zł", 12.5, "PLN"),
        ("399 kr", 399, "kr"),
        ("12.50 EUR / pc", 12.5, "EUR"),
    ],
)
def test_prices(text: str, price: float, currency: str) -> None:
    assert parse_price(text) == (price, currency)


@pytest.mark.parametrize(
    "text",
    [
        *("", "abc", "-5", "- 5 EUR", "−5", "5-6", "12.5.3", "1,2,3", "nan", "inf", "1e400"),
        *("from 5 to 9", "ask for our price: 5"),
    ],
)
def test_texts_without_a_price(text: str) -> None:
    assert parse_price(text)[0] is None


def test_a_currency_column_has_priority() -> None:
    assert parse_price("15 $", "CAD") == (15, "CAD")
    assert parse_price("15", "руб") == (15, "RUB")


@pytest.mark.parametrize(
    ("column", "price"),
    [
        (["1.299", "2.500"], 1299),
        (["1.299", "15.90", "9.99"], 1.299),
        (["1.299", "1.299,50", "999"], 1299),
        (["1.299", "12.500.000", "0.5"], 1299),
    ],
)
def test_the_column_tells_what_a_point_means(column: list[str], price: float) -> None:
    assert parse_price(column[0], style=detect_price_style(column))[0] == price


@pytest.mark.parametrize(
    ("cell", "photos"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg|b.png", ["a.jpg", "b.png"]),
        ("a.jpg, b.jpg;c.webp", ["a.jpg", "b.jpg", "c.webp"]),
        ("a.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
        ("e, f.jpg", ["e, f.jpg"]),
        (
            "https://a.example/1, https://a.example/2",
            ["https://a.example/1", "https://a.example/2"],
        ),
        ("https://a.example/w_5,h_5/1.jpg", ["https://a.example/w_5,h_5/1.jpg"]),
        (
            "https://a.example/w_5,h_5/1.jpg,https://a.example/2.jpg",
            ["https://a.example/w_5,h_5/1.jpg", "https://a.example/2.jpg"],
        ),
        ("https://a.example/1 https://a.example/2", ["https://a.example/1", "https://a.example/2"]),
        ("//a.example/1.jpg?x=1&amp;y=2", ["https://a.example/1.jpg?x=1&y=2"]),
        ("HTTPS://a.example\\1.jpg", ["https://a.example/1.jpg"]),
        ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]),
        ([{"src": "a.jpg"}, {"url": "b.jpg", "id": 5}], ["a.jpg", "b.jpg"]),
        ({"image": ["a.jpg", "b.jpg"]}, ["a.jpg", "b.jpg"]),
        (None, []),
        ("", []),
        ({"url": 1}, []),
    ],
)
def test_photos_of_a_cell(cell: object, photos: list[str]) -> None:
    assert split_photos(cell) == photos


@pytest.mark.parametrize(
    ("name", "normalized"),
    [
        ("Image Link", "image_link"),
        ("g:image_link", "image_link"),
        ("imageLink", "image_link"),
        (" IMAGE-LINK * ", "image_link"),
        ("image\r\nlink", "image_link"),
        ("Images (x,y,z)", "images"),
        ("Артикул:", "артикул"),
        ("image[0].url", "image[0]_url"),
        ("\ufeffID", "id"),
    ],
)
def test_names_of_columns(name: str, normalized: str) -> None:
    assert normalize_name(name) == normalized


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("polo", ["polo"]),
        ("", [""]),
        ("Apparel > Shirts & Tops > Polo", ["Polo", "Shirts & Tops", "Apparel"]),
        ("Одежда/Женская одежда/Платья", ["Платья", "Женская одежда", "Одежда"]),
    ],
)
def test_a_category_has_levels(tag: str, expected: list[str]) -> None:
    assert category_levels(tag) == [tag, *(expected if expected != [tag] else [])]


def test_categories_of_google_and_woocommerce() -> None:
    assert category_name("1581") == "Clothing > Skirts"
    assert category_name("1581 - Apparel & Accessories > Clothing > Skirts") == "Clothing > Skirts"
    assert category_name("99999999") == "99999999"
    assert "Hoodies" in category_levels("Clothing, Clothing > Hoodies, Sale")


@pytest.mark.parametrize(("form", "other"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_spellings_are_found(
    tmp_path: Path, form: Literal["NFC", "NFD"], other: Literal["NFC", "NFD"]
) -> None:
    folder = tmp_path / unicodedata.normalize(other, "Röcke")
    folder.mkdir()
    (folder / unicodedata.normalize("NFC", "й.jpg")).write_bytes(b"x")
    name = unicodedata.normalize(form, "Röcke\\й.jpg")
    assert find_inside(tmp_path, name).read_bytes() == b"x"
    assert describe_photo(tmp_path, name) == "found"
    assert describe_photo(tmp_path, "other.jpg") == "no such file"
    assert describe_photo(tmp_path, "https://a.example/1.jpg") == "a URL"


def test_symbolic_links_stay_inside_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.jpg").write_bytes(b"x")
    (tmp_path / "out.jpg").write_bytes(b"x")
    (root / "inside.jpg").symlink_to("a.jpg")
    (root / "outside.jpg").symlink_to("../out.jpg")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (tmp_path / "alias").symlink_to(root)
    assert find_inside(root, "inside.jpg").read_bytes() == b"x"
    assert find_inside(tmp_path / "alias", "a.jpg").read_bytes() == b"x"
    for name in ("outside.jpg", "up/out.jpg", "../out.jpg", "/etc/passwd", "a\0.jpg", "loop"):
        with pytest.raises((ValueError, OSError)):
            find_inside(root, name).read_bytes()


TAG_LISTS = TagLists(lambda text: text.lower() in {"jeans", "blouse", "polo shirt", "coat"})


@pytest.mark.parametrize(
    ("value", "tags", "replaced", "removed", "added"),
    [
        ("jeans", ["jeans"], "skirt", "", "jeans, coat"),
        ("jeans, blouse", ["jeans", "blouse"], "skirt, blouse", "blouse", "jeans, blouse, coat"),
        ("jeans|blouse", ["jeans", "blouse"], "skirt|blouse", "blouse", "jeans|blouse|coat"),
        ("jeans;blouse;", ["jeans", "blouse"], "skirt;blouse;", "blouse;", "jeans;blouse;coat;"),
        ("jeans\nblouse", ["jeans", "blouse"], "skirt\nblouse", "blouse", "jeans\nblouse\ncoat"),
        (
            "jeans / blouse",
            ["jeans", "blouse"],
            "skirt / blouse",
            "blouse",
            "jeans / blouse / coat",
        ),
        ("jeans polo shirt", ["jeans polo shirt"], "jeans polo shirt", None, None),
        ("jeans blouse", ["jeans", "blouse"], "skirt blouse", "blouse", "jeans blouse coat"),
        (
            "#jeans #blouse",
            ["jeans", "blouse"],
            "#skirt #blouse",
            "#blouse",
            "#jeans #blouse #coat",
        ),
        ("jeans, zara", ["jeans", "zara"], "skirt, zara", "zara", "jeans, zara, coat"),
        (
            '["jeans","\\u0431"]',
            ["jeans", "\u0431"],
            '["skirt","\\u0431"]',
            '["\\u0431"]',
            '["jeans","\\u0431","coat"]',
        ),
        ('["jeans", "б"]', ["jeans", "б"], '["skirt", "б"]', '["б"]', '["jeans", "б", "coat"]'),
        ("['jeans', 'b']", ["jeans", "b"], "['skirt', 'b']", "['b']", "['jeans', 'b', 'coat']"),
        ('"jeans", "b"', ["jeans", "b"], '"skirt", "b"', '"b"', '"jeans", "b", "coat"'),
        (["jeans", "b"], ["jeans", "b"], ["skirt", "b"], ["b"], ["jeans", "b", "coat"]),
        (
            [{"name": "jeans", "id": 1}],
            ["jeans"],
            [{"name": "skirt", "id": 1}],
            [],
            [{"name": "jeans", "id": 1}, {"name": "coat"}],
        ),
        (
            {"legs": "jeans", "top": "b"},
            ["jeans", "b"],
            {"legs": "skirt", "top": "b"},
            {"legs": "", "top": "b"},
            {"legs": "jeans", "top": "b", "outer": "coat"},
        ),
        ("jeans, jeans", ["jeans"], "skirt, skirt", "", "jeans, jeans, coat"),
        # Names of categories have separators, too.
        ("Bags, Belts & Scarves", ["Bags, Belts & Scarves"], None, None, None),
        ("Clothing/Women/Jeans", ["Clothing/Women/Jeans"], None, None, None),
        ("Men > Coat, Men > Jeans", ["Men > Coat", "Men > Jeans"], None, None, None),
        ("polo shirt", ["polo shirt"], None, None, None),
        ("", [], None, None, "coat"),
        (None, [], None, None, "coat"),
        (["", None, 3.5], ["3.5"], None, None, None),
    ],
)
def test_tags_of_a_list_keep_its_notation(
    value: Any, tags: list[str], replaced: Any, removed: Any, added: Any
) -> None:
    assert TAG_LISTS.split(value) == tags
    assert TAG_LISTS.change(value, {}) == value
    if replaced is not None:
        assert TAG_LISTS.change(value, {"jeans": "skirt"}) == replaced
    if removed is not None:
        assert TAG_LISTS.change(value, {"jeans": None}) == removed
    if added is not None:
        assert TAG_LISTS.change(value, {}, {"outer": "coat"}) == added
