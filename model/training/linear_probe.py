"""Train a linear probe: choose the feature layers of a frozen backbone and fit a head on them.

A head is fitted by gradient descent (`fit_head`) or in closed form (`solve_head`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from scipy.linalg import cho_factor, cho_solve

from model.data.features import HeadTrainingSet, SplitFeatures
from model.data.loading import FacetGroups
from model.evaluation.calibration import fit_temperature, negative_log_likelihood
from model.network.inception import MIN_STD, build_head, variance_scale
from model.training.config import FitConfig
from model.training.fit import (
    FitProgress,
    ValidationSet,
    fit,
    predict_in_batches,
    validate_epoch,
    weighted_mean,
)
from model.training.label_noise import assign_folds

# Numbers of neighbouring blocks that are tried.
WINDOW_LENGTHS = (1, 2, 4)
# Ridge penalties on standardized features that are tried, and the default.
RIDGE_PENALTIES = (0.03, 0.3, 3.0)
DEFAULT_PENALTY = 0.3
# Training photos that feature layers are chosen on, at most.
MAX_SAMPLE = 3000
# With fewer validation photos, feature layers are chosen by cross-validation: the accuracy on so
# few photos has a standard error of more than 2 %.
MIN_VALIDATION, FOLDS = 200, 5
# Training photos that cross-validation is done on, at most.
MAX_CROSS_VALIDATED = 1000
# Temperature of ridge scores, which are near 0 and 1, if no prediction is wrong.
RIDGE_TEMPERATURE = 0.12


@dataclass(frozen=True)
class FeatureLayerChoice:
    """Feature layers, and how well they separate the classes.

    Attributes:
        layers: Names of the blocks that the head reads.
        accuracy: Accuracy of a ridge classifier on them, for photos that it was not fitted on; None
            without validation photos.
    """

    layers: tuple[str, ...]
    accuracy: float | None


def choose_feature_layers(
    train: SplitFeatures,
    validation: SplitFeatures,
    classes: int,
    seed: int,
    slack: float = 0.0,
    facets: FacetGroups | None = None,
    groups: Sequence[str] | None = None,
) -> FeatureLayerChoice:
    """Choose the block, or neighbouring blocks, that separate the classes best.

    A ridge classifier is fitted in closed form on each candidate, on MAX_SAMPLE training photos at
    most. Its accuracy is measured on the validation photos or, if there are fewer than
    MIN_VALIDATION, by cross-validation on the train and validation photos. Without validation
    photos the top block is chosen.

    Args:
        train: Features of the training split.
        validation: Features of the validation split.
        classes: Number of classes.
        seed: Random seed.
        slack: Among candidates whose accuracy is at most this much below the best one, those
            nearest to the top are preferred: a larger backbone gains more by fine-tuning.
        facets: The facets of the labels, if photos can have several labels. The accuracy is then
            that of all labelled facets.
        groups: A name for each train and then each validation photo; photos of a group are in one
            fold of the cross-validation.
    """
    if not len(validation.targets):
        return FeatureLayerChoice(train.blocks[-1:], None)
    is_cross_validated = len(validation.targets) < MIN_VALIDATION and _has_folds(
        len(train.targets) + len(validation.targets), groups
    )
    sample = np.random.default_rng(seed).permutation(len(train.targets))
    sample = sample[: MAX_CROSS_VALIDATED if is_cross_validated else MAX_SAMPLE]
    values, targets = train.values[sample, 0], train.targets[sample]
    other = validation.values[:, 0]
    if is_cross_validated:
        values = other = np.concatenate([values, other])
        targets = np.concatenate([targets, validation.targets])
        rows = [*sample, *len(train.targets) + np.arange(len(validation.targets))]
        own_groups = None if groups is None else [groups[row] for row in rows]
        problems = list(_fold_problems(targets, own_groups, classes, facets, seed))
    else:
        problems = list(_ridge_problems(targets, validation.targets, classes, facets))
    grams = {block: _gram_matrices(values, other, train.columns([block])) for block in train.blocks}
    accuracies: dict[tuple[str, ...], float] = {}
    for length in WINDOW_LENGTHS:
        for top in range(length, len(train.blocks) + 1):
            layers = train.blocks[top - length : top]
            own, across = (np.mean([grams[layer][i] for layer in layers], axis=0) for i in (0, 1))
            accuracies[layers] = weighted_mean(
                [
                    _ridge_accuracy(
                        own[np.ix_(problem.rows, problem.rows)],
                        across[np.ix_(problem.validation_rows, problem.rows)],
                        problem.one_hot,
                        problem.targets,
                    )
                    for problem in problems
                ],
                [len(problem.targets) for problem in problems],
            )
    lowest = max(accuracies.values()) - slack
    candidates = [layers for layers in accuracies if accuracies[layers] >= lowest]
    best = max(
        candidates,
        key=lambda layers: (train.blocks.index(layers[-1]) * (slack > 0), accuracies[layers]),
    )
    return FeatureLayerChoice(best, accuracies[best])


@dataclass(frozen=True)
class RidgeProblem:
    """A classification of some photos: of all of them, or of those whose facet is labelled.

    Attributes:
        rows: Indices of the training photos.
        validation_rows: Indices of the validation photos.
        one_hot: One-hot targets of the training photos.
        targets: Class indices of the validation photos.
    """

    rows: np.ndarray
    validation_rows: np.ndarray
    one_hot: np.ndarray
    targets: np.ndarray


def _ridge_problems(
    train: np.ndarray, validation: np.ndarray, classes: int, facets: FacetGroups | None
) -> Iterator[RidgeProblem]:
    """Yield the classifications of a training: one, or one per facet with validation photos."""
    columns = [(train, validation, classes)]
    if facets is not None:
        columns = [
            (train[:, number], validation[:, number], len(members))
            for number, members in enumerate(facets.members)
        ]
    for own, other, size in columns:
        rows, validation_rows = np.flatnonzero(own >= 0), np.flatnonzero(other >= 0)
        if len(rows) and len(validation_rows):
            one_hot = np.eye(size, dtype=np.float32)[own[rows]]
            yield RidgeProblem(rows, validation_rows, one_hot, other[validation_rows])


def _has_folds(count: int, groups: Sequence[str] | None) -> bool:
    """Return whether photos, with the names of their groups, can be divided into folds."""
    return (count if groups is None else len(set(groups))) >= FOLDS


def _fold_problems(
    targets: np.ndarray,
    groups: Sequence[str] | None,
    classes: int,
    facets: FacetGroups | None,
    seed: int,
) -> Iterator[RidgeProblem]:
    """Yield the classifications of a cross-validation; both kinds of rows are of the same photos.

    Args:
        targets: Targets of the photos.
        groups: A name for each photo, or None.
        classes: Number of classes.
        facets: The facets of the labels, if photos can have several labels.
        seed: Random seed.
    """
    strata = np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)
    folds = assign_folds(strata, groups, FOLDS, seed)
    for fold in np.unique(folds):
        rest, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for problem in _ridge_problems(targets[rest], targets[held_out], classes, facets):
            yield replace(
                problem,
                rows=rest[problem.rows],
                validation_rows=held_out[problem.validation_rows],
            )


def _gram_matrices(
    train: np.ndarray, validation: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return inner products of standardized features: train by train, validation by train."""
    train = train[:, columns].astype(np.float32)
    validation = validation[:, columns].astype(np.float32)
    train, validation = _standardize(train, validation)
    return train @ train.T / len(columns), validation @ train.T / len(columns)


