"""Predicted logits and truth -> figures with their intervals, ready for JSON. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix

from model.data.metadata import Origins
from model.evaluation.bootstrap import (
    LEVEL,
    Resampling,
    Scores,
    interval,
    macro,
    resampling,
    scores,
    weighted,
)
from model.evaluation.calibration import BINS, expected_calibration_error, likelihood_loss, softmax
from model.evaluation.selective import coverage_curve, covered, reaching, thinned

RESAMPLES = 2000
RANKS = (1, 2, 3, 5)
# The accuracy that a shop would let pass unseen, for the threshold that reaches it.
WANTED = 0.95
# Fewer answers than these can't tell 95 % from all.
LEAST = 20


@dataclass(frozen=True)
class Truth:
    """Logits, (n, classes) float, and the classes that are right, (n,) int."""

    logits: np.ndarray
    targets: np.ndarray


def evaluate(
    test: Truth,
    validation: Truth,
    labels: Sequence[str],
    temperature: float,
    seed: int,
    origins: Origins | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Figures of TEST, at least one photo; its logits are divided by TEMPERATURE.

    Where a score of a class is 0/0 (never predicted, or not in TEST) it is 0, and macro figures
    are means over all LABELS: scikit-learn's `precision_recall_fscore_support(labels=…,
    zero_division=0)`. The interval of such a score is None. The confusion matrix has truth in
    rows. VALIDATION chooses the threshold for 95 % accuracy; it may be empty.
    """
    origins = origins or Origins()
    draw = resampling(origins.groups, len(test.targets), resamples, seed)
    shares, targets = softmax(test.logits, temperature), test.targets
    counts = confusion_matrix(targets, shares.argmax(axis=1), labels=range(len(labels)))
    truth, predicted, hits = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    point = scores(truth, predicted, hits)
    return {
        "accuracy": float(hits.sum() / len(targets)),
        "macro": {name: float(np.nan_to_num(s).mean()) for name, s in point.items()},
        "weighted": {name: float(weighted(s, truth)) for name, s in point.items()},
        "top_k": {str(k): float(_within(shares, targets, k).mean()) for k in _ranks(labels)},
        "per_class": {
            label: {
                **{name: float(np.nan_to_num(s[place])) for name, s in point.items()},
                "support": int(truth[place]),
            }
            for place, label in enumerate(labels)
        },
        "intervals": _intervals(shares, targets, labels, point, draw),
        "confusion_matrix": {
            "labels": list(labels),
            "rows_are": "truth",
            "counts": counts.tolist(),
        },
        "calibration": _calibration(test, temperature, len(validation.targets)),
        "coverage": _coverage(shares, targets, validation, temperature),
        "by": _by(shares, targets, origins, draw),
        "chance": 1 / len(labels),
        "majority": float(truth.max() / len(targets)),
    }


def _ranks(labels: Sequence[str]) -> list[int]:
    # The best two of two are always right.
    return [k for k in RANKS if k == 1 or k < len(labels)]


def _within(shares: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Whether each photo's label is among its K highest shares, (n,) bool."""
    best = np.argsort(-shares, axis=1, kind="stable")[:, :k]
    return (best == targets[:, None]).any(axis=1)


def _intervals(
    shares: np.ndarray,
    targets: np.ndarray,
    labels: Sequence[str],
    point: Scores,
    draw: Resampling,
) -> dict[str, Any]:
    """95 % intervals of every figure, in the figures' own shape; None where there is none."""
    each, called, ranks = np.eye(len(labels)), shares.argmax(axis=1), _ranks(labels)
    right = each[targets] * (called == targets)[:, None]
    ranked = np.stack([_within(shares, targets, k) for k in ranks], axis=1)
    totals = draw.totals(np.hstack([each[targets], each[called], right, ranked]))
    truth, predicted, hits, within = np.split(totals, np.arange(1, 4) * len(labels), axis=1)
    drawn, photos = scores(truth, predicted, hits), truth.sum(axis=1)
    enough = {
        "precision": draw.spread(called, len(labels)) > 1,
        "recall": draw.spread(targets, len(labels)) > 1,
        "f1": draw.spread(np.stack([called, targets]), len(labels)) > 1,
    }
    tops = [interval(within[:, place] / photos) for place in range(len(ranks))]
    return {
        "level": LEVEL,
        "resamples": draw.resamples,
        "resampled": draw.what,
        "units": draw.count,
        "accuracy": tops[0],
        "macro": {n: interval(macro(s, p)) for (n, s), (_, p) in _pairs(drawn, point)},
        "weighted": {name: interval(weighted(s, truth)) for name, s in drawn.items()},
        "top_k": {str(k): one for k, one in zip(ranks, tops, strict=True)},
        "per_class": {
            label: {
                name: interval(s[:, place]) if enough[name][place] else None
                for name, s in drawn.items()
            }
            for place, label in enumerate(labels)
        },
    }


def _pairs(one: Scores, other: Scores) -> Iterator[tuple[Any, Any]]:
    return zip(one.items(), other.items(), strict=True)


def _calibration(test: Truth, temperature: float, fitted_on: int) -> dict[str, Any]:
    """Errors of the shares as the network gives them, and as the temperature mends them."""

    def errors(temperature: float) -> dict[str, float]:
        shares = softmax(test.logits, temperature)
        return {
            "expected_calibration_error": expected_calibration_error(shares, test.targets),
            "negative_log_likelihood": likelihood_loss(test.logits, test.targets, temperature),
        }

    return {
        "temperature": temperature,
        "fitted_on": f"{fitted_on} validation photos",
        "bins": f"{BINS} of equal width (Guo et al. 2017)",
        "before": errors(1.0),
        "after": errors(temperature),
    }


def _coverage(
    shares: np.ndarray, targets: np.ndarray, validation: Truth, temperature: float
) -> dict[str, Any]:
    """The curve, and what reaches 95 %: chosen on the test split itself, and on validation.

    The first is the best that could be; the second is what a user can expect, who chooses a
    threshold before new photos come (one that answers LEAST validation photos or more).
    """
    curve = coverage_curve(shares, targets)
    known = softmax(validation.logits, temperature)
    chosen = reaching(coverage_curve(known, validation.targets), WANTED, LEAST)
    best = reaching(curve, WANTED)
    return {
        "wanted_accuracy": WANTED,
        "least_photos": LEAST,
        "reached": asdict(best) if best else None,
        "chosen_on_validation": (
            asdict(covered(shares, targets, chosen.threshold)) if chosen else None
        ),
        "points": [asdict(one) for one in thinned(curve)],
    }


def _by(
    shares: np.ndarray, targets: np.ndarray, origins: Origins, draw: Resampling
) -> dict[str, Any]:
    """Figures of the photos of each site and crop outcome; empty where they are not known."""
    right = shares.argmax(axis=1) == targets
    found: dict[str, Any] = {"site": {}, "crop": {}}
    for name, values in (("site", origins.sites), ("crop", origins.crops)):
        names, places = np.unique(np.asarray(values or [], str), return_inverse=True)
        if not len(names):
            continue
        each = np.eye(len(names))[places]
        photos, hits = np.split(draw.totals(np.hstack([each, each * right[:, None]])), 2, axis=1)
        enough = draw.spread(places, len(names)) > 1
        for i, one in enumerate(names):
            mine, drawn = places == i, photos[:, i] > 0
            found[name][str(one)] = {
                "photos": int(mine.sum()),
                "accuracy": float(right[mine].mean()),
                "interval": interval(hits[drawn, i] / photos[drawn, i]) if enough[i] else None,
                "probability": float(shares[mine].max(axis=1).mean()),
            }
    return found
