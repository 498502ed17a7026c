"""Tests that searches with repeating pages end."""

from collections.abc import Iterator
from itertools import chain, count

import pytest

from scraper.persistence.frontier import (
    MAX_PAGES_WITHOUT_NEW_POSTS,
    MAX_REPEATED_PAGES,
    PagingGuard,
)
from scraper.spiders.base import Page, Post


def page(*ids: str, cursor: str | None) -> Page:
    return Page(
        tuple(Post(site_id, f"https://shop.example/{site_id}", ()) for site_id in ids), cursor
    )


def test_repeated_cursor_ends_the_search() -> None:
    paging = PagingGuard()
    assert paging.check_page(page("1", cursor="b"), None).next_cursor == "b"
    assert paging.check_page(page("2", cursor="c"), "b").next_cursor == "c"
    assert paging.check_page(page("3", cursor="b"), "c").next_cursor is None


def pages_until_end(pages: Iterator[Page]) -> int:
    paging, cursor = PagingGuard(), None
    for number, page in enumerate(pages, 1):
        cursor = paging.check_page(page, cursor).next_cursor
        if cursor is None or number == 500:
            return number
    raise AssertionError("more pages are needed")


def test_new_cursors_to_the_same_posts_end_the_search() -> None:
    same = (page("1", "2", cursor=f"c{n}") for n in count())
    assert pages_until_end(same) == MAX_REPEATED_PAGES + 1


def test_list_that_starts_with_known_posts_is_read_to_its_end() -> None:
    first = [page(str(n), str(n + 1), cursor=f"a{n}") for n in range(0, 40, 2)]
    # The same posts in other pairs; then a new one.
    second = [page(str(n), str(n + 1), cursor=f"b{n}") for n in range(1, 39, 2)]
    assert pages_until_end(iter([*first, *second, page("x", cursor=None)])) == 40


def test_known_posts_in_new_combinations_end_the_search() -> None:
    known = [page(*map(str, range(20)), cursor="c")]
    shuffled = (page(str(n % 20), str((n // 20 + n) % 20), cursor=f"c{n}") for n in count())
    assert pages_until_end(chain(known, shuffled)) <= MAX_PAGES_WITHOUT_NEW_POSTS + 1


@pytest.mark.parametrize("skipped", [{}, {"videos": 1}])
def test_pages_without_posts_end_the_search(skipped: dict[str, int]) -> None:
    empty = (Page((), f"c{n}", skipped=skipped) for n in count())
    assert pages_until_end(empty) == MAX_PAGES_WITHOUT_NEW_POSTS
