"""Average precision, thresholds and metrics of several labels, recounted by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score

from model.data.loading import UNLABELLED, FacetGroups
from model.evaluation.calibration import facet_probabilities, softmax
from model.evaluation.metrics import LabeledLogits
from model.evaluation.multi_label import (
    average_precision,
    best_threshold,
    compute_multi_label_metrics,
)

LABELS = ("a", "b", "c", "d", "both")
FACETS = FacetGroups(("one", "two"), ((0, 1, 4), (2, 3, 4)))


def drawn(count: int, seed: int) -> LabeledLogits:
    """Draw logits that agree with the targets often, a third of which are unlabelled."""
    rng = np.random.default_rng(seed)
    is_both = rng.random(count) < 0.2
    targets = np.where(is_both[:, None], 2, rng.integers(0, 2, (count, 2)))
    logits = rng.normal(size=(count, 5))
    for number, members in enumerate(FACETS.members):
        logits[np.arange(count), np.array(members)[targets[:, number]]] += 1.5
    targets[~is_both & (rng.random(count) < 0.3), 0] = UNLABELLED
    targets[~is_both & (rng.random(count) < 0.3), 1] = UNLABELLED
    return LabeledLogits(logits, targets)


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Rounded, so that there are ties.
    scores, is_positive = rng.random(60).round(1), rng.random(60) < 0.3
    weights = rng.integers(0, 3, (4, 60))
    for own, value in zip(weights, average_precision(scores, is_positive, weights), strict=True):
        expected = average_precision_score(is_positive, scores, sample_weight=own)
        assert value == pytest.approx(expected)


def test_average_precision_is_undefined_without_the_label() -> None:
    ones = np.ones((1, 3))
    assert np.isnan(average_precision(np.array([0.1, 0.2, 0.3]), np.zeros(3, bool), ones)[0])
    assert np.isnan(average_precision(np.zeros(0), np.zeros(0, bool), np.ones((1, 0)))[0])


def test_the_threshold_has_the_highest_f1() -> None:
    rng = np.random.default_rng(0)
    scores, has = rng.random(50).round(2), rng.random(50) < 0.4
    chosen = f1_score(has, scores >= best_threshold(scores, has))
    assert chosen == max(f1_score(has, scores >= value, zero_division=0) for value in scores)
    assert best_threshold(scores, np.zeros(50, bool)) == 0.5


def test_probabilities_are_those_of_each_facet() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5))
    probabilities = facet_probabilities(logits, FACETS, [1.0, 2.0])
    one, two = softmax(logits[:, [0, 1, 4]]), softmax(logits[:, [2, 3, 4]], 2.0)
    assert probabilities[:, :2] == pytest.approx(one[:, :2])
    assert probabilities[:, 2:4] == pytest.approx(two[:, :2])
    assert probabilities[:, 4] == pytest.approx((one[:, 2] + two[:, 2]) / 2)


def test_the_metrics_are_those_of_scikit_learn_on_known_photos() -> None:
    test, thresholds = drawn(200, 0), [0.3, 0.4, 0.5, 0.3, 0.4]
    metrics = compute_multi_label_metrics(
        test, drawn(80, 1), LABELS, FACETS, [1.0, 1.3], thresholds, 0, resamples=100
    )
    probabilities = facet_probabilities(test.logits, FACETS, [1.0, 1.3])
    precisions, f1s = [], []
    for index, label in enumerate(LABELS):
        of_facets = [n for n, members in enumerate(FACETS.members) if index in members]
        known = (test.targets[:, of_facets] != UNLABELLED).any(axis=1)
        has = np.zeros(200, bool)
        for number in of_facets:
            has |= test.targets[:, number] == FACETS.members[number].index(index)
        scores, own = metrics["per_label"][label], probabilities[known, index]
        precisions.append(average_precision_score(has[known], own))
        f1s.append(f1_score(has[known], own >= thresholds[index]))
        assert scores["average_precision"] == pytest.approx(precisions[-1])
        assert scores["f1"] == pytest.approx(f1s[-1])
        predicted = own >= thresholds[index]
        assert scores["precision"] == pytest.approx(precision_score(has[known], predicted))
        assert (scores["support"], scores["known"]) == (has.sum(), known.sum())
        low, high = metrics["intervals"]["per_label"][label]
        assert low < scores["average_precision"] < high
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert metrics["macro"]["f1"] == pytest.approx(np.mean(f1s))
    assert list(metrics["facets"]) == ["one", "two"]
    own = test.targets[:, 0] != UNLABELLED
    predicted = test.logits[own][:, [0, 1, 4]].argmax(axis=1)
    accuracy = (predicted == test.targets[own, 0]).mean()
    assert metrics["facets"]["one"]["accuracy"] == pytest.approx(accuracy)


def test_labels_without_test_photos_are_not_in_the_means() -> None:
    test = drawn(60, 2)
    kept = test.targets[:, 0] != 0
    few = LabeledLogits(test.logits[kept], test.targets[kept])
    empty = LabeledLogits(np.zeros((0, 5)), np.zeros((0, 2), int))
    metrics = compute_multi_label_metrics(
        few, empty, LABELS, FACETS, [1.0, 1.0], [0.5] * 5, 0, resamples=20
    )
    assert metrics["per_label"]["a"]["average_precision"] is None
    defined = [s["average_precision"] for s in metrics["per_label"].values() if s["support"]]
    assert metrics["mean_average_precision"] == pytest.approx(np.mean(defined))
