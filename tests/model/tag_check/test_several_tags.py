"""`check-tags` with several tags a row, and with a multi-label run."""

import csv
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataset.errors import BadInput
from dataset.feeds.cells import TagLists
from dataset.feeds.product_feed import TagColumns, open_feed
from dataset.vocabulary import Label, Vocabulary, load_vocabulary
from model.feeds.sources import (
    FeedSource,
    FetchOptions,
    ImageFetcher,
    ListedTag,
    TaggedItem,
    known_tags,
)
from model.inference.preprocessing import PreparedPhoto
from model.tag_check.noise_model import NoiseModel, uniform_confusion
from model.tag_check.pipeline import LabelScheme, predict_item
from model.tag_check.store import ItemPrediction, PhotoPrediction
from model.tagging.server import ServeOptions, load_service
from tests.support import drawn_splits
from tests.support.label_sets import FACETS, draw_label_sets

VOCABULARY = Vocabulary(
    {
        "jeans": Label("jeans", ("jeans",), facet="lower"),
        "dress": Label("dress", ("dress",), facet="lower+upper"),
        "blouse": Label("blouse", ("blouse",), ("top",), facet="upper"),
        "top": Label("top", ("top",), facet="upper"),
        "boots": Label("boots", ("boots",), facet="footwear"),
    }
)
LABELS = ("blouse", "dress", "jeans", "top", "red", "blue")
MEMBERS = {"lower": [1, 2], "upper": [0, 1, 3], "colour": [4, 5]}
SEVERAL = LabelScheme(LABELS, MEMBERS, {"lower": 0.7, "upper": 0.7, "colour": 0.9}, VOCABULARY)
SINGLE = LabelScheme(LABELS, {"": range(6)}, {}, VOCABULARY)


def predicted(
    scheme: LabelScheme, tags: str, probabilities: Sequence[float], text: str = "", facet: str = ""
) -> list[ItemPrediction]:
    """Return the predictions for an item with some tags."""
    listed = tuple(ListedTag(tag, tag, "tags", facet) for tag in tags.split())
    problem = "" if tags or text else "no tag"
    item = TaggedItem(1, "a", "a.jpg", text or tags, text, problem=problem, tags=listed)
    photo = PhotoPrediction(probabilities=np.array(probabilities))
    return predict_item(item, {1: PreparedPhoto("sha")}, {1: photo}, scheme)


def described(predictions: Sequence[ItemPrediction]) -> list[tuple[str, str, str]]:
    """Return the tag, the facet and the problem or the proposal of predictions."""
    return [
        (p.tag.tag if p.tag else "", p.facet, p.problem or (p.proposal[0] if p.proposal else ""))
        for p in predictions
    ]


def test_each_tag_is_checked_in_its_facet_and_certain_labels_are_missing() -> None:
    photo = [0.8, 0.1, 0.9, 0.1, 0.95, 0.05]
    assert described(predicted(SEVERAL, "blouse jeans", photo)) == [
        ("blouse", "upper", ""),
        ("jeans", "lower", ""),
        ("", "colour", "red"),
    ]
    # The colour is below its threshold, and the photo of one tag has two others.
    assert described(predicted(SEVERAL, "red", photo)) == [
        ("red", "colour", ""),
        ("", "lower", "jeans"),
        ("", "upper", "blouse"),
    ]
    # A dress fills both facets.
    unsure = [*photo[:4], 0.6, 0.4]
    assert described(predicted(SEVERAL, "dress", unsure)) == [("dress", "lower", "")]
    assert described(predicted(SEVERAL, "dress", unsure, facet="upper")) == [("dress", "upper", "")]
    dress = [0.1, 0.95, 0.05, 0.1, 0.5, 0.5]
    assert described(predicted(SEVERAL, "red", dress)) == [
        ("red", "colour", ""),
        ("", "lower", "dress"),
    ]
    assert described(predicted(SEVERAL, "jeans red", dress)) == [
        ("jeans", "lower", ""),
        ("red", "colour", ""),
    ]
    # Nothing is known of boots, which are in a facet of their own.
    assert described(predicted(SEVERAL, "boots", dress))[0][2] == "the model has no label 'boots'"
    assert described(predicted(SEVERAL, "", unsure)) == [
        ("", "", "no tag"),
        ("", "lower", "jeans"),
        ("", "upper", "blouse"),
    ]


