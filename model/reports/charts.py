"""Figures as pictures: confusion, reliability, coverage."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.evaluation.calibration import Bin
from model.evaluation.selective import Covered

# Signs of a label that stand beside an axis.
LONGEST = 28
# From so many classes on, numbers in the cells are too small to read.
NUMBERED = 40
BLUE, ORANGE, GREY = "#3b82f6", "#f59e0b", "#8a8f98"
DARK: list[Any] = ["dark_background", {"figure.facecolor": "none", "axes.facecolor": "none"}]


def png(make: Callable[[], Figure], dark: bool = False) -> bytes:
    """What MAKE draws as a PNG; DARK: light lines on nothing, for a dark page."""
    out = io.BytesIO()
    with matplotlib.style.context(DARK if dark else []), warnings.catch_warnings():
        # A label in a script that the font lacks is drawn as boxes; the tables have its name.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        FigureCanvasAgg(make()).print_png(out)
    return out.getvalue()


def confusion(counts: np.ndarray, labels: Sequence[str], accuracy: float) -> Figure:
    """COUNTS, (classes, classes) int, truth in rows, with shares of each row as colours."""
    rows = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    pitch = np.interp(len(labels), [10, 100], [0.44, 0.19])
    side = max(5.2, float(pitch) * len(labels) + 2.6)
    size = float(np.interp(len(labels), [10, 100], [10, 7]))
    figure = Figure(figsize=(side, side), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.imshow(rows, cmap="Blues", vmin=0, vmax=1)
    names, places = [short(label) for label in labels], range(len(labels))
    # A dollar sign in a label would begin a formula.
    style: Any = {"fontsize": size, "parse_math": False}
    turned, down = (90, "center") if len(labels) > 25 else (45, "top")
    turn: Any = {"rotation": turned, "rotation_mode": "anchor", "ha": "right", "va": down}
    axes.set_xticks(places, names, **turn, **style)
    axes.set_yticks(places, names, **style)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    figure.suptitle(f"Test photos: {counts.sum()}, accuracy {accuracy:.3f}")
    if len(labels) <= NUMBERED:
        _numbers(axes, counts, rows, size - 1)
    return figure


def _numbers(axes: Axes, counts: np.ndarray, rows: np.ndarray, size: float) -> None:
    for y, x in zip(*np.nonzero(counts), strict=True):
        colour = "white" if rows[y, x] > 0.5 else "black"
        axes.text(x, y, str(counts[y, x]), ha="center", va="center", color=colour, fontsize=size)


def short(label: str) -> str:
    """LABEL on one line, cut where it is long."""
    line = "".join(sign if sign.isprintable() else "?" for sign in label)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def reliability_chart(before: Sequence[Bin], after: Sequence[Bin]) -> Figure:
    """The share of right answers by probability, BEFORE and AFTER the temperature."""
    figure = Figure(figsize=(5.4, 5.4), layout="constrained", dpi=110)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="as sure as right")
    for bins, text, colour in ((before, "as trained", ORANGE), (after, "calibrated", BLUE)):
        full = [one for one in bins if one.photos]
        sure, right = [one.probability for one in full], [one.accuracy for one in full]
        axes.plot(sure, right, label=text, color=colour, marker="o", markersize=4)
    axes.set(ylabel="right", ylim=(0, 1.02), xlim=(0, 1), title="How far probabilities hold")
    axes.legend(loc="upper left")
    axes.grid(alpha=0.3)
    width = after[0].high - after[0].low
    middles = [one.low + width / 2 for one in after]
    below.bar(middles, [one.photos for one in after], width=0.9 * width, color=BLUE)
    below.set(xlabel="probability", ylabel="photos")
    return figure


def coverage_chart(curve: Sequence[Covered], wanted: float, chosen: Covered | None) -> Figure:
    """Accuracy of the answers by the share of photos that are answered, the surest first."""
    figure = Figure(figsize=(5.4, 4.2), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    lines = np.array([[one.coverage, one.accuracy] for one in curve], float)
    axes.plot(lines[:, 0], lines[:, 1], color=BLUE)
    axes.axhline(wanted, color=GREY, linestyle=":", label=f"{wanted:.0%} right")
    if chosen is not None and chosen.accuracy is not None:
        text = f"probability at least {chosen.threshold:.2f}"
        axes.plot([chosen.coverage], [chosen.accuracy], "o", color=ORANGE, label=text)
    lowest = max(0.0, float(lines[:, 1].min()) - 0.05)
    axes.set(xlabel="photos answered", ylabel="of them right", xlim=(0, 1.01))
    axes.set(ylim=(lowest, 1.01), title="Answering only when sure")
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure
