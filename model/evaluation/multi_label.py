"""Compute the content of `metrics.json` for photos of several labels, by label and by facet.

Average precision summarizes a ranking of photos by the probability of a label: the sum of the
precisions at each photo with the label, weighted by the steps of recall, as scikit-learn's
`average_precision_score`. Photos on which all facets of the label are unlabelled do not count.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from model.data.loading import UNLABELLED, FacetGroups, PhotoMetadata
from model.evaluation.bootstrap import (
    CONFIDENCE_LEVEL,
    Bootstrap,
    compute_scores,
    macro_average,
    make_bootstrap,
    score_interval,
)
from model.evaluation.calibration import facet_probabilities
from model.evaluation.metrics import HELD_OUT_PHOTOS, TEST_PHOTOS, LabeledLogits, compute_metrics

# Resamples for average precision: each one ranks the photos of every label again.
RESAMPLES = 1000
# The threshold of a label without validation photos.
DEFAULT_THRESHOLD = 0.5


def average_precision(
    scores: np.ndarray, is_positive: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the average precision of a label under several weightings of the photos.

    Args:
        scores: Probabilities of shape (n,).
        is_positive: Whether a photo has the label, shape (n,).
        weights: How often each photo counts, shape (m, n).

    Returns:
        Float array of shape (m,); NaN without a photo that has the label.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    # Photos of equal score are ranked together.
    ends = np.flatnonzero(np.append(np.diff(scores[order]) < 0, True))
    weights = weights[:, order]
    ranked = weights.cumsum(axis=1)[:, ends]
    hits = (weights * is_positive[order]).cumsum(axis=1)[:, ends]
    precision = hits / np.maximum(ranked, 1e-12)
    total = hits[:, -1]
    steps = np.diff(hits, axis=1, prepend=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, (steps * precision).sum(axis=1) / total, np.nan)


def best_threshold(scores: np.ndarray, is_positive: np.ndarray) -> float:
    """Return the threshold with the highest F1; DEFAULT_THRESHOLD without a photo of the label.

    Args:
        scores: Probabilities of shape (n,).
        is_positive: Whether a photo has the label, shape (n,).
    """
    if not is_positive.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], is_positive[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + is_positive.sum())
    ends = np.flatnonzero(np.append(np.diff(ranked) < 0, True))
    best = ends[f1[ends].argmax()]
    # Halfway to the next photo: the one at the threshold must not depend on rounding.
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def choose_thresholds(
    probabilities: np.ndarray, targets: np.ndarray, facets: FacetGroups
) -> list[float]:
    """Return the threshold of each label with the highest F1 on some photos.

    Args:
        probabilities: Array of shape (n, labels).
        targets: Targets of the facets, shape (n, facets).
        facets: The facets.
    """
    count = probabilities.shape[1]
    known, has = facets.is_known(targets, count), facets.has_label(targets, count)
    return [
        best_threshold(probabilities[known[:, i], i], has[known[:, i], i]) for i in range(count)
    ]


def compute_multi_label_metrics(
    test: LabeledLogits,
    validation: LabeledLogits,
    labels: Sequence[str],
    facets: FacetGroups,
    temperatures: Sequence[float],
    thresholds: Sequence[float],
    seed: int,
    metadata: PhotoMetadata | None = None,
    resamples: int = RESAMPLES,
    folds: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compute all metrics with their confidence intervals.

    Labels without test photos have no average precision and do not count in means.

    Args:
        test: At least one test photo; the targets are those of facets, shape (n, facets).
        validation: The validation photos, which select confidence thresholds; may be empty.
        labels: The labels.
        facets: Their facets.
        temperatures: The logits of each facet are divided by its temperature.
        thresholds: A photo is predicted to have a label from this probability on.
        seed: Random seed of the bootstrap.
        metadata: Groups to resample, and sites and crops to report on.
        resamples: Number of bootstrap resamples.
        folds: With cross-validation, the fold of each photo, shape (n,); `test` has the held-out
            photos of all folds, already calibrated.
    """
    metadata = metadata or PhotoMetadata()
    count = len(labels)
    probabilities = facet_probabilities(test.logits, facets, temperatures)
    known, has = facets.is_known(test.targets, count), facets.has_label(test.targets, count)
    predicted = known & (probabilities >= np.array(thresholds))
    scores = compute_scores(has.sum(0), predicted.sum(0), (predicted & has).sum(0))
    everyone = np.ones((1, len(known)))
    precisions = np.concatenate(
        [
            average_precision(probabilities[k, i], has[k, i], everyone[:, k])
            for i, k in enumerate(known.T)
        ]
    )
    bootstrap = make_bootstrap(metadata.groups, len(known), resamples, seed)
    resampled = _resampled_precisions(probabilities, known, has, bootstrap)
    tested = ~np.isnan(precisions)
    frequency = has.sum(0) / np.maximum(1, known.sum(0))
    by_facet = _by_facet(test, validation, labels, facets, temperatures, seed, metadata, folds)
    totals = compute_scores(
        np.array([has.sum()]), np.array([predicted.sum()]), np.array([(predicted & has).sum()])
    )
    return {
        "evaluated_on": TEST_PHOTOS if folds is None else HELD_OUT_PHOTOS,
        "photos": len(known),
        "mean_average_precision": float(precisions[tested].mean()),
        "accuracy": facet_accuracy(test, facets),
        "macro": {name: float(np.nan_to_num(s[tested]).mean()) for name, s in scores.items()},
        "micro": {name: float(np.nan_to_num(s)[0]) for name, s in totals.items()},
        "per_label": {
            label: {
                "facets": [
                    name
                    for name, members in zip(facets.names, facets.members, strict=True)
                    if index in members
                ],
                "average_precision": float(precisions[index]) if tested[index] else None,
                "threshold": float(thresholds[index]),
                **{name: float(np.nan_to_num(s[index])) for name, s in scores.items()},
                "support": int(has[:, index].sum()),
                "known": int(known[:, index].sum()),
            }
            for index, label in enumerate(labels)
        },
        "intervals": {
            "level": CONFIDENCE_LEVEL,
            "resamples": resamples,
            "resampled": bootstrap.unit_name,
            "units": bootstrap.count,
            "mean_average_precision": score_interval(
                macro_average(resampled[:, tested], precisions[tested]), bootstrap.count
            ),
            "per_label": {
                label: score_interval(resampled[:, index], bootstrap.count)
                if tested[index]
                else None
                for index, label in enumerate(labels)
            },
        },
        "facets": by_facet,
        "chance": float(frequency[tested].mean()),
    }


