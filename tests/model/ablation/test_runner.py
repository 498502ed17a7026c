"""Predictions and scores of a comparison, for one label and for several."""

from pathlib import Path

import numpy as np
import pytest

from model.ablation.runner import fraction_correct, macro_f1, predict_classes
from model.data.facets import FacetGroups
from model.data.loading import SplitData

SINGLE = SplitData(Path("x"), ("a", "b", "c"), ())
SEVERAL = SplitData(
    Path("x"), ("a", "b", "c", "d"), (), facets=FacetGroups(("one", "two"), ((0, 1), (2, 3)))
)


def test_one_label() -> None:
    predicted = predict_classes(np.array([[0.0, 1, 2], [3, 1, 2]]), SINGLE)
    assert predicted.tolist() == [2, 0]
    assert fraction_correct(predicted, np.array([2, 1])).tolist() == [1, 0]
    assert macro_f1(predicted, np.array([2, 1]), SINGLE) == pytest.approx(1 / 3)


def test_several_labels() -> None:
    logits = np.array([[0.0, 1, 5, 9], [3, 1, 8, 2], [0, 4, 1, 2]])
    predicted, targets = predict_classes(logits, SEVERAL), np.array([[1, 0], [0, -1], [1, 1]])
    assert predicted.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert fraction_correct(predicted, targets).tolist() == [0.5, 1, 1]
    # The second facet has one error in two photos.
    assert macro_f1(predicted, targets, SEVERAL) == pytest.approx((1 + (0 + 2 / 3) / 2) / 2)
