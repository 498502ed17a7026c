"""Feeds of all formats, with all kinds of bad rows."""

from pathlib import Path

import pytest

from dataset.errors import BadInput
from dataset.feeds.product_feed import open_feed


def write(path: Path, text: str | bytes) -> Path:
    """Write text or bytes to a file and return its path."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_with_bad_rows(tmp_path: Path) -> None:
    text = (
        "SKU,Image_Link,Category,price\n1,a.jpg,polo,9.5\n2,,polo,1\n3,b.jpg,,1\n4,c.jpg\n"
        '5,d.jpg,dress,1,more\n\n6,"e, f.jpg","two\nlines",0\n7,g.jpg,hat,free\n8,h.jpg,hat,-1\n'
    )
    feed = open_feed(write(tmp_path / "feed.csv", text), {}, "price")
    rows = list(feed.rows())
    assert [row.number for row in rows] == list(range(1, 9))
    assert [(row.id, row.image, row.tag, row.cost) for row in (rows[0], rows[5])] == [
        ("1", "a.jpg", "polo", 9.5),
        ("6", "e, f.jpg", "two\nlines", 0.0),
    ]
    assert [row.problem for row in rows] == [
        "",
        "no image",
        "no tag",
        "2 cells, not 4",
        "5 cells, not 4",
        *[""] * 3,
    ]
    # A cost that can't be read does not exclude an item.
    assert [(row.cost, row.note) for row in rows[-2:]] == [
        (None, "price 'free' can't be read: the mean cost is used"),
        (None, "price '-1' can't be read: the mean cost is used"),
    ]


def test_bytes_of_spreadsheets(tmp_path: Path) -> None:
    path = write(tmp_path / "feed.tsv", b"\xef\xbb\xbfid\timage\ttag\r\n1\ta\xff.jpg\tpolo\r\n")
    (row,) = open_feed(path, {}).rows()
    assert (row.id, row.image, row.tag, row.problem) == ("1", "a\ufffd.jpg", "polo", "")


def test_json_lines_with_bad_lines(tmp_path: Path) -> None:
    text = (
        '{"id": 7, "image": ["a.jpg", "b.jpg"], "tag": "polo", "x": {"y": 1}}\nnot json\n[1]\n\n'
        '{"id": 8, "image": {"url": 1}, "tag": "polo"}\n{"id": 9, "tag": null, "image": "c.jpg"}\n'
    )
    rows = list(open_feed(write(tmp_path / "feed.jsonl", text), {}).rows())
    assert (rows[0].id, rows[0].image, rows[0].values["x"]) == ("7", "a.jpg", {"y": 1})
    assert [row.problem.partition(":")[0] for row in rows] == [
        "",
        "not JSON",
        "not a JSON object",
        "no image",
        "no tag",
    ]


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("feed.csv", "", {}, "is empty"),
        ("feed.xlsx", "x", {}, "no row with names of columns"),
        ("feed.xls", b"\xd0\xcf\x11\xe0" + bytes(600), {}, "save it as .xlsx"),
        ("feed.csv", b"%PDF-1.7 x", {}, "is not text"),
        ("feed.xml", "<html><body>Sign in</body></html>", {}, "a web page"),
        ("feed.xml", "<a><b>1</b></a>", {}, "without products"),
        ("feed.xlsx", b"PK\x03\x04 broken", {}, "broken archive"),
        ("feed.csv", "id,image,label2\n", {}, "--columns tag=NAME. Columns: id, image, label2"),
        ("feed.csv", "id,image,tag\n", {"tag": "kind"}, "no column 'kind'"),
        ("feed.csv", "id,id,image,tag\n", {}, "two columns named id"),
        ("feed.jsonl", "[]\n", {}, "is empty"),
    ],
)
def test_invalid_feeds_are_rejected(
    tmp_path: Path, name: str, text: str | bytes, columns: dict[str, str], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        open_feed(write(tmp_path / name, text), columns)


def test_no_such_file_and_no_such_cost(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        open_feed(tmp_path / "feed.csv", {})
    path = write(tmp_path / "feed.csv", "id,image,tag\n")
    with pytest.raises(BadInput, match="no column 'price'"):
        open_feed(path, {}, "price")


def test_named_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "feed.csv", "id,image,tag,real\n1,a.jpg,old,new\n")
    (row,) = open_feed(path, {"tag": "real"}).rows()
    assert row.tag == "new"


def test_rows_that_cannot_be_parsed_have_no_values(tmp_path: Path) -> None:
    feed = open_feed(write(tmp_path / "a.csv", "id,image,tag\n1,a.jpg,hat,more,still\n2\n"), {})
    assert [(row.id, row.values) for row in feed.rows()] == [("1", {}), ("2", {})]
    lines = '{"id": 1, "image": "a", "tag": "b"}\n{"id": 2,\n[3]\n'
    rows = list(open_feed(write(tmp_path / "a.jsonl", lines), {}).rows())
    assert [len(row.values) for row in rows] == [3, 0, 0]


def test_other_delimiters_and_encodings(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id;image;tag;price\n1;a.jpg;Платье;9,5\n".encode("utf-16"))
    feed = open_feed(path, {}, "price")
    assert (feed.delimiter, feed.encoding) == (";", "utf-16")
    (row,) = feed.rows()
    assert (row.tag, row.cost, row.problem) == ("Платье", 9.5, "")

    path = write(tmp_path / "b.csv", "id\timage\ttag\n1\ta.jpg\tПлатье\n".encode("cp1251"))
    feed = open_feed(path, {})
    assert "is read as cp1251" in feed.notes[0]
    assert [row.tag for row in feed.rows()] == ["Платье"]
    (row,) = open_feed(path, {}, None, "utf-8").rows()
    assert row.problem == "the tag is not valid utf-8: see --encoding"
    (row,) = open_feed(path, {}, None, "cp1251").rows()
    assert (row.tag, row.problem) == ("Платье", "")
    with pytest.raises(BadInput, match="as klingon"):
        open_feed(path, {}, None, "klingon")
    with pytest.raises(BadInput, match="as utf-16"):
        open_feed(path, {}, None, "utf-16")
