"""The predictions of a finished training, and sentences and tables about them.

The reports of a run are made of them: the HTML report, the model card, CSV and the terminal.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataset.utils.files import spreadsheet_row
from model.data.loading import Example, FacetGroups, PhotoMetadata, SplitData, load_metadata
from model.evaluation import calibration
from model.evaluation.metrics import HELD_OUT_PHOTOS, TEST_PHOTOS, LabeledLogits
from model.evaluation.multi_label import choose_thresholds

SCORES = ("precision", "recall", "f1")


@dataclass(frozen=True)
class RunResults:
    """Predictions for the validation and test photos, and how the network was trained.

    Attributes:
        folder: The data folder.
        labels: The labels.
        test: The readable test photos.
        test_logits: Uncalibrated logits of shape (n, classes).
        validation: The readable validation photos.
        validation_logits: Uncalibrated logits of shape (m, classes).
        history: Metric (loss, accuracy, val_loss, val_accuracy) -> values by epoch, for all stages.
        best_epoch: The epoch whose weights were kept, from 1.
        options: Options of the training, ready for JSON.
        seed: Random seed.
        first_stage_epochs: Number of epochs of the first of two stages.
        extra_metrics: Added to `metrics.json` (counts, unreadable photos, folds).
        facts: Added to `run.json` (duration, backend, precision).
        augmentation_samples: PNG of augmented training photos.
        heat_maps: Index of a test photo -> JPEG of its Grad-CAM heat map.
        folds: With cross-validation, the fold of each photo in `test`, which has the held-out
            photos of all folds with calibrated logits.
        facets: The facets of the labels, if photos can have several labels.
    """

    folder: Path
    labels: Sequence[str]
    test: Sequence[Example]
    test_logits: np.ndarray
    validation: Sequence[Example]
    validation_logits: np.ndarray
    history: Mapping[str, Sequence[float]]
    best_epoch: int
    options: Mapping[str, Any]
    seed: int = 0
    first_stage_epochs: int | None = None
    extra_metrics: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    augmentation_samples: bytes | None = None
    heat_maps: Mapping[int, bytes] = field(default_factory=dict)
    folds: np.ndarray | None = None
    facets: FacetGroups | None = None

    @property
    def channels(self) -> int:
        """Channels of the photos; see `SplitData`."""
        return SplitData(self.folder, tuple(self.labels), tuple(self.test)).channels

    def _targets(self, examples: Sequence[Example]) -> np.ndarray:
        return SplitData(self.folder, tuple(self.labels), (), facets=self.facets).targets(examples)

    @cached_property
    def targets(self) -> np.ndarray:
        """Class indices of the test photos, shape (n,), or targets of facets, (n, facets)."""
        return self._targets(self.test)

    @cached_property
    def test_set(self) -> LabeledLogits:
        """Logits and targets of the test photos."""
        return LabeledLogits(self.test_logits, self.targets)

    @cached_property
    def validation_set(self) -> LabeledLogits:
        """Logits and class indices of the validation photos."""
        return LabeledLogits(self.validation_logits, self._targets(self.validation))

    @cached_property
    def temperature(self) -> float:
        """The temperature, fitted on the validation photos."""
        return calibration.fit_temperature(self.validation_set.logits, self.validation_set.targets)

    @cached_property
    def temperatures(self) -> list[float]:
        """The temperature of each facet, fitted on the validation photos that are labelled there.

        Raises:
            ValueError: The labels have no facets.
        """
        if self.facets is None:
            raise ValueError("the labels have no facets")
        parts = self.facets.by_facet(self.validation_set.logits, self.validation_set.targets)
        return [calibration.fit_temperature(*part) for part in parts]

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Label -> probability with the highest F1 on the validation photos; empty without facets.

        From it on, a photo is predicted to have the label.
        """
        if self.facets is None:
            return {}
        validation = self.validation_set
        probabilities = calibration.facet_probabilities(
            validation.logits, self.facets, self.temperatures
        )
        chosen = choose_thresholds(probabilities, validation.targets, self.facets)
        return dict(zip(self.labels, chosen, strict=True))

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities of the test photos, float64 array of shape (n, classes)."""
        if self.facets is not None:
            return calibration.facet_probabilities(self.test_logits, self.facets, self.temperatures)
        return calibration.softmax(self.test_logits, self.temperature)

    @cached_property
    def metadata(self) -> PhotoMetadata:
        """Groups, sites and crops of the test photos."""
        return load_metadata(self.folder, self.test)


def format_interval(interval: Sequence[float] | None) -> str:
    """Format an interval; empty if there is none."""
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def format_percent_interval(interval: Sequence[float] | None) -> str:
    """Format an interval in per cent, in parentheses; empty if there is none."""
    return f" (95% interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""


def findings(metrics: Mapping[str, Any]) -> list[str]:
    """Return the main results as sentences, the most important first."""
    intervals = metrics["intervals"]
    photos = sum(map(sum, metrics["confusion_matrix"]["counts"]))
    top_k = {k: value for k, value in metrics["top_k"].items() if k != "1"}
    most_frequent = max(
        metrics["per_class"], key=lambda label: metrics["per_class"][label]["support"]
    )
    return [
        _accuracy_finding(metrics, photos),
        f"Always predicting {most_frequent} would be correct for {metrics['majority']:.1%}, random"
        f" predictions for {metrics['chance']:.1%}.",
        *(
            f"The label is among the {k} most probable for {value:.1%} of the photos"
            f"{format_percent_interval(intervals['top_k'][k])}."
            for k, value in top_k.items()
        ),
        _calibration_finding(metrics),
        _coverage_finding(metrics),
    ]


def headline(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the headline figures of a run: name, value, note."""
    intervals, coverage = metrics["intervals"], metrics["coverage"]
    photos = sum(map(sum, metrics["confusion_matrix"]["counts"]))
    chosen = coverage["chosen_on_validation"]

    def interval(pair: Sequence[float] | None) -> str:
        return f"{pair[0]:.1%} to {pair[1]:.1%}" if pair else ""

    figures = [
        ("Accuracy", f"{metrics['accuracy']:.1%}", interval(intervals["accuracy"])),
        ("Macro F1", f"{metrics['macro']['f1']:.1%}", interval(intervals["macro"]["f1"])),
        (
            evaluated_photos(metrics).capitalize(),
            f"{photos:,}",
            f"{len(metrics['per_class'])} labels",
        ),
    ]
    if chosen is not None:
        figures.append(
            (
                "Confident predictions",
                f"{chosen['coverage']:.1%}",
                f"{chosen['accuracy']:.1%} of them correct" if chosen["photos"] else "",
            )
        )
    error = metrics["calibration"]["after"]["expected_calibration_error"]
    return [*figures, ("Calibration error", f"{error:.1%}", "expected, after calibration")]


