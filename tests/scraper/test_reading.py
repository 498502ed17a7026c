"""Tests of reading untrusted JSON."""

from datetime import datetime

import pytest

from scraper.errors import LayoutChanged
from scraper.reading import inside, json_object, moment, number, objects, text, web_address


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff{}", b'{"a":' * 100_000])
def test_body_that_is_not_a_json_object_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        json_object(body, "https://shop.example/")


def test_values_are_validated() -> None:
    assert inside({"a": [{"b": 1}]}, "a", 0, "b") == 1
    assert inside({"a": [1]}, "a", 1) is None and inside({"a": {}}, "a", "b", "c") is None
    assert objects([{"a": 1}, 2, None]) == [{"a": 1}] and objects("x") == []
    assert text("  two \n words ") == "two words" and text(" ") is None and text(7) is None
    assert [number(v) for v in (7, "7", -1, True, "x", 7.5, "٧", None)] == [7, 7, *[None] * 6]
    assert web_address("https://a.example/x") and not web_address("javascript:alert(1)")
    for invalid in ("https://a.example/ x", "https://[a/x", "https:///x", "http://a:b/", 7, None):
        assert web_address(invalid) is None


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
    assert moment(value) == expected
