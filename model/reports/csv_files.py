"""Write the CSV files of a run, with floats in full precision."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.data.loading import Example
from model.evaluation.calibration import ReliabilityBin
from model.evaluation.selective import CoveragePoint


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as UTF-8; floats in full precision, None as an empty cell."""
    # File names may contain undecodable bytes.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        # Quote all text: by default a carriage return in a label is not quoted.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(head)
        writer.writerows(rows)


def write_predictions(
    path: Path, examples: Sequence[Example], probabilities: np.ndarray, labels: Sequence[str]
) -> None:
    """Write a row per photo: path, label, predicted, confidence, correct, and all probabilities.

    Args:
        path: The file to write.
        examples: The photos.
        probabilities: Array of shape (n, classes).
        labels: The labels.
    """
    head = ["path", "label", "predicted", "confidence", "correct", *(f"p:{n}" for n in labels)]
    predictions = probabilities.argmax(axis=1)
    rows = zip(examples, predictions, probabilities.tolist(), strict=True)
    write_csv(
        path,
        head,
        (
            [e.path, e.label, labels[i], values[i], int(labels[i] == e.label), *values]
            for e, i, values in rows
        ),
    )


def write_per_class(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write a row per label: scores with their intervals, support and number of predictions."""
    counts = np.array(metrics["confusion_matrix"]["counts"])
    names = ("precision", "recall", "f1")
    columns = [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")]
    rows = []
    for index, (label, scores) in enumerate(metrics["per_class"].items()):
        intervals = metrics["intervals"]["per_class"][label]
        cells = [cell for n in names for cell in (scores[n], *(intervals[n] or ("", "")))]
        rows.append([label, *cells, scores["support"], int(counts[:, index].sum())])
    write_csv(path, ["label", *columns, "support", "predicted"], rows)


def write_confusion(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write the confusion matrix: a row per label, a column per prediction."""
    matrix = metrics["confusion_matrix"]
    rows = ([n, *row] for n, row in zip(matrix["labels"], matrix["counts"], strict=True))
    write_csv(path, ["label", *matrix["labels"]], rows)


def write_coverage(path: Path, curve: Sequence[CoveragePoint]) -> None:
    """Write a row per threshold, from the highest down."""
    head = ["threshold", "photos", "coverage", "accuracy"]
    write_csv(path, head, ([p.threshold, p.photos, p.coverage, p.accuracy] for p in curve))


def write_calibration(path: Path, stages: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    """Write a row per bin.

    Args:
        path: The file to write.
        stages: uncalibrated and calibrated -> bins.
    """
    head = ["stage", "low", "high", "photos", "confidence", "accuracy"]
    rows = (
        [stage, bin_.low, bin_.high, bin_.photos, bin_.confidence, bin_.accuracy]
        for stage, bins in stages.items()
        for bin_ in bins
    )
    write_csv(path, head, rows)
