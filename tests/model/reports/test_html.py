"""The errors that the report shows, and missing photos."""

from pathlib import Path
from typing import Any

from dataset.utils import html
from model.reports.html import confident_errors, error_pairs
from tests.model.reports.test_run_report import results

macros: Any = html.environment().get_template("macros.html").module


def test_pairs_are_ordered_by_confidence(tmp_path: Path) -> None:
    one = results(tmp_path, ["a", "b", "c"], {"train": 1, "validation": 5, "test": 40})
    sure, called = one.probabilities.max(axis=1), one.probabilities.argmax(axis=1)
    found = confident_errors(one)
    assert sum(map(len, found.values())) == (called != one.targets).sum()
    firsts = [sure[places[0]] for places in found.values()]
    assert firsts == sorted(firsts, reverse=True)
    for (label, other), places in found.items():
        assert {(one.targets[i], called[i]) for i in places} == {(label, other)}


def test_a_missing_photo_is_replaced_by_its_name(tmp_path: Path) -> None:
    one = results(tmp_path, ["a", "b"], {"train": 1, "validation": 0, "test": 20})
    (place, *_), *_ = confident_errors(one).values()
    path = one.test[place].path
    (tmp_path / path).unlink()
    (figure,) = [f for p in error_pairs(one) for f in p.figures if f.caption.endswith(f" {path}")]
    assert figure.jpeg is None
    assert f": {path}</figure>" in str(macros.figure(figure))
