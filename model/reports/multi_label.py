"""Write the reports of a run on photos of several labels: tables, page and model card by facet."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dataset.images.io import thumbnail_or_none
from dataset.selection.labeling import LABEL_SEPARATOR
from dataset.utils.files import write_json
from dataset.utils.html import Figure, render
from dataset.utils.plots import plot_history
from model.data.loading import FacetGroups
from model.evaluation.calibration import reliability_bins, softmax
from model.evaluation.metrics import coverage_curve
from model.evaluation.multi_label import DEFAULT_THRESHOLD, compute_multi_label_metrics
from model.reports import html, run_results
from model.reports.html import PHOTOS_PER_PAIR, SIDE_PIXELS, TEMPLATES
from model.reports.model_card import LOADING_EXAMPLE, escape_markdown, markdown_table
from model.reports.run_results import RunResults, write_csv

LABEL_COLUMNS = (
    *("label", "facet", "average precision", "95% interval", "threshold", "precision", "recall"),
    *("F1", "photos", "of"),
)
FACET_COLUMNS = (
    *("facet", "accuracy", "95% interval", "macro F1", "calibration error", "temperature"),
    *("threshold", "coverage", "photos"),
)


def write_multi_label_results(
    folder: Path, results: RunResults, run: Mapping[str, Any]
) -> dict[str, Any]:
    """Compute the metrics, and write all files of a run but the model and `run.json`.

    Args:
        folder: An existing folder.
        results: Predictions for the validation and test photos, with facets.
        run: Content of `run.json`.

    Returns:
        The content of `metrics.json`.

    Raises:
        ValueError: The labels have no facets.
    """
    if results.facets is None:
        raise ValueError("the labels have no facets")
    metrics = compute_multi_label_metrics(
        results.test_set,
        results.validation_set,
        results.labels,
        results.facets,
        results.temperatures,
        list(results.thresholds.values()),
        results.seed,
        results.metadata,
        folds=results.folds,
    )
    metrics |= results.extra_metrics
    write_json(metrics, folder / "metrics.json")
    _write_predictions(folder / "predictions.csv", results, results.facets)
    _write_labels(folder / "per_class.csv", metrics)
    _write_curves(folder, results, results.facets)
    first = results.first_stage_epochs
    draw = partial(plot_history, results.history, results.best_epoch, ("loss", "accuracy"), first)
    images = html.render_png(draw), html.render_png(draw, dark=True)
    (folder / "curves.png").write_bytes(images[0])
    for name, text in (
        ("README.md", _render_card(results, metrics, run)),
        ("report.html", _render_page(results, results.facets, metrics, run, images)),
    ):
        # File names may contain undecodable bytes.
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    return metrics


def findings(metrics: Mapping[str, Any]) -> list[str]:
    """Return the main results as sentences, the most important first."""
    interval = run_results.format_interval(metrics["intervals"]["mean_average_precision"])
    photos = run_results.evaluated_photos(metrics)
    labels = [s for s in metrics["per_label"].values() if s["average_precision"] is not None]
    sentences = [
        f"Mean average precision of {len(labels)} labels: {metrics['mean_average_precision']:.3f}"
        + (f" (95% interval {interval})" if interval else "")
        + f" on {metrics['photos']} {photos}; random predictions have {metrics['chance']:.3f}.",
        f"The most probable label of a labelled facet is right for {metrics['accuracy']:.1%}.",
        f"{_threshold_phrase(metrics)}, the macro F1 is"
        f" {metrics['macro']['f1']:.3f} and the micro F1 {metrics['micro']['f1']:.3f}.",
    ]
    if leaked := metrics.get("learned_test_photos", 0):
        sentences.append(
            f"{leaked} of the test photos leaked into training: the metrics are too high."
        )
    for name, facet in metrics["facets"].items():
        chosen = facet["coverage"]["chosen_on_validation"]
        if chosen and chosen["photos"]:
            sentences.append(
                f"{name}: a confidence of at least {chosen['threshold']:.2f} is reached by"
                f" {chosen['coverage']:.1%} of the photos; {chosen['accuracy']:.1%} of them are"
                " predicted correctly."
            )
    return sentences


def _threshold_phrase(metrics: Mapping[str, Any]) -> str:
    # The trainings of a cross-validation have no common threshold.
    if "folds" in metrics:
        return f"At a threshold of {DEFAULT_THRESHOLD:g}"
    return "At thresholds chosen on the validation photos"


def limitations(metrics: Mapping[str, Any], few: int = 30) -> list[str]:
    """Return what the metrics do not show, as sentences."""
    absent = [n for n, s in metrics["per_label"].items() if not s["support"]]
    rare = [n for n, s in metrics["per_label"].items() if 0 < s["support"] < few]
    sentences = [
        "A label is measured on photos on which one of its facets is labelled: unknown is not"
        " absent. The model predicts a label in each facet for any photo.",
        "Labels from hashtags are partly wrong, also those of the test photos.",
    ]
    if absent:
        sentences.append(f"No test photos of {', '.join(absent)}: not in the means.")
    if rare:
        sentences.append(f"Fewer than {few} test photos of {', '.join(rare)}: uncertain scores.")
    return sentences


def label_rows(metrics: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Yield a row of LABEL_COLUMNS for each label, by facet."""
    scores_of = metrics["per_label"]
    for label in sorted(scores_of, key=lambda name: (scores_of[name]["facets"], name)):
        scores = scores_of[label]
        precision = scores["average_precision"]
        yield (
            label,
            ", ".join(scores["facets"]),
            "" if precision is None else f"{precision:.3f}",
            run_results.format_interval(metrics["intervals"]["per_label"][label]),
            f"{scores['threshold']:.2f}",
            *(f"{scores[name]:.3f}" for name in run_results.SCORES),
            str(scores["support"]),
            str(scores["known"]),
        )


