"""How a training went, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def draw_curves(
    path: Path, history: Mapping[str, Sequence[float]], best: int, names: Sequence[str]
) -> None:
    """A PNG with a chart for each of NAMES in HISTORY (and `val_` + name), value by epoch.

    BEST, from 1, is the epoch that was kept.
    """
    figure = Figure(figsize=(4.5 * len(names), 3.8), layout="constrained", dpi=110)
    for place, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), place + 1)
        for prefix, text in (("", "train"), ("val_", "validation")):
            values = history.get(prefix + name)
            if values:
                axes.plot(range(1, len(values) + 1), values, label=text, marker=".")
        axes.axvline(best, color="grey", linestyle=":", label=f"kept: epoch {best}")
        axes.set_xlabel("epoch")
        axes.set_title(name)
        axes.legend()
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(path)
