"""How far a model's probabilities can be believed. Pure.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: the expected calibration error
over bins of equal width, and temperature scaling fitted by the negative log likelihood.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

BINS = 15
LOWEST, HIGHEST = 0.05, 20.0


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Shares, (n, classes) float64, that sum to 1, of LOGITS / TEMPERATURE."""
    scaled = np.asarray(logits, np.float64) / temperature
    raised = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    return raised / raised.sum(axis=1, keepdims=True)


def logits_of(shares: np.ndarray) -> np.ndarray:
    """Logits, (n, classes) float64, whose softmax is SHARES; a share of 0 becomes tiny."""
    return np.log(np.maximum(np.asarray(shares, np.float64), np.finfo(np.float32).tiny))


def likelihood_loss(logits: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log likelihood of TARGETS, (n,) int, in nats; 0 for no photos."""
    if not len(targets):
        return 0.0
    scaled = np.asarray(logits, np.float64) / temperature
    top = scaled.max(axis=1)
    total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
    return float((total - scaled[np.arange(len(targets)), targets]).mean())


def temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """What to divide LOGITS, (n, classes) float, by, so that their softmax fits TARGETS best.

    1.0 where there is nothing to fit: no photos, or every one right, when the likelihood rises
    without end as the temperature falls. Else within [0.05, 20].
    """
    if not len(targets):
        return 1.0
    own = logits[np.arange(len(targets)), targets]
    if (own >= logits.max(axis=1)).all():
        return 1.0
    # Convex in 1 / temperature, so that the one minimum on the logarithm's scale is found.
    found = minimize_scalar(
        lambda power: likelihood_loss(logits, targets, float(np.exp(power))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


@dataclass(frozen=True)
class Bin:
    """Photos whose highest share lies in (low, high]: how many, its mean, and how many are right.

    `probability` and `accuracy` are means in [0, 1]; None where there are no photos.
    """

    low: float
    high: float
    photos: int
    probability: float | None
    accuracy: float | None


def reliability(shares: np.ndarray, targets: np.ndarray, bins: int = BINS) -> list[Bin]:
    """BINS of equal width over (0, 1] by the highest of SHARES, (n, classes) float."""
    sure, right = _answers(shares, targets)
    edges = np.linspace(0, 1, bins + 1)
    places = _places(sure, bins)
    counts = np.bincount(places, minlength=bins)
    filled = np.maximum(counts, 1)
    mean = np.bincount(places, sure, minlength=bins) / filled
    hits = np.bincount(places, right, minlength=bins) / filled
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(mean[i]) if counts[i] else None,
            float(hits[i]) if counts[i] else None,
        )
        for i in range(bins)
    ]


def expected_calibration_error(shares: np.ndarray, targets: np.ndarray, bins: int = BINS) -> float:
    """Mean over photos of |accuracy - probability| of their bin, BINS of equal width (Guo 2017).

    Probability is the highest of a photo's SHARES, (n, classes) float; 0 for no photos.
    """
    gaps = [
        one.photos * abs(one.accuracy - one.probability)
        for one in reliability(shares, targets, bins)
        if one.accuracy is not None and one.probability is not None
    ]
    return float(sum(gaps) / max(1, len(targets)))


def _answers(shares: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(targets):
        return np.zeros(0), np.zeros(0, bool)
    return shares.max(axis=1), shares.argmax(axis=1) == targets


def _places(sure: np.ndarray, bins: int) -> np.ndarray:
    # A share on a border belongs to the bin below it: (low, high].
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, sure, side="left") - 1, 0, bins - 1)
