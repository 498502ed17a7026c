"""Calibration metrics equal values computed by hand and by other methods."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from model.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    log_probabilities,
    negative_log_likelihood,
    reliability_bins,
    softmax,
)


def drawn(scale: float, classes: int = 5, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are too large by a factor, and targets drawn from the right ones."""
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (count, classes))
    ends = softmax(logits).cumsum(axis=1)
    targets = (random.random((count, 1)) > ends).sum(axis=1).clip(max=classes - 1)
    return logits * scale, targets


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_recovered(scale: float) -> None:
    assert fit_temperature(*drawn(scale)) == pytest.approx(scale, rel=0.03)


def test_a_fitted_temperature_reduces_the_calibration_error() -> None:
    logits, targets = drawn(3.0)
    before = expected_calibration_error(softmax(logits), targets)
    after = expected_calibration_error(softmax(logits, fit_temperature(logits, targets)), targets)
    assert before > 0.1
    assert after < 0.02


def test_without_errors_or_photos_the_temperature_is_1() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert fit_temperature(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 1])) == 1.0


def test_only_wrong_predictions_have_the_highest_temperature() -> None:
    found = fit_temperature(np.array([[9.0, 0.0], [0.0, 9.0]]), np.array([1, 0]))
    assert found == pytest.approx(20, rel=1e-3)


def test_the_loss_equals_scikit_learns() -> None:
    logits, targets = drawn(1.0, count=500)
    assert negative_log_likelihood(logits, targets, 1.7) == pytest.approx(
        log_loss(targets, softmax(logits, 1.7))
    )


def test_probabilities_survive_the_conversion_to_logits() -> None:
    probabilities = np.array([[1.0, 0.0], [0.25, 0.75]])
    assert softmax(log_probabilities(probabilities)) == pytest.approx(probabilities, abs=1e-12)
    assert softmax(np.array([[5000.0, -5000.0]])).tolist() == [[1.0, 0.0]]
    assert softmax(np.zeros((0, 4))).shape == (0, 4)


def test_the_calibration_error_of_four_photos() -> None:
    # (0.6, 0.6667]: 0.64 right, 0.66 wrong -> |0.5 - 0.65|; (0.8667, 0.9333]: |1 - 0.9|, twice.
    probabilities = np.array([[0.64, 0.36], [0.66, 0.34], [0.9, 0.1], [0.1, 0.9]])
    targets = np.array([0, 1, 0, 1])
    assert expected_calibration_error(probabilities, targets) == pytest.approx(
        (2 * 0.15 + 2 * 0.1) / 4
    )
    filled = [one for one in reliability_bins(probabilities, targets) if one.photos]
    assert [(one.photos, one.accuracy) for one in filled] == [(2, 0.5), (2, 1.0)]
    assert [one.confidence for one in filled] == pytest.approx([0.65, 0.9])


def test_edges_belong_to_the_bin_below() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [0.6, 0.4]])
    bins = reliability_bins(probabilities, np.array([0, 0, 0]), bins=5)
    assert [one.photos for one in bins] == [0, 0, 2, 0, 1]
    assert bins[0].accuracy is None


def test_no_photos_have_no_error() -> None:
    assert expected_calibration_error(np.zeros((0, 3)), np.zeros(0, int)) == 0