def facet_rows(metrics: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    """Yield a row of FACET_COLUMNS for each facet with test photos."""
    for name, facet in metrics["facets"].items():
        calibration, chosen = facet["calibration"], facet["coverage"]["chosen_on_validation"]
        yield (
            name,
            f"{facet['accuracy']:.3f}",
            run_results.format_interval(facet["intervals"]["accuracy"]),
            f"{facet['macro']['f1']:.3f}",
            f"{calibration['after']['expected_calibration_error']:.3f}",
            f"{calibration['temperature']:.2f}",
            f"{chosen['threshold']:.2f}" if chosen else "",
            f"{chosen['coverage']:.1%}" if chosen else "",
            str(sum(map(sum, facet["confusion_matrix"]["counts"]))),
        )


def _write_predictions(path: Path, results: RunResults, facets: FacetGroups) -> None:
    """Write a row per photo: labels, labelled facets, predicted labels and all probabilities."""
    thresholds = np.array([results.thresholds[label] for label in results.labels])
    predicted = results.probabilities >= thresholds
    known = results.targets >= 0
    head = ["path", "labels", "facets", "predicted", *(f"p:{label}" for label in results.labels)]
    rows = zip(results.test, predicted, known, results.probabilities.tolist(), strict=True)
    write_csv(
        path,
        head,
        (
            [
                example.path,
                LABEL_SEPARATOR.join(example.labels),
                LABEL_SEPARATOR.join(np.array(facets.names)[is_known]),
                LABEL_SEPARATOR.join(np.array(results.labels)[is_predicted]),
                *values,
            ]
            for example, is_predicted, is_known, values in rows
        ),
    )


def _write_labels(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write a row per label: its scores, and its photos of those where it is known."""
    head = [
        *("label", "facets", "average_precision", "average_precision_low"),
        *("average_precision_high", "threshold", *run_results.SCORES, "support", "known"),
    ]
    rows = (
        [
            label,
            LABEL_SEPARATOR.join(scores["facets"]),
            scores["average_precision"],
            *(metrics["intervals"]["per_label"][label] or ("", "")),
            scores["threshold"],
            *(scores[name] for name in run_results.SCORES),
            scores["support"],
            scores["known"],
        ]
        for label, scores in metrics["per_label"].items()
    )
    write_csv(path, head, rows)


def _write_curves(folder: Path, results: RunResults, facets: FacetGroups) -> None:
    """Write coverage.csv and calibration.csv with the facet in the first column."""
    coverage: list[Sequence[object]] = []
    calibration: list[Sequence[object]] = []
    parts = facets.by_facet(results.test_logits, results.targets)
    for name, temperature, (logits, targets) in zip(
        facets.names, results.temperatures, parts, strict=True
    ):
        calibrated = softmax(logits, temperature)
        coverage += [
            (name, point.threshold, point.photos, point.coverage, point.accuracy)
            for point in coverage_curve(calibrated, targets)
        ]
        for stage, values in (("uncalibrated", softmax(logits)), ("calibrated", calibrated)):
            calibration += [
                (name, stage, bin_.low, bin_.high, bin_.photos, bin_.confidence, bin_.accuracy)
                for bin_ in reliability_bins(values, targets)
            ]
    write_csv(
        folder / "coverage.csv", ["facet", "threshold", "photos", "coverage", "accuracy"], coverage
    )
    head = ["facet", "stage", "low", "high", "photos", "confidence", "accuracy"]
    write_csv(folder / "calibration.csv", head, calibration)


def _render_page(
    results: RunResults,
    facets: FacetGroups,
    metrics: Mapping[str, Any],
    run: Mapping[str, Any],
    curves: tuple[bytes, bytes],
) -> str:
    lead, *sentences = findings(metrics)
    return render(
        TEMPLATES,
        "multi_label.html",
        title="fashion-tagger run",
        results=results,
        metrics=metrics,
        run=run,
        curves=curves,
        headline=_headline(metrics),
        label_bars=_label_bars(metrics),
        lead=lead,
        findings=sentences,
        kept=run_results.training_sentence(results),
        facet_columns=FACET_COLUMNS,
        facet_rows=facet_rows(metrics),
        label_columns=LABEL_COLUMNS,
        label_rows=label_rows(metrics),
        confusions={
            name: run_results.frequent_confusions(facet)
            for name, facet in metrics["facets"].items()
        },
        errors=_confident_errors(results, facets),
        limitations=limitations(metrics),
        options=run_results.option_rows(run["options"]),
        unreadable=[f"{path}: {why}" for path, why in metrics.get("unreadable", {}).items()],
    )


def _headline(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the headline figures: name, value, note."""
    interval = metrics["intervals"]["mean_average_precision"]
    note = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    return [
        ("Mean average precision", f"{metrics['mean_average_precision']:.3f}", note),
        ("Accuracy per facet", f"{metrics['accuracy']:.1%}", "most probable label"),
        ("Macro F1", f"{metrics['macro']['f1']:.1%}", "at chosen thresholds"),
        (
            run_results.evaluated_photos(metrics).capitalize(),
            f"{metrics['photos']:,}",
            f"{len(metrics['per_label'])} labels in {len(metrics['facets'])} facets",
        ),
    ]


def _label_bars(metrics: Mapping[str, Any]) -> list[tuple[str, float, Any, str]]:
    """Return a bar per label with photos, the highest average precision first."""
    intervals = metrics["intervals"]["per_label"]
    bars = [
        (label, scores["average_precision"], intervals[label], ", ".join(scores["facets"]))
        for label, scores in metrics["per_label"].items()
        if scores["average_precision"] is not None
    ]
    return sorted(bars, key=lambda bar: -bar[1])


def _confident_errors(results: RunResults, facets: FacetGroups) -> dict[str, list[Figure]]:
    """Return facet -> figures of the photos with the most confident errors."""
    errors = {}
    columns = zip(facets.names, facets.members, results.targets.T, strict=True)
    for name, members, targets in columns:
        probabilities = results.probabilities[:, list(members)]
        predicted = probabilities.argmax(axis=1)
        wrong = np.flatnonzero((targets >= 0) & (predicted != targets))
        worst = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
        errors[name] = [
            _error_figure(
                results,
                int(row),
                results.labels[members[targets[row]]],
                results.labels[members[predicted[row]]],
            )
            for row in worst[:PHOTOS_PER_PAIR]
        ]
    return errors


def _error_figure(results: RunResults, row: int, label: str, predicted: str) -> Figure:
    path = results.test[row].path
    return Figure(
        thumbnail_or_none((results.folder / path).read_bytes, SIDE_PIXELS),
        f"{label} predicted as {predicted}: {path}",
        f"A photo of {label}, predicted as {predicted}",
    )


def _render_card(results: RunResults, metrics: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    dataset = run["dataset"]
    overview = [
        f"An Inception-v3 tagger with {len(results.labels)} labels of garments in"
        f" {len(metrics['facets'])} facets. The input is a batch of photos, (batch, height, width,"
        " 3) uint8 of any size, the output calibrated probabilities in the order of `labels.json`,"
        " which sum to 1 within each facet. `labels.json` has the facets, and the threshold of"
        " each label.",
        LOADING_EXAMPLE,
        "## Intended use",
        "Suggesting tags to people, and checking tags. Not for identifying or judging the people"
        " on photos, nor for automatic decisions in which an error does harm.",
    ]
    if results.folds is not None:
        overview = [
            f"A cross-validation of an Inception-v3 tagger with {len(results.labels)} labels of"
            f" garments in {len(metrics['facets'])} facets. It estimates the accuracy of a"
            " training; the networks are not kept. Train without `--folds` for a model."
        ]
    sections = [
        "---\nlibrary_name: keras\npipeline_tag: image-classification\n---",
        "# Model card",
        *overview,
        "## Summary",
        _bullets(findings(metrics)),
        "## Facets",
        markdown_table(FACET_COLUMNS, facet_rows(metrics)),
        "## Labels",
        markdown_table(LABEL_COLUMNS, label_rows(metrics)),
        "## Data",
        _bullets(
            [
                f"{dataset['photos']} photos; the SHA-256 of {dataset['hashed']} is"
                f" {dataset['sha256']}",
                *(f"{split}: {n} photos" for split, n in metrics.get("counts", {}).items()),
            ]
        ),
        "## Training",
        run_results.training_sentence(results),
        markdown_table(("option", "value"), run_results.option_rows(run["options"])),
        "## Limitations",
        _bullets(limitations(metrics)),
    ]
    return "\n\n".join(sections) + "\n"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
