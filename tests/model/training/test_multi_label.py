"""Trainings on photos of several labels: the loss, and a run from splits to reports."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from dataset.errors import Failure
from dataset.images.io import open_photo
from model.data.features import SplitFeatures
from model.data.loading import Example, FacetGroups, SplitData
from model.evaluation.calibration import facet_probabilities
from model.inference.predictor import load_predictor, load_run
from model.network.inception import BLOCK_CHANNELS, build_facet_probabilities
from model.training.fit import FacetCrossEntropy, FitProgress, facet_accuracy
from model.training.stages import FINE_TUNING, label_weights
from model.training.train import ConsoleReporter
from tests.support import drawn_splits
from tests.support.label_sets import FACETS, draw_label_sets

GROUPS = FacetGroups(("lower", "upper"), ((1, 2), (0, 1, 3)))
LABEL_SETS = [("a", [1]), ("b", [2]), ("c", [3]), ("d", [0, 2])]
OPTIONS = (
    *("--weights", "backbone.weights.h5", "--fine-tune", "2", "--epochs", "3"),
    *("--head-epochs", "20", "--batch-size", "8", "--precision", "float32"),
    *("--time-budget", "none", "--patience", "0"),
)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_cross_entropy_of_the_labelled_facets(smoothing: float) -> None:
    targets = GROUPS.targets(LABEL_SETS)
    encoded = GROUPS.encode(targets, has_class_weights=True)
    logits = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    expected = np.zeros(4)
    for number, members in enumerate(GROUPS.members):
        start = sum(map(len, GROUPS.members[:number]))
        own = encoded[:, start : start + len(members)]
        smoothed = (1 - smoothing) * own + smoothing * own.mean(axis=1, keepdims=True)
        expected -= (smoothed * log_softmax(logits[:, list(members)])).sum(axis=1)
    loss = FacetCrossEntropy(GROUPS, smoothing)
    assert np.asarray(loss.call(encoded, logits)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(encoded, logits)) == pytest.approx(expected.mean(), rel=1e-5)


def test_the_logits_of_unlabelled_facets_have_no_influence() -> None:
    encoded = GROUPS.encode(GROUPS.targets([("b", [2])]), has_class_weights=False)
    logits = np.array([[0.3, 0.1, 0.2, 0.5]], np.float32)
    other = np.array([[9.0, 0.1, 0.2, -7.0]], np.float32)
    loss = FacetCrossEntropy(GROUPS, 0.1)
    assert float(loss(encoded, logits)) == pytest.approx(float(loss(encoded, other)))


def test_accuracy_is_the_fraction_of_the_labelled_facets() -> None:
    encoded = GROUPS.encode(GROUPS.targets(LABEL_SETS), has_class_weights=True)
    logits = np.array([[0, 5, 0, 9], [0, 1, 2, 0], [0, 9, 9, 1], [3, 0, 1, 0]], np.float32)
    assert np.asarray(facet_accuracy(encoded, logits, GROUPS)).tolist() == [0.5, 1, 0, 1]


def test_the_layers_of_a_saved_model_compute_the_probabilities() -> None:
    logits = np.random.default_rng(1).normal(0, 5, size=(6, 4)).astype(np.float32)
    network = build_facet_probabilities(4, GROUPS.members, [0.7, 2.0])
    again = keras.Model.from_config(network.get_config())
    expected = facet_probabilities(logits, GROUPS, [0.7, 2.0])
    assert np.asarray(again(logits)) == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, short_backbone: None) -> Path:
    folder = tmp_path_factory.mktemp("work")
    draw_label_sets(folder / "splits", {"train": 6, "validation": 2, "test": 3})
    drawn_splits.random_backbone(folder / "backbone.weights.h5")
    done = drawn_splits.run(folder, *OPTIONS, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "Mean average precision of 4 labels" in done.stdout
    return folder


@pytest.mark.slow
def test_the_metrics_follow_from_the_predictions(work: Path) -> None:
    metrics = json.loads((work / "run" / "metrics.json").read_text())
    with (work / "run" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == metrics["photos"] == metrics["counts"]["test"] == 12
    precisions = []
    for facet, labels in FACETS.items():
        known = [row for row in rows if facet in row["facets"].split(", ")]
        for label in labels:
            has = [label in row["labels"].split(", ") for row in known]
            scores = [float(row[f"p:{label}"]) for row in known]
            precisions.append(average_precision_score(has, scores))
            own = metrics["per_label"][label]
            assert own["average_precision"] == pytest.approx(precisions[-1])
            predicted = [label in row["predicted"].split(", ") for row in known]
            assert predicted == [score >= own["threshold"] for score in scores]
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert set(metrics["facets"]) == set(FACETS)


@pytest.mark.slow
def test_the_saved_model_has_the_same_probabilities_with_its_facets(work: Path) -> None:
    run = load_run(work / "run")
    assert run.facets == FACETS
    assert set(run.thresholds) == set(run.labels)
    with (work / "run" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    photo = np.asarray(open_photo(work / "splits" / row["path"]))
    own = [float(row[f"p:{label}"]) for label in run.labels]
    assert np.asarray(run.network(photo[None], training=False))[0] == pytest.approx(own, abs=0.02)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 75, 75, 3), dtype=np.uint8)
    logits = load_predictor(run, "float32").predict(pixels).logits
    assert np.exp(logits) == pytest.approx(np.asarray(run.network(pixels)), abs=1e-4)


@pytest.mark.slow
def test_the_reports_are_written(work: Path) -> None:
    page = (work / "run" / "report.html").read_text(encoding="utf-8")
    card = (work / "run" / "README.md").read_text(encoding="utf-8")
    for text in ("jeans", "colour", "verage precision"):
        assert text in page
        assert text in card
    with (work / "run" / "per_class.csv").open(encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["blue", "jeans", "red", "skirt"]
    with (work / "run" / "coverage.csv").open(encoding="utf-8", newline="") as file:
        assert {row["facet"] for row in csv.DictReader(file)} == set(FACETS)


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_equal_predictions(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(reporter: ConsoleReporter, stage: str, progress: FitProgress) -> None:
        if stage == FINE_TUNING and progress.done == 2:
            raise Failure("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(ConsoleReporter, "report_epoch", interrupt)
        assert drawn_splits.run(work, *OPTIONS, "--out", "again").returncode == 1
    done = drawn_splits.run(work, *OPTIONS, "--out", "again", "--resume")
    assert done.returncode == 0, done.stderr
    assert "fine-tuning 2/3" not in done.stdout
    first, second = (work / name / "predictions.csv" for name in ("run", "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_folds_and_label_noise_with_facets(work: Path) -> None:
    head = (
        *("--weights", "backbone.weights.h5", "--fine-tune", "0", "--head-epochs", "5"),
        *("--precision", "float32"),
    )
    done = drawn_splits.run(work, *head, "--noise-robust", "--folds", "3", "--out", "folds")
    assert done.returncode == 0, done.stderr
    assert "accuracy over 3 folds: mean" in done.stdout
    assert "lower: " in done.stdout
    assert "training labels are contradicted" in done.stdout
    with (work / "folds" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Each train and validation photo once; within a facet, probabilities sum to 1.
    assert len({row["path"] for row in rows}) == len(rows) == 32
    for row in rows:
        assert not row["path"].startswith("photos/test")
        for labels in FACETS.values():
            assert sum(float(row[f"p:{label}"]) for label in labels) == pytest.approx(1, abs=1e-3)
    metrics = json.loads((work / "folds" / "metrics.json").read_text())
    assert metrics["evaluated_on"] == "held-out photos"
    assert len(metrics["folds"]["accuracy"]) == 3
    assert "the networks are not kept" in (work / "folds" / "README.md").read_text()
    assert not (work / "folds" / "model.keras").exists()


def test_contradicted_labels_get_a_lower_weight_in_their_facet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    targets = np.stack([np.arange(200) % 2, np.arange(200) // 2 % 3], axis=1)
    values = np.concatenate([np.eye(2)[targets[:, 0]], np.eye(3)[targets[:, 1]]], axis=1)
    values = (values + rng.normal(0, 0.1, values.shape))[:, None].astype(np.float32)
    targets[::7, 1] = -1
    wrong = np.arange(10, 20)
    wrong = wrong[targets[wrong, 1] >= 0]
    targets[wrong, 1] = (targets[wrong, 1] + 1) % 3
    facets = FacetGroups(("lower", "upper"), ((0, 1), (2, 3, 4)))
    data = SplitData(tmp_path, tuple("abcde"), (), facets=facets)
    examples = [Example(f"{n}", "", "train") for n in range(200)]
    padded = np.pad(values, ((0, 0), (0, 0), (0, BLOCK_CHANNELS["mixed4"] - 5)))
    train = SplitFeatures(examples, padded, targets, {}, ("mixed4",))
    messages: list[str] = []
    monkeypatch.setattr(ConsoleReporter, "report_message", lambda _, text: messages.append(text))
    validation = replace(train, values=padded[:0], targets=targets[:0])
    reporter = ConsoleReporter(tmp_path)
    weights = label_weights(data, train, validation, ("mixed4",), 0, reporter)
    assert (weights[:, 0] == 1).all()
    assert (weights[::7, 1] == 1).all()
    assert (weights[wrong, 1] < 0.5).mean() > 0.7
    assert (np.delete(weights[:, 1], wrong) == 1).mean() > 0.95
    assert messages[1].startswith("upper: ")


@pytest.mark.slow
def test_facets_of_one_label_are_named_and_not_trained(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "splits", tmp_path / "splits")
    about = {"labels": [], "facets": {"colour": ["blue", "red"], "lower": ["jeans"]}}
    (tmp_path / "splits" / "labels.json").write_text(json.dumps(about))
    scratch = (
        *("--weights", "none", "--feature-layers", "mixed4", "--epochs", "1"),
        *("--precision", "float32"),
    )
    done = drawn_splits.run(tmp_path, *scratch, "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "the facet lower is not trained: jeans is its only label" in done.stdout
    assert load_run(tmp_path / "run").labels == ["blue", "red"]
