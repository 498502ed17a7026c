"""Tests of rate-limit headers."""

from datetime import datetime, timezone

import pytest

from scraper.limits import at, left, pause


def test_reset_time_is_formatted() -> None:
    assert at("1794996900") == "at 10:15 UTC on 2026-11-18"


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "9" * 18, "9" * 30])
def test_invalid_reset_headers_give_no_time(header: str | None) -> None:
    assert at(header) is None


def test_remaining_requests_are_formatted() -> None:
    headers = {"x-limit": "450", "x-remaining": "0"}
    assert left(headers, "x") == "0 of 450 requests are left"
    assert left({"x-limit": "9, 9;w=60", "x-remaining": "8, 8;w=60"}, "x") is not None
    assert left({"x-limit": "450"}, "x") is None


NOW = datetime(2026, 11, 18, 10, 0, tzinfo=timezone.utc)
USAGE = '{"17841": [{"call_count": 100, "estimated_time_to_regain_access": 7}]}'


@pytest.mark.parametrize(
    ("headers", "is_busy", "seconds"),
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
def test_backoff_seconds(headers: dict[str, str], is_busy: bool, seconds: int | None) -> None:
    assert pause(headers, NOW, is_busy) == seconds
