"""Resampled totals equal a slow, simple implementation; means are computed by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from model.evaluation.bootstrap import (
    compute_scores,
    difference_interval,
    macro_average,
    make_bootstrap,
    percentile_interval,
    score_interval,
    weighted_average,
)


def test_totals_equal_a_simple_bootstrap() -> None:
    random = np.random.default_rng(5)
    targets, called = random.integers(0, 3, 120), random.integers(0, 3, 120)
    groups = [f"g{number // 4}" for number in range(120)]
    each = np.eye(3)
    right = each[targets] * (targets == called)[:, None]
    draw = make_bootstrap(groups, 120, 3000, 0)
    truth, predicted, hits = np.split(
        draw.totals(np.hstack([each[targets], each[called], right])), 3, axis=1
    )
    ours = np.percentile(
        weighted_average(compute_scores(truth, predicted, hits).f1, truth), [2.5, 50, 97.5]
    )
    slow = []
    for _ in range(500):
        chosen = random.integers(0, 30, 30)
        places = (chosen[:, None] * 4 + np.arange(4)).ravel()
        slow.append(
            precision_recall_fscore_support(
                targets[places], called[places], average="weighted", zero_division=0
            )[2]
        )
    assert ours == pytest.approx(np.percentile(slow, [2.5, 50, 97.5]), abs=0.012)


def test_every_resample_draws_as_many_units_as_there_are() -> None:
    totals = make_bootstrap(None, 50, 100, 0).totals(np.ones((50, 1)))
    assert (totals == 50).all()


def test_groups_keep_all_their_photos() -> None:
    draw = make_bootstrap(["a", "b", "b", "b"], 4, 200, 0)
    totals = draw.totals(np.eye(4))
    assert (draw.count, draw.unit_name) == (2, "groups of photos")
    assert (totals[:, 1] == totals[:, 3]).all()
    assert draw.units_per_class(np.array([0, 0, 0, 1]), 3).tolist() == [2, 1, 0]


def test_nan_has_no_interval() -> None:
    assert percentile_interval(np.array([np.nan, np.nan])) is None
    assert percentile_interval(np.array([np.nan, 0.5])) == [0.5, 0.5]
    assert np.isnan(macro_average(np.full((2, 3), np.nan), np.zeros(3))).all()


def test_a_class_that_only_a_resample_lacks_is_ignored() -> None:
    point = np.array([0.8, 0.6, np.nan])
    values = np.array([[0.8, np.nan, np.nan], [0.8, 0.6, np.nan]])
    # The third was never there: it counts as 0, as in the figure itself.
    assert macro_average(values, point) == pytest.approx([0.4, 1.4 / 3])


@pytest.mark.parametrize(("value", "units"), [(1.0, 2), (0.0, 2), (1.0, 50), (0.75, 8)])
def test_interval_of_equal_resamples_is_that_of_wilson(value: float, units: int) -> None:
    low, high = score_interval(np.full(100, value), units) or [0.0, 0.0]
    expected = binomtest(round(value * units), units).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert low <= value <= high and high - low > 0


def test_other_intervals_are_percentiles_of_the_resamples() -> None:
    values = np.linspace(0, 1, 101)
    assert score_interval(values, 3) == percentile_interval(values)
    assert difference_interval(values - 0.5, 3) == percentile_interval(values - 0.5)
    assert score_interval(np.array([np.nan]), 3) is None


def test_difference_that_never_varies_has_an_interval_with_width() -> None:
    low, high = difference_interval(np.zeros(100), 10) or [0.0, 0.0]
    assert low == -high and 0.2 < high < 0.3
    assert difference_interval(np.ones(100), 10) == [pytest.approx(1 - high), 1.0]
