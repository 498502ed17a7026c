"""Precision, recall and F1 from counts, and their bootstrap confidence intervals.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: percentile intervals. Whole groups
(photos of one product or author, near duplicates) are resampled if they are known, because the
predictions for photos of a group are not independent.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.sparse import csr_array

CONFIDENCE_LEVEL = 0.95
# A narrower interval comes from resamples that are all equal, up to rounding.
MIN_INTERVAL_WIDTH = 1e-9
# Resamples that are computed at once: 64 of 100,000 photos take 50 MB.
BATCH_RESAMPLES = 64


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 of each class, arrays of shape (..., classes); NaN for 0/0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name and the values of each score."""
        return iter(vars(self).items())


def compute_scores(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> ClassScores:
    """Compute scores from counts per class, arrays of shape (..., classes).

    Args:
        support: Number of photos with the label.
        predicted: Number of photos predicted as the label.
        correct: Number of photos that are both.
    """

    def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)

    support, predicted, correct = (
        np.asarray(counts, np.float64) for counts in (support, predicted, correct)
    )
    return ClassScores(
        ratio(correct, predicted), ratio(correct, support), ratio(2 * correct, support + predicted)
    )


@dataclass(frozen=True)
class Bootstrap:
    """A bootstrap over units: single photos, or groups of photos.

    A resample draws as many units as there are, with replacement, and all photos of each.

    Attributes:
        units: The unit of each photo, int array of shape (n,).
        unit_name: What a unit is, in the plural.
        resamples: Number of resamples.
        seed: Random seed.
    """

    units: np.ndarray
    unit_name: str
    resamples: int
    seed: int

    @property
    def count(self) -> int:
        """Number of units."""
        return int(self.units.max()) + 1

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of values over the photos of each resample.

        Args:
            values: Array of shape (n, m).

        Returns:
            Float64 array of shape (resamples, m); NaN if there is only one unit.
        """
        if self.count < 2:
            return np.full((self.resamples, values.shape[1]), np.nan)
        membership = csr_array((np.ones(len(self.units)), (self.units, np.arange(len(self.units)))))
        # One column per unit; most values are zeros.
        sums_by_unit = csr_array((membership @ csr_array(values)).T)
        return np.concatenate([(sums_by_unit @ counts.T).T for counts in self._batches()])

    def photo_weights(self) -> Iterator[np.ndarray]:
        """Yield how often each photo is drawn, BATCH_RESAMPLES resamples at a time.

        Yields:
            Int arrays of shape (resamples, n).
        """
        return (counts[:, self.units] for counts in self._batches())

    def _batches(self) -> Iterator[np.ndarray]:
        random = np.random.default_rng(self.seed)
        for start in range(0, self.resamples, BATCH_RESAMPLES):
            yield self._draw_counts(random, min(BATCH_RESAMPLES, self.resamples - start))

    def _draw_counts(self, random: np.random.Generator, resamples: int) -> np.ndarray:
        """Return how often each unit is drawn, array of shape (resamples, units)."""
        drawn = random.integers(0, self.count, (resamples, self.count))
        drawn += np.arange(resamples)[:, None] * self.count
        counts = np.bincount(drawn.ravel(), minlength=resamples * self.count)
        return counts.reshape(resamples, self.count)

    def units_per_class(self, classes: np.ndarray, count: int) -> np.ndarray:
        """Return the number of units in which each class occurs, int array of shape (count,).

        Args:
            classes: Class indices of the photos, shape (n,) or (m, n).
            count: Number of classes.
        """
        units = np.broadcast_to(self.units, classes.shape)
        pairs = np.unique(np.stack([classes.ravel(), units.ravel()]), axis=1)
        return np.bincount(pairs[0], minlength=count)


def make_bootstrap(
    groups: Sequence[str] | None, count: int, resamples: int, seed: int
) -> Bootstrap:
    """Return a bootstrap over groups, or over single photos.

    Args:
        groups: The name of each photo's group; None: resample single photos.
        count: Number of photos.
        resamples: Number of resamples.
        seed: Random seed.
    """
    if groups is None:
        return Bootstrap(np.arange(count), "photos", resamples, seed)
    _, units = np.unique(np.asarray(groups), return_inverse=True)
    return Bootstrap(units, "groups of photos", resamples, seed)


def percentile_interval(values: np.ndarray) -> list[float] | None:
    """Return the bounds of the middle 95 % of resampled values.

    NaN (a class is missing in a resample) is ignored.

    Returns:
        Lower and upper bound; None if all values are NaN.
    """
    valid = values[~np.isnan(values)]
    if not len(valid):
        return None
    edge = 50 * (1 - CONFIDENCE_LEVEL)
    low, high = np.percentile(valid, [edge, 100 - edge])
    return [float(low), float(high)]


def score_interval(values: np.ndarray, units: int) -> list[float] | None:
    """Return a confidence interval of a score between 0 and 1 that never has zero width.

    It is the percentile interval of the resampled values. If they are all equal, as for two photos
    that are both predicted correctly, it is the Wilson score interval instead, with one observation
    per unit.

    Args:
        values: The score in each resample, NaN where it is not defined.
        units: Number of units that the score is computed from.

    Returns:
        Lower and upper bound; None if all values are NaN.
    """
    bounds = percentile_interval(values)
    if bounds is None or bounds[1] - bounds[0] > MIN_INTERVAL_WIDTH:
        return bounds
    return wilson_interval(bounds[0], units)


def difference_interval(values: np.ndarray, units: int) -> list[float] | None:
    """Return a confidence interval of a difference of two scores that never has zero width.

    If all resampled differences are equal, as of two models with the same predictions, its half
    width is the upper Wilson bound for no difference in any unit.

    Args:
        values: The difference in each resample, NaN where it is not defined.
        units: Number of units that the difference is computed from.

    Returns:
        Lower and upper bound; None if all values are NaN.
    """
    bounds = percentile_interval(values)
    if bounds is None or bounds[1] - bounds[0] > MIN_INTERVAL_WIDTH:
        return bounds
    half_width = wilson_interval(0.0, units)[1]
    return [max(-1.0, bounds[0] - half_width), min(1.0, bounds[1] + half_width)]


def wilson_interval(fraction: float, count: int) -> list[float]:
    """Return the Wilson score interval of a fraction of observations.

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Args:
        fraction: The observed fraction, between 0 and 1.
        count: Number of observations, at least 1.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    scale = 1 + z**2 / count
    centre = (fraction + z**2 / (2 * count)) / scale
    half = z / scale * math.sqrt(fraction * (1 - fraction) / count + (z / (2 * count)) ** 2)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def macro_average(values: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return means over classes.

    A class that only the resample lacks is ignored. A class whose score on all photos is 0/0
    counts as 0, as in that score.

    Args:
        values: Scores of resamples, shape (resamples, classes).
        point: Scores on all photos, shape (classes,).

    Returns:
        Array of shape (resamples,).
    """
    counted = np.where(np.isnan(values) & np.isnan(point), 0.0, values)
    valid = ~np.isnan(counted)
    sums, counts = np.nansum(counted, axis=1), valid.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def weighted_average(values: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Return means over classes, weighted by support; 0/0 counts as 0.

    Args:
        values: Scores of shape (..., classes).
        support: Numbers of photos of shape (..., classes).

    Returns:
        Array of shape (...,).
    """
    total = np.maximum(1, support.sum(axis=-1))
    return (np.nan_to_num(values) * support).sum(axis=-1) / total
