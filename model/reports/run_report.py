"""`run.json`: with what, on what and when a run was made; all that differs between equal runs."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dataset.errors import Failure
from dataset.utils.files import write_json
from dataset.utils.plots import plot_history
from model.data.loading import find_data
from model.data.metadata import fingerprint
from model.evaluation.calibration import Bin, reliability, softmax
from model.evaluation.metrics import Truth, evaluate
from model.evaluation.selective import Covered, coverage_curve
from model.inference.saved_run import built_with
from model.reports import charts, csv_files, summary
from model.reports.html import render_report
from model.reports.model_card import run_card
from model.reports.run_results import Judged

PACKAGES = (
    *("fashion-tagger", "keras", "tensorflow", "jax", "numpy", "scipy", "scikit-learn"),
    *("pillow", "pyarrow", "matplotlib"),
)


def run_facts(judged: Judged) -> dict[str, Any]:
    """Options, versions, seed, the dataset's fingerprint, the machine, and the facts of JUDGED."""
    return {
        "options": dict(judged.options),
        "seed": judged.seed,
        "versions": versions(),
        "built": built_with(judged.folder),
        "dataset": asdict(fingerprint(judged.folder, find_data(judged.folder).examples)),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **judged.facts,
    }


def versions() -> dict[str, str]:
    """Of Python and of each package of ours that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
    csv_files.write_predictions(folder / "predictions.csv", judged.test, judged.shares, labels)
    csv_files.write_per_class(folder / "per_class.csv", metrics)
    csv_files.write_confusion(folder / "confusion.csv", metrics)
    csv_files.write_coverage(folder / "coverage.csv", curve)
    csv_files.write_calibration(folder / "calibration.csv", bins)
    counts = np.array(metrics["confusion_matrix"]["counts"])
    matrix = charts.png(partial(charts.confusion, counts, labels, metrics["accuracy"]))
    (folder / "confusion.png").write_bytes(matrix)
    for name, (light, _) in drawn.items():
        (folder / f"{name}.png").write_bytes(light)
    _write_text(folder / "README.md", run_card(judged, metrics, run))
    _write_text(folder / "report.html", render_report(judged, metrics, run, drawn))
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
        "curves": partial(plot_history, judged.history, judged.best, names, judged.border),
    }


def _write_text(path: Path, text: str) -> None:
    # Names of files may hold bytes that are no text.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def format_summary(metrics: Mapping[str, Any]) -> str:
    """The figures as a table and a few lines, for a terminal."""
    from dataset.utils.tables import format_table

    rows = [
        (n, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['f1']:.3f}", str(f["support"]))
        for n, f in metrics["per_class"].items()
    ]
    return "\n".join(
        [
            format_table(("label", "precision", "recall", "F1", "photos"), rows),
            "",
            format_table(("figure", "value", "95% interval"), summary.headline(metrics)),
            "",
            *summary.verdict(metrics),
        ]
    )
