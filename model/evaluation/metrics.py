"""Compute the content of `metrics.json` from logits and labels.

Accuracy and coverage if only confident predictions count: Geifman and El-Yaniv, "Selective
Classification for Deep Neural Networks", NeurIPS 2017, https://arxiv.org/abs/1705.08500.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from model.data.loading import PhotoMetadata
from model.evaluation.bootstrap import (
    CONFIDENCE_LEVEL,
    Bootstrap,
    ClassScores,
    compute_scores,
    macro_average,
    make_bootstrap,
    score_interval,
    weighted_average,
)
from model.evaluation.calibration import (
    BINS,
    expected_calibration_error,
    negative_log_likelihood,
    softmax,
)

RESAMPLES = 2000
# What metrics are computed on.
TEST_PHOTOS, HELD_OUT_PHOTOS = "test photos", "held-out photos"
TOP_KS = (1, 2, 3, 5)
# The accuracy for which a confidence threshold is chosen.
TARGET_ACCURACY = 0.95
# With fewer photos above the threshold, an accuracy of 95 % can't be told from 100 %.
MIN_PHOTOS = 20


@dataclass(frozen=True)
class CoveragePoint:
    """Predictions whose confidence is at least a threshold.

    Attributes:
        threshold: The threshold.
        photos: Number of photos.
        coverage: Their fraction of all photos.
        accuracy: Fraction of correct predictions among them; None without photos.
    """

    threshold: float
    photos: int
    coverage: float
    accuracy: float | None


def coverage_curve(probabilities: np.ndarray, targets: np.ndarray) -> list[CoveragePoint]:
    """Return a point for every distinct confidence, from the highest threshold down.

    Args:
        probabilities: Array of shape (n, classes).
        targets: Class indices of shape (n,).
    """
    if not len(targets):
        return []
    confidence = probabilities.max(axis=1)
    is_correct = probabilities.argmax(axis=1) == targets
    order = np.argsort(-confidence, kind="stable")
    confidence, correct = confidence[order], is_correct[order].cumsum()
    # Photos of equal confidence pass a threshold together.
    ends = np.flatnonzero(np.append(confidence[1:] < confidence[:-1], True))
    total = len(confidence)
    return [
        CoveragePoint(
            float(confidence[i]), int(i) + 1, (int(i) + 1) / total, float(correct[i] / (i + 1))
        )
        for i in ends
    ]


def best_point(
    curve: Sequence[CoveragePoint], accuracy: float, min_photos: int = 1
) -> CoveragePoint | None:
    """Return the point of highest coverage that reaches an accuracy; None if there is none.

    Args:
        curve: Points of `coverage_curve`.
        accuracy: The accuracy to reach.
        min_photos: Smallest number of photos above the threshold: the accuracy of few is uncertain.
    """
    points = [
        point
        for point in curve
        if point.photos >= min_photos and point.accuracy is not None and point.accuracy >= accuracy
    ]
    return max(points, key=lambda point: point.photos, default=None)


def point_at(probabilities: np.ndarray, targets: np.ndarray, threshold: float) -> CoveragePoint:
    """Return coverage and accuracy at a threshold.

    Args:
        probabilities: Array of shape (n, classes).
        targets: Class indices of shape (n,).
        threshold: Lowest confidence that counts.
    """
    return _point(probabilities, targets, threshold, threshold)


def _point(
    probabilities: np.ndarray, targets: np.ndarray, limits: float | np.ndarray, threshold: float
) -> CoveragePoint:
    """Return coverage and accuracy at confidence limits, reported as one threshold.

    Args:
        probabilities: Array of shape (n, classes).
        targets: Class indices of shape (n,).
        limits: Lowest confidence that counts, for all photos or of shape (n,).
        threshold: The threshold of the result.
    """
    is_confident = probabilities.max(axis=1) >= limits
    is_correct = (probabilities.argmax(axis=1) == targets)[is_confident]
    accuracy = float(is_correct.mean()) if len(is_correct) else None
    coverage = len(is_correct) / max(1, len(targets))
    return CoveragePoint(threshold, len(is_correct), coverage, accuracy)


def thin_curve(curve: Sequence[CoveragePoint], count: int = 21) -> list[CoveragePoint]:
    """Return at most `count` points of a curve, spaced evenly by coverage, with both ends."""
    coverages = [point.coverage for point in curve]
    spaced = np.linspace(coverages[0], coverages[-1], count) if curve else ()
    indices = dict.fromkeys(int(np.searchsorted(coverages, value - 1e-12)) for value in spaced)
    return [curve[index] for index in indices]


@dataclass(frozen=True)
class LabeledLogits:
    """Logits of photos and their labels.

    Attributes:
        logits: Float array of shape (n, classes).
        targets: Class indices of shape (n,).
    """

    logits: np.ndarray
    targets: np.ndarray


def compute_metrics(
    test: LabeledLogits,
    validation: LabeledLogits,
    labels: Sequence[str],
    temperature: float,
    seed: int,
    metadata: PhotoMetadata | None = None,
    resamples: int = RESAMPLES,
    folds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compute all metrics with their confidence intervals.

    Precision, recall and F1 are scikit-learn's with `zero_division=0`: a score of 0/0 (a class is
    never predicted, or has no test photos) is 0, and macro averages are over all labels. Such a
    score has no interval.

    Args:
        test: At least one test photo.
        validation: The validation photos, which select the confidence threshold; may be empty.
        labels: The labels.
        temperature: The logits are divided by it.
        seed: Random seed of the bootstrap.
        metadata: Groups to resample, and sites and crops to report on.
        resamples: Number of bootstrap resamples.
        folds: With cross-validation, the fold of each photo, shape (n,); `test` has the held-out
            photos of all folds, already calibrated.
    """
    metadata = metadata or PhotoMetadata()
    bootstrap = make_bootstrap(metadata.groups, len(test.targets), resamples, seed)
    probabilities, targets = softmax(test.logits, temperature), test.targets
    counts = confusion_matrix(targets, probabilities.argmax(axis=1), labels=range(len(labels)))
    support, predicted, correct = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    scores = compute_scores(support, predicted, correct)
    return {
        "evaluated_on": TEST_PHOTOS if folds is None else HELD_OUT_PHOTOS,
        "accuracy": float(correct.sum() / len(targets)),
        "macro": {name: float(np.nan_to_num(s).mean()) for name, s in scores.items()},
        "weighted": {name: float(weighted_average(s, support)) for name, s in scores.items()},
        "top_k": {
            str(k): float(_is_in_top_k(probabilities, targets, k).mean()) for k in _top_ks(labels)
        },
        "per_class": {
            label: {
                **{name: float(np.nan_to_num(s[index])) for name, s in scores.items()},
                "support": int(support[index]),
            }
            for index, label in enumerate(labels)
        },
        "intervals": _intervals(probabilities, targets, labels, scores, bootstrap),
        "confusion_matrix": {"labels": list(labels), "counts": counts.tolist()},
        "calibration": _calibration(
            test,
            temperature,
            "the validation fold of each training"
            if folds is not None
            else f"{len(validation.targets)} validation photos",
        ),
        "coverage": _coverage(probabilities, targets, validation, temperature, folds),
        "by": _by_group(probabilities, targets, metadata, bootstrap),
        "chance": 1 / len(labels),
        "majority": float(support.max() / len(targets)),
    }


def _top_ks(labels: Sequence[str]) -> list[int]:
    # The best k of k labels always include the right one.
    return [k for k in TOP_KS if k == 1 or k < len(labels)]


def _is_in_top_k(probabilities: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Return whether the true label is among the k highest probabilities.

    Returns:
        Boolean array of shape (n,).
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return (best == targets[:, None]).any(axis=1)


def _intervals(
    probabilities: np.ndarray,
    targets: np.ndarray,
    labels: Sequence[str],
    scores: ClassScores,
    bootstrap: Bootstrap,
) -> dict[str, Any]:
    """Return 95 % intervals under the names of the metrics; None if there is none."""
    one_hot, predictions = np.eye(len(labels)), probabilities.argmax(axis=1)
    top_ks = _top_ks(labels)
    correct = one_hot[targets] * (predictions == targets)[:, None]
    in_top_k = np.stack([_is_in_top_k(probabilities, targets, k) for k in top_ks], axis=1)
    totals = bootstrap.totals(
        np.hstack([one_hot[targets], one_hot[predictions], correct, in_top_k])
    )
    support, predicted, hits, top_k_hits = np.split(totals, np.arange(1, 4) * len(labels), axis=1)
    resampled, photos = compute_scores(support, predicted, hits), support.sum(axis=1)
    # With a single unit, the resampled values of a class don't vary.
    classes = len(labels)
    units = {
        "precision": bootstrap.units_per_class(predictions, classes),
        "recall": bootstrap.units_per_class(targets, classes),
        "f1": bootstrap.units_per_class(np.stack([predictions, targets]), classes),
    }
    top_k_intervals = [score_interval(column / photos, bootstrap.count) for column in top_k_hits.T]
    return {
        "level": CONFIDENCE_LEVEL,
        "resamples": bootstrap.resamples,
        "resampled": bootstrap.unit_name,
        "units": bootstrap.count,
        "accuracy": top_k_intervals[0],
        "macro": {
            name: score_interval(macro_average(values, point), bootstrap.count)
            for (name, values), (_, point) in zip(resampled.items(), scores.items(), strict=True)
        },
        "weighted": {
            name: score_interval(weighted_average(values, support), bootstrap.count)
            for name, values in resampled.items()
        },
        "top_k": {str(k): bounds for k, bounds in zip(top_ks, top_k_intervals, strict=True)},
        "per_class": {
            label: {
                name: score_interval(values[:, index], int(units[name][index]))
                if units[name][index] > 1
                else None
                for name, values in resampled.items()
            }
            for index, label in enumerate(labels)
        },
    }


def _calibration(test: LabeledLogits, temperature: float, fitted_on: str) -> dict[str, Any]:
    """Return the errors of the probabilities before and after calibration."""

    def errors(temperature: float) -> dict[str, float]:
        probabilities = softmax(test.logits, temperature)
        return {
            "expected_calibration_error": expected_calibration_error(probabilities, test.targets),
            "negative_log_likelihood": negative_log_likelihood(
                test.logits, test.targets, temperature
            ),
        }

    return {
        "temperature": temperature,
        "fitted_on": fitted_on,
        "bins": f"{BINS} of equal width (Guo et al. 2017)",
        "before": errors(1.0),
        "after": errors(temperature),
    }


def _coverage(
    probabilities: np.ndarray,
    targets: np.ndarray,
    validation: LabeledLogits,
    temperature: float,
    folds: np.ndarray | None,
) -> dict[str, Any]:
    """Return the coverage curve and the points that reach TARGET_ACCURACY.

    `best_on_test` is the best threshold in hindsight. `chosen_on_validation` is chosen before the
    photos are predicted, as a user would do: on the validation photos, or with cross-validation on
    the other folds.
    """
    curve = coverage_curve(probabilities, targets)
    if folds is None:
        validation_probabilities = softmax(validation.logits, temperature)
        chosen = _chosen_point(validation_probabilities, validation.targets)
        point = point_at(probabilities, targets, chosen.threshold) if chosen else None
    else:
        point = _cross_validated_point(probabilities, targets, folds)
    best = best_point(curve, TARGET_ACCURACY)
    return {
        "target_accuracy": TARGET_ACCURACY,
        "min_photos": MIN_PHOTOS,
        "chosen_on_validation": asdict(point) if point else None,
        "best_on_test": asdict(best) if best else None,
        "points": [asdict(point) for point in thin_curve(curve)],
    }


def _chosen_point(probabilities: np.ndarray, targets: np.ndarray) -> CoveragePoint | None:
    return best_point(coverage_curve(probabilities, targets), TARGET_ACCURACY, MIN_PHOTOS)


def _cross_validated_point(
    probabilities: np.ndarray, targets: np.ndarray, folds: np.ndarray
) -> CoveragePoint | None:
    """Return the point of thresholds that are chosen for each fold on the other folds.

    Its threshold is that of all photos; None if no threshold reaches TARGET_ACCURACY.
    """
    chosen = _chosen_point(probabilities, targets)
    if chosen is None:
        return None
    thresholds = np.full(len(targets), np.inf)
    for fold in np.unique(folds):
        others = folds != fold
        point = _chosen_point(probabilities[others], targets[others])
        if point is not None:
            thresholds[~others] = point.threshold
    return _point(probabilities, targets, thresholds, chosen.threshold)


def _by_group(
    probabilities: np.ndarray, targets: np.ndarray, metadata: PhotoMetadata, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return metrics by site and by kind of crop; empty if they are not known."""
    is_correct = probabilities.argmax(axis=1) == targets
    metrics: dict[str, Any] = {"site": {}, "crop": {}}
    for kind, values in (("site", metadata.sites), ("crop", metadata.crops)):
        names, indices = np.unique(np.asarray(values or [], str), return_inverse=True)
        if not len(names):
            continue
        one_hot = np.eye(len(names))[indices]
        totals = bootstrap.totals(np.hstack([one_hot, one_hot * is_correct[:, None]]))
        photos, correct = np.split(totals, 2, axis=1)
        units = bootstrap.units_per_class(indices, len(names))
        for i, name in enumerate(names):
            in_group, is_drawn = indices == i, photos[:, i] > 0
            bounds = score_interval(correct[is_drawn, i] / photos[is_drawn, i], int(units[i]))
            metrics[kind][str(name)] = {
                "photos": int(in_group.sum()),
                "accuracy": float(is_correct[in_group].mean()),
                "interval": bounds if units[i] > 1 else None,
                "confidence": float(probabilities[in_group].max(axis=1).mean()),
            }
    return metrics
