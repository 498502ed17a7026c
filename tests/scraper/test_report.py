"""Tests of the crawl summary."""

import pytest

from scraper.report import HEAD, Tally, lasting, missing, rows


def test_rejection_reasons_are_counted_per_column() -> None:
    tally = Tally("lamoda", "polo", "поло", pages=2, posts=9, ended="layout changed")
    tally.rejected.update({"HTTP 403": 2, "smaller than 75 pixels": 3, "cut off": 1, "empty": 1})
    tally.rejected.update({"HTTP 500": 4, "too many pixels": 5})
    row = dict(zip(HEAD, rows([tally])[0], strict=True))
    assert {name: row[name] for name in ("403", "small", "broken", "other", "large")} == {
        "403": "2",
        "small": "3",
        "broken": "2",
        "other": "4",
        "large": "5",
    }
    assert (row["layout"], row["timeout"], row["search"]) == ("1", "0", "поло")


def test_missing_images_and_time_to_fetch_them() -> None:
    limited, finished = (
        Tally("lamoda", "polo", "polo", ended="limit"),
        Tally("lamoda", "polo", "поло"),
    )
    finished.ended = "finished before"
    limited.outcomes["new"] = 100
    assert missing("polo", 200, 500, 60, [limited, finished]).seconds == 180
    assert missing("polo", 200, 500, 60, [finished]).exhausted
    limited.outcomes.clear()
    assert missing("polo", 200, 500, 60, [limited]).seconds is None
    limited.outcomes["new"] = 100
    assert missing("polo", 500, 500, 60, [limited]).missing == 0
    assert "180 seconds" not in str(missing("polo", 200, 500, 60, [limited]))
    assert "about 3 minutes at this rate" in str(missing("polo", 200, 500, 60, [limited]))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5, "5 seconds"), (119, "119 seconds"), (600, "10 minutes"), (9000, "2 hours")],
)
def test_durations_are_formatted_for_reading(seconds: int, expected: str) -> None:
    assert lasting(seconds) == expected
