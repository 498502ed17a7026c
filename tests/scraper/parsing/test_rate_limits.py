"""Tests of rate-limit headers."""

from datetime import datetime, timezone

import pytest

from scraper.parsing.rate_limits import backoff_seconds, format_remaining, format_reset_time


def test_reset_time_is_formatted() -> None:
    assert format_reset_time("1794996900") == "at 10:15 UTC on 2026-11-18"


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "9" * 18, "9" * 30])
def test_invalid_reset_headers_give_no_time(header: str | None) -> None:
    assert format_reset_time(header) is None


def test_remaining_requests_are_formatted() -> None:
    headers = {"x-limit": "450", "x-remaining": "0"}
    assert format_remaining(headers, "x") == "0 of 450 requests are left"
    assert format_remaining({"x-limit": "9, 9;w=60", "x-remaining": "8, 8;w=60"}, "x") is not None
    assert format_remaining({"x-limit": "450"}, "x") is None


NOW = datetime(2026, 11, 18, 10, 0, tzinfo=timezone.utc)
USAGE = '{"17841": [{"call_count": 100, "estimated_time_to_regain_access": 7}]}'


@pytest.mark.parametrize(
    ("headers", "is_exhausted", "seconds"),
    [
        ({"retry-after": "90"}, True, 90),
        ({"retry-after": "Wed, 18 Nov 2026 10:02:00 GMT"}, True, 120),
        ({"retry-after": "Wed, 18 Nov 2020 10:02:00 GMT"}, True, None),
        ({"retry-after": "9" * 9}, True, 86_400),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1794996900"}, False, 900),
        ({"x-rate-limit-remaining": "3", "x-rate-limit-reset": "1794996900"}, False, None),
        ({"x-rate-limit-reset": "1794996900"}, True, 900),
        ({"ratelimit-remaining": "0, 9;w=60", "ratelimit-reset": "30"}, False, 30),
        ({"x-business-use-case-usage": USAGE}, False, 420),
        ({"x-app-usage": "["}, True, None),
        ({}, True, None),
    ],
)
def test_backoff_seconds(headers: dict[str, str], is_exhausted: bool, seconds: int | None) -> None:
    assert backoff_seconds(headers, NOW, is_exhausted) == seconds
