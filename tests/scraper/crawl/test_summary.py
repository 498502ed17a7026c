"""Tests of the crawl summary."""

import pytest

from scraper.crawl.summary import (
    HEAD,
    SearchStats,
    format_duration,
    format_summary,
    label_shortage,
    rows,
)


def test_rejection_reasons_are_counted_per_column() -> None:
    tally = SearchStats("lamoda", "polo", "поло", pages=2, posts=9, ended="layout changed")
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
        SearchStats("lamoda", "polo", "polo", ended="limit"),
        SearchStats("lamoda", "polo", "поло"),
    )
    finished.ended = "finished before"
    limited.outcomes["new"] = 100
    assert label_shortage("polo", 200, 500, 60, [limited, finished]).seconds == 180
    assert label_shortage("polo", 200, 500, 60, [finished]).exhausted
    limited.outcomes.clear()
    assert label_shortage("polo", 200, 500, 60, [limited]).seconds is None
    limited.outcomes["new"] = 100
    assert label_shortage("polo", 500, 500, 60, [limited]).missing == 0
    assert "180 seconds" not in str(label_shortage("polo", 200, 500, 60, [limited]))
    assert "about 3 minutes at this rate" in str(label_shortage("polo", 200, 500, 60, [limited]))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5, "5 seconds"), (119, "119 seconds"), (600, "10 minutes"), (9000, "2 hours")],
)
def test_durations_are_formatted_for_reading(seconds: int, expected: str) -> None:
    assert format_duration(seconds) == expected


def test_summary_has_one_row_per_tag_without_columns_of_zeros() -> None:
    searches = [
        SearchStats("lamoda", "polo", word, pages=2, posts=30, ended="finished")
        for word in ("polo", "поло", "рубашка поло")
    ]
    searches[0].outcomes.update({"new": 20, "near duplicate": 3})
    searches[1].rejected.update({"HTTP 404": 2})
    searches.append(SearchStats("lamoda", "dress", "dress", pages=1, posts=9, ended="limit"))
    assert format_summary(searches).splitlines() == [
        "tag    pages  posts  new  near  rejected  ended",
        "-----  -----  -----  ---  ----  --------  --------",
        "polo       6     90   20     3         2  finished",
        "dress      1      9    0     0         0  limit",
    ]
    searches[2].ended = "refused"
    assert "2 finished, 1 refused" in format_summary(searches)
    searches[3].site = "wildberries"
    assert format_summary(searches).startswith("site         tag    pages")


def test_verbose_summary_has_one_row_per_search() -> None:
    searches = [
        SearchStats("lamoda", "polo", word, pages=2, posts=30, ended="finished")
        for word in ("polo", "поло")
    ]
    searches[1].rejected.update({"timeout": 2})
    assert format_summary(searches, is_verbose=True).splitlines() == [
        "tag   search  pages  posts  timeout  ended",
        "----  ------  -----  -----  -------  --------",
        "polo  polo        2     30        0  finished",
        "polo  поло        2     30        2  finished",
    ]


def test_summary_of_many_tags_fits_into_80_columns() -> None:
    stats = SearchStats("wildberries", "evening dress", "evening dress", 100, 10_000)
    stats.outcomes.update({"new": 99_999, "exact duplicate": 99_999, "near duplicate": 9_999})
    stats.rejected.update({"timeout": 9_999})
    assert max(map(len, format_summary([stats]).splitlines())) <= 80
