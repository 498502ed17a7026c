"""Which mistakes a page shows, and what it does where a photo is gone."""

from pathlib import Path

from model.reports.html import mistakes, surest_mistakes
from tests.model.reports.test_run_report import judged


def test_pairs_come_by_their_surest_photo(tmp_path: Path) -> None:
    one = judged(tmp_path, ["a", "b", "c"], {"train": 1, "validation": 5, "test": 40})
    sure, called = one.shares.max(axis=1), one.shares.argmax(axis=1)
    found = surest_mistakes(one)
    assert sum(map(len, found.values())) == (called != one.targets).sum()
    firsts = [sure[places[0]] for places in found.values()]
    assert firsts == sorted(firsts, reverse=True)
    for (label, other), places in found.items():
        assert {(one.targets[i], called[i]) for i in places} == {(label, other)}


def test_a_photo_that_is_gone_is_named_instead(tmp_path: Path) -> None:
    one = judged(tmp_path, ["a", "b"], {"train": 1, "validation": 0, "test": 20})
    (place, *_), *_ = surest_mistakes(one).values()
    (tmp_path / one.test[place].path).unlink()
    assert f"sure: {one.test[place].path}</figure>" in "".join(mistakes(one))
