"""Coverage against accuracy, worked out by hand."""

import numpy as np

from model.evaluation.selective import Covered, coverage_curve, covered, reaching, thinned

SURE = np.array([0.9, 0.8, 0.8, 0.6])
SHARES = np.stack([SURE, 1 - SURE], axis=1)
TARGETS = np.array([0, 1, 0, 0])


def test_photos_of_one_probability_are_answered_together() -> None:
    assert coverage_curve(SHARES, TARGETS) == [
        Covered(0.9, 1, 0.25, 1.0),
        Covered(0.8, 3, 0.75, 2 / 3),
        Covered(0.6, 4, 1.0, 0.75),
    ]
    assert coverage_curve(SHARES[:0], TARGETS[:0]) == []


def test_the_most_photos_that_an_accuracy_allows() -> None:
    curve = coverage_curve(SHARES, TARGETS)
    assert reaching(curve, 0.95) == curve[0]
    assert reaching(curve, 0.7) == curve[2]
    assert reaching(curve, 0.95, least=2) is None
    assert reaching(curve, 0.7, least=4) == curve[2]
    assert reaching(coverage_curve(SHARES, 1 - TARGETS), 0.95) is None


def test_a_threshold_above_all_answers_nothing() -> None:
    assert covered(SHARES, TARGETS, 0.95) == Covered(0.95, 0, 0.0, None)
    assert covered(SHARES, TARGETS, 0.8) == Covered(0.8, 3, 0.75, 2 / 3)


def test_a_thinned_curve_keeps_its_ends() -> None:
    sure = np.linspace(0.999, 0.5, 400)
    curve = coverage_curve(np.stack([sure, 1 - sure], axis=1), np.zeros(400, int))
    few = thinned(curve, 11)
    assert len(few) == 11
    assert (few[0], few[-1]) == (curve[0], curve[-1])
    assert thinned([]) == []
