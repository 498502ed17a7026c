"""Checks before a cross-validation; test_stages_killed.py runs a complete one."""

from pathlib import Path

import pytest

from dataset.errors import Failure
from model.training.config import TrainOptions
from model.training.cross_validation import cross_validate
from tests.support.drawn_splits import draw_splits


def test_a_label_too_rare_for_the_folds_is_rejected_before_training(tmp_path: Path) -> None:
    data = draw_splits(tmp_path / "splits", {"red": "red"}, {"train": 9})
    draw_splits(tmp_path / "splits", {"rare one": "blue"}, {"train": 1, "test": 1})
    options = TrainOptions(data=data, out=tmp_path / "run", weights="none", folds=3)
    with pytest.raises(Failure, match=r"--folds 3: .* of rare one to train on"):
        cross_validate(options)
    # Nothing is left that the next training would stumble over.
    assert [path.name for path in tmp_path.iterdir()] == ["splits"]
