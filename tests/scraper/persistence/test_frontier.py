"""Tests of saving pages of posts to the catalogue: no duplicates, few statements per page."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker

from dataset.catalogue.models import Hashtag, ImageRow, PostHashtag, PostRow, Sighting
from dataset.catalogue.queries import QUERY_ROWS
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.index import FingerprintIndex
from scraper.decoding.inspection import RejectedImage
from scraper.persistence import frontier
from scraper.persistence.frontier import save_posts
from scraper.persistence.writer import save_outcomes
from scraper.spiders.base import Page, Photo, Post
from tests.support.catalogues import rows


def save_page(folder: Path, query: str, *posts: Post) -> None:
    with open_catalogue(str(folder / "c.sqlite")).begin() as session:
        search = frontier.get_or_create_search(session, "twitter", query)
        frontier.save_page(session, search, Page(posts))


def tweet(number: str, title: str, record: Any = None) -> Post:
    return Post(number, f"https://x.com/i/status/{number}", (), title=title, record=record or {})


def test_post_of_combined_search_is_tagged_with_the_terms_it_contains(tmp_path: Path) -> None:
    save_page(
        tmp_path,
        "polo or polo shirt or поло",
        tweet("1", "#PoloShirt and #dress"),
        tweet("2", "#поло #polo"),
        tweet("3", "a link to a page of #shirts: the site searches text that it does not send"),
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
    save_page(tmp_path, "polo", tweet("1", "#polo", deep))
    assert rows(tmp_path, "SELECT site_id, title FROM posts") == [("1", "#polo")]
    while deep:
        deep = deep["in"]


@pytest.fixture
def sessions(tmp_path: Path) -> sessionmaker[Session]:
    return open_catalogue(str(tmp_path / "c.sqlite"))


def save(sessions: sessionmaker[Session], *posts: Post, site: str = "instagram") -> None:
    with sessions.begin() as session:
        save_posts(session, frontier.get_or_create_search(session, site, "polo"), posts)


def post(number: int, *photos: Photo, title: str = "", **more: Any) -> Post:
    return Post(str(number), f"https://shop.example/{number}", photos, title=title, **more)


def photo(name: str, **more: Any) -> Photo:
    return Photo(f"https://shop.example/{name}.jpg", **more)


@contextmanager
def count_statements() -> Iterator[Counter[str]]:
    """Count the SQL statements inside the block by keyword."""
    counts = Counter[str]()

    def count(_c: object, _cursor: object, statement: str, *_: object) -> None:
        counts[statement.split(maxsplit=1)[0]] += 1

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        yield counts
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)


def test_number_of_queries_per_page_is_independent_of_hashtags(
    sessions: sessionmaker[Session],
) -> None:
    pages = [
        [
            post(
                number,
                photo(f"{number}-1"),
                photo(f"{number}-2"),
                title=" ".join(f"#tag{number + n}" for n in range(30)),
            )
            for number in range(start, start + 100)
        ]
        for start in (0, 100)
    ]
    save(sessions, *pages[0])
    with count_statements() as counts:
        save(sessions, *pages[1])
    assert counts["SELECT"] < 12
    with count_statements() as counts:
        save(sessions, *pages[1])
    assert counts["SELECT"] < 12 and "INSERT" not in counts
    with sessions() as session:
        tables = (PostRow, Sighting, Hashtag, PostHashtag)
        counts_of_rows = [
            session.scalar(sa.select(sa.func.count()).select_from(table)) for table in tables
        ]
    # Each post has a hashtag of the search and thirty of its caption.
    assert counts_of_rows == [200, 400, 230, 200 * 31]


def test_more_posts_than_parameters_of_a_statement(sessions: sessionmaker[Session]) -> None:
    many = [post(n, photo(str(n)), title=f"#t{n}") for n in range(2 * QUERY_ROWS + 1)]
    save(sessions, *many, many[0])
    with sessions() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Sighting)) == len(many)


def test_duplicate_posts_of_a_page_are_merged(
    sessions: sessionmaker[Session],
) -> None:
    save(sessions, post(1, photo("a"), title="#a"), post(1, photo("a"), photo("b"), title="#b"))
    with sessions() as session:
        (row,) = session.scalars(sa.select(PostRow))
        assert [(sighting.position, sighting.url[-5:]) for sighting in row.sightings] == [
            (0, "a.jpg"),
            (1, "b.jpg"),
        ]
        assert set(session.scalars(sa.select(Hashtag.text))) == {"polo", "a", "b"}


def test_empty_hashtags_are_ignored(sessions: sessionmaker[Session]) -> None:
    save(sessions, post(1, attributes=("#", " ", "Синий")))
    with sessions() as session:
        assert set(session.scalars(sa.select(Hashtag.text))) == {"polo", "синий"}


def test_later_posts_reuse_the_outcome_of_an_image(sessions: sessionmaker[Session]) -> None:
    save(sessions, post(1, photo("a")))
    with sessions.begin() as session:
        save_outcomes(
            session,
            [(photo("a").url, RejectedImage("broken or no image", "f" * 64, 9))],
            FingerprintIndex(session),
        )
    save(sessions, post(2, photo("a")), site="lamoda")
    with sessions() as session:
        first, second = session.scalars(sa.select(Sighting).order_by(Sighting.id))
        assert (second.state, second.reason) == ("rejected", "broken or no image")
        assert first.image_id == second.image_id == session.scalar(sa.select(ImageRow.id))


def test_image_with_a_new_url_is_retried(sessions: sessionmaker[Session]) -> None:
    save(sessions, post(1, photo("old", key="k"), photo("still", key="s")))
    with sessions.begin() as session:
        save_outcomes(
            session, [(photo("old").url, RejectedImage("HTTP 403"))], FingerprintIndex(session)
        )
        save_outcomes(
            session, [(photo("still").url, RejectedImage("noai"))], FingerprintIndex(session)
        )
    save(sessions, post(1, photo("new", key="k"), photo("again", key="s")))
    with sessions() as session:
        sightings = session.execute(sa.select(Sighting.url, Sighting.state).order_by(Sighting.id))
        assert [(url[21:], state) for url, state in sightings] == [
            ("new.jpg", "pending"),
            ("still.jpg", "rejected"),
        ]
