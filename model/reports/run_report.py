"""Compute the metrics of a run and write its reports: JSON, CSV, charts, HTML and model card."""

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
from model.data.loading import Example, hash_dataset, load_splits
from model.evaluation.calibration import ReliabilityBin, reliability_bins, softmax
from model.evaluation.metrics import CoveragePoint, compute_metrics, coverage_curve
from model.inference.predictor import load_build_options
from model.reports import html, multi_label, run_results
from model.reports.html import render_report
from model.reports.model_card import render_model_card
from model.reports.run_results import RunResults, write_csv

# Packages whose versions are written to `run.json`.
PACKAGES = (
    *("fashion-tagger", "keras", "tensorflow", "jax", "numpy", "scipy", "scikit-learn"),
    *("pillow", "pyarrow", "matplotlib"),
)


def describe_run(results: RunResults) -> dict[str, Any]:
    """Return the content of `run.json`: all that differs between two equal runs."""
    return {
        "options": dict(results.options),
        "seed": results.seed,
        "versions": package_versions(),
        "build_options": load_build_options(results.folder),
        "dataset": asdict(hash_dataset(results.folder, load_splits(results.folder).examples)),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **results.facts,
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages among PACKAGES."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def write_results(folder: Path, results: RunResults) -> dict[str, Any]:
    """Compute the metrics, and write all files of a run but the model.

    Args:
        folder: An existing folder.
        results: Predictions for the validation and test photos.

    Returns:
        The content of `metrics.json`.

    Raises:
        Failure: The logits are NaN.
    """
    if np.isnan(results.test_logits).any() or np.isnan(results.validation_logits).any():
        raise Failure("the network's outputs are NaN; train again with a lower learning rate")
    run = describe_run(results)
    if results.facets is not None:
        write_json(run, folder / "run.json")
        return multi_label.write_multi_label_results(folder, results, run)
    labels = results.labels
    metrics = compute_metrics(
        results.test_set,
        results.validation_set,
        labels,
        results.temperature,
        results.seed,
        results.metadata,
        folds=results.folds,
    )
    metrics |= results.extra_metrics
    bins = {
        "uncalibrated": reliability_bins(softmax(results.test_logits), results.targets),
        "calibrated": reliability_bins(results.probabilities, results.targets),
    }
    curve = coverage_curve(results.probabilities, results.targets)
    images = {
        name: (html.render_png(draw), html.render_png(draw, dark=True))
        for name, draw in _charts(results, metrics, bins, curve).items()
    }
    write_json(metrics, folder / "metrics.json")
    write_json(run, folder / "run.json")
    write_predictions(folder / "predictions.csv", results.test, results.probabilities, labels)
    write_per_class(folder / "per_class.csv", metrics)
    write_confusion(folder / "confusion.csv", metrics)
    write_coverage(folder / "coverage.csv", curve)
    write_calibration(folder / "calibration.csv", bins)
    counts = np.array(metrics["confusion_matrix"]["counts"])
    draw_confusion = partial(html.confusion_chart, counts, labels, metrics["accuracy"])
    (folder / "confusion.png").write_bytes(html.render_png(draw_confusion))
    for name, (light, _) in images.items():
        (folder / f"{name}.png").write_bytes(light)
    _write_text(folder / "README.md", render_model_card(results, metrics, run))
    _write_text(folder / "report.html", render_report(results, metrics, run, images))
    return metrics


def _charts(
    results: RunResults,
    metrics: Mapping[str, Any],
    bins: Mapping[str, Sequence[ReliabilityBin]],
    curve: Sequence[CoveragePoint],
) -> dict[str, Callable[[], Figure]]:
    """Return file name -> function that draws the chart."""
    coverage = metrics["coverage"]
    chosen = coverage["chosen_on_validation"]
    point = CoveragePoint(**chosen) if chosen else None
    names = ("loss", "accuracy")
    return {
        "reliability": partial(html.reliability_chart, *bins.values()),
        "coverage": partial(html.coverage_chart, curve, coverage["target_accuracy"], point),
        "curves": partial(
            plot_history, results.history, results.best_epoch, names, results.first_stage_epochs
        ),
    }


def _write_text(path: Path, text: str) -> None:
    # File names may contain undecodable bytes.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def format_summary(metrics: Mapping[str, Any]) -> str:
    """Format the metrics for the terminal: two tables and a few sentences."""
    from dataset.utils.cli_options import format_table

    if "per_label" in metrics:
        return "\n".join(
            [
                format_table(multi_label.LABEL_COLUMNS, list(multi_label.label_rows(metrics))),
                "",
                format_table(multi_label.FACET_COLUMNS, list(multi_label.facet_rows(metrics))),
                "",
                *multi_label.findings(metrics),
            ]
        )
    rows = [
        (label, *(f"{scores[name]:.3f}" for name in run_results.SCORES), str(scores["support"]))
        for label, scores in metrics["per_class"].items()
    ]
    head = ("label", *map(run_results.score_title, run_results.SCORES), "photos")
    return "\n".join(
        [
            format_table(head, rows),
            "",
            format_table(("metric", "value", "95% interval"), run_results.main_metrics(metrics)),
            "",
            *run_results.findings(metrics),
        ]
    )


def write_predictions(
    path: Path, examples: Sequence[Example], probabilities: np.ndarray, labels: Sequence[str]
) -> None:
    """Write a row per photo: path, label, predicted, confidence, correct, and all probabilities.

    Args:
        path: The file to write.
        examples: The photos.
        probabilities: Array of shape (n, classes).
        labels: The labels.
    """
    head = ["path", "label", "predicted", "confidence", "correct", *(f"p:{n}" for n in labels)]
    predictions = probabilities.argmax(axis=1)
    rows = zip(examples, predictions, probabilities.tolist(), strict=True)
    write_csv(
        path,
        head,
        (
            [e.path, e.label, labels[i], values[i], int(labels[i] == e.label), *values]
            for e, i, values in rows
        ),
    )


def write_per_class(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write a row per label: scores with their intervals, support and number of predictions."""
    counts = np.array(metrics["confusion_matrix"]["counts"])
    names = ("precision", "recall", "f1")
    columns = [f"{name}{suffix}" for name in names for suffix in ("", "_low", "_high")]
    rows = []
    for index, (label, scores) in enumerate(metrics["per_class"].items()):
        intervals = metrics["intervals"]["per_class"][label]
        cells = [cell for n in names for cell in (scores[n], *(intervals[n] or ("", "")))]
        rows.append([label, *cells, scores["support"], int(counts[:, index].sum())])
    write_csv(path, ["label", *columns, "support", "predicted"], rows)


def write_confusion(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write the confusion matrix: a row per label, a column per prediction."""
    matrix = metrics["confusion_matrix"]
    rows = ([n, *row] for n, row in zip(matrix["labels"], matrix["counts"], strict=True))
    write_csv(path, ["label", *matrix["labels"]], rows)


def write_coverage(path: Path, curve: Sequence[CoveragePoint]) -> None:
    """Write a row per threshold, from the highest down."""
    head = ["threshold", "photos", "coverage", "accuracy"]
    write_csv(path, head, ([p.threshold, p.photos, p.coverage, p.accuracy] for p in curve))


def write_calibration(path: Path, stages: Mapping[str, Sequence[ReliabilityBin]]) -> None:
    """Write a row per bin.

    Args:
        path: The file to write.
        stages: uncalibrated and calibrated -> bins.
    """
    head = ["stage", "low", "high", "photos", "confidence", "accuracy"]
    rows = (
        [stage, bin_.low, bin_.high, bin_.photos, bin_.confidence, bin_.accuracy]
        for stage, bins in stages.items()
        for bin_ in bins
    )
    write_csv(path, head, rows)
