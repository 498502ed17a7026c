"""Tables of a check with any content of a feed."""

import csv
import json
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from dataset.feeds.product_feed import ProductFeed, open_feed
from model.feeds.sources import TaggedItem
from model.tag_check.noise_model import AGREES, MISTAKE, NOT_CHECKED, UNSURE
from model.tag_check.output import (
    _checked_rows,
    _write_corrected,
    _write_rows,
    corrected_file_name,
    render_report,
)
from model.tag_check.store import CheckStore, ItemPrediction, ItemVerdict, PhotoPrediction

LABELS = ("dress", "polo")


def checked(folder: Path, feed: ProductFeed) -> CheckStore:
    """Store the rows of a feed: tags that contain "wrong" are mistakes, suggested is a dress."""
    store = CheckStore(folder / "items.sqlite")
    for row in feed.rows():
        known = (row.number, row.id, row.image, row.tag, "dress", row.cost, row.rows)
        store.add(
            [ItemPrediction(TaggedItem(*known), None if row.problem else 0, problem=row.problem)]
        )
        verdict = MISTAKE if "wrong" in row.tag else NOT_CHECKED if row.problem else AGREES
        store.save_verdicts([ItemVerdict(row.number, verdict, None if row.problem else "dress")])
    return store


@pytest.mark.parametrize(
    ("cell", "written"), [("a\ufffdb", "a\ufffdb"), ("a\ud800b", "a?b"), ("a\rb\nc", "a\rb\nc")]
)
def test_any_character_can_be_written(tmp_path: Path, cell: str, written: str) -> None:
    _write_rows(tmp_path / "out.csv", ["x", "y"], [[cell, "1"]])
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["x", "y"], [written, "1"]]


def test_a_corrected_table_has_the_parsed_rows_in_utf_8(tmp_path: Path) -> None:
    rows = "id;image;tag;title\n1;a.jpg;Платье;x\n2;b.jpg\n3;c.jpg;wrong;y\n4;d.jpg;;"
    path = tmp_path / "feed.csv"
    path.write_bytes(rows.encode() + b"\xff\n")
    feed = open_feed(path, {})
    store = checked(tmp_path, feed)
    _write_corrected(tmp_path / "out.csv", feed, store, LABELS)
    written = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert written == [
        "id;image;tag;title",
        "1;a.jpg;Платье;x",
        # As the feed spells it.
        "3;c.jpg;Платье;y",
        "4;d.jpg;;\ufffd",
    ]
    assert store.undecoded_count() == 1
    problems = {row[0]: row[-1] for row in _checked_rows(store, list(feed.header), "id")}
    assert problems == {"1": "", "2": "2 cells, not 4", "3": "", "4": "no tag"}


def test_corrected_json_lines_have_the_parsed_objects(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    lines = (
        '{"id": 1, "image": "a.jpg", "tag": ["wrong", "новое"], "x": {"y": 1}}',
        '{"id": 2,',
        '{"id": "\\ud800", "image": "c.jpg", "tag": "платье"}',
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    feed = open_feed(path, {})
    store = checked(tmp_path, feed)
    _write_corrected(tmp_path / "out.jsonl", feed, store, LABELS)
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, written)) == [
        {"id": 1, "image": "a.jpg", "tag": ["платье", "новое"], "x": {"y": 1}},
        {"id": "?", "image": "c.jpg", "tag": "платье"},
    ]
    (reason,) = [row[-1] for row in _checked_rows(store, list(feed.header), "id") if not row[0]]
    assert reason.startswith("row 2: not JSON: ")


SHOPIFY = "Handle,Type,Image Src\n=1+1,wrong,a.jpg\n=1+1,,b.jpg\ncap,hat,c.jpg\n"
OBJECTS = [{"id": "a", "image": "a.jpg", "tag": "wrong"}, {"id": "b", "image": "b.jpg", "tag": "x"}]


def corrected(folder: Path, name: str, content: str) -> Path:
    """Write a feed and the corrected copy of it."""
    path = folder / name
    path.write_text(content)
    feed = open_feed(path, {})
    out = folder / corrected_file_name(feed)
    _write_corrected(out, feed, checked(folder, feed), LABELS)
    return out


