"""Render `report.html`: the results of a run with images, on one page that needs no other file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images.io import thumbnail_or_none
from dataset.utils.html import Figure, render
from model.reports import summary
from model.reports.run_results import Judged

TEMPLATES = Path(__file__).with_name("templates")
# Pairs of labels with their most confident errors, images per pair, and pixels per image.
ERROR_PAIRS, IMAGES_PER_PAIR, SIDE_PIXELS = 12, 6, 160


@dataclass(frozen=True)
class ErrorPair:
    """Test images of one label that are predicted as another one."""

    label: str
    predicted: str
    count: int
    figures: Sequence[Figure]


def confident_errors(judged: Judged) -> dict[tuple[int, int], list[int]]:
    """Return (class index, predicted index) -> indices of wrong test images.

    Both pairs and images are ordered by confidence, highest first.
    """
    predicted, confidence = judged.shares.argmax(axis=1), judged.shares.max(axis=1)
    errors: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in np.argsort(-confidence, kind="stable"):
        pair = int(judged.targets[index]), int(predicted[index])
        if pair[0] != pair[1]:
            errors[pair].append(int(index))
    return errors


def error_pairs(judged: Judged) -> list[ErrorPair]:
    """Return the pairs of labels with the most confident errors, with some of the images."""
    return [
        ErrorPair(
            judged.labels[target],
            judged.labels[predicted],
            len(indices),
            [_figure(judged, index) for index in indices[:IMAGES_PER_PAIR]],
        )
        for (target, predicted), indices in list(confident_errors(judged).items())[:ERROR_PAIRS]
    ]


def _figure(judged: Judged, index: int) -> Figure:
    path, shares = judged.test[index].path, judged.shares[index]
    label, predicted = judged.labels[judged.targets[index]], judged.labels[shares.argmax()]
    return Figure(
        thumbnail_or_none((judged.folder / path).read_bytes, SIDE_PIXELS),
        f"confidence {shares.max():.1%}: {path}",
        f"A photo of {label}, predicted as {predicted}",
    )


def render_report(
    judged: Judged,
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    charts: Mapping[str, tuple[bytes, bytes]],
) -> str:
    """Render the page.

    Args:
        judged: Predictions of the run on its validation and test splits.
        metrics: Content of `metrics.json`.
        run: Content of `run.json`.
        charts: Name (reliability, coverage, curves) -> PNG for light and for dark screens.
    """
    lead, *findings = summary.verdict(metrics)
    return render(
        TEMPLATES,
        "report.html",
        title="fashion-tagger run",
        judged=judged,
        metrics=metrics,
        run=run,
        charts=charts,
        lead=lead,
        findings=findings,
        headline=summary.headline(metrics),
        score_columns=[
            column for name in summary.SCORES for column in (summary.title(name), "95% interval")
        ],
        class_rows=_class_rows(metrics),
        confusions=summary.confused(metrics),
        confusion_rows=_confusion_rows(metrics),
        error_pairs=error_pairs(judged),
        calibration_rows=_calibration_rows(metrics),
        coverage_rows=[
            (
                f"{point['threshold']:.3f}",
                point["photos"],
                f"{point['coverage']:.1%}",
                f"{point['accuracy']:.1%}",
            )
            for point in metrics["coverage"]["points"]
        ],
        groups={name: list(_group_rows(group)) for name, group in metrics["by"].items() if group},
        limitations=summary.unsure(metrics),
        options=summary.known(run["options"]),
        unreadable=[f"{path}: {why}" for path, why in metrics.get("unreadable", {}).items()],
    )


def _class_rows(metrics: Mapping[str, Any]) -> list[Sequence[object]]:
    predicted = np.array(metrics["confusion_matrix"]["counts"]).sum(axis=0)
    rows: list[Sequence[object]] = []
    for index, (label, scores) in enumerate(metrics["per_class"].items()):
        intervals = metrics["intervals"]["per_class"][label]
        cells = [
            cell
            for name in summary.SCORES
            for cell in (f"{scores[name]:.3f}", summary.between(intervals[name]))
        ]
        rows.append((label, *cells, scores["support"], predicted[index]))
    return rows


def _confusion_rows(metrics: Mapping[str, Any]) -> list[tuple[str, list[tuple[int, float, bool]]]]:
    """Return each label with a cell per prediction: count, fraction of the row, is correct."""
    matrix = metrics["confusion_matrix"]
    counts = np.array(matrix["counts"])
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    return [
        (
            label,
            [(int(counts[y, x]), float(fractions[y, x]), y == x) for x in range(len(counts))],
        )
        for y, label in enumerate(matrix["labels"])
    ]


def _calibration_rows(metrics: Mapping[str, Any]) -> list[Sequence[str]]:
    return [
        (
            name.replace("_", " "),
            *(f"{metrics['calibration'][when][name]:.4f}" for when in ("before", "after")),
        )
        for name in ("expected_calibration_error", "negative_log_likelihood")
    ]


def _group_rows(group: Mapping[str, Any]) -> Iterable[Sequence[object]]:
    for name, scores in group.items():
        yield (
            name,
            scores["photos"],
            f"{scores['accuracy']:.3f}",
            summary.between(scores["interval"]),
            f"{scores['probability']:.3f}",
        )
