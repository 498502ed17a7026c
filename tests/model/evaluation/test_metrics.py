"""Metrics equal values computed by hand and, on random input, by scikit-learn."""

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from model.data.loading import PhotoMetadata
from model.evaluation.calibration import log_probabilities, softmax
from model.evaluation.metrics import LabeledLogits, compute_metrics

# truth a a a b b c; predicted a a b b c c
SHARES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.2, 0.7, 0.1],
        [0.1, 0.8, 0.1],
        [0.1, 0.2, 0.7],
        [0.0, 0.1, 0.9],
    ]
)
TARGETS = np.array([0, 0, 0, 1, 1, 2])


def nothing(classes: int) -> LabeledLogits:
    return LabeledLogits(np.zeros((0, classes)), np.zeros(0, int))


def figures_of(probabilities: np.ndarray, targets: np.ndarray, **more: Any) -> dict[str, Any]:
    labels = [f"label {place}" for place in range(probabilities.shape[1])]
    test = LabeledLogits(log_probabilities(probabilities), targets)
    return compute_metrics(test, nothing(len(labels)), labels, 1.0, 0, **{"resamples": 200, **more})


def random_logits(classes: int, count: int, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    targets = np.minimum(random.geometric(0.1, count) - 1, classes - 1)
    logits = random.normal(0, 1.5, (count, classes)) + skill * np.eye(classes)[targets]
    return logits, targets


def test_the_metrics_of_six_photos() -> None:
    test = LabeledLogits(log_probabilities(SHARES), TARGETS)
    figures = compute_metrics(test, nothing(3), ["a", "b", "c"], 1.0, 0)
    assert figures["accuracy"] == pytest.approx(4 / 6)
    a, b, c = (figures["per_class"][name] for name in "abc")
    assert a == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert b == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2})
    assert c == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert figures["macro"]["precision"] == pytest.approx(2 / 3)
    assert figures["macro"]["recall"] == pytest.approx((2 / 3 + 0.5 + 1) / 3)
    assert figures["weighted"]["recall"] == pytest.approx(4 / 6)
    assert figures["confusion_matrix"]["counts"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert figures["top_k"] == pytest.approx({"1": 4 / 6, "2": 1.0})
    assert (figures["chance"], figures["majority"]) == pytest.approx((1 / 3, 1 / 2))


def test_a_label_that_is_never_predicted_has_precision_zero_and_no_interval() -> None:
    figures = figures_of(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    none = {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert figures["per_class"]["label 1"] == none
    assert figures["intervals"]["per_class"]["label 1"]["precision"] is None


@pytest.mark.parametrize(("classes", "count"), [(2, 40), (5, 300), (60, 500), (60, 1), (2, 1)])
def test_every_metric_equals_scikit_learns(classes: int, count: int) -> None:
    logits, targets = random_logits(classes, count)
    labels = [f"label {place}" for place in range(classes)]
    places = list(range(classes))
    figures = compute_metrics(
        LabeledLogits(logits, targets), nothing(classes), labels, 1.6, 0, resamples=50
    )
    probabilities = softmax(logits, 1.6)
    called = probabilities.argmax(axis=1)
    assert figures["accuracy"] == pytest.approx(accuracy_score(targets, called), abs=1e-12)
    for average in ("macro", "weighted"):
        wanted = precision_recall_fscore_support(
            targets, called, labels=places, average=average, zero_division=0
        )[:3]
        assert list(figures[average].values()) == pytest.approx(list(wanted), abs=1e-12)
    each = np.array(
        precision_recall_fscore_support(targets, called, labels=places, zero_division=0)
    )
    ours = np.array([list(figures["per_class"][name].values()) for name in labels])
    assert ours == pytest.approx(each.T, abs=1e-12)
    counts = confusion_matrix(targets, called, labels=places)
    assert figures["confusion_matrix"]["counts"] == counts.tolist()
    for k, share in figures["top_k"].items():
        scores = probabilities if classes > 2 else probabilities[:, 1]
        assert share == pytest.approx(
            top_k_accuracy_score(targets, scores, k=int(k), labels=places)
        )
    loss = figures["calibration"]["after"]["negative_log_likelihood"]
    assert loss == pytest.approx(log_loss(targets, probabilities, labels=places))
    json.dumps(figures, allow_nan=False)


def test_intervals_contain_the_metric_and_depend_on_the_seed() -> None:
    probabilities, targets = softmax(random_logits(5, 400)[0]), random_logits(5, 400)[1]
    one, other = figures_of(probabilities, targets), figures_of(probabilities, targets)
    assert one == other
    low, high = one["intervals"]["accuracy"]
    assert low < one["accuracy"] < high
    # Near the normal one: 1.96 standard errors a side.
    error = (one["accuracy"] * (1 - one["accuracy"]) / 400) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)
    for name, (low, high) in one["intervals"]["macro"].items():
        assert low < one["macro"][name] < high


def test_groups_are_resampled_whole_and_widen_the_interval() -> None:
    random = np.random.default_rng(1)
    right = random.random(100) < 0.8
    probabilities = np.repeat(np.where(right[:, None], [0.9, 0.1], [0.1, 0.9]), 9, axis=0)
    targets = np.zeros(900, int)
    groups = [f"group {i // 9}" for i in range(900)]
    alone = figures_of(probabilities, targets)["intervals"]
    grouped = figures_of(probabilities, targets, metadata=PhotoMetadata(groups))["intervals"]
    assert (grouped["resampled"], grouped["units"]) == ("groups of photos", 100)
    width = {"alone": np.ptp(alone["accuracy"]), "grouped": np.ptp(grouped["accuracy"])}
    assert width["grouped"] == pytest.approx(3 * width["alone"], rel=0.3)


def test_a_single_group_has_no_intervals() -> None:
    figures = figures_of(SHARES, TARGETS, metadata=PhotoMetadata(["one"] * 6, ["shop"] * 6))
    assert figures["intervals"]["accuracy"] is None
    assert set(figures["intervals"]["macro"].values()) == {None}
    assert set(figures["intervals"]["weighted"].values()) == {None}
    assert figures["by"]["site"]["shop"]["interval"] is None


def test_a_class_of_one_photo_has_no_interval_of_recall() -> None:
    per_class = figures_of(SHARES, TARGETS)["intervals"]["per_class"]
    assert per_class["label 2"]["recall"] is None
    assert per_class["label 0"]["recall"] is not None


def test_macro_intervals_contain_the_metric_with_rare_classes() -> None:
    random = np.random.default_rng(0)
    targets = np.concatenate([np.zeros(200, int), np.arange(1, 30).repeat(2)])
    logits = random.normal(0, 1, (len(targets), 30)) + 3 * np.eye(30)[targets]
    figures = figures_of(softmax(logits), targets)
    low, high = figures["intervals"]["macro"]["recall"]
    assert low < figures["macro"]["recall"] < high


def test_metrics_by_site_and_crop() -> None:
    sites = ["lamoda", "lamoda", "twitter", "twitter", "twitter", "twitter"]
    figures = figures_of(SHARES, TARGETS, metadata=PhotoMetadata(sites=sites))
    assert figures["by"]["crop"] == {}
    assert figures["by"]["site"]["lamoda"]["accuracy"] == 1
    assert figures["by"]["site"]["twitter"]["accuracy"] == 0.5
    assert figures["by"]["site"]["twitter"]["confidence"] == pytest.approx(0.775)


def test_the_threshold_is_chosen_on_validation_and_measured_on_test() -> None:
    sure = np.array([[0.75, 0.25], [0.4, 0.6]]).repeat(20, axis=0)
    test = LabeledLogits(
        log_probabilities(np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])), np.array([0, 1, 0])
    )

    def coverage(validation: LabeledLogits) -> dict[str, Any]:
        return compute_metrics(test, validation, ["a", "b"], 1.0, 0, resamples=10)["coverage"]

    found = coverage(LabeledLogits(log_probabilities(sure), np.zeros(40, int)))
    chosen = found["chosen_on_validation"]
    assert chosen["threshold"] == pytest.approx(0.75)
    assert (chosen["photos"], chosen["coverage"], chosen["accuracy"]) == (2, 2 / 3, 0.5)
    assert found["best_on_test"]["threshold"] == pytest.approx(0.9)
    assert found["best_on_test"]["coverage"] == pytest.approx(1 / 3)
    # Nineteen right answers are too few to choose by.
    assert (
        coverage(LabeledLogits(log_probabilities(sure[1:]), np.zeros(39, int)))[
            "chosen_on_validation"
        ]
        is None
    )


