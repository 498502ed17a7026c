"""The files of a run are read again: CSV files, and the report with an HTML parser."""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parsel import Selector
from PIL import Image
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from model.data.loading import Example
from model.evaluation.calibration import softmax
from model.reports import run_report
from model.reports.run_results import RunResults
from tests.support.browser import find_overflow, needs_chromium

LABELS = ['<b>polo</b> & "co"', "a, b", "$x_1$ | брюки", "one\rtwo", "slash/ed"]
PER_LABEL = {"train": 1, "validation": 12, "test": 20}
HISTORY = {"loss": [1.0, 0.5, 0.4], "accuracy": [0.4, 0.7, 0.8]}


def results(folder: Path, labels: list[str], per_label: dict[str, int], **more: Any) -> RunResults:
    """Predictions that are right for about two photos in three; the photos are grey squares."""
    examples: dict[str, list[Example]] = {split: [] for split in per_label}
    for split, count in per_label.items():
        for place, label in enumerate(labels):
            (folder / split / f"label{place}").mkdir(parents=True)
            for number in range(count):
                path = f"{split}/label{place}/{number}.png"
                Image.new("L", (16, 16), 40 * place).save(folder / path)
                examples[split].append(Example(path, label, split))
    random = np.random.default_rng(0)

    def logits(split: str) -> np.ndarray:
        right = np.eye(len(labels)).repeat(per_label[split], axis=0)
        return 3 * (random.normal(0, 1, right.shape) + 1.5 * right)

    made: dict[str, Any] = {
        "folder": folder,
        "labels": labels,
        "test": examples["test"],
        "test_logits": logits("test"),
        "validation": examples["validation"],
        "validation_logits": logits("validation"),
        "history": HISTORY,
        "best_epoch": 2,
        "options": {"data": "splits", "optimizer": "<adam>"},
        "extra_metrics": {
            "counts": {"test": len(examples["test"])},
            "unreadable": {"<i>.jpg": "bad"},
        },
        "facts": {"backend": "tensorflow"},
    }
    return RunResults(**{**made, **more})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResults]:
    folder, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("run")
    one = results(folder, LABELS, PER_LABEL, first_stage_epochs=1)
    run_report.write_results(out, one)
    return out, one


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_metric_follows_from_the_predictions(run: tuple[Path, RunResults]) -> None:
    metrics = json.loads((run[0] / "metrics.json").read_text(encoding="utf-8"))
    found = rows(run[0] / "predictions.csv")
    truth, called = [row["label"] for row in found], [row["predicted"] for row in found]
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, called))
    assert [int(row["correct"]) for row in found] == [
        a == b for a, b in zip(truth, called, strict=True)
    ]
    for average in ("macro", "weighted"):
        wanted = precision_recall_fscore_support(
            truth, called, labels=LABELS, average=average, zero_division=0
        )
        assert list(metrics[average].values()) == pytest.approx(wanted[:3])


def test_predictions_have_calibrated_probabilities_in_full_precision(
    run: tuple[Path, RunResults],
) -> None:
    found = rows(run[0] / "predictions.csv")
    probabilities = np.array([[float(row[f"p:{label}"]) for label in LABELS] for row in found])
    assert run[1].temperature > 1.2
    assert (probabilities == softmax(run[1].test_logits, run[1].temperature)).all()
    assert [float(row["confidence"]) for row in found] == probabilities.max(axis=1).tolist()
    assert [row["path"] for row in found] == [example.path for example in run[1].test]


def test_tables_have_the_labels_unchanged(run: tuple[Path, RunResults]) -> None:
    per_class = rows(run[0] / "per_class.csv")
    assert [row["label"] for row in per_class] == LABELS
    assert {row["support"] for row in per_class} == {"20"}
    for row in per_class:
        assert float(row["f1_low"]) <= float(row["f1"]) <= float(row["f1_high"])
    confusion = rows(run[0] / "confusion.csv")
    assert [row["label"] for row in confusion] == LABELS
    assert sum(int(row[label]) for row in confusion for label in LABELS) == 100
    coverage = rows(run[0] / "coverage.csv")
    assert [float(row["threshold"]) for row in coverage] == sorted(
        {float(row["confidence"]) for row in rows(run[0] / "predictions.csv")}, reverse=True
    )
    bins = rows(run[0] / "calibration.csv")
    assert [
        sum(int(b["photos"]) for b in bins if b["stage"] == name)
        for name in ("uncalibrated", "calibrated")
    ] == [100, 100]


def test_the_run_has_its_options_versions_and_data(run: tuple[Path, RunResults]) -> None:
    facts = json.loads((run[0] / "run.json").read_text(encoding="utf-8"))
    assert facts["dataset"]["photos"] == sum(PER_LABEL.values()) * len(LABELS)
    assert {"python", "keras", "numpy"} <= set(facts["versions"])
    assert (facts["options"]["optimizer"], facts["backend"]) == ("<adam>", "tensorflow")


