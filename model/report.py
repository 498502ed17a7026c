"""What a run leaves beside its model: figures, tables, pictures, a card and a page."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dataset.curves import curves
from dataset.errors import Failure
from dataset.export import write_json
from model import charts, tables, words
from model.calibration import Bin, reliability, softmax
from model.coverage import Covered, coverage_curve
from model.evaluation import Truth, evaluate
from model.judged import Judged
from model.report_page import page
from model.run_card import run_card
from model.run_facts import run_facts


def write(folder: Path, judged: Judged) -> dict[str, Any]:
    """Measure JUDGED and write its papers into FOLDER, which is there; returns metrics.json.

    Raises:
        Failure: the network's outputs are not numbers.
    """
    if np.isnan(judged.test_logits).any() or np.isnan(judged.validation_logits).any():
        raise Failure("the network's outputs are not numbers; train again with a smaller step")
    test, labels = Truth(judged.test_logits, judged.targets), judged.labels
    temperature = judged.temperature
    metrics = evaluate(test, judged.validated, labels, temperature, judged.seed, judged.origins)
    metrics |= judged.figures
    run = run_facts(judged)
    bins = {
        "as trained": reliability(softmax(judged.test_logits), judged.targets),
        "calibrated": reliability(judged.shares, judged.targets),
    }
    curve = coverage_curve(judged.shares, judged.targets)
    drawings = _drawings(judged, metrics, bins, curve)
    drawn = {name: (charts.png(one), charts.png(one, dark=True)) for name, one in drawings.items()}
    write_json(metrics, folder / "metrics.json")
    write_json(run, folder / "run.json")
    tables.write_predictions(folder / "predictions.csv", judged.test, judged.shares, labels)
    tables.write_per_class(folder / "per_class.csv", metrics)
    tables.write_confusion(folder / "confusion.csv", metrics)
    tables.write_coverage(folder / "coverage.csv", curve)
    tables.write_calibration(folder / "calibration.csv", bins)
    counts = np.array(metrics["confusion_matrix"]["counts"])
    matrix = charts.png(partial(charts.confusion, counts, labels, metrics["accuracy"]))
    (folder / "confusion.png").write_bytes(matrix)
    for name, (light, _) in drawn.items():
        (folder / f"{name}.png").write_bytes(light)
    _write_text(folder / "README.md", run_card(judged, metrics, run))
    _write_text(folder / "report.html", page(judged, metrics, run, drawn))
    return metrics


def _drawings(
    judged: Judged,
    metrics: Mapping[str, Any],
    bins: Mapping[str, Sequence[Bin]],
    curve: Sequence[Covered],
) -> dict[str, Callable[[], Figure]]:
    """What draws each chart of the page, by the name of its file."""
    coverage = metrics["coverage"]
    chosen = coverage["chosen_on_validation"]
    point = Covered(**chosen) if chosen else None
    names = ("loss", "accuracy")
    return {
        "reliability": partial(charts.reliability_chart, *bins.values()),
        "coverage": partial(charts.coverage_chart, curve, coverage["wanted_accuracy"], point),
        "curves": partial(curves, judged.history, judged.best, names, judged.border),
    }


def _write_text(path: Path, text: str) -> None:
    # Names of files may hold bytes that are no text.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def summary(metrics: Mapping[str, Any]) -> str:
    """The figures as a table and a few lines, for a terminal."""
    from dataset.text_table import table

    rows = [
        (n, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['f1']:.3f}", str(f["support"]))
        for n, f in metrics["per_class"].items()
    ]
    return "\n".join(
        [
            table(("label", "precision", "recall", "F1", "photos"), rows),
            "",
            table(("figure", "value", "95% interval"), words.headline(metrics)),
            "",
            *words.verdict(metrics),
        ]
    )
