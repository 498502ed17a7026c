"""Wrong labels: which ones out-of-fold predictions contradict. Pure but for `out_of_fold`.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from model.evaluation.calibration import softmax, temperature

FOLDS, ROUNDS = 4, 2
# What is left of a contradicted label: so many times its own share, and no less than LEAST.
BELIEF, LEAST = 3.0, 0.05

# Trains on places of examples with their weights, and judges other places: their logits.
Logits = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def folds_of(
    targets: np.ndarray, groups: Sequence[str] | None, count: int, seed: int
) -> np.ndarray:
    """(n,) int in [0, COUNT): the fold of each example; GROUPS stay together, labels are spread.

    Where a label has fewer examples than COUNT some folds lack it.
    """
    shared = {"n_splits": count, "shuffle": True, "random_state": seed}
    # Labels that are rarer than folds, which can't be spread, go with the commonest.
    rare = np.bincount(targets)[targets] < count
    spread = np.where(rare, np.bincount(targets).argmax(), targets)
    nothing = np.zeros(len(targets))
    if groups is None:
        parts = StratifiedKFold(**shared).split(nothing, spread)
    else:
        parts = StratifiedGroupKFold(**shared).split(nothing, spread, list(groups))
    folds = np.zeros(len(targets), np.int64)
    for fold, (_, held) in enumerate(parts):
        folds[held] = fold
    return folds


def contradicted(shares: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n,) bool: which of TARGETS, (n,) int, SHARES, (n, classes) of out of fold, speak against.

    A label is contradicted when another class is at least as sure as that class is of its own
    examples on average, and the surest of those that are.
    """
    classes = shares.shape[1]
    own = shares[np.arange(len(targets)), targets]
    counts = np.bincount(targets, minlength=classes)
    # A class without examples can't be sure of anything.
    usual = np.full(classes, np.inf)
    there = counts > 0
    usual[there] = np.bincount(targets, own, minlength=classes)[there] / counts[there]
    sure = np.where(shares >= usual, shares, -1.0)
    best = sure.argmax(axis=1)
    return (sure.max(axis=1) >= 0) & (best != targets) & (sure.max(axis=1) > own)


def out_of_fold(
    targets: np.ndarray,
    folds: np.ndarray,
    classes: int,
    weights: np.ndarray,
    logits: Logits,
) -> np.ndarray:
    """(n, classes) calibrated shares: each example judged by a model that never saw its fold.

    LOGITS trains on places with their weights and judges other places.
    """
    found = np.zeros((len(targets), classes))
    for fold in np.unique(folds):
        held = np.flatnonzero(folds == fold)
        rest = np.flatnonzero(folds != fold)
        found[held] = logits(rest, weights[rest], held)
    return softmax(found, temperature(found, targets))


def trust(
    targets: np.ndarray,
    groups: Sequence[str] | None,
    classes: int,
    seed: int,
    logits: Logits,
) -> np.ndarray:
    """(n,) float32 in [LEAST, 1]: how far each label is believed; 1 where nothing contradicts it.

    A contradicted label counts by the share that out-of-fold predictions leave it. The second round
    judges by models that learned with the first one's weights.
    """
    weights = np.ones(len(targets), np.float32)
    folds = folds_of(targets, groups, FOLDS, seed)
    for _ in range(ROUNDS):
        shares = out_of_fold(targets, folds, classes, weights, logits)
        own = shares[np.arange(len(targets)), targets]
        doubted = np.clip(own * BELIEF, LEAST, 1)
        weights = np.where(contradicted(shares, targets), doubted, 1).astype(np.float32)
    return weights
