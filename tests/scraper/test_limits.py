"""Limits as headers write them."""

import pytest

from scraper.limits import at, left


def test_when_a_limit_ends() -> None:
    assert at("1794996900") == "at 10:15 UTC on 2026-11-18"


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "9" * 18, "9" * 30])
def test_headers_that_say_nothing(header: str | None) -> None:
    assert at(header) is None


def test_what_is_left() -> None:
    headers = {"x-limit": "450", "x-remaining": "0"}
    assert left(headers, "x") == "0 of 450 requests are left"
    assert left({"x-limit": "9, 9;w=60", "x-remaining": "8, 8;w=60"}, "x") is not None
    assert left({"x-limit": "450"}, "x") is None
