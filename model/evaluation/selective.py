"""What is right of the answers that a model is sure enough of. Pure.

Geifman & El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Covered:
    """The answers whose probability is at least `threshold`.

    `photos`: how many; `coverage`: their share of all; `accuracy`: the share of right ones among
    them, None where there are none.
    """

    threshold: float
    photos: int
    coverage: float
    accuracy: float | None


def coverage_curve(shares: np.ndarray, targets: np.ndarray) -> list[Covered]:
    """Every threshold that SHARES, (n, classes) float, can be cut at, from the highest down."""
    if not len(targets):
        return []
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == targets
    order = np.argsort(-sure, kind="stable")
    sure, hits = sure[order], right[order].cumsum()
    # Photos of one probability are answered together or not at all.
    ends = np.flatnonzero(np.append(sure[1:] < sure[:-1], True))
    return [
        Covered(float(sure[i]), int(i) + 1, (int(i) + 1) / len(sure), float(hits[i] / (i + 1)))
        for i in ends
    ]


def reaching(curve: Sequence[Covered], accuracy: float, least: int = 1) -> Covered | None:
    """The point of CURVE that answers most photos with at least ACCURACY right; None: none.

    It answers LEAST photos at least: that one sure photo is right says nothing of the next.
    """
    good = [
        one
        for one in curve
        if one.photos >= least and one.accuracy is not None and one.accuracy >= accuracy
    ]
    return max(good, key=lambda one: one.photos, default=None)


def covered(shares: np.ndarray, targets: np.ndarray, threshold: float) -> Covered:
    """The answers of SHARES, (n, classes), whose probability is at least THRESHOLD."""
    asked = shares.max(axis=1) >= threshold
    right = (shares.argmax(axis=1) == targets)[asked]
    accuracy = float(right.mean()) if len(right) else None
    return Covered(threshold, len(right), len(right) / max(1, len(targets)), accuracy)


def thinned(curve: Sequence[Covered], most: int = 21) -> list[Covered]:
    """At most MOST points of CURVE, evenly chosen by coverage, its ends among them."""
    shares = [one.coverage for one in curve]
    wanted = np.linspace(shares[0], shares[-1], most) if curve else ()
    places = dict.fromkeys(int(np.searchsorted(shares, share - 1e-12)) for share in wanted)
    return [curve[place] for place in places]
