"""`check-tags` with a feed with wrong tags and all kinds of bad photos."""

import csv
import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import BadInput
from model.feeds.sources import TaggedItem
from model.inference.predictor import NetworkOutputs, Predictor
from model.tag_check.cli import _print_results
from model.tag_check.pipeline import CheckOptions, _begin_check, _require_same_options
from model.tag_check.store import CheckStore, ItemPrediction
from tests.support import drawn_splits
from tests.support.browser import find_overflow, needs_chromium
from tests.support.drawn_splits import draw_splits, random_backbone
from tests.support.photo_site import serving

COLOURS = {"polo": "red", "dress": "blue", "hat": "green"}
COUNTS = {"train": 14, "validation": 6, "test": 8}
OTHER = {"polo": "dress", "dress": "hat", "hat": "polo"}
# As the feed writes them.
SPELT = {"polo": "Apparel > Polo", "dress": "Платья", "hat": "hat"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, short_backbone: None) -> Path:
    folder = tmp_path_factory.mktemp("work")
    draw_splits(folder / "splits", COLOURS, COUNTS)
    random_backbone(folder / "backbone.weights.h5")
    done = drawn_splits.run(
        folder,
        *(
            "--weights",
            "backbone.weights.h5",
            "--fine-tune",
            "0",
            "--label-smoothing",
            "0",
            "--out",
            "run",
        ),
    )
    assert done.returncode == 0, done.stderr
    return folder


