"""Figures worked out by hand."""

import numpy as np
import pytest

from model.evaluation import evaluate

# truth a a a b b c; predicted a a b b c c
SHARES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.2, 0.7, 0.1],
        [0.1, 0.8, 0.1],
        [0.1, 0.2, 0.7],
        [0.0, 0.1, 0.9],
    ]
)
TARGETS = np.array([0, 0, 0, 1, 1, 2])


def test_the_figures_of_six_photos() -> None:
    figures = evaluate(SHARES, TARGETS, ["a", "b", "c"])
    assert figures["accuracy"] == pytest.approx(4 / 6)
    a, b, c = (figures["per_class"][name] for name in "abc")
    assert a == pytest.approx({"precision": 1, "recall": 2 / 3, "f1": 0.8, "support": 3})
    assert b == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2})
    assert c == pytest.approx({"precision": 0.5, "recall": 1, "f1": 2 / 3, "support": 1})
    assert figures["macro"]["precision"] == pytest.approx(2 / 3)
    assert figures["macro"]["recall"] == pytest.approx((2 / 3 + 0.5 + 1) / 3)
    assert figures["confusion_matrix"]["counts"] == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert (figures["chance"], figures["majority"]) == pytest.approx((1 / 3, 1 / 2))


def test_a_label_that_is_never_predicted_has_precision_zero() -> None:
    figures = evaluate(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), ["a", "b"])
    assert figures["per_class"]["b"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
