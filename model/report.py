"""What a run leaves: predictions.csv, confusion.png, curves.png, metrics.json."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.data import Example


def write_predictions(
    path: Path, examples: Sequence[Example], shares: np.ndarray, labels: Sequence[str]
) -> None:
    """A row a photo: path, label, predicted, probability, correct, and each label's share."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["path", "label", "predicted", "probability", "correct", *(f"p:{n}" for n in labels)]
        )
        for example, row in zip(examples, shares, strict=True):
            best = int(row.argmax())
            right = int(labels[best] == example.label)
            numbers = [repr(float(share)) for share in row]
            writer.writerow(
                [example.path, example.label, labels[best], numbers[best], right, *numbers]
            )


def draw_confusion(path: Path, counts: np.ndarray, labels: Sequence[str], accuracy: float) -> None:
    """COUNTS, (classes, classes) int, truth in rows, as a picture with shares of each row."""
    rows = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = max(4.5, 0.42 * len(labels) + 2.2)
    figure = Figure(figsize=(side, side), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.set_title(f"Test photos: {counts.sum()}, accuracy {accuracy:.3f}")
    for y, x in zip(*np.nonzero(counts), strict=True):
        colour = "white" if rows[y, x] > 0.5 else "black"
        axes.text(x, y, str(counts[y, x]), ha="center", va="center", color=colour, fontsize=9)
    FigureCanvasAgg(figure).print_png(path)


def summary(metrics: Mapping[str, Any]) -> str:
    """The figures as a few lines and a table, for a terminal."""
    from dataset.text_table import table

    rows = [
        (n, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['f1']:.3f}", str(f["support"]))
        for n, f in metrics["per_class"].items()
    ]
    macro = metrics["macro"]
    return "\n".join(
        [
            table(("label", "precision", "recall", "F1", "photos"), rows),
            "",
            f"accuracy {metrics['accuracy']:.3f} on {metrics['counts']['test']} test photos"
            f" (chance {metrics['chance']:.3f}, always the commonest {metrics['majority']:.3f})",
            f"macro precision {macro['precision']:.3f}, recall {macro['recall']:.3f},"
            f" F1 {macro['f1']:.3f}",
        ]
    )
