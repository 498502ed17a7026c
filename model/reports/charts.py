"""Draw the charts of a run: confusion matrix, reliability and coverage."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.evaluation.calibration import ReliabilityBin
from model.evaluation.metrics import CoveragePoint

# Characters of a label beside an axis.
MAX_LABEL_CHARACTERS = 28
# With more classes, numbers in the cells are too small to read.
MAX_NUMBERED_CLASSES = 40
BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "#8a8f98"
DARK_STYLE: list[Any] = ["dark_background", {"figure.facecolor": "none", "axes.facecolor": "none"}]


def render_png(draw: Callable[[], Figure], dark: bool = False) -> bytes:
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


def confusion_chart(counts: np.ndarray, labels: Sequence[str], accuracy: float) -> Figure:
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
    figure = Figure(figsize=(side, side), layout="constrained", dpi=110)
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
) -> Figure:
    """Draw accuracy by confidence, before and after calibration, and a histogram."""
    figure = Figure(figsize=(5.4, 5.4), layout="constrained", dpi=110)
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
) -> Figure:
    """Draw accuracy by coverage.

    Args:
        curve: The coverage curve.
        target_accuracy: Drawn as a horizontal line.
        chosen: The point at the chosen threshold, if there is one.
    """
    figure = Figure(figsize=(5.4, 4.2), layout="constrained", dpi=110)
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