def write_feed(folder: Path, site: str) -> None:
    """Write a feed with wrong tags, training photos, bad rows, and photos at URLs."""
    root = folder / "splits"
    Image.new("RGB", (90, 120), "white").save(root / "blank.png")
    Image.new("RGB", (40, 40), "red").save(root / "tiny.png")
    (root / "broken.png").write_bytes(b"no photo")
    (folder / "outside.png").write_bytes((root / "blank.png").read_bytes())
    rows = []
    for label in COLOURS:
        for number in range(COUNTS["test"]):
            tag = OTHER[label] if number == 3 else SPELT[label]
            rows.append((f"{label}-{number}", f"test/{label}/{number}.png", tag, 10))
        tag = OTHER[label] if label == "hat" else label
        rows.append((f"train-{label}", f"train/{label}/5.png", tag, 10))
    rows += [
        ("blank", "blank.png", "polo", 10),
        ("broken", "broken.png", "polo", 10),
        ("tiny", "tiny.png", "polo", 10),
        ("gone", "gone.png", "polo", 10),
        ("folder", "test", "polo", 10),
        ("outside", "../outside.png", "polo", 10),
        ("twin", "test/polo/0.png", "polo", 10),
        ("served", f"{site}/hat.png", "hat", 10),
        ("served-3", f"{site}/hat.png?other", "polo", 10),
        ("lost", f"{site}/lost.png", "polo", 10),
        ("mail", "ftp://shop.example/a.jpg", "polo", 10),
        ("other", "test/hat/0.png", "socks", 10),
        ("=1+1", "test/hat/1.png", "<script>alert(1)</script>", 10),
        ("return", "test/hat/1.png", "a\rb", 10),
    ]
    with (folder / "feed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "image", "category", "price", "rank"])
        writer.writerows([*row, "kept"] for row in rows)
        file.write("short,row\r\n")


def arguments(*words: str) -> list[str]:
    return ["check-tags", "--model", "run", "--image-root", "splits", "--cache", "cache", *words]


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return drawn_splits.run_words(folder, *arguments(*words))


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["sku"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def checked(work: Path) -> Path:
    hat = (work / "splits" / "test" / "hat" / "5.png").read_bytes()
    with serving({"/hat.png": hat, "/hat.png?other": hat}) as site:
        write_feed(work, site.url)
        done = check(work, "feed.csv", "--cost-column", "price", "--allow-private-hosts")
    assert done.returncode == 0, done.stderr
    assert site.requests["/hat.png"] == site.requests["/lost.png"] == 1
    return work / "checked"


def test_wrong_tags_come_first_with_suggestions(checked: Path) -> None:
    rows = rows_of(checked / "checked.csv")
    wrong = [f"{label}-3" for label in COLOURS]
    # A training photo of the run, with another tag there.
    wrong.append("train-hat")
    wrong.append("served-3")
    assert set(list(rows)[:5]) == set(wrong)
    for sku in wrong:
        assert rows[sku]["verdict"] in ("mistake", "unsure")
        truth = sku.removeprefix("train-").removesuffix("-3").replace("served", "hat")
        assert rows[sku]["suggested"] == truth
        assert truth in rows[sku]["nearest"]
    right = [sku for sku in rows if ("-" in sku or sku == "served") and sku not in wrong]
    assert {rows[sku]["verdict"] for sku in right} <= {"agrees", "unsure"}
    assert sum(rows[sku]["verdict"] == "agrees" for sku in right) > len(right) / 2


def test_the_columns_of_the_feed_stay(checked: Path) -> None:
    with (checked / "checked.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header[:6] == ["sku", "image", "category", "price", "rank", "check_rank"]
    assert rows_of(checked / "checked.csv")["polo-0"]["rank"] == "kept"


def test_a_photo_of_two_items_is_predicted_once(work: Path, checked: Path) -> None:
    rows = rows_of(checked / "checked.csv")
    numbers = ("verdict", "suggested", "probability", "tag_probability", "nearest")
    assert [rows["twin"][name] for name in numbers] == [rows["polo-0"][name] for name in numbers]
    assert rows["served"]["nearest"] == rows["served-3"]["nearest"] != ""


def test_probabilities_margins_and_costs_are_consistent(checked: Path) -> None:
    rows = [r for r in rows_of(checked / "checked.csv").values() if r["probability"]]
    costs = [float(row["expected_cost"]) for row in rows]
    assert costs == sorted(costs, reverse=True)
    for row in rows:
        best, own = float(row["probability"]), float(row["tag_probability"])
        assert float(row["margin"]) == pytest.approx(best - own, abs=1e-5)
        assert 0 <= float(row["expected_cost"]) <= 10
        assert own <= best <= 1


@pytest.mark.parametrize(
    ("sku", "verdict", "reason"),
    [
        ("blank", "no garment seen", "blank"),
        ("tiny", "no garment seen", "too small: side 40, at least 75"),
        ("broken", "not checked", "broken: not an image"),
        ("gone", "not checked", "no such file"),
        ("folder", "not checked", "it is not a file"),
        ("outside", "not checked", "outside --image-root"),
        ("lost", "not checked", "not downloaded: HTTP 404"),
        ("mail", "not checked", "only http and https are supported"),
        ("other", "not checked", "the model has no label 'socks'"),
        # A spreadsheet does not run it.
        ("'=1+1", "not checked", "the model has no label"),
        ("short", "not checked", "2 cells, not 5"),
    ],
)
def test_bad_rows_have_a_reason(checked: Path, sku: str, verdict: str, reason: str) -> None:
    row = rows_of(checked / "checked.csv")[sku]
    assert row["verdict"] == verdict
    assert reason in row["reason"]


def test_the_corrected_feed_is_the_feed_with_other_tags(work: Path, checked: Path) -> None:
    before, after = rows_of(work / "feed.csv"), rows_of(checked / "corrected.csv")
    rows = rows_of(checked / "checked.csv")
    # Rows that can't be parsed are excluded.
    assert before.pop("short")
    before = {"'=1+1" if sku == "=1+1" else sku: row for sku, row in before.items()}
    before["'=1+1"]["sku"] = "'=1+1"
    assert list(before) == list(after)
    assert any(row["verdict"] == "mistake" for row in rows.values())
    for sku, row in before.items():
        mistake = rows[sku]["verdict"] == "mistake"
        tag = SPELT[rows[sku]["suggested"]] if mistake else row["category"] or ""
        assert after[sku] == {name: value or "" for name, value in row.items()} | {"category": tag}


def test_the_page_escapes_and_shows_photos(checked: Path) -> None:
    page = (checked / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("data:image/jpeg") >= 3
    assert 'src="http' not in page
    # Neighbours are shown as pictures.
    assert page.count('alt="Training photo of ') >= 3 and "Nearest training photos" in page


def test_results_and_sample(checked: Path) -> None:
    figures = json.loads((checked / "check.json").read_text())
    rows = rows_of(checked / "checked.csv").values()
    low, high = figures["wrong_rate_interval"]
    assert 0 <= low <= figures["estimated_wrong_rate"] <= high <= 1 and low < high
    page = (checked / "report.html").read_text(encoding="utf-8")
    assert f"95% interval {low:.1%} to {high:.1%}" in page
    for verdict, count in figures["verdicts"].items():
        assert sum(row["verdict"] == verdict for row in rows) == count
    with (checked / "sample.csv").open(newline="") as file:
        sample = list(csv.DictReader(file))
    assert len(sample) == figures["verdicts"]["mistake"]
    assert {row["tag_is_wrong"] for row in sample} == {""}


def test_the_rate_of_wrong_tags_is_printed_without_any_mistake(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = {
        "verdicts": {"agrees": 3},
        "problems": {},
        "expected_precision": None,
        "estimated_wrong_rate": 0.021,
        "wrong_rate_interval": [0.0, 0.08],
    }
    _print_results(results, tmp_path)
    output = capsys.readouterr().out
    assert "An estimated 2.1% of the tags are wrong (95% interval 0.0% to 8.0%)." in output


def test_the_precision_of_a_reviewed_sample(work: Path, checked: Path) -> None:
    path = work / "reviewed.csv"
    path.write_text("id,tag_is_wrong\n" + "a,yes\n" * 18 + "b,no\nc,No\nd,\n")
    done = check(work, "--reviewed", str(path))
    # Wilson's interval for 18 of 20, by hand: 69.9 % to 97.2 %.
    assert "18 of 20 reported mistakes are wrong tags: 90.0%, 95% interval 69.9% to 97.2%" in (
        done.stdout
    )
    assert "1 rows of the sample have no answer" in done.stdout
    path.write_text("id,tag_is_wrong\na,perhaps\n")
    done = check(work, "--reviewed", str(path))
    assert done.returncode == 2
    assert "yes or no, not 'perhaps'" in done.stderr


def test_a_taken_folder_and_other_wrong_usage(work: Path, checked: Path) -> None:
    for words, message in (
        (("feed.csv",), "already exists"),
        (("none.csv", "--out", "new"), "no such file"),
        (("feed.csv", "--out", "new", "--columns", "tag=kind"), "no column 'kind'"),
        (("feed.csv", "--out", "new", "--cost-column", "worth"), "no column 'worth'"),
        (("feed.csv", "--out", "new", "--columns", "name=kind"), "must look like"),
        (("feed.csv", "--out", "new", "--model", "splits"), "is not a run of train-model"),
        (("feed.csv", "--out", "new", "--data", "run"), "no photos below train/"),
    ):
        done = check(work, *words)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (work / "new").exists()


def test_a_second_check_predicts_nothing_and_is_equal(
    work: Path, checked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row for row in rows_of(work / "feed.csv").values() if ":" not in row["image"]]
    with (work / "local.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    counts: list[int] = []
    predict = Predictor.predict

    def counted(self: Predictor, pixels: np.ndarray) -> NetworkOutputs:
        counts.append(len(pixels))
        return predict(self, pixels)

    monkeypatch.setattr(Predictor, "predict", counted)
    results = []
    for out in ("local-1", "local-2"):
        done = check(work, "local.csv", "--out", out, "--cache", "own")
        assert done.returncode == 0, done.stderr
        results.append((work / out / "checked.csv").read_bytes())
        photos, counts[:] = sum(counts), []
        assert (photos > 20) == (out == "local-1")
    assert results[0] == results[1]


@contextmanager
def started(folder: Path, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [*drawn_splits.SHORT, *arguments(*words)],
        cwd=folder,
        env=drawn_splits.ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_killed_check_continues(work: Path, checked: Path) -> None:
    rows = list(rows_of(work / "feed.csv").values())
    with (work / "long.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for number in range(40):
            writer.writerows(row | {"sku": f"{number}:{row['sku']}"} for row in rows)
    words = ("long.csv", "--out", "long")
    store = work / "long.unfinished" / "items.sqlite"
    with started(work, *words) as process:
        while process.poll() is None and not stored_items(store):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    before = stored_items(store)
    assert 0 < before < 40 * len(rows)
    assert check(work, "feed.csv", "--out", "long").returncode == 2
    done = check(work, *words)
    assert done.returncode == 0, done.stderr
    again = check(work, "long.csv", "--out", "unbroken")
    assert again.returncode == 0, again.stderr
    whole = (work / "unbroken" / "checked.csv").read_bytes()
    assert (work / "long" / "checked.csv").read_bytes() == whole
    assert not store.parent.exists()
    assert b"39:polo-3," in whole


def stored_items(store: Path) -> int:
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(store) as base:
            return int(base.execute("SELECT count(*) FROM items").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_data_can_be_named_until_items_are_stored(tmp_path: Path) -> None:
    first = CheckOptions(tmp_path / "run", tmp_path / "out")
    store = CheckStore(_begin_check(first) / "items.sqlite")
    second = replace(first, data=tmp_path / "splits", cache=tmp_path / "cache")
    # As the error about missing training photos advises.
    _require_same_options(second)
    _begin_check(second)
    store.add([ItemPrediction(TaggedItem(1, "1", "a.jpg", "hat", "hat"), None)])
    _require_same_options(second)
    with pytest.raises(BadInput, match="interrupted check with another data"):
        _require_same_options(first)


@needs_chromium
def test_the_page_fits_wide_and_narrow_windows(checked: Path) -> None:
    assert find_overflow(checked / "report.html") == []
