"""Tests of items: values that a catalogue can't store."""

import math
from dataclasses import replace
from typing import Any

import pytest

from scraper.items import MAX_INDEXED_BYTES, Page, Photo, Post

POST = Post("1", "https://x.test/1", (Photo("https://x.test/1.jpg"),), title="Polo", price=10.0)


def stored(**changes: Any) -> Post:
    (post,) = Page((replace(POST, **changes),)).storable().posts
    return post


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Polo \N{DRESS}", "Polo \N{DRESS}"),
        ("half \ud83d", "half \N{REPLACEMENT CHARACTER}"),
        ("\udc57 half", "\N{REPLACEMENT CHARACTER} half"),
        ("\ud83d\udc57", "\N{DRESS}"),
        ("nul\0", "nul"),
        ("поло\0", "поло"),
    ],
)
def test_texts_become_storable_wherever_they_are(text: str, expected: str) -> None:
    record = {"a": [{text: text}], "n": 1.5, "t": (text,)}
    post = stored(title=text, brand=text, author=text, hashtags=(text,), record=record)
    assert (post.title, post.brand, post.author, post.hashtags) == (expected,) * 3 + ((expected,),)
    assert post.record == {"a": [{expected: expected}], "n": 1.5, "t": (expected,)}
    page = Page((), next_cursor=text, later_cursor=text, skipped={text: 2}).storable()
    assert (page.next_cursor, page.later_cursor) == (expected, expected)
    assert page.skipped == {expected: 2}


@pytest.mark.parametrize("price", [math.inf, -math.inf, math.nan, -0.5, 10**400, 1e13])
def test_impossible_price_is_unknown(price: float) -> None:
    assert stored(price=price).price is None
    assert stored(price=1999).price == 1999.0


@pytest.mark.parametrize("total", [-1, 2**31, 10**30])
def test_impossible_total_is_unknown(total: int) -> None:
    assert Page((), total=total).storable().total is None
    assert Page((), total=2**31 - 1).storable().total == 2**31 - 1


def test_what_is_too_long_for_an_index_is_left_out_and_the_post_stays() -> None:
    long_url = "https://x.test/" + "я" * (MAX_INDEXED_BYTES // 2)
    photos = (Photo(long_url), Photo("https://x.test/1.jpg", (long_url,)))
    post = stored(site_id="x" * 5000, photos=photos, currency="roubles and more")
    assert [photo.url for photo in post.photos] == ["https://x.test/1.jpg"]
    assert len(post.site_id) == 64 and post.site_id == stored(site_id="x" * 5000).site_id
    assert post.site_id != stored(site_id="x" * 5001).site_id
    assert post.currency is None and post.title == "Polo"


def test_record_that_is_nested_too_deeply_is_left_out() -> None:
    record: dict[str, Any] = {}
    for _ in range(5000):
        record = {"a": record}
    assert stored(record=record) == replace(POST, record={})
