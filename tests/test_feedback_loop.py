"""The feedback loop: a model finds wrong labels, a person corrects them, a build excludes them."""

import csv
import json
import os
import re
import shutil
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
from tests.support.catalogue_data import Filling, jpeg_of, squares_of
from tests.support.drawn_splits import PROGRAM, random_backbone

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COLOURS = {"polo": (200, 30, 30), "dress": (30, 30, 200), "coat": (30, 160, 30)}
LABELS = list(COLOURS)
EACH, FLIPPED = 40, 12
SIZE = ("--image-size", "75", "--cache", "cache")


def fill(folder: Path) -> tuple[Filling, dict[str, str]]:
    """Fill a catalogue with EACH photos per label, FLIPPED of them with a wrong hashtag."""
    filling, truth = Filling(folder), {}
    rng = np.random.default_rng(0)
    flipped = set(rng.choice(EACH * len(LABELS), FLIPPED, replace=False).tolist())
    for number in range(EACH * len(LABELS)):
        label = LABELS[number % len(LABELS)]
        data = jpeg_of(squares_of(rng, COLOURS[label]))
        tag = LABELS[(number + 1) % len(LABELS)] if number in flipped else label
        filling.image(data, filling.post(f"p{number}", tag))
        truth[sha256_of(data)] = label
    return filling, truth


def say(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, filling: Filling, out: str) -> None:
    asked = ("--min-per-class", "20", "--pose", "none", "--size", "96", "--out", out)
    say(folder, "build-dataset", "--catalogue", filling.catalogue, *asked)


def train(folder: Path, data: str, out: str) -> None:
    asked = (
        "--weights",
        "backbone.weights.h5",
        "--fine-tune",
        "0",
        "--label-smoothing",
        "0",
        *SIZE,
    )
    say(folder, "train-model", "--data", data, "--out", out, *asked)


def wrong_labels(folder: Path, truth: dict[str, str]) -> int:
    rows = pq.read_table(folder / "manifest.parquet", columns=["sha256", "label"]).to_pylist()
    return sum(truth[row["sha256"]] != row["label"] for row in rows)


def accuracy(folder: Path, run: str, data: str, truth: dict[str, str]) -> float:
    """Return the accuracy of a run on the test split by the true labels."""
    rows = pq.read_table(folder / data / "manifest.parquet", columns=["path", "sha256"]).to_pylist()
    sha256 = {row["path"]: row["sha256"] for row in rows}
    with (folder / run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        said = [truth[sha256[row["path"]]] == row["predicted"] for row in csv.DictReader(file)]
    return sum(said) / len(said)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Filling, dict[str, str]]:
    folder = tmp_path_factory.mktemp("loop")
    filling, truth = fill(folder)
    random_backbone(folder / "backbone.weights.h5")
    build(folder, filling, "before")
    train(folder, "before", "first")
    check = ("--catalogue", filling.catalogue, "--model", "first", "--cache", "cache")
    say(folder, "check-tags", *check)
    return folder, filling, truth


@pytest.mark.slow
def test_verdicts_on_the_catalogue_are_saved_for_review(
    work: tuple[Path, Filling, dict[str, str]],
) -> None:
    folder, filling, truth = work
    with filling.sessions() as session:
        rows = session.execute(
            sa.select(TagVerdictRow, ImageRow.sha256)
            .join(ImageRow, ImageRow.id == TagVerdictRow.image_id)
            .order_by(TagVerdictRow.cost.desc())
        ).all()
    assert len(rows) == EACH * len(LABELS)
    first = [truth[sha256] != one.label for one, sha256 in rows[:FLIPPED]]
    assert sum(first) >= FLIPPED * 0.75
    for one, sha256 in rows[:3]:
        near = json.loads(one.nearest)
        assert one.verdict in ("mistake", "unsure")
        assert len(near) == 3
        assert sha256 not in [other["sha256"] for other in near]
        assert {other["sha256"] for other in near} <= truth.keys()
    with (folder / "checked" / "checked.csv").open(encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)][:5] == [sha for _, sha in rows[:5]]


@contextmanager
def reviewing(folder: Path, filling: Filling) -> Iterator[str]:
    """Start `review` as a user does and return its URL."""
    process = subprocess.Popen(
        [sys.executable, PROGRAM, "review", "--catalogue", filling.catalogue, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        found = None
        while not found:
            line = process.stdout.readline()
            assert line, "the server ended"
            found = re.search(r"http://\S+", line)
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def decide(tab: Tab, filling: Filling, truth: dict[str, str]) -> bool:
    """Answer the question in the browser by the true label; return whether there was one."""
    key = tab.locator("input[name=item]").first
    if not key.count():
        return False
    image, label = (key.get_attribute("value") or "").split("/")
    with filling.sessions() as session:
        right = truth[session.get_one(ImageRow, int(image)).sha256]
    with tab.expect_navigation():
        if right == label:
            tab.keyboard.press("k")
        else:
            tab.keyboard.press("r")
            tab.keyboard.type(right, delay=5)
            tab.keyboard.press("Enter")
    return True


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's Chromium (apt-get install chromium)")
def test_the_loop_closes(work: tuple[Path, Filling, dict[str, str]]) -> None:
    folder, filling, truth = work
    with sync_playwright() as driver, reviewing(folder, filling) as address:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.goto(address.rstrip("/") + "/queue/mistakes")
        # Half an hour's work: not every photo, the costliest ones.
        decided = sum(decide(tab, filling, truth) for _ in range(2 * FLIPPED))
        chromium.close()
    assert decided > 0
    build(folder, filling, "after")
    before, after = (wrong_labels(folder / name, truth) for name in ("before", "after"))
    assert before == FLIPPED
    assert after <= FLIPPED / 4
    train(folder, "after", "second")
    assert accuracy(folder, "second", "after", truth) >= accuracy(folder, "first", "before", truth)
