"""Plot the history of a training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_history(
    history: Mapping[str, Sequence[float]],
    best: int,
    names: Sequence[str],
    border: int | None = None,
) -> Figure:
    """Plot metrics by epoch, training and validation in one chart per metric.

    Args:
        history: Metric, and `val_` + metric -> values by epoch.
        best: The epoch whose weights were kept, from 1.
        names: Metrics to plot.
        border: Last epoch of the first of two stages.
    """
    figure = Figure(figsize=(4.5 * len(names), 3.8), layout="constrained", dpi=110)
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        for prefix, text in (("", "train"), ("val_", "validation")):
            values = history.get(prefix + name)
            if values:
                axes.plot(range(1, len(values) + 1), values, label=text, marker=".")
        axes.axvline(best, color="grey", linestyle=":", label=f"kept: epoch {best}")
        if border:
            axes.axvline(border + 0.5, color="grey", linewidth=1, label="second stage begins")
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def save_history_plot(
    path: Path, history: Mapping[str, Sequence[float]], best: int, names: Sequence[str]
) -> None:
    """Save the plot of `plot_history` as a PNG file."""
    FigureCanvasAgg(plot_history(history, best, names)).print_png(path)
