"""The CSV files of a run: numbers in full, so that every figure can be computed again."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.data.loading import Example
from model.evaluation.calibration import Bin
from model.evaluation.selective import Covered


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """HEAD and ROWS as UTF-8; floats as `repr` says them, None as nothing."""
    # Names of files may hold bytes that are no text.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        # Text in quotes: the writer would leave a carriage return in a label bare.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(head)
        writer.writerows(rows)


def write_predictions(
    path: Path, examples: Sequence[Example], shares: np.ndarray, labels: Sequence[str]
) -> None:
    """A row a photo: path, label, predicted, probability, correct, and each label's share."""
    head = ["path", "label", "predicted", "probability", "correct", *(f"p:{n}" for n in labels)]
    best = shares.argmax(axis=1)
    write_csv(
        path,
        head,
        (
            [e.path, e.label, labels[i], row[i], int(labels[i] == e.label), *row]
            for e, i, row in zip(examples, best, shares.tolist(), strict=True)
        ),
    )


def write_per_class(path: Path, metrics: Mapping[str, Any]) -> None:
    """A row a label: its scores with the ends of their intervals, how often it is and is said."""
    counts = np.array(metrics["confusion_matrix"]["counts"])
    names = ("precision", "recall", "f1")
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    rows = []
    for place, (label, figures) in enumerate(metrics["per_class"].items()):
        between = metrics["intervals"]["per_class"][label]
        cells = [cell for n in names for cell in (figures[n], *(between[n] or ("", "")))]
        rows.append([label, *cells, figures["support"], int(counts[:, place].sum())])
    write_csv(path, ["label", *ends, "support", "predicted"], rows)


def write_confusion(path: Path, metrics: Mapping[str, Any]) -> None:
    """A row a label, a column a prediction: how many photos."""
    matrix = metrics["confusion_matrix"]
    rows = ([n, *row] for n, row in zip(matrix["labels"], matrix["counts"], strict=True))
    write_csv(path, ["label", *matrix["labels"]], rows)


def write_coverage(path: Path, curve: Sequence[Covered]) -> None:
    """A row a threshold, from the highest down."""
    head = ["threshold", "photos", "coverage", "accuracy"]
    write_csv(path, head, ([c.threshold, c.photos, c.coverage, c.accuracy] for c in curve))


def write_calibration(path: Path, bins: Mapping[str, Sequence[Bin]]) -> None:
    """A row a bin, before and after the temperature; BINS by which of the two."""
    head = ["shares", "low", "high", "photos", "probability", "accuracy"]
    rows = (
        [name, one.low, one.high, one.photos, one.probability, one.accuracy]
        for name, some in bins.items()
        for one in some
    )
    write_csv(path, head, rows)