def _standardize(train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardize two arrays of shape (..., width) by the mean and deviation of the first."""
    mean, deviation = train.mean(axis=0), train.std(axis=0) + MIN_STD
    return (train - mean) / deviation, (other - mean) / deviation


def ridge_logits(
    values: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    other: np.ndarray,
    classes: int,
) -> np.ndarray:
    """Return the `ridge_scores` of a classifier on standardized features.

    Args:
        values: Training features of shape (n, width).
        targets: Their class indices, shape (n,).
        weights: Their weights, shape (n,).
        other: Features to predict, shape (m, width).
        classes: Number of classes.

    Returns:
        Float array of shape (m, classes).
    """
    train, test = _standardize(values, other)
    return ridge_scores(train, np.eye(classes, dtype=np.float32)[targets], weights, test)


def ridge_scores(
    values: np.ndarray, targets: np.ndarray, weights: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Fit a weighted ridge regression in closed form and return its predictions.

    Args:
        values: Training features of shape (n, width).
        targets: Target probabilities of shape (n, classes).
        weights: Example weights of shape (n,).
        other: Features to predict, shape (m, width).

    Returns:
        Float array of shape (m, classes).
    """
    coefficients, centre = fit_ridge(values, targets, weights)
    return other @ coefficients / values.shape[1] + centre


def fit_ridge(
    values: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a weighted ridge regression in closed form.

    Args:
        values: Training features of shape (n, width).
        targets: Target probabilities of shape (n, classes).
        weights: Example weights of shape (n,).

    Returns:
        The coefficients times the width, shape (width, classes), and the intercepts, shape
        (classes,).
    """
    root = np.sqrt(weights / weights.mean())[:, None]
    centre = (targets * root**2).sum(axis=0) / (root**2).sum()
    rows, goal = values * root, (targets - centre) * root
    penalty, width = np.float32(DEFAULT_PENALTY), values.shape[1]
    if len(rows) <= width:
        # The dual problem is smaller.
        ridge = rows @ rows.T / width + penalty * np.eye(len(rows), dtype=np.float32)
        return rows.T @ _solve(ridge, goal), centre
    ridge = rows.T @ rows / width + penalty * np.eye(width, dtype=np.float32)
    return _solve(ridge, rows.T @ goal), centre


def fit_ridge_temperature(scores: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature that makes out-of-fold scores of ridge classifiers logits.

    Args:
        scores: Array of shape (n, classes).
        targets: Class indices of shape (n,).
    """
    if (scores.argmax(axis=1) == targets).all():
        return RIDGE_TEMPERATURE
    return fit_temperature(scores, targets)


def _solve(matrix: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Solve a linear system with a positive definite matrix, which is overwritten.

    `scipy.linalg.solve` also estimates the condition number, which doubles the time.
    """
    factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
    solution: np.ndarray = cho_solve(factor, goal, check_finite=False)
    return solution


def _ridge_accuracy(
    own: np.ndarray, across: np.ndarray, one_hot: np.ndarray, targets: np.ndarray
) -> float:
    """Return the best accuracy of kernel ridge regression over RIDGE_PENALTIES.

    Args:
        own: Gram matrix of the training features.
        across: Inner products of validation and training features.
        one_hot: One-hot training targets.
        targets: Class indices of the validation photos.
    """
    centre = one_hot.mean(axis=0)
    accuracies = []
    for penalty in RIDGE_PENALTIES:
        ridge = own + penalty * np.eye(len(own), dtype=own.dtype)
        weights = _solve(ridge, one_hot - centre)
        accuracies.append(((across @ weights + centre).argmax(axis=1) == targets).mean())
    return float(max(accuracies))


def fit_head(
    train: SplitFeatures,
    validation: SplitFeatures,
    weights: np.ndarray,
    feature_layers: Sequence[str],
    classes: int,
    config: FitConfig,
    state: Path,
    on_epoch_end: Callable[[FitProgress], None],
    targets: np.ndarray | None = None,
    facets: FacetGroups | None = None,
) -> tuple[keras.Model, FitProgress]:
    """Fit a head on the features of some blocks.

    Args:
        train: Features of the training split.
        validation: Features of the validation split.
        weights: Weights of the training examples, shape (n,).
        feature_layers: Blocks whose outputs the head reads.
        classes: Number of classes.
        config: How the head is fitted.
        state: The file to resume from.
        on_epoch_end: Called after each epoch.
        targets: Encoded targets of the training examples; None: one-hot class indices.
        facets: The facets of the labels, if photos can have several labels.
    """
    columns = train.columns(feature_layers)
    values = train.values[:, :, columns]
    plain = values[:, 0].astype(np.float32)
    head = build_head(len(columns), classes, plain.mean(axis=0), plain.std(axis=0))
    if targets is None:
        targets = np.eye(classes, dtype=np.float32)[train.targets]
    training_set = HeadTrainingSet(values, targets, weights)
    validation_set = _validation_set(validation, columns, facets)
    return head, fit(head, training_set, validation_set, config, state, on_epoch_end)


def solve_head(
    train: SplitFeatures,
    validation: SplitFeatures,
    weights: np.ndarray,
    feature_layers: Sequence[str],
    classes: int,
    groups: Sequence[str] | None,
    seed: int,
) -> tuple[keras.Model, FitProgress]:
    """Fit a head in closed form: a ridge classifier, whose scores are divided by a temperature.

    With fewer photos than features, it is more accurate than `fit_head`, which fits wrong labels
    exactly.

    Args:
        train: Features of the training split.
        validation: Features of the validation split.
        weights: Weights of the training examples, shape (n,).
        feature_layers: Blocks whose outputs the head reads.
        classes: Number of classes.
        groups: A name for each training photo; the temperature is fitted on the scores of
            classifiers that were fitted on other groups.
        seed: Random seed of the folds.

    Returns:
        The head, and a progress of one epoch.
    """
    start = time.monotonic()
    columns = train.columns(feature_layers)
    values = train.values[:, :, columns].astype(np.float32)
    count, views, width = values.shape
    mean, deviation = values[:, 0].mean(axis=0), values[:, 0].std(axis=0)
    values = (values - mean) / np.maximum(deviation, MIN_STD)
    one_hot = np.eye(classes, dtype=np.float32)[train.targets]

    def examples_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        repeated = (array[rows].repeat(views, axis=0) for array in (one_hot, weights))
        return values[rows].reshape(-1, width), *repeated

    coefficients, intercepts = fit_ridge(*examples_of(np.arange(count)))
    scores, temperature = values[:, 0] @ coefficients / width + intercepts, RIDGE_TEMPERATURE
    if _has_folds(count, groups):
        folds = assign_folds(train.targets, groups, FOLDS, seed)
        for fold in np.unique(folds):
            held_out = folds == fold
            scores[held_out] = ridge_scores(*examples_of(~held_out), values[held_out, 0])
        temperature = fit_ridge_temperature(scores, train.targets)
    head = build_head(width, classes, mean, deviation)
    scale = np.sqrt(variance_scale(width))
    head.get_layer("labels").set_weights(
        [coefficients * scale / width / temperature, intercepts / temperature]
    )
    metrics = {
        "loss": negative_log_likelihood(scores, train.targets, temperature),
        "accuracy": float((scores.argmax(axis=1) == train.targets).mean()),
    }
    progress = FitProgress(epochs=1, steps=1)
    validate_epoch(head, _validation_set(validation, columns), progress, metrics)
    progress.seconds = time.monotonic() - start
    return head, progress


def _validation_set(
    validation: SplitFeatures, columns: np.ndarray, facets: FacetGroups | None = None
) -> ValidationSet:
    """Return the unmirrored views of the validation split."""
    inputs = validation.values[:, 0, columns].astype(np.float32)
    return ValidationSet(
        lambda network: predict_in_batches(network, inputs), validation.targets, facets
    )


def head_logits(
    head: keras.Model, features: SplitFeatures, feature_layers: Sequence[str]
) -> np.ndarray:
    """Return the head's logits, of shape (n, classes), as means over the views."""
    values = features.values[:, :, features.columns(feature_layers)].astype(np.float32)
    views = range(values.shape[1])
    return np.mean([predict_in_batches(head, values[:, view]) for view in views], axis=0)
