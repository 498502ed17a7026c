"""Calibrate probabilities with a temperature, and measure their calibration.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599:
expected calibration error over bins of equal width, and temperature scaling fitted by maximum
likelihood.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from model.data.loading import FacetGroups

BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities, a float64 array of shape (n, classes), of logits / temperature."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return finite logits whose softmax are the probabilities, float64 array (n, classes)."""
    return np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))


def negative_log_likelihood(
    logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0
) -> float:
    """Return the mean negative log likelihood in nats; 0 without photos.

    Args:
        logits: Array of shape (n, classes).
        targets: Class indices of shape (n,).
        temperature: The logits are divided by it.
    """
    if not len(targets):
        return 0.0
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(targets)), targets]).mean())


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Fit the temperature by maximum likelihood.

    Args:
        logits: Array of shape (n, classes).
        targets: Class indices of shape (n,).

    Returns:
        A value in [MIN_TEMPERATURE, MAX_TEMPERATURE]. 1.0 without photos, or if all predictions are
        correct, when the likelihood has no maximum.
    """
    if not len(targets):
        return 1.0
    own = logits[np.arange(len(targets)), targets]
    if (own >= logits.max(axis=1)).all():
        return 1.0
    # The loss is convex in 1 / temperature, so there is one minimum on the logarithmic scale, too.
    result = minimize_scalar(
        lambda power: negative_log_likelihood(logits, targets, float(np.exp(power))),
        bounds=(np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(result.x))


def facet_probabilities(
    logits: np.ndarray, facets: FacetGroups, temperatures: Sequence[float]
) -> np.ndarray:
    """Return the calibrated probabilities of labels with facets.

    Args:
        logits: Array of shape (n, labels).
        facets: The facets of the labels.
        temperatures: The logits of each facet are divided by its temperature.

    Returns:
        Float64 array of shape (n, labels): the softmax within each facet, and for a label of
        several facets the mean.
    """
    total = np.zeros(logits.shape, np.float64)
    for members, temperature in zip(facets.members, temperatures, strict=True):
        total[:, list(members)] += softmax(logits[:, list(members)], temperature)
    return total / np.maximum(1, facets.facets_of(logits.shape[1]))


@dataclass(frozen=True)
class ReliabilityBin:
    """Photos whose confidence is in (low, high].

    Attributes:
        low: Lower bound.
        high: Upper bound.
        photos: Number of photos.
        confidence: Mean confidence; None without photos.
        accuracy: Fraction of correct predictions; None without photos.
    """

    low: float
    high: float
    photos: int
    confidence: float | None
    accuracy: float | None


def reliability_bins(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> list[ReliabilityBin]:
    """Return confidence and accuracy in bins of equal width over (0, 1].

    Args:
        probabilities: Array of shape (n, classes).
        targets: Class indices of shape (n,).
        bins: Number of bins.
    """
    confidence, is_correct = _confidence_and_correctness(probabilities, targets)
    edges = np.linspace(0, 1, bins + 1)
    indices = _bin_indices(confidence, bins)
    counts = np.bincount(indices, minlength=bins)
    filled = np.maximum(counts, 1)
    means = np.bincount(indices, confidence, minlength=bins) / filled
    accuracies = np.bincount(indices, is_correct, minlength=bins) / filled
    return [
        ReliabilityBin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(means[i]) if counts[i] else None,
            float(accuracies[i]) if counts[i] else None,
        )
        for i in range(bins)
    ]


def expected_calibration_error(
    probabilities: np.ndarray, targets: np.ndarray, bins: int = BINS
) -> float:
    """Return the expected calibration error (ECE).

    This is the mean over all photos of the absolute difference between the accuracy and the mean
    confidence of the photo's bin; 0 without photos.

    Args:
        probabilities: Array of shape (n, classes).
        targets: Class indices of shape (n,).
        bins: Number of bins of equal width.
    """
    gaps = [
        bin_.photos * abs(bin_.accuracy - bin_.confidence)
        for bin_ in reliability_bins(probabilities, targets, bins)
        if bin_.accuracy is not None and bin_.confidence is not None
    ]
    return float(sum(gaps) / max(1, len(targets)))


def _confidence_and_correctness(
    probabilities: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if not len(targets):
        return np.zeros(0), np.zeros(0, bool)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets


def _bin_indices(confidence: np.ndarray, bins: int) -> np.ndarray:
    # A confidence on an edge belongs to the bin below it: (low, high].
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
