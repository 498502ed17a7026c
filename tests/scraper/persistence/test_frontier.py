"""Tests of saving pages of posts to the catalogue."""

from pathlib import Path
from typing import Any

from dataset.catalogue.session import open_catalogue
from scraper.persistence import frontier
from scraper.spiders.base import Page, Post
from tests.support.catalogues import rows


def save(folder: Path, query: str, *posts: Post) -> None:
    with open_catalogue(str(folder / "c.sqlite")).begin() as session:
        search = frontier.get_or_create_search(session, "twitter", query)
        frontier.save_page(session, search, Page(posts))


def post(number: str, title: str, record: Any = None) -> Post:
    return Post(number, f"https://x.com/i/status/{number}", (), title=title, record=record or {})


def test_post_of_combined_search_is_tagged_with_the_terms_it_contains(tmp_path: Path) -> None:
    save(
        tmp_path,
        "polo or polo shirt or поло",
        post("1", "#PoloShirt and #dress"),
        post("2", "#поло #polo"),
        post("3", "a link to a page of #shirts: the site searches text that it does not send"),
    )
    hashtags = rows(
        tmp_path,
        "SELECT posts.site_id, hashtags.text FROM post_hashtags"
        " JOIN hashtags ON hashtags.id = hashtag_id JOIN posts ON posts.id = post_id"
        " WHERE source = 'search' ORDER BY posts.site_id, hashtags.text",
    )
    three = [("3", "polo"), ("3", "polo shirt"), ("3", "поло")]
    assert hashtags == [("1", "polo shirt"), ("2", "polo"), ("2", "поло"), *three]


def test_post_with_too_deeply_nested_record_is_saved(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"in": deep}
    save(tmp_path, "polo", post("1", "#polo", deep))
    assert rows(tmp_path, "SELECT site_id, title FROM posts") == [("1", "#polo")]
    while deep:
        deep = deep["in"]
