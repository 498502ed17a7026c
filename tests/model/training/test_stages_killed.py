"""Both stages by the command: a killed training resumes, and later ones use its cache."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.drawn_splits import (
    ENVIRONMENT,
    SHORT,
    arguments,
    draw_splits,
    random_backbone,
    run,
)

# Every test trains both stages.
pytestmark = pytest.mark.slow
OPTIONS = (
    *(
        "--weights",
        "backbone.weights.h5",
        "--fine-tune",
        "2",
        "--epochs",
        "3",
        "--head-epochs",
        "20",
    ),
    *("--batch-size", "8", "--precision", "float32", "--time-budget", "none", "--patience", "0"),
    *("--feature-layers", "mixed5"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, short_backbone: None) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    draw_splits(folder / "splits", {"red ones": "red", "синие": "blue", "a,b": "green"})
    random_backbone(folder / "backbone.weights.h5")
    done = run(folder, *OPTIONS, "--out", "whole")
    assert done.returncode == 0, done.stderr
    assert "fine-tuning 3/3" in done.stdout
    return folder


def predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def probabilities(folder: Path) -> np.ndarray:
    return np.array(
        [[float(v) for n, v in row.items() if n.startswith("p:")] for row in predictions(folder)]
    )


def test_three_colours_are_predicted(work: Path) -> None:
    metrics = json.loads((work / "whole" / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.6
    assert {row["label"] for row in predictions(work / "whole")} == {"red ones", "синие", "a,b"}


@pytest.mark.parametrize("cache", ["cache", "cold"])
def test_the_same_command_gives_the_same_figures(work: Path, cache: str) -> None:
    out = f"again-{cache}"
    done = run(work, *OPTIONS, "--cache", str(work / cache), "--out", out)
    assert done.returncode == 0, done.stderr
    first, second = (work / name / "predictions.csv" for name in ("whole", out))
    assert first.read_bytes() == second.read_bytes()


def test_from_nothing_an_odd_batch_size_gives_the_same_figures(work: Path) -> None:
    options = ("--weights", "none", "--feature-layers", "mixed4", "--epochs", "2")
    for out in ("none-1", "none-2"):
        done = run(work, *options, "--batch-size", "7", "--out", out)
        assert done.returncode == 0, done.stderr
    first, second = (work / name / "predictions.csv" for name in ("none-1", "none-2"))
    assert first.read_bytes() == second.read_bytes()


def test_a_killed_training_resumes_with_the_same_result(work: Path) -> None:
    part = work / "cut.unfinished"
    words = (*OPTIONS, "--out", "cut")
    process = subprocess.Popen(
        [*SHORT, *arguments(work, *words)],
        cwd=work,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("fine-tuning 1/3"):
            os.kill(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert (part / "tuning.npz").exists()
    assert not (work / "cut").exists()
    again = run(work, *words)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    other = run(work, *words, "--resume", "--batch-size", "4")
    assert other.returncode == 2
    assert "batch_size was 8" in other.stderr
    done = run(work, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "fine-tuning 1/3" not in done.stdout
    assert probabilities(work / "cut") == pytest.approx(probabilities(work / "whole"), abs=1e-4)


def test_the_next_training_uses_cached_features(work: Path) -> None:
    (cache,) = (work / "cache").glob("inception_v3-*.sqlite")
    before = cache.stat().st_mtime_ns
    time.sleep(0.02)
    head = ("--weights", "backbone.weights.h5", "--fine-tune", "0", "--precision", "float32")
    done = run(work, *head, "--out", "head", "--seed", "3", "--label-smoothing", "0")
    assert done.returncode == 0, done.stderr
    assert cache.stat().st_mtime_ns == before
    assert json.loads((work / "head" / "metrics.json").read_text())["kept_stage"] == "head"


def test_cross_validation_predicts_each_photo_once_without_the_test_split(work: Path) -> None:
    head = ("--weights", "backbone.weights.h5", "--fine-tune", "0", "--precision", "float32")
    done = run(work, *head, "--out", "folds", "--folds", "3", "--augment", "none")
    assert done.returncode == 0, done.stderr
    assert "accuracy over 3 folds: mean" in done.stdout
    paths = [row["path"] for row in predictions(work / "folds")]
    assert len(paths) == len(set(paths)) == 3 * (12 + 4)
    assert not any(path.startswith("test/") for path in paths)
    assert not (work / "folds" / "model.keras").exists()
    for text in (
        done.stdout,
        *((work / "folds" / n).read_text() for n in ("README.md", "report.html")),
    ):
        assert "test photos" not in text and "held-out photos" in text
    assert not list((work / "folds").rglob("*.npz"))


def test_unknown_labels_and_missing_validation_photos_are_reported(work: Path) -> None:
    draw_splits(work / "lacking", {"red": "red", "blue": "blue"}, {"train": 4, "test": 2})
    draw_splits(work / "lacking", {"шляпа": "green"}, {"test": 3})
    head = ("--weights", "backbone.weights.h5", "--fine-tune", "0", "--precision", "float32")
    done = run(work, *head, "--data", "lacking", "--out", "lacked", "--augment", "none")
    assert done.returncode == 0, done.stderr
    assert "excluded 3 photos of 'шляпа': no photos in train/" in done.stderr
    assert "no validation photos: the last epoch is kept" in done.stdout
    assert json.loads((work / "lacked" / "metrics.json").read_text())["counts"]["test"] == 4
