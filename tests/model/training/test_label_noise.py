"""Out-of-fold predictions find wrong labels."""

import numpy as np

from model.training.label_noise import (
    MIN_WEIGHT,
    assign_folds,
    estimate_label_weights,
    find_contradicted_labels,
)
from model.training.linear_probe import ridge_logits


def blobs(classes: int = 3, each: int = 60, noise: float = 0.2) -> tuple[np.ndarray, ...]:
    """Return values, true classes, and labels of which a fraction is wrong."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(classes), each)
    values = rng.normal(size=(len(truth), 8)).astype(np.float32) + 3 * np.eye(classes, 8)[truth]
    wrong = rng.random(len(truth)) < noise
    labels = np.where(wrong, (truth + 1) % classes, truth)
    return values.astype(np.float32), truth, labels


def test_a_label_is_contradicted_by_a_confident_other_class() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.45, 0.55]])
    targets = np.array([0, 0, 0, 1, 0])
    assert find_contradicted_labels(probabilities, targets).tolist() == [
        False,
        False,
        False,
        False,
        False,
    ]
    targets = np.array([0, 0, 1, 1, 0])
    probabilities[4] = [0.1, 0.9]
    assert find_contradicted_labels(probabilities, targets).tolist() == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_a_class_without_examples_contradicts_no_label() -> None:
    probabilities = np.array([[0.2, 0.1, 0.7], [0.3, 0.4, 0.3]])
    assert not find_contradicted_labels(probabilities, np.array([0, 1])).any()


def test_most_wrong_and_few_right_labels_get_a_lower_weight() -> None:
    values, truth, labels = blobs()

    def logits(rest: np.ndarray, weights: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        return ridge_logits(values[rest], labels[rest], weights, values[held_out], 3)

    label_weights = estimate_label_weights(labels, None, 3, 0, logits)
    is_doubted, wrong = label_weights < 1, labels != truth
    assert label_weights.min() >= np.float32(MIN_WEIGHT)
    assert is_doubted[wrong].mean() > 0.8
    assert is_doubted[~wrong].mean() < 0.05


def test_groups_stay_in_one_fold_and_each_fold_has_each_label() -> None:
    targets = np.repeat([0, 1], 40)
    groups = [str(place // 4) for place in range(80)]
    folds = assign_folds(targets, groups, 4, 0)
    assert all(len({folds[i] for i in range(80) if groups[i] == name}) == 1 for name in set(groups))
    assert all({*targets[folds == fold]} == {0, 1} for fold in range(4))


def test_labels_may_be_rarer_than_the_folds() -> None:
    targets = np.array([0] * 20 + [1] * 20 + [2])
    for groups in (None, [str(place) for place in range(41)]):
        folds = assign_folds(targets, groups, 4, 0)
        assert sorted(set(folds)) == [0, 1, 2, 3]