def test_a_wider_tag_of_the_row_is_not_checked() -> None:
    top = predicted(SEVERAL, "top blouse red", [0.8, 0.1, 0.5, 0.1, 0.5, 0.5])[0]
    assert top.class_index is None
    assert top.problem == "it contains 'blouse', another tag of the row"


def test_with_one_label_per_photo_the_most_probable_tag_is_checked_without_the_others() -> None:
    photo = [0.5, 0.02, 0.4, 0.02, 0.03, 0.03]
    jeans, blouse = predicted(SINGLE, "jeans blouse", photo)
    assert (blouse.class_index, blouse.excluded, blouse.problem) == (0, [2], "")
    assert jeans.class_index is None
    assert jeans.problem == "the model gives one label per photo, and 'blouse' is more probable"
    # One known label, or a name with separators: the row has one tag.
    assert described(predicted(SINGLE, "sale jeans", photo)) == [("jeans", "", "")]
    assert described(predicted(SINGLE, "sale jeans", photo, "jeans")) == [("jeans", "", "")]
    assert described(predicted(SINGLE, "top blouse", photo, "blouse")) == [("blouse", "", "")]


def test_columns_of_facets_are_found_by_their_names_or_given(tmp_path: Path) -> None:
    path = tmp_path / "feed.csv"
    path.write_text("id,image,category,Lower,upper\n1,a.jpg,x,jeans,blouse\n")
    facets = ("lower", "upper")
    assert open_feed(path, {}).columns.tags == (("", "category"),)
    found = open_feed(path, {}, tags=TagColumns((), facets))
    assert found.columns.tags == (("lower", "Lower"), ("upper", "upper"))
    assert next(found.rows()).tag == "jeans, blouse"
    named = open_feed(path, {"tag": "category"}, tags=TagColumns((), facets))
    assert named.columns.tags == (("", "category"),)
    given = open_feed(path, {}, tags=TagColumns((("lower", "lower"), ("", "category")), facets))
    assert given.columns.tags == (("lower", "Lower"), ("", "category"))
    with pytest.raises(BadInput, match="no column 'legs'; name it with --tag-column"):
        open_feed(path, {}, tags=TagColumns((("lower", "legs"),)))


def test_an_object_by_facet_is_a_list_of_tags(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    rows = [{"lower": "jeans", "upper": "blouse"}, {}, ["jeans"]]
    lines = (json.dumps({"id": n, "image": "a.jpg", "tags": tags}) for n, tags in enumerate(rows))
    path.write_text("\n".join(lines))
    with ImageFetcher(FetchOptions()) as fetcher:
        lists = TagLists(known_tags(VOCABULARY, LABELS))
        source = FeedSource(open_feed(path, {}), tmp_path, VOCABULARY, fetcher, lists, False)
        items = list(source.items(0))
    assert [[tag.label for tag in item.tags] for item in items] == [
        ["jeans", "blouse"],
        [],
        ["jeans"],
    ]
    assert [item.problem for item in items] == ["", "no tag", ""]
    # Without a tag, the photo is predicted: tags may be missing.
    assert all(item.photo is not None for item in items)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, short_backbone: None) -> Path:
    folder = tmp_path_factory.mktemp("work")
    draw_label_sets(folder / "splits", {"train": 12, "validation": 8, "test": 6})
    drawn_splits.random_backbone(folder / "backbone.weights.h5")
    options = (
        *("--weights", "backbone.weights.h5", "--fine-tune", "0", "--label-smoothing", "0"),
        *("--precision", "float32"),
    )
    done = drawn_splits.run(folder, *options, "--out", "run")
    assert done.returncode == 0, done.stderr
    return folder


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    words = ("check-tags", *words, "--model", "run", "--image-root", "splits", "--cache", "cache")
    return drawn_splits.run_words(folder, *words)


