"""Find labels that out-of-fold predictions contradict, and weight training examples by it.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR
2021, https://arxiv.org/abs/1911.00068.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from model.evaluation.calibration import fit_temperature, softmax

FOLDS, ROUNDS = 4, 2
# The weight of a contradicted label: WEIGHT_SCALE times its probability, at least MIN_WEIGHT.
WEIGHT_SCALE, MIN_WEIGHT = 3.0, 0.05

# Trains on examples (indices, weights) and returns the logits of other examples (indices).
FoldPredictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def assign_folds(
    targets: np.ndarray, groups: Sequence[str] | None, count: int, seed: int
) -> np.ndarray:
    """Assign examples to folds, stratified by class and grouped.

    If a class has fewer examples than there are folds, some folds lack it.

    Args:
        targets: Class indices, int array of shape (n,).
        groups: A name for each example; examples of a group stay in one fold.
        count: Number of folds.
        seed: Random seed.

    Returns:
        The fold of each example, int array of shape (n,).
    """
    shared = {"n_splits": count, "shuffle": True, "random_state": seed}
    # Classes with fewer examples than folds cannot be stratified: treat them as the largest class.
    is_rare = np.bincount(targets)[targets] < count
    strata = np.where(is_rare, np.bincount(targets).argmax(), targets)
    features = np.zeros(len(targets))
    if groups is None:
        splits = StratifiedKFold(**shared).split(features, strata)
    else:
        splits = StratifiedGroupKFold(**shared).split(features, strata, list(groups))
    folds = np.zeros(len(targets), np.int64)
    for fold, (_, held_out) in enumerate(splits):
        folds[held_out] = fold
    return folds


def find_contradicted_labels(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return which labels out-of-fold predictions contradict.

    A label is contradicted if another class is at least as probable as that class is, on average,
    for its own examples, and is the most probable of all such classes.

    Args:
        probabilities: Out-of-fold probabilities of shape (n, classes).
        targets: Class indices of shape (n,).

    Returns:
        Boolean array of shape (n,).
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(targets)), targets]
    counts = np.bincount(targets, minlength=classes)
    # A class without examples has no threshold that could be reached.
    thresholds = np.full(classes, np.inf)
    has_examples = counts > 0
    sums = np.bincount(targets, own, minlength=classes)
    thresholds[has_examples] = sums[has_examples] / counts[has_examples]
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = confident.argmax(axis=1)
    return (confident.max(axis=1) >= 0) & (best != targets) & (confident.max(axis=1) > own)


def predict_out_of_fold(
    targets: np.ndarray,
    folds: np.ndarray,
    classes: int,
    weights: np.ndarray,
    predict_fold: FoldPredictor,
) -> np.ndarray:
    """Predict each example with a model that was trained on the other folds.

    Args:
        targets: Class indices of shape (n,), used for the calibration.
        folds: The fold of each example, shape (n,).
        classes: Number of classes.
        weights: Example weights of shape (n,).
        predict_fold: Trains on the other folds and predicts the held-out one.

    Returns:
        Calibrated probabilities of shape (n, classes).
    """
    logits = np.zeros((len(targets), classes))
    for fold in np.unique(folds):
        held_out = np.flatnonzero(folds == fold)
        rest = np.flatnonzero(folds != fold)
        logits[held_out] = predict_fold(rest, weights[rest], held_out)
    return softmax(logits, fit_temperature(logits, targets))


def estimate_label_weights(
    targets: np.ndarray,
    groups: Sequence[str] | None,
    classes: int,
    seed: int,
    predict_fold: FoldPredictor,
) -> np.ndarray:
    """Estimate a weight for each label: 1, or less if out-of-fold predictions contradict it.

    The weight of a contradicted label depends on its out-of-fold probability. The models of the
    second round are trained with the weights of the first one.

    Args:
        targets: Class indices of shape (n,).
        groups: A name for each example; examples of a group stay in one fold.
        classes: Number of classes.
        seed: Random seed.
        predict_fold: Trains on some examples and predicts others.

    Returns:
        Float32 array of shape (n,) with values in [MIN_WEIGHT, 1].
    """
    weights = np.ones(len(targets), np.float32)
    folds = assign_folds(targets, groups, FOLDS, seed)
    for _ in range(ROUNDS):
        probabilities = predict_out_of_fold(targets, folds, classes, weights, predict_fold)
        own = probabilities[np.arange(len(targets)), targets]
        reduced = np.clip(own * WEIGHT_SCALE, MIN_WEIGHT, 1)
        is_contradicted = find_contradicted_labels(probabilities, targets)
        weights = np.where(is_contradicted, reduced, 1).astype(np.float32)
    return weights
