"""Precision, recall and F1 from counts, and how far they would move with other photos. Pure.

Efron & Tibshirani, "An Introduction to the Bootstrap", 1993: percentile intervals. What is drawn
again are whole groups (photos of one product, author or near likeness), because photos of a group
are right and wrong together; single photos where no groups are known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

LEVEL = 0.95
# Resamples at a time: 64 of 100,000 photos are 50 MB.
AT_ONCE = 64


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1 of each class, (…, classes) float, NaN where they are 0/0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each score by its name."""
        return iter(vars(self).items())


def scores(truth: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> Scores:
    """Scores of counts, each (…, classes): photos of a class, called so, and both."""

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)

    truth, predicted, hits = (np.asarray(n, np.float64) for n in (truth, predicted, hits))
    return Scores(share(hits, predicted), share(hits, truth), share(2 * hits, truth + predicted))


@dataclass(frozen=True)
class Resampling:
    """How photos are drawn again. `units`: (n,) int, which unit each photo belongs to.

    As many units as there are are drawn with replacement, all photos of each. `what` they are.
    """

    units: np.ndarray
    what: str
    resamples: int
    seed: int

    @property
    def count(self) -> int:
        """How many units there are."""
        return int(self.units.max()) + 1

    def totals(self, sums: np.ndarray) -> np.ndarray:
        """Totals, (resamples, m) float64, of the rows of SUMS, (n, m), in each resample.

        NaN where there is one unit: it says nothing of others.
        """
        if self.count < 2:
            return np.full((self.resamples, sums.shape[1]), np.nan)
        rows = csr_array((np.ones(len(self.units)), (self.units, np.arange(len(self.units)))))
        # A column a unit; most of SUMS are zeros.
        by_unit = csr_array((rows @ csr_array(sums)).T)
        random = np.random.default_rng(self.seed)
        starts = range(0, self.resamples, AT_ONCE)
        drawn = (self._times(random, min(AT_ONCE, self.resamples - start)) for start in starts)
        return np.concatenate([(by_unit @ times.T).T for times in drawn])

    def _times(self, random: np.random.Generator, some: int) -> np.ndarray:
        """How often each unit is drawn, (some, units)."""
        places = random.integers(0, self.count, (some, self.count))
        places += np.arange(some)[:, None] * self.count
        counts = np.bincount(places.ravel(), minlength=some * self.count)
        return counts.reshape(some, self.count)

    def spread(self, classes: np.ndarray, count: int) -> np.ndarray:
        """In how many units each of COUNT CLASSES, (n,) or (m, n) int, is found, (count,) int."""
        units = np.broadcast_to(self.units, classes.shape)
        pairs = np.unique(np.stack([classes.ravel(), units.ravel()]), axis=1)
        return np.bincount(pairs[0], minlength=count)


def resampling(groups: Sequence[str] | None, count: int, resamples: int, seed: int) -> Resampling:
    """Of whole GROUPS, one name a photo, or of COUNT single photos where there are none."""
    if groups is None:
        return Resampling(np.arange(count), "photos", resamples, seed)
    _, units = np.unique(np.asarray(groups), return_inverse=True)
    return Resampling(units, "groups of photos", resamples, seed)


def interval(values: np.ndarray) -> list[float] | None:
    """Lowest and highest of the middle 95 % of VALUES, (resamples,); None where none is a number.

    NaN among them (a class that a resample lacks) are left out.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    edge = 50 * (1 - LEVEL)
    low, high = np.percentile(known, [edge, 100 - edge])
    return [float(low), float(high)]


def macro(values: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Means over classes, (resamples,), of VALUES, (resamples, classes).

    A class that only this resample lacks is left out of its mean; one whose POINT, (classes,), is
    0/0 too counts as 0, as it does in the figure itself.
    """
    counted = np.where(np.isnan(values) & np.isnan(point), 0.0, values)
    known = ~np.isnan(counted)
    sums, counts = np.nansum(counted, axis=1), known.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def weighted(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Means over classes, (…,), of VALUES by TRUTH, both (…, classes); 0/0 counts as 0."""
    total = np.maximum(1, truth.sum(axis=-1))
    return (np.nan_to_num(values) * truth).sum(axis=-1) / total