def evaluated_photos(metrics: Mapping[str, Any]) -> str:
    """Return what the metrics are computed on: "test photos" or "held-out photos"."""
    # Runs of older versions have only test photos.
    photos = str(metrics.get("evaluated_on", TEST_PHOTOS))
    leaked = metrics.get("learned_test_photos", 0)
    return f"{photos} ({leaked} of them leaked into training)" if leaked else photos


def is_cross_validated(metrics: Mapping[str, Any]) -> bool:
    """Return whether the metrics are those of several networks, each on its held-out fold."""
    return metrics.get("evaluated_on") == HELD_OUT_PHOTOS


def _accuracy_finding(metrics: Mapping[str, Any], photos: int) -> str:
    interval = format_percent_interval(metrics["intervals"]["accuracy"])
    if is_cross_validated(metrics):
        return (
            f"{metrics['accuracy']:.1%} of {photos} held-out photos are predicted correctly"
            f"{interval}, each by the network that was not trained on its fold."
        )
    leaked = metrics.get("learned_test_photos", 0)
    warning = (
        f"It was trained on {leaked} of them (--allow-leaks), so this is too high."
        if leaked
        else "It was not trained on them."
    )
    return (
        f"The model predicts {metrics['accuracy']:.1%} of {photos} test photos correctly"
        f"{interval}. {warning}"
    )


def _calibration_finding(metrics: Mapping[str, Any]) -> str:
    calibration = metrics["calibration"]
    before, after = (calibration[n]["expected_calibration_error"] for n in ("before", "after"))
    if is_cross_validated(metrics):
        return (
            f"The expected calibration error of the probabilities is {after:.1%}; each network is"
            " calibrated on its validation fold."
        )
    return (
        f"The expected calibration error of the probabilities is {after:.1%} ({before:.1%} before"
        f" calibration with the temperature {calibration['temperature']:.2f})."
    )


def _coverage_finding(metrics: Mapping[str, Any]) -> str:
    coverage, photos = metrics["coverage"], evaluated_photos(metrics)
    target, chosen = coverage["target_accuracy"], coverage["chosen_on_validation"]
    is_crossed = is_cross_validated(metrics)
    if chosen is None:
        needed = photos if is_crossed else "validation photos"
        text = (
            f"No confidence threshold reaches an accuracy of {target:.0%} on at least"
            f" {coverage['min_photos']} {needed}."
        )
        if best := coverage["best_on_test"]:
            text += (
                f" In hindsight, {best['accuracy']:.1%} of the {best['photos']} {photos} with a"
                f" confidence of at least {best['threshold']:.2f} are predicted correctly."
            )
        return text
    text = (
        f"A confidence of at least {chosen['threshold']:.2f} (chosen on the"
        f" {'other folds' if is_crossed else 'validation split'} for an accuracy of {target:.0%})"
        f" is reached by {chosen['coverage']:.1%} of the {photos}"
    )
    return text + (
        f"; {chosen['accuracy']:.1%} of them are predicted correctly." if chosen["photos"] else "."
    )


def frequent_confusions(metrics: Mapping[str, Any], count: int = 10) -> list[str]:
    """Return the most frequent confusions of two labels as sentences."""
    matrix = metrics["confusion_matrix"]
    counts, labels = np.array(matrix["counts"]), matrix["labels"]
    errors = counts * (1 - np.eye(len(labels), dtype=int))
    order = np.argsort(-errors, axis=None, kind="stable")[:count]
    pairs = [divmod(int(index), len(labels)) for index in order]
    return [
        f"{errors[target, predicted]} of {counts[target].sum()} photos of {labels[target]} are"
        f" predicted as {labels[predicted]}"
        for target, predicted in pairs
        if errors[target, predicted]
    ]


def limitations(metrics: Mapping[str, Any], few: int = 30) -> list[str]:
    """Return what the metrics do not show, as sentences.

    Args:
        metrics: Content of `metrics.json`.
        few: Labels with fewer test photos are named.
    """
    per_class, intervals = metrics["per_class"], metrics["intervals"]
    photos = evaluated_photos(metrics)
    absent = [label for label, scores in per_class.items() if not scores["support"]]
    rare = [label for label, scores in per_class.items() if 0 < scores["support"] < few]
    sentences = [
        f"Intervals have a confidence level of 95% and are computed from {intervals['resamples']}"
        f" resamples of {intervals['units']} {intervals['resampled']}. They are valid for other"
        " photos of the same kind, not for photos from other sources.",
        "The model predicts one of its labels for any photo.",
        f"Some labels are wrong, those from hashtags above all, also those of the {photos}: some"
        " errors are errors of the labels.",
    ]
    if absent:
        sentences.append(
            f"There are no {photos} of {', '.join(absent)}: their scores count as 0 in macro"
            " averages."
        )
    if rare:
        sentences.append(
            f"There are fewer than {few} {photos} of {', '.join(rare)}: their scores are uncertain."
        )
    if intervals["accuracy"] is None:
        sentences.append(
            f"All {photos} belong to one of the {intervals['resampled']}: there are no intervals."
        )
    return sentences


def main_metrics(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the main metrics as rows: name, value, interval."""
    intervals = metrics["intervals"]
    rows = [("accuracy", f"{metrics['accuracy']:.3f}", format_interval(intervals["accuracy"]))]
    for average in ("macro", "weighted"):
        for name in SCORES:
            value = f"{metrics[average][name]:.3f}"
            interval = format_interval(intervals[average][name])
            rows.append((f"{average} {score_title(name)}", value, interval))
    for k, value in metrics["top_k"].items():
        if k != "1":
            interval = format_interval(intervals["top_k"][k])
            rows.append((f"top-{k} accuracy", f"{value:.3f}", interval))
    after = metrics["calibration"]["after"]
    rows.append(("negative log likelihood", f"{after['negative_log_likelihood']:.3f}", ""))
    error = after["expected_calibration_error"]
    rows.append(("expected calibration error", f"{error:.3f}", ""))
    return rows


def score_title(score: str) -> str:
    """Return the title of a score: F1 has a capital."""
    return "F1" if score == "f1" else score


def training_sentence(results: RunResults) -> str:
    """Return which weights were kept, and the random seed."""
    if results.folds is not None:
        kept = f"{len(np.unique(results.folds))} networks were trained, each without its fold."
    elif results.facts.get("head") == "closed form":
        kept = "The head was fitted in closed form, as a ridge classifier."
    else:
        kept = (
            f"The weights of epoch {results.best_epoch} of {len(results.history.get('loss', ()))}"
            " were kept, the best one on the validation split."
        )
    return f"{kept} Random seed {results.seed}."


def option_rows(options: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return options as rows; None is shown as default."""
    return [(name, "default" if value is None else value) for name, value in options.items()]


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as UTF-8; floats in full precision, None as an empty cell."""
    # File names may contain undecodable bytes.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        # Quote all text: by default a carriage return in a label is not quoted.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(spreadsheet_row(head))
        writer.writerows(map(spreadsheet_row, rows))
