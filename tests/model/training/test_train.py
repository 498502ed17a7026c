"""A training from scratch on small drawn photos, from splits to the run directory."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score

from tests.support import drawn_splits
from tests.support.drawn_splits import draw_splits

COLOURS = {"рубашка поло": "red", "dress": "blue"}


@pytest.fixture(scope="module", params=["short", pytest.param("whole", marks=pytest.mark.slow)])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a short network, and Inception-v3 in a slow test."""
    if request.param == "short":
        request.getfixturevalue("short_backbone")
    folder = tmp_path_factory.mktemp("work")
    draw_splits(folder / "splits", COLOURS)
    (folder / "splits" / "test" / "dress" / "broken.png").write_bytes(b"no photo")
    config = (
        "--weights",
        "none",
        "--feature-layers",
        "mixed4",
        "--epochs",
        "6",
        "--batch-size",
        "8",
    )
    done = train(folder, *config)
    assert done.returncode == 0, done.stderr
    assert "broken.png" in done.stderr + done.stdout
    assert "Training from scratch" in done.stdout
    return folder


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return drawn_splits.run(folder, "--out", "run", *options)


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "run" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_metrics_follow_from_the_predictions(run: Path) -> None:
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    assert metrics["learned_test_photos"] == 0
    rows = predictions(run)
    truth, predicted = [r["label"] for r in rows], [r["predicted"] for r in rows]
    assert len(rows) == 12
    assert metrics["counts"] == {"train": 24, "validation": 8, "test": 12}
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert metrics["macro"]["f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert list(metrics["unreadable"]) == ["test/dress/broken.png"]


def test_red_and_blue_are_predicted(run: Path) -> None:
    assert sum(row["label"] == row["predicted"] for row in predictions(run)) >= 10


def check_probabilities(run: Path, probabilities: np.ndarray) -> None:
    """Check the probabilities of the first test photo."""
    labels = json.loads((run / "run" / "labels.json").read_text())["labels"]
    assert labels == ["dress", "рубашка поло"]
    first = predictions(run)[0]
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert probabilities == pytest.approx([float(first[f"p:{n}"]) for n in labels], abs=1e-4)


def modules_of(config: object) -> set[str]:
    """Return the modules of the classes in the configuration of a saved model."""
    if isinstance(config, list):
        return set().union(*map(modules_of, config))
    if not isinstance(config, dict):
        return set()
    own = {config["module"]} if isinstance(config.get("module"), str) else set()
    return own.union(*map(modules_of, config.values()))


def test_the_saved_model_needs_no_code_but_keras(run: Path) -> None:
    with zipfile.ZipFile(run / "run" / "model.keras") as saved:
        config = json.loads(saved.read("config.json"))
    assert {name.partition(".")[0] for name in modules_of(config)} == {"keras"}
    assert "registered_name" in config
    network = keras.saving.load_model(run / "run" / "model.keras")
    photo = np.asarray(Image.open(run / "splits" / predictions(run)[0]["path"]).convert("RGB"))
    check_probabilities(run, network.predict(photo[None], verbose=0)[0])


@pytest.mark.slow
def test_the_saved_model_alone_has_the_same_probabilities(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys, keras, numpy as np; from PIL import Image\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "photo = np.asarray(Image.open(sys.argv[2]).convert('RGB'))\n"
        "print(*model.predict(photo[None], verbose=0)[0])"
    )
    rows = predictions(run)
    path = run / "splits" / rows[0]["path"]
    done = subprocess.run(
        [sys.executable, "-c", code, run / "run" / "model.keras", path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    check_probabilities(run, np.array([float(text) for text in done.stdout.split()[-2:]]))


def test_the_charts_are_images(run: Path) -> None:
    for name in ("confusion.png", "curves.png"):
        with Image.open(run / "run" / name) as picture:
            assert min(picture.size) >= 300


def test_a_finished_run_is_not_overwritten(run: Path) -> None:
    done = train(run, "--weights", "none", "--data", "splits")
    assert done.returncode == 2
    assert "--out run already exists" in done.stderr


def test_weights_of_another_format_are_rejected(run: Path) -> None:
    wrong = run / "wrong.h5"
    wrong.write_bytes(b"not hdf5")
    done = train(run, "--weights", str(wrong), "--out", "new/folders/other")
    assert done.returncode == 1
    assert "wrong.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(run.glob("new*"))


def test_missing_weights_are_a_usage_error(run: Path) -> None:
    done = train(run, "--weights", "none.h5", "--out", "other")
    assert done.returncode == 2
    assert "none.h5" in done.stderr


def test_invalid_options_are_a_usage_error(run: Path) -> None:
    for options, message in (
        (("--augment", "flip"), "--augment flip: unknown transform"),
        (("--feature-layers", "mixed11"), "'mixed11' is not one of mixed4"),
        (("--time-budget", "soon"), "'soon' is not a time; use 45m"),
        (("--fine-tune", "some"), "'some' is not a number of blocks"),
        (("--resume",), "--resume: other.unfinished is not an interrupted training"),
    ):
        done = train(run, "--weights", "none", "--out", "other", *options)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr


def test_the_run_has_its_options_and_its_seed(run: Path) -> None:
    facts = json.loads((run / "run" / "run.json").read_text())
    assert facts["options"]["epochs"] == 6
    assert facts["options"]["augment"] == "mirror=0.5,rotate=15,scale=0.2,colour=0.2"
    assert facts["seed"] == 0
    assert facts["dataset"]["photos"] == 45
    events = list((run / "run" / "logs").rglob("events.out.tfevents.*"))
    assert events
    assert not list((run / "run").glob("*.npz"))
    assert not (run / "run.unfinished").exists()
