"""Tests of the crawl summary."""

import pytest

from scraper.report import HEAD, Tally, lasting, missing, rows


def test_rejection_reasons_are_counted_per_column() -> None:
    tally = Tally("lamoda", "polo", "поло", pages=2, posts=9, ended="layout changed")
    tally.rejected.update({"HTTP 403": 2, "smaller than 75 pixels": 3, "cut off": 1, "empty": 1})
    tally.rejected.update({"HTTP 500": 4, "too many pixels": 5})
    told = dict(zip(HEAD, rows([tally])[0], strict=True))
    assert {name: told[name] for name in ("403", "small", "broken", "other", "large")} == {
        "403": "2",
        "small": "3",
        "broken": "2",
        "other": "4",
        "large": "5",
    }
    assert (told["layout"], told["timeout"], told["search"]) == ("1", "0", "поло")


def test_missing_images_and_time_to_fetch_them() -> None:
    open_one, done = Tally("lamoda", "polo", "polo", ended="limit"), Tally("lamoda", "polo", "поло")
    done.ended = "finished before"
    open_one.outcomes["new"] = 100
    assert missing("polo", 200, 500, 60, [open_one, done]).seconds == 180
    assert missing("polo", 200, 500, 60, [done]).exhausted
    open_one.outcomes.clear()
    assert missing("polo", 200, 500, 60, [open_one]).seconds is None
    open_one.outcomes["new"] = 100
    assert missing("polo", 500, 500, 60, [open_one]).missing == 0
    assert "180 seconds" not in str(missing("polo", 200, 500, 60, [open_one]))
    assert "about 3 minutes at this rate" in str(missing("polo", 200, 500, 60, [open_one]))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(5, "5 seconds"), (119, "119 seconds"), (600, "10 minutes"), (9000, "2 hours")],
)
def test_durations_are_formatted_for_reading(seconds: int, said: str) -> None:
    assert lasting(seconds) == said