def test_a_corrected_table_has_all_rows_of_a_product_and_no_formula(tmp_path: Path) -> None:
    out = corrected(tmp_path, "feed.csv", SHOPIFY)
    assert out.read_text().splitlines() == [
        "Handle,Type,Image Src",
        "'=1+1,hat,a.jpg",
        "'=1+1,,b.jpg",
        "cap,hat,c.jpg",
    ]
    # The corrected copy is a feed again.
    assert [row.id for row in open_feed(out, {}).rows()] == ["=1+1", "cap"]


def test_a_corrected_workbook_has_no_formula(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in csv.reader(SHOPIFY.splitlines()):
        book.active.append(row)
        for cell in book.active[book.active.max_row]:
            cell.data_type = "s"
    book.save(tmp_path / "feed.xlsx")
    feed = open_feed(tmp_path / "feed.xlsx", {})
    out = tmp_path / corrected_file_name(feed)
    _write_corrected(out, feed, checked(tmp_path, feed), LABELS)
    sheet = openpyxl.load_workbook(out).active
    assert sheet is not None
    cells = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert cells == [
        ["Handle", "Type", "Image Src"],
        ["=1+1", "hat", "a.jpg"],
        ["=1+1", None, "b.jpg"],
        ["cap", "hat", "c.jpg"],
    ]
    assert "f" not in {cell.data_type for row in sheet.iter_rows() for cell in row}


def test_corrected_copies_of_json_and_xml(tmp_path: Path) -> None:
    out = corrected(tmp_path, "feed.json", json.dumps(OBJECTS))
    assert [row["tag"] for row in json.loads(out.read_text())] == ["x", "x"]
    (tmp_path / "items.sqlite").unlink()
    items = "".join(
        f"<item><id>{o['id']}</id><image>{o['image']}</image><tag>{o['tag']}</tag></item>"
        for o in OBJECTS
    )
    out = corrected(tmp_path, "feed.xml", f"<rss>{items}</rss>")
    assert out.name == "corrected.csv"
    assert out.read_text().splitlines() == ["id,image,tag", "a,a.jpg,x", "b,b.jpg,x"]


def test_an_unknown_cost_is_the_mean_cost_and_repeated_ids_are_named(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("id,image,tag,price\n1,a.jpg,x,10\n1,a.jpg,x,free\n2,a.jpg,x,20\n")
    store = CheckStore(tmp_path / "costs.sqlite")
    photo = PhotoPrediction(probabilities=np.array([0.5, 0.5]))
    for row in open_feed(path, {}, "price").rows():
        item = TaggedItem(row.number, row.id, row.image, row.tag, "x", row.cost, row.rows)
        store.add([ItemPrediction(item, 0, photo=photo)])
    (batch,) = store.predictions("", (0, 1))
    assert batch.costs.tolist() == [10, 15, 20]
    assert store.repeated_ids() == [("1", 2)]


def test_unsure_items_are_listed_by_pair_of_labels(tmp_path: Path) -> None:
    store = CheckStore(tmp_path / "unsure.sqlite")
    for number, (tag, suggested) in enumerate([("polo", "dress")] * 2 + [("dress", "polo")], 1):
        item = TaggedItem(number, str(number), "a.jpg", tag, tag, 1.0, [])
        store.add([ItemPrediction(item, 0, photo=PhotoPrediction())])
        store.save_verdicts([ItemVerdict(number, UNSURE, suggested, 0.6, 0.4, 0.2, 0.5)])
    assert store.pairs(UNSURE) == [("polo", "dress", 2), ("dress", "polo", 1)]
    results = {
        "verdicts": {UNSURE: 3},
        "tags": 3,
        "problems": {},
        "expected_precision": None,
        "estimated_wrong_rate": 0.1,
        "wrong_rate_interval": [0.0, 0.4],
    }
    page = render_report(store, results, lambda _: b"", tmp_path)
    assert "Unsure items by tag and most probable label" in page
    assert "95% interval 0.0% to 40.0%" in page
