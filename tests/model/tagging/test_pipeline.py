"""`tag-photos` with photos of all kinds, feeds, and interruptions."""

import csv
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image, ImageDraw, ImageFont

from dataset.catalogue.models import TagVerdictRow
from dataset.images.io import open_photo, sha256_of
from dataset.review.pagination import QueueFilters, list_keys
from dataset.review.queues import PROPOSALS
from dataset.utils.files import write_json
from dataset.vocabulary import load_vocabulary
from model.inference import preprocessing
from model.inference.predictor import SavedRun, load_run
from model.inference.preprocessing import PreparedPhoto
from model.tagging import pipeline
from model.tagging.pipeline import Tagger, describe_threshold
from tests.support.catalogue_data import CatalogueBuilder, photo_bytes
from tests.support.drawn_splits import run_words
from tests.support.saved_runs import write_run

LABELS = ["dress", "hat", "polo"]


def write_threshold(run: Path, threshold: float | None) -> None:
    chosen = None if threshold is None else {"threshold": threshold}
    write_json({"coverage": {"chosen_on_validation": chosen}}, run / "metrics.json")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and a folder of photos, two of which are no photos."""
    folder = tmp_path_factory.mktemp("work")
    write_threshold(write_run(folder / "run", LABELS), 0.0)
    (folder / "photos" / "more").mkdir(parents=True)
    for number in range(9):
        path = folder / "photos" / ("more" if number > 5 else "") / f"{number}.jpg"
        path.write_bytes(photo_bytes(number, (90, 120)))
    (folder / "photos" / "broken.jpg").write_bytes(b"no photo")
    (folder / "photos" / "cut.jpg").write_bytes(photo_bytes(20)[:900])
    (folder / "photos" / "notes.doc").write_bytes(b"text")
    Image.new("RGB", (90, 120), "white").save(folder / "photos" / "blank.png")
    return folder


def tag(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run_words(folder, "tag-photos", "--model", "run", *words)


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def json_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_labels_have_the_probabilities_of_the_model(work: Path) -> None:
    done = tag(work, "photos", "--out", "all.jsonl", "--top", "2")
    assert done.returncode == 0, done.stderr
    assert "1 file skipped, not readable as photos: 1 .doc" in done.stderr
    rows = {Path(row["photo"]).name: row for row in json_rows(work / "all.jsonl")}
    assert len(rows) == 12
    network = load_run(work / "run").network
    for number in range(9):
        row = rows[f"{number}.jpg"]
        probabilities = network.predict_on_batch(np.asarray(open_photo(work / row["photo"]))[None])
        expected = np.asarray(probabilities)[0]
        best = int(expected.argmax())
        assert (row["status"], row["reason"]) == ("tagged", "")
        assert row["labels"] == row["top"][:1] and len(row["top"]) == 2
        assert row["labels"][0]["label"] == LABELS[best] and row["labels"][0]["facet"] is None
        assert row["labels"][0]["probability"] == pytest.approx(expected[best], abs=0.02)
    for name, reason in (("broken.jpg", "broken: not an image"), ("cut.jpg", "broken: ")):
        assert rows[name]["status"] == "failed" and rows[name]["labels"] == rows[name]["top"] == []
        assert rows[name]["reason"].startswith(reason)
    assert rows["blank.png"]["status"] == "unsure" and "blank" in rows["blank.png"]["reason"]
    assert done.stdout.splitlines()[2:5] == ["tagged       9", "unsure       1", "failed       2"]
    assert "failed: 1: broken: not an image of a supported format" in done.stdout
    assert tag(work, "photos", "--out", "all.jsonl").returncode == 2


def test_a_banner_of_text_is_unsure(tmp_path: Path, work: Path) -> None:
    (tmp_path / "run").symlink_to(work / "run")
    page = Image.new("RGB", (600, 600), "#fadc28")
    pen = ImageDraw.Draw(page)
    for line, text in enumerate(("Mega Sale", "up to 70% off", "free delivery")):
        pen.text((30, 30 + 140 * line), text, font=ImageFont.load_default(80), fill="black")
    page.save(tmp_path / "banner.png")
    (row,) = csv_rows(tag(tmp_path, "banner.png").stdout)
    assert (row["status"], row["labels"]) == ("unsure", "")
    assert row["reason"].startswith("text")


def test_photos_below_the_threshold_are_unsure(tmp_path: Path, work: Path) -> None:
    (tmp_path / "run").symlink_to(work / "run")
    photo = str(work / "photos" / "1.jpg")
    (sure,) = csv_rows(tag(tmp_path, photo).stdout)
    assert (sure["status"], sure["labels"]) == ("tagged", sure["label"])
    probability = float(sure["probability"])
    for threshold, status in ((probability - 0.01, "tagged"), (probability + 0.01, "unsure")):
        (row,) = csv_rows(tag(tmp_path, photo, "--threshold", str(threshold)).stdout)
        assert (row["status"], bool(row["labels"])) == (status, status == "tagged")
        assert (row["label"], row["probability"]) == (sure["label"], sure["probability"])
        assert row["top"].startswith(f"{row['label']} ")
    assert row["reason"] == f"below {probability + 0.01:.3f}"


@pytest.mark.parametrize("threshold", [None, 0.6])
def test_the_threshold_is_that_of_the_validation_photos(
    tmp_path: Path, work: Path, threshold: float | None
) -> None:
    write_threshold(work / "run", threshold)
    try:
        done = tag(work, "photos/1.jpg")
    finally:
        write_threshold(work / "run", 0.0)
    (row,) = csv_rows(done.stdout)
    if threshold is None:
        assert "run has no threshold above which 95% of its validation photos are right" in (
            done.stderr
        )
        assert row["status"] == "unsure"
    else:
        assert "below 0.600 are unsure: above it, 95% of the validation photos" in done.stderr
        assert row["status"] == ("tagged" if float(row["probability"]) >= 0.6 else "unsure")


def test_a_feed_needs_neither_ids_nor_tags(work: Path) -> None:
    (work / "feed.csv").write_text(
        "sku,image,category\nA,photos/1.jpg,\n,photos/2.jpg,hat\nC,photos/gone.jpg,\nD,,polo\n"
        'E,"photos/3.jpg|photos/4.jpg",\nF,ftp://a.example/b.jpg,\nG,../run/labels.json,\n'
    )
    (work / "list.csv").write_text("image\nphotos/1.jpg\n")
    done = tag(work, "feed.csv", "list.csv", "photos/5.jpg")
    rows = csv_rows(done.stdout)
    assert [(row["id"], row["photo"], row["status"]) for row in rows] == [
        ("A", "photos/1.jpg", "tagged"),
        ("", "photos/2.jpg", "tagged"),
        ("C", "photos/gone.jpg", "failed"),
        ("D", "row 4", "failed"),
        ("E", "photos/3.jpg", "tagged"),
        ("F", "ftp://a.example/b.jpg", "failed"),
        ("G", "../run/labels.json", "failed"),
        ("", "photos/1.jpg", "tagged"),
        ("", "photos/5.jpg", "tagged"),
    ]
    assert [rows[number]["reason"].partition(":")[0] for number in (2, 3, 5)] == [
        "no such file",
        "no image",
        "URL with ftp",
    ]
    preview = tag(work, "feed.csv", "--preview")
    assert preview.returncode == 0 and "photos/1.jpg" in preview.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gone.jpg"], "gone.jpg: no such file; name a photo, a folder of photos, or a feed"),
        (["run"], "run has no photos"),
        (["photos/notes.doc"], "photos/notes.doc has no row with names of columns"),
        (["photos/1.jpg", "--out", "tags.xlsx"], "name a file that ends in .csv or .jsonl"),
        (["photos/1.jpg", "--explain"], "name a file with --out tags.csv"),
        (["photos/1.jpg", "--preview"], "--preview shows a feed, and photos/1.jpg is a photo"),
        ([], "catalogue.sqlite"),
        (["photos/1.jpg", "--threshold", "2"], "2.0 is not in the range 0<=x<=1"),
    ],
)
def test_bad_input_is_named(work: Path, words: list[str], message: str) -> None:
    done = tag(work, *words)
    assert done.returncode == 2 and message in done.stderr, done.stderr


def test_it_fails_if_no_photo_can_be_read(work: Path) -> None:
    done = tag(work, "photos/broken.jpg")
    assert done.returncode == 1 and "no photo could be read" in done.stderr
    assert csv_rows(done.stdout)[0]["status"] == "failed"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_an_interrupted_command_continues(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    for name in ("run", "photos"):
        (tmp_path / name).symlink_to(work / name)
    monkeypatch.setattr(preprocessing, "CHUNK_SIZE", 4)
    words = ["photos", "--explain", "--out"]
    assert tag(tmp_path, *words, f"whole.{suffix}").returncode == 0
    calls, tagged = [0], pipeline.Tagger.tag

    def killed(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return tagged(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.Tagger, "tag", killed)
        assert tag(tmp_path, *words, f"tags.{suffix}").returncode == 1
    folder = tmp_path / f"tags.{suffix}.unfinished"
    assert json.loads((folder / "state.json").read_text())["done"] == 8
    # A part of a row that was being written.
    with (folder / "rows").open("a") as file:
        file.write('{"photo": "photos/')
    other = tag(tmp_path, *words, f"tags.{suffix}", "--top", "1")
    assert other.returncode == 2 and "an interrupted command with another top" in other.stderr
    changed = tag(tmp_path, "photos/1.jpg", *words, f"tags.{suffix}")
    assert changed.returncode == 2 and "another names" in changed.stderr
    done = tag(tmp_path, *words, f"tags.{suffix}")
    assert done.returncode == 0 and not folder.exists()
    whole = (tmp_path / f"whole.{suffix}").read_text()
    text = (tmp_path / f"tags.{suffix}").read_text()
    assert text == whole.replace("whole-explained", "tags-explained")
    assert "tagged       9" in done.stdout
    pictures = {path.name for path in (tmp_path / "tags-explained").iterdir()}
    assert len(pictures) == 10 and pictures == {
        path.name for path in (tmp_path / "whole-explained").iterdir()
    }


def test_changed_photos_end_an_interrupted_command(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").symlink_to(work / "run")
    (tmp_path / "photos").mkdir()
    for number in range(2, 6):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo_bytes(number))
    monkeypatch.setattr(preprocessing, "CHUNK_SIZE", 2)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.FileOutput, "finish", lambda self: None)
        tag(tmp_path, "photos", "--out", "tags.csv")
    (tmp_path / "photos" / "1.jpg").write_bytes(photo_bytes(1))
    done = tag(tmp_path, "photos", "--out", "tags.csv")
    assert done.returncode == 1
    assert "the photos have changed since tags.csv was interrupted" in done.stderr


def test_without_names_photos_of_the_catalogue_without_a_label_are_tagged(
    tmp_path: Path, work: Path
) -> None:
    (tmp_path / "run").symlink_to(work / "run")
    builder = CatalogueBuilder(tmp_path)
    for number, hashtags in enumerate([("dress",), ("dress", "hat"), ("ootd",)]):
        post = builder.post(str(number), *hashtags)
        builder.image(photo_bytes(number, (240, 320)), post)
    done = tag(tmp_path, "--catalogue", builder.catalogue)
    rows = csv_rows(done.stdout)
    # A post's own word is its label, and several labels are a conflict.
    assert [row["id"] for row in rows] == [sha256_of(photo_bytes(1, (240, 320)))]
    assert rows[0]["status"] == "tagged" and "images" not in rows[0]["photo"]
    tag(tmp_path, "--catalogue", builder.catalogue, "--out", "tags.csv")
    with builder.sessions() as session:
        (proposal,) = session.execute(
            sa.select(TagVerdictRow.label, TagVerdictRow.verdict, TagVerdictRow.suggested)
        ).tuples()
        keys = list_keys(
            session, PROPOSALS, QueueFilters(label=rows[0]["label"]), load_vocabulary(), 9
        )
    assert proposal == ("", "proposed", rows[0]["label"])
    assert keys == [(2, "")]


def facet_tagger(threshold: float | None = None) -> Tagger:
    """Return a tagger of a run with two facets, without its network."""
    chosen = {"chosen_on_validation": {"threshold": 0.7}}
    run: Any = SavedRun.__new__(SavedRun)
    facets = {"lower": ["jeans", "dress"], "upper": ["shirt", "polo", "dress"]}
    metrics = {"facets": {"lower": {"coverage": chosen}, "upper": {"coverage": {}}}}
    run.__dict__.update(facets=facets, metrics=metrics, folder=Path("run"))
    predictor: Any = SimpleNamespace(labels=["dress", "jeans", "polo", "shirt"])
    return Tagger(run, predictor, threshold)


def test_a_photo_gets_a_label_of_each_facet_that_is_certain() -> None:
    logits = np.log([[0.1, 0.8, 0.3, 0.65], [0.9, 0.05, 0.02, 0.03]])
    jeans, dress = facet_tagger().probabilities(logits)
    photo = PreparedPhoto("0" * 64)

    def labels(threshold: float | None, probabilities: np.ndarray) -> list[tuple[str, str]]:
        tags = facet_tagger(threshold).decide(photo, probabilities)
        return [(score.label, score.facet) for score in tags.labels]

    # The facet upper has no threshold that the validation photos support.
    assert labels(None, jeans) == [("jeans", "lower")]
    assert labels(0.6, jeans) == [("jeans", "lower"), ("shirt", "upper")]
    # A dress is the label of both facets, once.
    assert labels(0.6, dress) == [("dress", "lower+upper")]
    unsure = facet_tagger(0.95).decide(photo, jeans)
    assert (unsure.status, unsure.reason) == ("unsure", "below 0.950")
    assert [score.label for score in unsure.top] == ["jeans", "shirt", "polo"]
    described = describe_threshold(facet_tagger().run, None)
    assert "(lower 0.700, upper none) are unsure" in described