def test_thresholds_of_a_cross_validation_are_chosen_on_the_other_folds() -> None:
    logits, targets = random_logits(3, 300)
    probabilities, folds = softmax(logits, 1.0), np.arange(300) % 3
    figures = figures_of(probabilities, targets, folds=folds)
    assert figures["evaluated_on"] == "held-out photos"
    point = figures["coverage"]["chosen_on_validation"]
    is_right, confidence = probabilities.argmax(axis=1) == targets, probabilities.max(axis=1)
    hits, photos = 0, 0
    for fold in range(3):
        others = folds != fold
        values = sorted(set(confidence[others]))
        reaching = [
            value
            for value in values
            if is_right[others][confidence[others] >= value].mean() >= 0.95
            and (confidence[others] >= value).sum() >= 20
        ]
        passed = (confidence >= min(reaching)) & ~others
        hits, photos = hits + int(is_right[passed].sum()), photos + int(passed.sum())
    assert (point["photos"], point["accuracy"]) == (photos, pytest.approx(hits / photos))
    assert point["coverage"] == pytest.approx(photos / 300)


def test_two_correct_photos_do_not_prove_perfection() -> None:
    figures = figures_of(np.eye(2), np.arange(2))
    low, high = figures["intervals"]["accuracy"]
    assert (figures["accuracy"], high) == (1.0, 1.0) and 0.3 < low < 0.4
