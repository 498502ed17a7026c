"""Searches whose pages come back end."""

from scraper.paging import EMPTY, NOTHING_NEW, Paging
from scraper.spiders.base import Page, Post


def page(*ids: str, cursor: str | None) -> Page:
    return Page(tuple(Post(one, f"https://shop.example/{one}", ()) for one in ids), cursor)


def test_a_cursor_that_was_there_before_ends_the_search() -> None:
    paging = Paging()
    assert paging.checked(page("1", cursor="b"), None).next_cursor == "b"
    assert paging.checked(page("2", cursor="c"), "b").next_cursor == "c"
    assert paging.checked(page("3", cursor="b"), "c").next_cursor is None


def test_new_cursors_to_the_same_posts_end_the_search_after_a_while() -> None:
    paging, cursor, pages = Paging(), None, 0
    while pages < 100:
        pages += 1
        cursor = paging.checked(page("1", "2", cursor=f"c{pages}"), cursor).next_cursor
        if cursor is None:
            break
    assert pages == NOTHING_NEW + 1


def test_pages_of_videos_only_are_no_circle() -> None:
    paging, cursor = Paging(), None
    for n in range(EMPTY + 1):
        videos = Page((), f"c{n}", skipped={"videos": 1})
        cursor = paging.checked(videos, cursor).next_cursor
        assert cursor is not None


def test_pages_of_nothing_at_all_end_at_last() -> None:
    paging = Paging()
    cursors = [paging.checked(page(cursor=f"c{n}"), f"c{n - 1}").next_cursor for n in range(EMPTY)]
    assert cursors[-2:] == [f"c{EMPTY - 2}", None]
