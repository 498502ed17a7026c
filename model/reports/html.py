"""Render `report.html`: the results of a run with photos, on one page that needs no other file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images.io import thumbnail_or_none
from dataset.utils.html import Figure, render
from model.reports import summary
from model.reports.run_results import RunResults

TEMPLATES = Path(__file__).with_name("templates")
# Pairs of labels with their most confident errors, photos per pair, and pixels per photo.
ERROR_PAIRS, PHOTOS_PER_PAIR, SIDE_PIXELS = 12, 6, 160


@dataclass(frozen=True)
class ErrorPair:
    """Test photos of one label that are predicted as another one."""

    label: str
    predicted: str
    count: int
    figures: Sequence[Figure]


def confident_errors(results: RunResults) -> dict[tuple[int, int], list[int]]:
    """Return (class index, predicted class index) -> indices of wrongly predicted test photos.

    Both pairs and photos are ordered by confidence, highest first.
    """
    predicted, confidence = results.probabilities.argmax(axis=1), results.probabilities.max(axis=1)
    errors: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in np.argsort(-confidence, kind="stable"):
        pair = int(results.targets[index]), int(predicted[index])
        if pair[0] != pair[1]:
            errors[pair].append(int(index))
    return errors


def error_pairs(results: RunResults) -> list[ErrorPair]:
    """Return the pairs of labels with the most confident errors, with some of the photos."""
    return [
        ErrorPair(
            results.labels[target],
            results.labels[predicted],
            len(indices),
            [_figure(results, index) for index in indices[:PHOTOS_PER_PAIR]],
        )
        for (target, predicted), indices in list(confident_errors(results).items())[:ERROR_PAIRS]
    ]


def _figure(results: RunResults, index: int) -> Figure:
    path, probabilities = results.test[index].path, results.probabilities[index]
    label, predicted = (
        results.labels[results.targets[index]],
        results.labels[probabilities.argmax()],
    )
    return Figure(
        thumbnail_or_none((results.folder / path).read_bytes, SIDE_PIXELS),
        f"confidence {probabilities.max():.1%}: {path}",
        f"A photo of {label}, predicted as {predicted}",
    )


def render_report(
    results: RunResults,
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    charts: Mapping[str, tuple[bytes, bytes]],
) -> str:
    """Render the page.

    Args:
        results: Predictions for the validation and test photos.
        metrics: Content of `metrics.json`.
        run: Content of `run.json`.
        charts: Name (reliability, coverage, curves) -> PNG for light and for dark screens.
    """
    lead, *findings = summary.findings(metrics)
    return render(
        TEMPLATES,
        "report.html",
        title="fashion-tagger run",
        results=results,
        metrics=metrics,
        photos=summary.evaluated_photos(metrics),
        kept=summary.training_sentence(results),
        run=run,
        charts=charts,
        lead=lead,
        findings=findings,
        metric_rows=summary.main_metrics(metrics),
        score_columns=[
            column
            for name in summary.SCORES
            for column in (summary.score_title(name), "95% interval")
        ],
        class_rows=_class_rows(metrics),
        confusions=summary.frequent_confusions(metrics),
        confusion_rows=_confusion_rows(metrics),
        error_pairs=error_pairs(results),
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
        limitations=summary.limitations(metrics),
        options=summary.option_rows(run["options"]),
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
            for cell in (f"{scores[name]:.3f}", summary.format_interval(intervals[name]))
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
            summary.format_interval(scores["interval"]),
            f"{scores['confidence']:.3f}",
        )
