"""Render `report.html`, the results of a run with photos on one page, and the charts of a run.

The page needs no other file.
"""

import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart

from dataset.images.io import thumbnail_or_none
from dataset.utils.html import Figure, render
from model.evaluation.calibration import ReliabilityBin
from model.evaluation.metrics import CoveragePoint
from model.reports import run_results
from model.reports.run_results import RunResults

TEMPLATES = Path(__file__).with_name("templates")
# Pairs of labels whose photos are shown, photos per pair, and pixels per photo.
ERROR_PAIRS, PHOTOS_PER_PAIR, SIDE_PIXELS = 60, 6, 160
# The most confident mistakes, shown larger.
SURE_MISTAKES, MISTAKE_PIXELS = 12, 240
# Characters of a label beside an axis.
MAX_LABEL_CHARACTERS = 28
# With more classes, numbers in the cells are too small to read.
MAX_NUMBERED_CLASSES = 40
BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "#8a8f98"
DARK_STYLE: list[Any] = ["dark_background", {"figure.facecolor": "none", "axes.facecolor": "none"}]


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


def most_confident_mistakes(results: RunResults) -> list[int]:
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
        Figure(heat_map, "", f"Evidence for {predicted}") if heat_map else None,
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
    lead, *findings = run_results.findings(metrics)
    pairs = photo_pairs(results)
    return render(
        TEMPLATES,
        "report.html",
        title="fashion-tagger run",
        results=results,
        metrics=metrics,
        photos=run_results.evaluated_photos(metrics),
        kept=run_results.training_sentence(results),
        run=run,
        charts=charts,
        headline=run_results.headline(metrics),
        lead=lead,
        findings=findings,
        metric_rows=run_results.main_metrics(metrics),
        score_columns=[
            column
            for name in run_results.SCORES
            for column in (run_results.score_title(name), "95% interval")
        ],
        recall_bars=_recall_bars(metrics),
        class_rows=_class_rows(metrics),
        confusions=run_results.frequent_confusions(metrics),
        confusion_rows=_confusion_rows(metrics, {pair.target for pair in pairs}),
        photo_pairs=pairs,
        most_confident_mistakes=[
            _mistake(results, index) for index in most_confident_mistakes(results)
        ],
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
        limitations=run_results.limitations(metrics),
        options=run_results.option_rows(run["options"]),
        unreadable=[f"{path}: {why}" for path, why in metrics.get("unreadable", {}).items()],
    )


def _class_rows(metrics: Mapping[str, Any]) -> list[Sequence[object]]:
    predicted = np.array(metrics["confusion_matrix"]["counts"]).sum(axis=0)
    rows: list[Sequence[object]] = []
    for index, (label, scores) in enumerate(metrics["per_class"].items()):
        intervals = metrics["intervals"]["per_class"][label]
        cells = [
            cell
            for name in run_results.SCORES
            for cell in (f"{scores[name]:.3f}", run_results.format_interval(intervals[name]))
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
            run_results.format_interval(scores["interval"]),
            f"{scores['confidence']:.3f}",
        )


def render_png(draw: Callable[[], Chart], dark: bool = False) -> bytes:
    """Render a figure as PNG.

    Args:
        draw: Draws the figure.
        dark: Use light lines on a transparent background, for dark screens.
    """
    out = io.BytesIO()
    with matplotlib.style.context(DARK_STYLE if dark else []), warnings.catch_warnings():
        # Characters that the font lacks are drawn as boxes; the tables have the full labels.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        FigureCanvasAgg(draw()).print_png(out)
    return out.getvalue()


