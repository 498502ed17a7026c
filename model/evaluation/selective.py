"""Accuracy and coverage if only confident predictions count.

Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017,
https://arxiv.org/abs/1705.08500.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
        min_photos: Number of photos above the threshold, at least; few of them prove nothing.
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
    is_confident = probabilities.max(axis=1) >= threshold
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
