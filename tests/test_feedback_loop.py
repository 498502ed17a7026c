"""Test of the feedback loop: a model finds wrong labels, a reviewer corrects them."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page as Tab
from playwright.sync_api import sync_playwright

from dataset.catalogue.models import ImageRow, TagVerdictRow
from dataset.images.io import sha256_of
from tests.support.browser import CHROMIUM, needs_chromium
from tests.support.catalogue_data import CatalogueBuilder, jpeg_of, patches_of
from tests.support.drawn_splits import PROGRAM, random_backbone

COLOURS = {"polo": (200, 30, 30), "dress": (30, 30, 200), "coat": (30, 160, 30)}
LABELS = list(COLOURS)
IMAGES_PER_LABEL, WRONG_LABELS = 40, 12
SIZE = ("--image-size", "75", "--cache", "cache")


def create_catalogue(folder: Path) -> tuple[CatalogueBuilder, dict[str, str]]:
    """Create a catalogue with some images under a wrong hashtag.

    Returns:
        The catalogue, and the true label by SHA-256.
    """
    builder, truth = CatalogueBuilder(folder), {}
    rng = np.random.default_rng(0)
    flipped = set(rng.choice(IMAGES_PER_LABEL * len(LABELS), WRONG_LABELS, replace=False).tolist())
    for number in range(IMAGES_PER_LABEL * len(LABELS)):
        label = LABELS[number % len(LABELS)]
        data = jpeg_of(patches_of(rng, COLOURS[label]))
        tag = LABELS[(number + 1) % len(LABELS)] if number in flipped else label
        builder.image(data, builder.post(f"p{number}", tag))
        truth[sha256_of(data)] = label
    return builder, truth


def run_command(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, builder: CatalogueBuilder, out: str) -> None:
    options = ("--min-per-class", "20", "--pose", "none", "--size", "96", "--out", out)
    run_command(folder, "build-dataset", "--catalogue", builder.catalogue, *options)


def train(folder: Path, data: str, out: str) -> None:
    head_only = ("--fine-tune", "0", "--label-smoothing", "0")
    options = ("--weights", "backbone.weights.h5", *head_only, *SIZE)
    run_command(folder, "train-model", "--data", data, "--out", out, *options)


def count_wrong_labels(folder: Path, truth: dict[str, str]) -> int:
    rows = pq.read_table(folder / "manifest.parquet", columns=["sha256", "label"]).to_pylist()
    return sum(truth[row["sha256"]] != row["label"] for row in rows)


def measure_accuracy(folder: Path, run: str, data: str, truth: dict[str, str]) -> float:
    """Return the accuracy of a run on the test split of a dataset by the true labels."""
    rows = pq.read_table(folder / data / "manifest.parquet", columns=["path", "sha256"]).to_pylist()
    sha256 = {row["path"]: row["sha256"] for row in rows}
    with (folder / run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        is_correct = [
            truth[sha256[row["path"]]] == row["predicted"] for row in csv.DictReader(file)
        ]
    return sum(is_correct) / len(is_correct)


@pytest.fixture(scope="module")
def checked_catalogue(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, CatalogueBuilder, dict[str, str]]:
    folder = tmp_path_factory.mktemp("loop")
    builder, truth = create_catalogue(folder)
    random_backbone(folder / "backbone.weights.h5")
    build(folder, builder, "before")
    train(folder, "before", "first")
    check = ("--catalogue", builder.catalogue, "--model", "first", "--cache", "cache")
    run_command(folder, "check-tags", *check)
    return folder, builder, truth


@pytest.mark.slow
def test_check_tags_ranks_wrong_labels_first(
    checked_catalogue: tuple[Path, CatalogueBuilder, dict[str, str]],
) -> None:
    folder, builder, truth = checked_catalogue
    with builder.sessions() as session:
        rows = session.execute(
            sa.select(TagVerdictRow, ImageRow.sha256)
            .join(ImageRow, ImageRow.id == TagVerdictRow.image_id)
            .order_by(TagVerdictRow.cost.desc())
        ).all()
    assert len(rows) == IMAGES_PER_LABEL * len(LABELS)
    is_wrong = [truth[sha256] != verdict.label for verdict, sha256 in rows[:WRONG_LABELS]]
    assert sum(is_wrong) >= WRONG_LABELS * 0.75
    for verdict, sha256 in rows[:3]:
        nearest = json.loads(verdict.nearest)
        assert verdict.verdict in ("mistake", "unsure")
        assert len(nearest) == 3
        assert sha256 not in [image["sha256"] for image in nearest]
        assert {image["sha256"] for image in nearest} <= truth.keys()
    doubtful = [v for v, _ in rows if v.verdict in ("mistake", "unsure")]
    assert sorted(v.learning_rank or 0 for v in doubtful) == list(range(len(doubtful)))
    assert all(v.learning_rank is None for v, _ in rows if v not in doubtful)
    with (folder / "checked" / "checked.csv").open(encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)][:5] == [sha for _, sha in rows[:5]]


@contextmanager
def run_review(folder: Path, builder: CatalogueBuilder) -> Iterator[str]:
    """Run `review` as a user does; yield its URL."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "review", "--catalogue", builder.catalogue, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        match = None
        while not match:
            line = process.stdout.readline()
            assert line, "the server ended"
            match = re.search(r"http://\S+", line)
        yield match[0]
    finally:
        process.terminate()
        process.wait()


def decide(tab: Tab, builder: CatalogueBuilder, truth: dict[str, str]) -> bool:
    """Answer the shown item as a person who sees the image would.

    Returns:
        Whether there was an item.
    """
    key = tab.locator("input[name=item]").first
    if not key.count():
        return False
    image, label = (key.get_attribute("value") or "").split("/")
    with builder.sessions() as session:
        true_label = truth[session.get_one(ImageRow, int(image)).sha256]
    with tab.expect_navigation():
        if true_label == label:
            tab.keyboard.press("k")
        else:
            tab.keyboard.press("r")
            tab.keyboard.type(true_label, delay=5)
            tab.keyboard.press("Enter")
    return True


@pytest.mark.slow
@needs_chromium
def test_review_corrects_labels_and_improves_accuracy(
    checked_catalogue: tuple[Path, CatalogueBuilder, dict[str, str]],
) -> None:
    folder, builder, truth = checked_catalogue
    with sync_playwright() as driver, run_review(folder, builder) as address:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(address.rstrip("/") + "/queue/mistakes")
        # About half an hour of work: only the images with the highest cost.
        decided = sum(decide(tab, builder, truth) for _ in range(2 * WRONG_LABELS))
        chromium.close()
    assert decided > 0
    build(folder, builder, "after")
    before, after = (count_wrong_labels(folder / name, truth) for name in ("before", "after"))
    assert before == WRONG_LABELS
    assert after <= WRONG_LABELS / 4
    train(folder, "after", "second")
    assert measure_accuracy(folder, "second", "after", truth) >= measure_accuracy(
        folder, "first", "before", truth
    )
