"""Predicted shares and truth -> figures. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


def evaluate(shares: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Figures of SHARES, (n, classes) float, against TARGETS, (n,) int.

    A label that is never predicted has precision 0; macro figures are means over all labels that
    stand in TARGETS or are predicted. The confusion matrix has truth in rows.
    """
    predicted = shares.argmax(axis=1)
    places = list(range(len(labels)))
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, predicted, labels=places, zero_division=0
    )
    per_class = {
        label: {
            "precision": float(precision[place]),
            "recall": float(recall[place]),
            "f1": float(f1[place]),
            "support": int(support[place]),
        }
        for place, label in enumerate(labels)
    }
    return {
        "accuracy": float((predicted == targets).mean()),
        "macro": {
            "precision": float(precision.mean()),
            "recall": float(recall.mean()),
            "f1": float(f1.mean()),
        },
        "per_class": per_class,
        "confusion_matrix": {
            "labels": list(labels),
            "rows_are": "truth",
            "counts": confusion_matrix(targets, predicted, labels=places).tolist(),
        },
        "chance": 1 / len(labels),
        "majority": float(np.bincount(targets).max() / len(targets)),
    }