def test_the_report_is_self_contained_and_escapes_labels(run: tuple[Path, RunResults]) -> None:
    text = (run[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href|srcset)="(?!data:|#)', text)
    page = Selector(text)
    assert not page.css("b, i, adam")
    assert LABELS[0] in page.css("th[scope=row]::text").getall()
    assert all(alt.strip() for alt in page.css("img").xpath("@alt").getall())
    assert len(page.css("img")) == len(page.css("img[alt]"))


def test_the_report_is_accessible(run: tuple[Path, RunResults]) -> None:
    page = Selector((run[0] / "report.html").read_text(encoding="utf-8"))
    assert page.css("html::attr(lang)").get() == "en"
    assert page.css("a.skip::attr(href)").get() == "#main"
    assert len(page.css("h1")) == 1
    levels = [int(tag[1]) for tag in page.xpath("//h1|//h2|//h3").xpath("name()").getall()]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for link in page.css("nav a::attr(href)").getall():
        assert len(page.css(link)) == 1
    for region in page.css(".scroll"):
        assert region.attrib["tabindex"] == "0"
        assert region.attrib["aria-label"]
    for table in page.css("table"):
        assert table.css("thead th[scope=col]")


def test_the_report_shows_the_most_confident_errors(run: tuple[Path, RunResults]) -> None:
    page = Selector((run[0] / "report.html").read_text(encoding="utf-8"))
    wrong = [row for row in rows(run[0] / "predictions.csv") if row["correct"] == "0"]
    surest = max(wrong, key=lambda row: float(row["confidence"]))
    first = page.css(".grid article")[0]
    assert surest["path"] in first.css("p.small::text").get("")
    assert f"{float(surest['confidence']):.1%}" in first.css("p::text").getall()[-2]
    assert first.css("img::attr(src)").get("").startswith("data:image/jpeg;base64,")


def test_cells_of_the_confusion_matrix_open_their_photos(run: tuple[Path, RunResults]) -> None:
    page = Selector((run[0] / "report.html").read_text(encoding="utf-8"))
    counted = rows(run[0] / "predictions.csv")
    links = page.css(".confusion td a")
    assert sum(int(link.css("::text").get("0")) for link in links) == len(counted)
    for link in links:
        (photos,) = page.css(link.attrib["href"])
        assert f", {link.css('::text').get()} photo" in photos.css("summary::text").get("")
        assert photos.css("figure img")


@needs_chromium
def test_the_report_fits_wide_and_narrow_windows(tmp_path: Path) -> None:
    labels = [f"{letter * 40} {letter * 10}" for letter in "abcdefghijklmnopqrst"]
    run_report.write_results(tmp_path, results(tmp_path, labels, PER_LABEL))
    assert find_overflow(tmp_path / "report.html") == []


def test_the_charts_are_images(run: tuple[Path, RunResults]) -> None:
    for name in ("confusion", "reliability", "coverage", "curves"):
        with Image.open(run[0] / f"{name}.png") as picture:
            assert min(picture.size) >= 300


def test_the_model_card_escapes_labels(run: tuple[Path, RunResults]) -> None:
    card = (run[0] / "README.md").read_text(encoding="utf-8")
    assert "\\<b\\>polo\\</b\\> \\&" in card
    (row,) = [line for line in card.splitlines() if line.startswith("| \\$x")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    assert "keras.saving.load_model" in card


@pytest.mark.parametrize(
    ("labels", "per_label"),
    [
        (2, {"train": 1, "validation": 0, "test": 1}),
        pytest.param(60, {"train": 1, "validation": 1, "test": 2}, marks=pytest.mark.slow),
    ],
)
def test_small_and_wide_runs_are_written_too(
    tmp_path: Path, labels: int, per_label: dict[str, int]
) -> None:
    (tmp_path / "run").mkdir()
    one = results(tmp_path / "data", [f"label {i}" for i in range(labels)], per_label)
    metrics = run_report.write_results(tmp_path / "run", one)
    json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert len(metrics["per_class"]) == labels
    assert "label 1" in run_report.format_summary(metrics)


def test_one_test_photo_and_none_of_the_other_label(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    one = results(tmp_path / "data", ["a", "b"], {"train": 1, "validation": 0, "test": 1})
    alone = RunResults(**{**vars(one), "test": one.test[:1], "test_logits": one.test_logits[:1]})
    metrics = run_report.write_results(tmp_path / "run", alone)
    assert metrics["intervals"]["accuracy"] is None
    assert metrics["per_class"]["b"]["support"] == 0
    assert "no test photos of b" in (tmp_path / "run" / "README.md").read_text()


def test_undecodable_labels_are_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    one = results(tmp_path / "data", ["a", "b\udcff"], {"train": 1, "validation": 2, "test": 3})
    run_report.write_results(tmp_path / "run", one)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["per_class"]) == ["a", "b\udcff"]


def test_equal_runs_have_equal_files(tmp_path: Path) -> None:
    one = results(tmp_path / "data", ["a", "b"], PER_LABEL)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        run_report.write_results(tmp_path / name, one)
    for path in (tmp_path / "one").iterdir():
        if path.name != "run.json":
            assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes(), path.name


@pytest.mark.parametrize("has_validation", [False, True])
def test_a_head_without_epochs_has_a_table_instead_of_curves(
    tmp_path: Path, has_validation: bool
) -> None:
    history = {"loss": [0.342], "accuracy": [0.936]}
    if has_validation:
        history |= {"val_loss": [0.571], "val_accuracy": [0.896]}
    one = results(tmp_path / "data", ["polo", "coat"], PER_LABEL, history=history, best_epoch=1)
    (tmp_path / "out").mkdir()
    run_report.write_results(tmp_path / "out", one)
    page = Selector((tmp_path / "out" / "report.html").read_text())
    (table,) = page.xpath("//table[caption='Loss and accuracy']")
    cells = [row.xpath("*/text()").getall() for row in table.xpath("tbody/tr")]
    validation = [["validation", "0.571", "0.896"]] if has_validation else []
    assert cells == [["train", "0.342", "0.936"], *validation]
    assert not page.xpath("//img[contains(@alt, 'by epoch')]")