def facet_accuracy(test: LabeledLogits, facets: FacetGroups) -> float:
    """Return the fraction of labelled facets whose most probable label is the right one."""
    correct = total = 0
    for logits, targets in facets.by_facet(test.logits, test.targets):
        correct += int((logits.argmax(axis=1) == targets).sum())
        total += len(targets)
    return correct / max(1, total)


def _resampled_precisions(
    probabilities: np.ndarray, known: np.ndarray, has: np.ndarray, bootstrap: Bootstrap
) -> np.ndarray:
    """Return the average precision of each label in each resample, shape (resamples, labels)."""
    if bootstrap.count < 2:
        return np.full((bootstrap.resamples, known.shape[1]), np.nan)
    batches = [
        np.stack(
            [
                average_precision(probabilities[k, i], has[k, i], weights[:, k])
                for i, k in enumerate(known.T)
            ],
            axis=1,
        )
        for weights in bootstrap.photo_weights()
    ]
    return np.concatenate(batches)


def _by_facet(
    test: LabeledLogits,
    validation: LabeledLogits,
    labels: Sequence[str],
    facets: FacetGroups,
    temperatures: Sequence[float],
    seed: int,
    metadata: PhotoMetadata,
    folds: np.ndarray | None,
) -> dict[str, Any]:
    """Return the metrics of each facet, as of a classifier of its labelled photos."""
    parts = zip(
        facets.names,
        facets.members,
        temperatures,
        facets.by_facet(test.logits, test.targets),
        facets.by_facet(validation.logits, validation.targets),
        test.targets.T,
        strict=True,
    )
    return {
        name: compute_metrics(
            LabeledLogits(*own),
            LabeledLogits(*other),
            [labels[index] for index in members],
            temperature,
            seed,
            _select(metadata, np.flatnonzero(column != UNLABELLED)),
            folds=None if folds is None else folds[column != UNLABELLED],
        )
        for name, members, temperature, own, other, column in parts
        if len(own[1])
    }


def _select(metadata: PhotoMetadata, rows: np.ndarray) -> PhotoMetadata:
    """Return the metadata of some photos."""
    return replace(
        metadata,
        **{
            name: [values[row] for row in rows]
            for name, values in vars(metadata).items()
            if values is not None
        },
    )
