"""Formats, encodings and layouts of feeds as programs and shops write them."""

import gzip
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import openpyxl
import pytest

import fashion_tagger
from dataset.errors import BadInput
from dataset.feeds.product_feed import JSON, JSON_LINES, WORKBOOK, XML, FeedRow, open_feed
from dataset.feeds.tables import read_column

CASES = Path(fashion_tagger.__file__).parent.parent / "shared" / "cases" / "feeds"
TAGS = ("skirt", "dress", "coat")
ROWS = [(f"item{number}", f"photo{number}.jpg", tag) for number, tag in enumerate(TAGS)]
TABLE = "id;image;tag\n" + "".join(f"{';'.join(row)}\n" for row in ROWS)
CYRILLIC = "Артикул;Фото;Категория\n1;a.jpg;Юбки\n2;b.jpg;Платья\n"
OBJECTS = [dict(zip(("id", "image", "tag"), row, strict=True)) for row in ROWS]
G = 'xmlns:g="http://base.google.com/ns/1.0"'


def read(path: Path, content: str | bytes, cost: str | None = None) -> list[FeedRow]:
    """Write a feed and return its rows."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(open_feed(path, {}, cost).rows())


def facts(rows: Sequence[FeedRow]) -> list[tuple[str, str, str]]:
    """Return id, photo and tag of rows without problems."""
    assert [row.problem for row in rows] == [""] * len(rows)
    return [(row.id, row.image, row.tag) for row in rows]


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        *((name, 12) for name in ("good.csv", "sep-line.csv", "trailing-empty-columns.csv")),
        *((name, 12) for name in ("title-above.csv", "excel-cp1251.csv", "unclosed-quote.csv")),
        *((name, 12) for name in ("meta-template.csv", "google-names-with-spaces.tsv")),
        *((name, 12) for name in ("google.xml", "yandex-market.yml", "several-photos-pipe.csv")),
        ("shopify-export.csv", 6),
    ],
)
def test_the_sample_feeds_are_read(name: str, rows: int) -> None:
    if not CASES.is_dir():
        pytest.skip("the sample feeds are not here")
    read_rows = list(open_feed(CASES / name, {}).rows())
    assert len(facts(read_rows)) == rows
    assert [row.image for row in read_rows[:6]] == [f"photo{n}.jpg" for n in range(1, 7)]


def test_the_sample_costs_are_read() -> None:
    if not CASES.is_dir():
        pytest.skip("the sample feeds are not here")
    feed = open_feed(CASES / "costs-as-shops-write-them.csv", {}, "price")
    costs = [row.cost for row in feed.rows()]
    assert costs == [1299.0, *[1299.5] * 6, *[1299.0] * 5]


@pytest.mark.parametrize(
    "content",
    [
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace(";", "\t"),
        TABLE.replace(";", "|"),
        f"sep=;\r\n{TABLE}",
        f'"sep=,"\n{TABLE.replace(";", ",")}',
        f"\n\n{TABLE}",
        f";;\n;;\n{TABLE};;\n",
        f"Export, from the shop, 2026\n\n{TABLE}",
        TABLE.replace("\n", ";;;\n"),
        '"Item\nID";"Image\r\nLink";"product\ntype"\n' + TABLE.partition("\n")[2],
        '"id (a;b)";image;tag\n' + TABLE.partition("\n")[2],
        "# Required | id;# A link;# Optional\n" + TABLE,
    ],
)
@pytest.mark.parametrize("name", ["feed.csv", "feed.txt"])
def test_layouts_of_tables(tmp_path: Path, name: str, content: str) -> None:
    assert facts(read(tmp_path / name, content)) == ROWS


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1251", "koi8-r", "cp866"]
)
def test_encodings_of_tables(tmp_path: Path, encoding: str) -> None:
    rows = read(tmp_path / "feed.csv", CYRILLIC.encode(encoding))
    assert facts(rows) == [("1", "a.jpg", "Юбки"), ("2", "b.jpg", "Платья")]
    capitals = read(tmp_path / "feed.csv", CYRILLIC.upper().encode(encoding))
    assert capitals[0].tag == "ЮБКИ"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Röcke für Mädchen", "cp1252"),
        ("Vêtements > Robes d’été", "cp1252"),
        ("Niños > Pantalón", "cp1252"),
        ("dress 12,50 €", "cp1252"),
        ("Spódnice > Płaszcze damskie", "cp1250"),
        ("Šaty > Sukně dámské", "cp1250"),
        ("Юбка", "cp1251"),
        ("Сукні та спідниці", "cp1251"),
    ],
)
def test_encodings_are_detected_by_few_letters(tmp_path: Path, text: str, encoding: str) -> None:
    path = tmp_path / "feed.csv"
    path.write_bytes(f"id,image,tag\n1,a.jpg,{text!r}\n".replace("'", '"').encode(encoding))
    feed = open_feed(path, {})
    assert feed.encoding == encoding
    assert f"read as {encoding}" in feed.notes[0]
    assert [row.tag for row in feed.rows()] == [text]


def test_rows_of_different_lengths(tmp_path: Path) -> None:
    # Excel omits empty cells at the end of rows.
    rows = read(tmp_path / "a.csv", "id,image,tag,note,x\n1,a.jpg,hat,,\n2,b.jpg,hat\n3,c.jpg\n")
    assert [row.problem for row in rows] == ["", "", "2 cells, not 5"]


@pytest.mark.parametrize(
    ("title", "tail"),
    [
        ('"Big', ""),
        ('"Big', 'item7,x 12",photo7.jpg,polo\n'),
        ('"Big', 'item7,"x, y",photo7.jpg,polo\n'),
        ('"Big" coat', ""),
        ('12"', ""),
    ],
)
def test_an_unclosed_quote_swallows_no_row(tmp_path: Path, title: str, tail: str) -> None:
    lines = [f"{r[0]},{title if n == 1 else 'x'},{r[1]},{r[2]}\n" for n, r in enumerate(ROWS)]
    rows = read(tmp_path / "feed.csv", "id,title,image,tag\n" + "".join(lines) + tail)
    assert facts(rows)[:3] == ROWS
    assert len(rows) == 3 + bool(tail)
    if title == '"Big':
        assert rows[1].note == "line 3: a quote is not closed; it was read as a character"


def test_an_unclosed_quote_with_other_cells_is_a_problem(tmp_path: Path) -> None:
    rows = read(tmp_path / "feed.csv", 'id,image,tag\n1,"a,b,c.jpg,hat\n2,b.jpg,hat\n')
    assert [row.problem for row in rows] == ["line 2: a quote is not closed", ""]


def test_cells_with_line_breaks_and_escapes(tmp_path: Path) -> None:
    text = 'id,about,image,tag\n1,"<p>soft, warm,\nlight, new</p>",a.jpg,hat\n'
    assert facts(read(tmp_path / "feed.csv", text)) == [("1", "a.jpg", "hat")]
    text = 'id,about,image,tag\n1,"a \\"big\\" coat, x",a.jpg,hat\n'
    assert facts(read(tmp_path / "feed.csv", text)) == [("1", "a.jpg", "hat")]


def test_compressed_feeds(tmp_path: Path) -> None:
    assert facts(read(tmp_path / "feed.csv.gz", gzip.compress(TABLE.encode()))) == ROWS
    with zipfile.ZipFile(tmp_path / "feed.zip", "w") as archive:
        archive.writestr("export/feed.csv", TABLE)
    assert facts(list(open_feed(tmp_path / "feed.zip", {}).rows())) == ROWS
    cut = gzip.compress(TABLE.encode() * 9_000, 0)[:-90_000]
    rows = read(tmp_path / "cut.gz", cut)
    assert rows[-1].problem.startswith("the rest can't be read")


def test_workbooks(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["A price list"])
    sheet = book.create_sheet("goods")
    for row in ([], ["Артикул", "Фото", "Категория", "Цена", None], *([*r, 9.5] for r in ROWS)):
        sheet.append(row)
    sheet.append([7.0, "a.jpg", "hat"])
    # Found by the content.
    path = tmp_path / "feed.csv"
    book.save(path)
    feed = open_feed(path, {}, "Цена")
    rows = list(feed.rows())
    assert facts(rows) == [*ROWS, ("7", "a.jpg", "hat")]
    assert [row.cost for row in rows] == [9.5, 9.5, 9.5, None]
    assert feed.kind == WORKBOOK
    assert "the sheet 'goods' is read" in feed.notes[-1]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", json.dumps(OBJECTS), JSON),
        ("b.json", json.dumps({"total": 3, "data": {"goods": OBJECTS}}, indent=1), JSON),
        ("c.json", "\n".join(map(json.dumps, OBJECTS)), JSON_LINES),
        ("d.ndjson", "\n".join(map(json.dumps, OBJECTS)), JSON_LINES),
        ("e.txt", json.dumps(OBJECTS), JSON),
    ],
)
def test_json(tmp_path: Path, name: str, content: str, kind: str) -> None:
    assert facts(read(tmp_path / name, content)) == ROWS
    assert open_feed(tmp_path / name, {}).kind == kind


def test_json_that_ends_early(tmp_path: Path) -> None:
    rows = read(tmp_path / "feed.json", json.dumps(OBJECTS)[:-30])
    assert [bool(row.problem) for row in rows] == [False, False, True]


def test_products_of_a_shopify_api(tmp_path: Path) -> None:
    product = {
        "id": 7,
        "product_type": "Dress",
        "images": [{"id": 1, "src": "a.jpg"}, {"id": 2, "src": "b.jpg"}],
        "variants": [{"id": 8, "price": "9.00"}],
    }
    (row,) = read(tmp_path / "products.json", json.dumps({"products": [product]}, indent=1))
    assert (row.id, row.images, row.tag) == ("7", ("a.jpg", "b.jpg"), "Dress")


def test_google_xml_of_rss_and_atom(tmp_path: Path) -> None:
    fields = (
        "<title>t</title><id>page</id><g:id>7</g:id><g:image_link>//a.example/1.jpg?a=1&b=2"
        "</g:image_link><g:additional_image_link>b.jpg</g:additional_image_link>"
        "<g:additional_image_link>c.jpg</g:additional_image_link>&nbsp;<g:product_type>"
        "<![CDATA[A & B > hat]]></g:product_type><g:price>9.00 EUR</g:price>"
    )
    rss = f"<rss {G}><channel><title>A & B</title><item>{fields}</item></channel></rss>"
    atom = f'<feed xmlns="http://www.w3.org/2005/Atom" {G}><entry>{fields}</entry></feed>'
    # A prefix without a definition, too.
    for content in (rss, atom, rss.replace(G, "")):
        (row,) = read(tmp_path / "feed.xml", content)
        assert (row.id, row.tag) == ("7", "A & B > hat")
        assert row.images == ("https://a.example/1.jpg?a=1&b=2", "b.jpg", "c.jpg")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251", "utf-16"])
@pytest.mark.parametrize("declared", ["utf-8", "windows-1251", "utf-16"])
def test_yandex_xml_in_other_encodings(tmp_path: Path, encoding: str, declared: str) -> None:
    text = (
        f'<?xml version="1.0" encoding="{declared}"?><!DOCTYPE yml_catalog SYSTEM "shops.dtd">'
        '<yml_catalog><shop><categories><category id="1">Одежда</category>'
        '<category id="2" parentId="1">Юбки</category></categories><offers>'
        '<offer id="7" available="true"><categoryId>2</categoryId><picture>a.jpg</picture>'
        '<picture>b.jpg</picture><param name="Цвет">синий</param></offer></offers></shop>'
        "</yml_catalog>"
    )
    (row,) = read(tmp_path / "feed.yml", text.encode(encoding))
    assert (row.id, row.images, row.tag) == ("7", ("a.jpg", "b.jpg"), "Одежда > Юбки")
    assert row.values["param Цвет"] == "синий"


def test_xml_that_is_cut_or_hostile(tmp_path: Path) -> None:
    goods = "".join(
        f"<good><id>{r[0]}</id><image>{r[1]}</image><category>{r[2]}</category></good>"
        for r in ROWS
    )
    assert open_feed_kind(tmp_path / "whole.xml", f"<goods>{goods}</goods>") == XML
    rows = read(tmp_path / "cut.xml", f"<goods>{goods[:-40]}")
    assert [bool(row.problem) for row in rows] == [False, False, True, True]
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 9}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE x [<!ENTITY e0 "x"><!ENTITY f SYSTEM "file:///etc/passwd">{entities}]>'
    bomb = goods.replace("item0", "&e11;&f;")
    rows = read(tmp_path / "bomb.xml", f"{doctype}<goods>{bomb}</goods>")
    assert rows[0].id == "&e11;&f;"


def open_feed_kind(path: Path, content: str) -> str:
    """Write a feed and return its kind."""
    path.write_text(content)
    return open_feed(path, {}).kind


def test_rows_of_shopify_and_woocommerce_belong_to_products(tmp_path: Path) -> None:
    shopify = (
        "Title,URL handle,Product category,Type,SKU,Price,Product image URL,Image position\n"
        "A hat,hat-1,,Hat,S1,9,a.jpg,1\n,hat-1,,,S2,9,b.jpg,2\nA cap,cap-1,,Cap,S3,9,c.jpg,1\n"
    )
    rows = read(tmp_path / "shopify.csv", shopify, "Price")
    assert [(row.id, row.images, row.tag) for row in rows] == [
        ("hat-1", ("a.jpg", "b.jpg"), "Hat"),
        ("cap-1", ("c.jpg",), "Cap"),
    ]
    assert [len(row.rows) for row in rows] == [2, 1]
    woocommerce = (
        "ID,Type,SKU,Categories,Images,Parent\n"
        '1,variable,H,"Clothing, Clothing > Hats","a.jpg, b.jpg",\n'
        "2,variation,H-S,,c.jpg,id:1\n3,variation,H-M,,,H\n4,simple,C,Caps,d.jpg,\n"
    )
    rows = read(tmp_path / "woocommerce.csv", woocommerce)
    assert [(row.id, row.images) for row in rows] == [
        ("1", ("a.jpg", "b.jpg", "c.jpg")),
        ("4", ("d.jpg",)),
    ]


def test_columns_of_google_and_meta(tmp_path: Path) -> None:
    google = (
        "id\timage link\tadditional image link\tadditional image link\tproduct type\t"
        "google product category\n7\ta.jpg\tb.jpg,c.jpg\td.jpg\t\t1581\n"
    )
    (row,) = read(tmp_path / "google.tsv", google)
    assert (row.images, row.tag) == (("a.jpg", "b.jpg", "c.jpg", "d.jpg"), "Clothing > Skirts")
    meta = "id,image[0].url,image[0].tag[0],image[1].url,product_type\n7,a.jpg,x,b.jpg,hat\n"
    (row,) = read(tmp_path / "meta.csv", meta)
    assert row.images == ("a.jpg", "b.jpg")


def test_a_preview_shows_what_is_understood(tmp_path: Path) -> None:
    (tmp_path / "photo0.jpg").write_bytes(b"x")
    path = tmp_path / "feed.csv"
    path.write_text(TABLE)
    lines = open_feed(path, {}).preview(tmp_path)
    assert lines[0] == f"{path}: table, delimiter semicolon, encoding utf-8"
    assert lines[1] == "columns: id='id', image='image', tag='tag'"
    assert lines[3:7] == [
        "row 1: id 'item0', tag 'skirt'",
        "  photo photo0.jpg: found",
        "row 2: id 'item1', tag 'dress'",
        "  photo photo1.jpg: no such file",
    ]


def test_a_folder_or_archive_of_several_files_is_no_feed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder"):
        open_feed(tmp_path, {})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", TABLE)
        archive.writestr("b.csv", TABLE)
    with pytest.raises(BadInput, match="archive of 2 files"):
        open_feed(tmp_path / "a.zip", {})


def test_columns_of_magento_and_nested_xml(tmp_path: Path) -> None:
    magento = "sku,product_type,categories,base_image\n7,simple,Default/Women/Dresses,a.jpg\n"
    (row,) = read(tmp_path / "magento.csv", magento)
    assert (row.id, row.image, row.tag) == ("7", "a.jpg", "Default/Women/Dresses")
    image = "<item><url>a.jpg</url><alt>x</alt></item>"
    product = f"<id>7</id><photos>{image * 2}</photos><category>hat</category>"
    (row,) = read(tmp_path / "feed.xml", f"<shop><product>{product}</product></shop>")
    assert (row.id, row.images, row.tag) == ("7", ("a.jpg",), "hat")


def test_own_numbers_of_categories_are_not_those_of_google(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "feed.csv", "id,image,category\n7,a.jpg,212\n")
    assert row.tag == "212"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_column_of_a_table_that_a_spreadsheet_saved(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    text = "id,title,answer\n1,Юбка,да\n2,Платье,\n".replace(",", delimiter)
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert read_column(tmp_path / "a.csv", "answer") == ["да", ""]
    with pytest.raises(BadInput, match="no column other"):
        read_column(tmp_path / "a.csv", "other")


def test_a_price_that_is_an_object(tmp_path: Path) -> None:
    item = {"id": 7, "image": "a.jpg", "tag": "hat", "price": {"amount": 9.5, "currency": "EUR"}}
    (row,) = read(tmp_path / "feed.jsonl", json.dumps(item), "price")
    assert row.cost == 9.5