def confusion_chart(counts: np.ndarray, labels: Sequence[str], accuracy: float) -> Chart:
    """Draw a confusion matrix, coloured by the fraction of each row.

    Args:
        counts: Number of photos by label (rows) and prediction (columns), (classes, classes).
        labels: The labels.
        accuracy: Accuracy for the title.
    """
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    cell_inches = np.interp(len(labels), [10, 100], [0.44, 0.19])
    side = max(5.2, float(cell_inches) * len(labels) + 2.6)
    font_size = float(np.interp(len(labels), [10, 100], [10, 7]))
    figure = Chart(figsize=(side, side), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    names, positions = [shorten_label(label) for label in labels], range(len(labels))
    # Do not interpret dollar signs in labels as formulas.
    style: Any = {"fontsize": font_size, "parse_math": False}
    angle, vertical = (90, "center") if len(labels) > 25 else (45, "top")
    rotation: Any = {"rotation": angle, "rotation_mode": "anchor", "ha": "right", "va": vertical}
    axes.set_xticks(positions, names, **rotation, **style)
    axes.set_yticks(positions, names, **style)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    figure.suptitle(f"Test photos: {counts.sum()}, accuracy {accuracy:.3f}")
    if len(labels) <= MAX_NUMBERED_CLASSES:
        _draw_counts(axes, counts, fractions, font_size - 1)
    return figure


def _draw_counts(axes: Axes, counts: np.ndarray, fractions: np.ndarray, font_size: float) -> None:
    for y, x in zip(*np.nonzero(counts), strict=True):
        colour = "white" if fractions[y, x] > 0.5 else "black"
        text = str(counts[y, x])
        axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=font_size)


def shorten_label(label: str) -> str:
    """Return a label on one line, truncated to MAX_LABEL_CHARACTERS."""
    line = "".join(character if character.isprintable() else "?" for character in label)
    is_short = len(line) <= MAX_LABEL_CHARACTERS
    return line if is_short else line[: MAX_LABEL_CHARACTERS - 1] + "…"


def reliability_chart(
    uncalibrated: Sequence[ReliabilityBin], calibrated: Sequence[ReliabilityBin]
) -> Chart:
    """Draw accuracy by confidence, before and after calibration, and a histogram."""
    figure = Chart(figsize=(5.4, 5.4), layout="constrained", dpi=110)
    axes, histogram = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect calibration")
    series = ((uncalibrated, "uncalibrated", ORANGE), (calibrated, "calibrated", BLUE))
    for bins, text, colour in series:
        filled = [bin_ for bin_ in bins if bin_.photos]
        confidence = [bin_.confidence for bin_ in filled]
        accuracy = [bin_.accuracy for bin_ in filled]
        axes.plot(confidence, accuracy, label=text, color=colour, marker="o", markersize=4)
    axes.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1), title="Reliability")
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    width = calibrated[0].high - calibrated[0].low
    centres = [bin_.low + width / 2 for bin_ in calibrated]
    histogram.bar(centres, [bin_.photos for bin_ in calibrated], width=0.9 * width, color=BLUE)
    histogram.set(xlabel="confidence", ylabel="photos")
    return figure


def coverage_chart(
    curve: Sequence[CoveragePoint], target_accuracy: float, chosen: CoveragePoint | None
) -> Chart:
    """Draw accuracy by coverage.

    Args:
        curve: The coverage curve.
        target_accuracy: Drawn as a horizontal line.
        chosen: The point at the chosen threshold, if there is one.
    """
    figure = Chart(figsize=(5.4, 4.2), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    points = np.array([[point.coverage, point.accuracy] for point in curve], float)
    axes.plot(points[:, 0], points[:, 1], color=BLUE)
    axes.axhline(
        target_accuracy, color=GREY, linestyle=":", label=f"accuracy {target_accuracy:.0%}"
    )
    if chosen is not None and chosen.accuracy is not None:
        text = f"confidence at least {chosen.threshold:.2f}"
        axes.plot([chosen.coverage], [chosen.accuracy], "o", color=ORANGE, label=text)
    lowest = max(0.0, float(points[:, 1].min()) - 0.05)
    axes.set(xlabel="coverage", ylabel="accuracy", xlim=(0, 1.01))
    axes.set(ylim=(lowest, 1.01), title="Accuracy of confident predictions")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure
