"""Sentences about the metrics of a run."""

import numpy as np

from model.evaluation.calibration import log_probabilities
from model.evaluation.metrics import LabeledLogits, compute_metrics
from model.reports import run_results

PROBABILITIES = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]])
TARGETS = np.array([0, 0, 0, 1])
METRICS = compute_metrics(
    LabeledLogits(log_probabilities(PROBABILITIES), TARGETS),
    LabeledLogits(np.zeros((0, 3)), TARGETS[:0]),
    "abc",
    1.0,
    0,
)


def test_findings_begin_with_the_accuracy_and_name_the_baselines() -> None:
    first, second, *rest = run_results.findings(METRICS)
    assert first.startswith("The model predicts 50.0% of 4 test photos correctly")
    assert "Always predicting a would be correct for 75.0%, random predictions for 33.3%." in second
    assert rest[-1].startswith("No confidence threshold reaches an accuracy of 95%")


def test_only_confused_pairs_are_listed() -> None:
    assert run_results.frequent_confusions(METRICS) == ["2 of 3 photos of a are predicted as b"]


def test_labels_without_or_with_few_test_photos_are_named() -> None:
    lines = " ".join(run_results.limitations(METRICS))
    assert "no test photos of c" in lines
    assert "fewer than 30 test photos of a, b" in lines


def test_an_option_of_none_is_shown_as_default() -> None:
    assert run_results.option_rows({"epochs": None, "seed": 0}) == [
        ("epochs", "default"),
        ("seed", 0),
    ]
