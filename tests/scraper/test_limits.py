"""Limits as headers write them."""

import pytest

from scraper.limits import after, at, left


def test_when_a_limit_ends() -> None:
    assert at("1794996900") == "at 10:15 UTC on 2026-11-18"
    assert [after(seconds) for seconds in ("0", "60", "61", "1440")] == [
        *("in 1 minute", "in 1 minute", "in 2 minutes", "in 24 minutes")
    ]
    assert after("Fri, 20 Nov 2026 09:15:02 GMT") == "at 09:15 UTC on 2026-11-20"


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "9" * 18, "9" * 30])
def test_headers_that_say_nothing(header: str | None) -> None:
    assert at(header) is None
    assert after(header) is None or header == "9" * 18


def test_what_is_left() -> None:
    headers = {"x-limit": "450", "x-remaining": "0"}
    assert left(headers, "x") == "0 of 450 requests are left"
    assert left({"x-limit": "9, 9;w=60", "x-remaining": "8, 8;w=60"}, "x") is not None
    assert left({"x-limit": "450"}, "x") is None
