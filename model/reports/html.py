"""Render `report.html`: the results of a run with photos, on one page that needs no other file."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images.io import thumbnail_or_none
from dataset.utils.html import Figure, render
from model.reports import summary
from model.reports.run_results import RunResults

TEMPLATES = Path(__file__).with_name("templates")
# Pairs of labels whose photos are shown, photos per pair, and pixels per photo.
ERROR_PAIRS, PHOTOS_PER_PAIR, SIDE_PIXELS = 60, 6, 160
# The most confident mistakes, shown larger.
SURE_MISTAKES, MISTAKE_PIXELS = 12, 240


@dataclass(frozen=True)
class PhotoPair:
    """Test photos of one label with the same prediction.

    Attributes:
        label: Their label.
        predicted: Their predicted label.
        target: Id of their place on the page.
        count: Number of photos.
        figures: Some of them, the most confident first.
    """

    label: str
    predicted: str
    target: str
    count: int
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Mistake:
    """A wrongly predicted test photo.

    Attributes:
        photo: The photo, with its crop drawn.
        heat_map: What the prediction rests on; None if there is no heat map.
        label: Its label.
        predicted: Its predicted label.
        confidence: Probability of the predicted label.
        path: Path in the data folder.
    """

    photo: Figure
    heat_map: Figure | None
    label: str
    predicted: str
    confidence: float
    path: str


@dataclass(frozen=True)
class ConfusionCell:
    """A cell of the confusion matrix.

    Attributes:
        predicted: The predicted label.
        count: Number of photos.
        fraction: Fraction of the label's photos.
        is_correct: Whether the predicted label is the label.
        target: Id of the photos on the page; empty if none are shown.
    """

    predicted: str
    count: int
    fraction: float
    is_correct: bool
    target: str


def photos_by_prediction(results: RunResults) -> dict[tuple[int, int], list[int]]:
    """Return (class index, predicted class index) -> indices of test photos.

    Both pairs and photos are ordered by confidence, highest first.
    """
    predicted, confidence = results.probabilities.argmax(axis=1), results.probabilities.max(axis=1)
    photos: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in np.argsort(-confidence, kind="stable"):
        photos[int(results.targets[index]), int(predicted[index])].append(int(index))
    return photos


def photo_pairs(results: RunResults) -> list[PhotoPair]:
    """Return the pairs of labels with the most confident errors, then correct predictions."""
    photos = photos_by_prediction(results)
    errors = [pair for pair in photos if pair[0] != pair[1]][:ERROR_PAIRS]
    correct = sorted(pair for pair in photos if pair[0] == pair[1])
    return [
        PhotoPair(
            results.labels[target],
            results.labels[predicted],
            f"photos-{target}-{predicted}",
            len(photos[target, predicted]),
            [_figure(results, index) for index in photos[target, predicted][:PHOTOS_PER_PAIR]],
        )
        for target, predicted in [*errors, *correct]
    ]


def sure_mistakes(results: RunResults) -> list[int]:
    """Return the indices of the wrongly predicted test photos of the highest confidence."""
    predicted, confidence = results.probabilities.argmax(axis=1), results.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return order[predicted[order] != results.targets[order]][:SURE_MISTAKES].tolist()


def _mistake(results: RunResults, index: int) -> Mistake:
    probabilities = results.probabilities[index]
    predicted = results.labels[probabilities.argmax()]
    heat_map = results.heat_maps.get(index)
    return Mistake(
        _figure(results, index, MISTAKE_PIXELS, caption=""),
        Figure(heat_map, "", f"What speaks for {predicted}") if heat_map else None,
        results.labels[results.targets[index]],
        predicted,
        float(probabilities.max()),
        results.test[index].path,
    )


def _figure(
    results: RunResults, index: int, side: int = SIDE_PIXELS, caption: str | None = None
) -> Figure:
    example, probabilities = results.test[index], results.probabilities[index]
    label, predicted = (
        results.labels[results.targets[index]],
        results.labels[probabilities.argmax()],
    )
    return Figure(
        thumbnail_or_none(
            (results.folder / example.path).read_bytes,
            side,
            example.crop.box if example.crop else None,
        ),
        f"confidence {probabilities.max():.1%}: {example.path}" if caption is None else caption,
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
    pairs = photo_pairs(results)
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
        headline=summary.headline(metrics),
        lead=lead,
        findings=findings,
        metric_rows=summary.main_metrics(metrics),
        score_columns=[
            column
            for name in summary.SCORES
            for column in (summary.score_title(name), "95% interval")
        ],
        recall_bars=_recall_bars(metrics),
        class_rows=_class_rows(metrics),
        confusions=summary.frequent_confusions(metrics),
        confusion_rows=_confusion_rows(metrics, {pair.target for pair in pairs}),
        photo_pairs=pairs,
        sure_mistakes=[_mistake(results, index) for index in sure_mistakes(results)],
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


def _recall_bars(metrics: Mapping[str, Any]) -> list[tuple[str, float, Any, str]]:
    """Return a bar per label with photos, the highest recall first."""
    intervals = metrics["intervals"]["per_class"]
    bars = [
        (label, scores["recall"], intervals[label]["recall"], f"{scores['support']} photos")
        for label, scores in metrics["per_class"].items()
        if scores["support"]
    ]
    return sorted(bars, key=lambda bar: -bar[1])


def _confusion_rows(
    metrics: Mapping[str, Any], targets: Set[str]
) -> list[tuple[str, list[ConfusionCell]]]:
    """Return each label with a cell per prediction.

    Args:
        metrics: Content of `metrics.json`.
        targets: Ids of the photos that the page shows.
    """
    matrix = metrics["confusion_matrix"]
    labels, counts = matrix["labels"], np.array(matrix["counts"])
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))

    def cell(y: int, x: int) -> ConfusionCell:
        target = f"photos-{y}-{x}"
        return ConfusionCell(
            labels[x],
            int(counts[y, x]),
            float(fractions[y, x]),
            y == x,
            target if target in targets else "",
        )

    size = range(len(labels))
    return [(labels[y], [cell(y, x) for x in size]) for y in size]


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
