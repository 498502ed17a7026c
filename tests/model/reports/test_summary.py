"""Sentences that follow from figures."""

import numpy as np

from model.evaluation.calibration import logits_of
from model.evaluation.metrics import Truth, evaluate
from model.reports import summary

SHARES = np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1], [0.1, 0.8, 0.1]])
TARGETS = np.array([0, 0, 0, 1])
FIGURES = evaluate(
    Truth(logits_of(SHARES), TARGETS), Truth(np.zeros((0, 3)), TARGETS[:0]), "abc", 1.0, 0
)


def test_the_verdict_begins_with_what_is_right_and_says_what_guessing_is() -> None:
    first, second, *rest = summary.verdict(FIGURES)
    assert first.startswith("It names 50.0% of 4 test photos rightly")
    assert "Saying a every time would be right for 75.0%, guessing for 33.3%." in second
    assert rest[-1].startswith("No threshold makes 95% of its answers right")


def test_the_pairs_that_are_confused_and_no_others() -> None:
    assert summary.confused(FIGURES) == ["2 of 3 photos of a are called b"]


def test_labels_without_or_with_few_test_photos_are_named() -> None:
    lines = " ".join(summary.unsure(FIGURES))
    assert "No test photos of c" in lines
    assert "Fewer than 30 test photos of a, b" in lines


def test_an_option_left_open_is_said_in_words() -> None:
    assert summary.known({"epochs": None, "seed": 0}) == [
        ("epochs", "left to the recipe"),
        ("seed", 0),
    ]
