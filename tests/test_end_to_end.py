"""Test of crawl, build and training on real garment photos, served by the sample shop."""

import csv
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score

import fashion_tagger
from scraper.sample_shop.server import ShopOptions, serve
from tests.support.drawn_splits import run_words

SHARED = Path(fashion_tagger.__file__).parents[1] / "shared"
CLOTHING = SHARED / "data" / "clothing" / "validation"
LABELS = ("dress", "pants", "shoes")
# Photos per label: enough to train a head in the time of a test.
PHOTOS_PER_LABEL = 10

needs_photos = pytest.mark.skipif(
    not CLOTHING.is_dir(), reason=f"needs the garment photos {CLOTHING}"
)
# The pose network and the backbone of the package take most of the time.
pytestmark = [pytest.mark.slow, needs_photos]


def crawl(folder: Path, *arguments: str) -> None:
    """Run a crawl in its own process, since Scrapy runs only once per process."""
    done = subprocess.run(
        [sys.executable, fashion_tagger.__file__, "crawl", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def run_command(folder: Path, *arguments: str) -> None:
    done = run_words(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, one_estimator: None) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for label in LABELS:
        (folder / "photos" / label).mkdir(parents=True)
        for photo in sorted((CLOTHING / label).iterdir())[:PHOTOS_PER_LABEL]:
            shutil.copy(photo, folder / "photos" / label)
    with serve(ShopOptions(photos=folder / "photos")) as shop:
        address = ("--site-url", shop.url, "--image-url", shop.url)
        crawl(folder, "lamoda", "--tags", ",".join(LABELS), *address)
    run_command(folder, "build-dataset", "--min-per-class", "8", "--splits", "60,20,20")
    head = ("--weights", "garments", "--fine-tune", "0", "--image-size", "96", "--cache", "cache")
    run_command(folder, "train-model", *head, "--precision", "float32", "--out", "runs/project")
    return folder


def test_splits_have_every_label_and_no_leakage(project: Path) -> None:
    rows = pq.read_table(project / "splits" / "manifest.parquet").to_pylist()
    count = Counter((row["label"], row["split"]) for row in rows)
    assert {label for label, _ in count} == set(LABELS)
    assert all(count[label, split] for label in LABELS for split in ("train", "validation", "test"))
    for key in ("sha256", "cluster"):
        assert len({row[key] for row in rows}) == len(rows)
    split_of: dict[str, str] = {}
    for row in rows:
        assert split_of.setdefault(row["post_url"], row["split"]) == row["split"]
        assert (project / "splits" / row["path"]).is_file()


def test_metrics_match_the_predictions_and_exceed_chance(project: Path) -> None:
    metrics = json.loads((project / "runs" / "project" / "metrics.json").read_text())
    with (project / "runs" / "project" / "predictions.csv").open(
        encoding="utf-8", newline=""
    ) as file:
        rows = list(csv.DictReader(file))
    truth = [row["label"] for row in rows]
    assert metrics["accuracy"] == accuracy_score(truth, [row["predicted"] for row in rows])
    assert metrics["counts"]["test"] == len(rows)
    # Chance is 0.33.
    assert metrics["accuracy"] > 0.6
