"""Tests of reading untrusted JSON and rate-limit headers."""

from datetime import datetime, timezone

import pytest

from scraper.errors import LayoutChanged
from scraper.parsing.fields import (
    backoff_seconds,
    clean_text,
    format_remaining,
    format_reset_time,
    get_nested,
    html_text,
    http_url,
    json_object,
    json_objects,
    parse_count,
    parse_datetime,
    parse_json,
    parse_since,
)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff{}", b'{"a":' * 100_000])
def test_body_that_is_not_a_json_object_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        json_object(body, "https://shop.example/")


def test_values_are_validated() -> None:
    assert get_nested({"a": [{"b": 1}]}, "a", 0, "b") == 1
    assert get_nested({"a": [1]}, "a", 1) is None and get_nested({"a": {}}, "a", "b", "c") is None
    assert json_objects([{"a": 1}, 2, None]) == [{"a": 1}] and json_objects("x") == []
    assert (
        clean_text("  two \n words ") == "two words"
        and clean_text(" ") is None
        and clean_text(7) is None
    )
    assert [parse_count(v) for v in (7, "7", -1, True, "x", 7.5, "٧", None)] == [7, 7, *[None] * 6]
    assert http_url("https://a.example/x") and not http_url("javascript:alert(1)")
    for invalid in ("https://a.example/ x", "https://[a/x", "https:///x", "http://a:b/", 7, None):
        assert http_url(invalid) is None


def test_lone_surrogates_are_replaced_and_pairs_are_kept() -> None:
    assert json_object(rb'{"a": "\ud83d\udc57 \ud83d #polo"}', "") == {"a": "\N{DRESS} ? #polo"}
    assert json_object('{"a": "поло"}'.encode("utf-16"), "") == {"a": "поло"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-20T09:15:02+0000", datetime(2026, 11, 20, 9, 15, 2)),
        ("2026-11-20T09:15:02.000Z", datetime(2026, 11, 20, 9, 15, 2)),
        ("2026-11-20T12:15:02.5+03:00", datetime(2026, 11, 20, 9, 15, 2)),
        ("2026-11-20T09:15:02", datetime(2026, 11, 20, 9, 15, 2)),
        ("Fri, 20 Nov 2026 12:15:02 +0300", datetime(2026, 11, 20, 9, 15, 2)),
        ("Fri, 20 Nov 2026 09:15:02 GMT", datetime(2026, 11, 20, 9, 15, 2)),
        ("Mon, 99 Xyz 2026 99:15:02 +9999", None),
        ("0001-01-01T00:00:00+1400", None),
        ("yesterday", None),
        (1700000000, None),
    ],
)
def test_timestamps_are_parsed_as_utc(value: object, expected: datetime | None) -> None:
    assert parse_datetime(value) == expected


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\xed\xa0\xbd!"}',
        '{"a": "\ud83d!"}'.encode("utf-16", "surrogatepass"),
        '{"a": "\ud83d!"}'.encode("utf-16-be", "surrogatepass"),
        rb'{"a": "\ud83d!"}',
        rb'{"a": "\uDC57!"}',
    ],
)
def test_half_an_emoji_is_replaced_in_any_encoding(body: bytes) -> None:
    text = json_object(body, "")["a"]
    assert text.encode() and text.endswith("!") and len(text) > 1


def test_numbers_that_no_column_takes_are_unknown() -> None:
    body = f'{{"a": {"9" * 5000}, "b": 1e999, "c": NaN, "d": -Infinity, "e": {10**18}}}'
    expected = {"a": None, "b": None, "c": None, "d": None, "e": 10**18}
    assert json_object(body.encode(), "") == expected
    assert parse_count(10**18) is None and parse_count(10**18 - 1) == 10**18 - 1


def test_other_text_may_follow_json_only_if_allowed() -> None:
    assert parse_json(' {"a": 1}; more()', may_have_more=True) == {"a": 1}
    with pytest.raises(ValueError, match="more text"):
        parse_json('{"a": 1}; more()')


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("<b>Polo</b><i>shirt</i>", "Polo shirt"),
        ("Tom &amp; Co", "Tom & Co"),
        ("5 < 6 > 4", "5 < 6 > 4"),
        ("<!-- a > b -->polo<br/>", "polo"),
        ('<a href="/x" title="a">One</a>', "One"),
        ("<p>" * 400 + "polo", "polo"),
        ("<b></b>", None),
        (7, None),
    ],
)
def test_text_of_html(value: object, text: str | None) -> None:
    assert html_text(value) == text


NOW = datetime(2026, 11, 20, 12, 30)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31", datetime(2026, 1, 31)),
        ("7d", datetime(2026, 11, 13, 12, 30)),
        ("12h", datetime(2026, 11, 20, 0, 30)),
        ("2W", datetime(2026, 11, 6, 12, 30)),
        (" 1d ", datetime(2026, 11, 19, 12, 30)),
    ],
)
def test_since_is_a_date_or_an_age(text: str, time: datetime) -> None:
    assert parse_since(text, NOW) == time


@pytest.mark.parametrize(
    "text",
    [
        *("", "7", "d", "7m", "7y", "7 days", "-7d", "0d", "1.5d", "7d12h", "yesterday", "999999w"),
        *("31.01.2026", "2026-13-01", "2026-02-30", "1000000d", "٧d", "2026-01-31T10:00", "now"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nor an age such as 12h, 7d or 2w"):
        parse_since(text, NOW)


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


RECEIVED = datetime(2026, 11, 18, 10, 0, tzinfo=timezone.utc)
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
    assert backoff_seconds(headers, RECEIVED, is_exhausted) == seconds
