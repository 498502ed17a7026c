"""Coverage and accuracy equal values computed by hand."""

import numpy as np

from model.evaluation.metrics import (
    CoveragePoint,
    best_point,
    coverage_curve,
    point_at,
    thin_curve,
)

SURE = np.array([0.9, 0.8, 0.8, 0.6])
SHARES = np.stack([SURE, 1 - SURE], axis=1)
TARGETS = np.array([0, 1, 0, 0])


def test_photos_of_equal_confidence_pass_a_threshold_together() -> None:
    assert coverage_curve(SHARES, TARGETS) == [
        CoveragePoint(0.9, 1, 0.25, 1.0),
        CoveragePoint(0.8, 3, 0.75, 2 / 3),
        CoveragePoint(0.6, 4, 1.0, 0.75),
    ]
    assert coverage_curve(SHARES[:0], TARGETS[:0]) == []


def test_the_point_of_highest_coverage_for_an_accuracy() -> None:
    curve = coverage_curve(SHARES, TARGETS)
    assert best_point(curve, 0.95) == curve[0]
    assert best_point(curve, 0.7) == curve[2]
    assert best_point(curve, 0.95, min_photos=2) is None
    assert best_point(curve, 0.7, min_photos=4) == curve[2]
    assert best_point(coverage_curve(SHARES, 1 - TARGETS), 0.95) is None


def test_a_threshold_above_all_has_no_coverage() -> None:
    assert point_at(SHARES, TARGETS, 0.95) == CoveragePoint(0.95, 0, 0.0, None)
    assert point_at(SHARES, TARGETS, 0.8) == CoveragePoint(0.8, 3, 0.75, 2 / 3)


def test_a_thinned_curve_keeps_its_ends() -> None:
    sure = np.linspace(0.999, 0.5, 400)
    curve = coverage_curve(np.stack([sure, 1 - sure], axis=1), np.zeros(400, int))
    few = thin_curve(curve, 11)
    assert len(few) == 11
    assert (few[0], few[-1]) == (curve[0], curve[-1])
    assert thin_curve([]) == []