def truth(number: int) -> list[str]:
    """Return the colour and the garment of a drawn photo."""
    return [FACETS["colour"][number % 2], FACETS["lower"][number // 2 % 2]]


def other(label: str) -> str:
    """Return the other label of the facet."""
    return next(name for own in FACETS.values() if label in own for name in own if name != label)


def test_a_list_has_a_verdict_per_tag_and_keeps_its_notation(work: Path) -> None:
    lines = []
    for number in range(24):
        colour, garment = truth(number)
        tags = [colour, other(garment) if number == 5 else garment]
        listed: Any = tags[:1] if number == 7 else tags
        lines.append({"id": f"{number}", "image": f"photos/test/{number:03d}.png", "tags": listed})
    (work / "feed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = check(work, "feed.jsonl", "--out", "listed", "--add-missing")
    assert done.returncode == 0, done.stderr
    with (work / "listed" / "checked.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    verdicts = {(row["id"], row["checked_tag"]): row for row in rows}
    assert len(rows) == 48
    wrong = verdicts["5", other(truth(5)[1])]
    assert (wrong["facet"], wrong["suggested"]) == ("lower", truth(5)[1])
    assert wrong["verdict"] in ("mistake", "unsure")
    missing = verdicts["7", ""]
    assert (missing["verdict"], missing["suggested"]) == ("missing", truth(7)[1])
    right = [row["verdict"] for row in rows if row not in (wrong, missing)]
    assert set(right) <= {"agrees", "unsure"}
    assert right.count("agrees") > len(right) / 2
    corrected = [json.loads(line) for line in (work / "listed" / "corrected.jsonl").open()]
    assert corrected[7]["tags"] == truth(7)
    assert corrected[5]["tags"][1] == (
        truth(5)[1] if wrong["verdict"] == "mistake" else other(truth(5)[1])
    )
    assert [c for n, c in enumerate(corrected) if n not in (5, 7)] == [
        line for n, line in enumerate(lines) if n not in (5, 7)
    ]
    results = json.loads((work / "listed" / "check.json").read_text())
    assert (results["items"], results["tags"]) == (24, 47)
    assert {facet: r["tags"] for facet, r in results["facets"].items()} == {
        "colour": 24,
        "lower": 23,
    }
    assert "Missing tags" in (work / "listed" / "report.html").read_text()


def test_columns_of_facets_are_corrected_in_their_column(work: Path) -> None:
    with (work / "facets.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "legs", "paint", "stock"])
        for number in range(24):
            colour, garment = truth(number)
            tag = other(garment) if number == 5 else garment
            writer.writerow([number, f"photos/test/{number:03d}.png", tag, colour, "1"])
    named = ("--tag-column", "lower=legs", "--tag-column", "colour=paint")
    done = check(work, "facets.csv", "--out", "columns", *named)
    assert done.returncode == 0, done.stderr
    before = (work / "facets.csv").read_text().splitlines()
    after = (work / "columns" / "corrected.csv").read_text().splitlines()
    assert [line for n, line in enumerate(after) if n != 6] == [
        line for n, line in enumerate(before) if n != 6
    ]
    assert after[6].split(",")[3:] == before[6].split(",")[3:]
    done = check(work, "facets.csv", "--out", "wrong", "--tag-column", "legs=legs")
    assert done.returncode == 2
    assert "has no facet 'legs'; it has colour, lower" in done.stderr


def test_the_server_checks_tags_in_their_facets_and_knows_training_photos(work: Path) -> None:
    options = ServeOptions(work / "run", cache=work / "cache", batch_size=1)
    service = load_service(options, load_vocabulary(multi_label=True))
    photo = work / "splits" / "photos" / "train" / "007.png"
    (prediction,) = service.predict([photo.read_bytes()])
    colour, garment = truth(7)
    verdicts = service.check(prediction, [garment, other(garment), "sofa"])
    first, second, third = verdicts["checks"]
    assert (first["verdict"], second["suggested"]) == ("agrees", garment)
    assert second["verdict"] in ("mistake", "unsure")
    assert third["verdict"] == "not checked"
    assert [(score["facet"], score["label"]) for score in verdicts["missing"]] == [
        ("colour", colour)
    ]
    assert service.reference is not None
    out_of_fold = service.reference.out_of_fold[prediction.photo.sha256]
    members = [service.labels.index(label) for label in FACETS["lower"]]
    own = out_of_fold[members] / out_of_fold[members].sum()
    noise = NoiseModel(0.1, uniform_confusion(2), 0.1)
    expected = noise.calibrated_posterior(own[None], np.array([FACETS["lower"].index(garment)]))
    assert first["probability"] == pytest.approx(expected.max(), abs=1e-5)
    assert verdicts["nearest"]
    assert "007.png" not in {Path(near["path"]).name for near in verdicts["nearest"]}
    none = load_service(replace(options, compares_training=False), load_vocabulary())
    assert none.check(prediction, [garment])["nearest"] == []
