"""Who fetches which photo, and how many a tag may have."""

from pathlib import Path

import pytest

from dataset.catalogue.session import Sessions, open_catalogue
from dataset.duplicates.index import FingerprintIndex
from scraper import claims, frontier
from scraper.examining import Fetched, Refused, examine
from scraper.outcomes import settle
from scraper.sample_shop.server import ShopOptions, serve
from scraper.spiders.base import Page, Photo, Post
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

SITE, ME = "lamoda", 7


def url(name: str) -> str:
    return f"https://x.test/{name}.jpg"


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return open_catalogue(str(tmp_path / "c.sqlite"))


def found(sessions: Sessions, tag: str, *posts: str) -> None:
    """A page of the search for TAG: each of POSTS is a post's name and its photo's."""
    page = Page(
        tuple(
            Post(name, "https://x.test", (Photo(url(shown)),))
            for name, shown in (one.split(":") for one in posts)
        ),
        None,
    )
    with sessions.begin() as session:
        frontier.save_page(session, frontier.search_for(session, SITE, tag), page)


def claimed(sessions: Sessions, tag: str, most: int, *tags: str) -> list[str]:
    """What is claimed for TAG where each of TAGS may have MOST images."""
    with sessions.begin() as session:
        rooms = [claims.room(session, SITE, [one], most) for one in tags]
        taken = claims.claim(session, SITE, [tag], 9, ME, rooms)
        return [one.url.rpartition("/")[2][:-4] for one in taken]


def fetched(sessions: Sessions, name: str, seed: int) -> None:
    looked = examine(photo_bytes(seed, (80, 80)))
    assert isinstance(looked, Fetched)
    with sessions.begin() as session:
        settle(session, [(url(name), looked)], FingerprintIndex(session))


def count(sessions: Sessions, tag: str) -> int:
    with sessions() as session:
        return claims.stored(session, SITE, [tag], 99)


def test_a_photo_of_two_tags_takes_up_room_in_both(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:b", "3:c")
    found(sessions, "dress", "1:a", "2:b")
    assert claimed(sessions, "polo", 1, "polo", "dress") == ["a"]
    assert claimed(sessions, "dress", 1, "polo", "dress") == []
    assert claimed(sessions, "dress", 2, "polo", "dress") == ["b"]
    assert claimed(sessions, "polo", 2, "polo", "dress") == []


def test_a_tag_that_is_full_keeps_others_from_its_photos(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:b")
    found(sessions, "dress", "2:b", "3:c")
    assert claimed(sessions, "polo", 1, "polo", "dress") == ["a"]
    assert claimed(sessions, "dress", 1, "polo", "dress") == ["c"]
    with sessions() as session:
        full = [claims.room(session, SITE, [tag], 1) for tag in ("polo", "dress")]
        assert claims.are_wanted(session, SITE, ["dress"])
        assert not claims.are_wanted(session, SITE, ["dress"], full)


def test_what_came_for_another_post_is_settled_within_the_room(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:b")
    assert claimed(sessions, "polo", 9) == ["a", "b"]
    found(sessions, "dress", "3:a", "4:b", "5:c")
    # They are in another's hand.
    assert claimed(sessions, "dress", 1, "dress") == []
    fetched(sessions, "a", 1)
    fetched(sessions, "b", 2)
    assert (count(sessions, "polo"), count(sessions, "dress")) == (2, 0)
    assert claimed(sessions, "dress", 1, "dress") == []
    assert count(sessions, "dress") == 1
    assert claimed(sessions, "dress", 9, "dress") == ["c"]
    assert count(sessions, "dress") == 2


def test_what_was_refused_meanwhile_is_not_fetched_again(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:gone")
    assert claimed(sessions, "polo", 9) == ["a", "gone"]
    found(sessions, "dress", "3:a", "4:gone")
    with sessions.begin() as session:
        settle(session, [(url("a"), Refused("broken or no image"))], FingerprintIndex(session))
        settle(session, [(url("gone"), Refused("HTTP 404"))], FingerprintIndex(session))
    assert claimed(sessions, "dress", 9) == ["gone"]
    with sessions.begin() as session:
        assert claims.retry_failed(session, SITE, ["dress"]) == 2


def test_a_photo_of_one_that_was_taken_for_dead_is_kept(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a")
    assert claimed(sessions, "polo", 9) == ["a"]
    with sessions.begin() as session:
        claims.give_back(session, [url("a")], ME)
    fetched(sessions, "a", 1)
    assert count(sessions, "polo") == 1


def test_no_tag_comes_to_more_images_than_asked_for(tmp_path: Path) -> None:
    photos = class_folder(tmp_path / "photos", "кимоно", 14, 0, (90, 120))
    class_folder(tmp_path / "photos", "юката", 14, 50, (90, 120))
    with serve(ShopOptions(photos=photos, duplicates=0, double_tagged=0.5)) as shop:
        for most in (3, 7):
            status, said = crawl(
                shop, tmp_path, "--tags", "кимоно,юката", "--max-images", str(most)
            )
            assert status == 0, said
            had = rows(
                tmp_path,
                "SELECT count(DISTINCT image_id) FROM sightings s JOIN post_hashtags p"
                " ON p.post_id = s.post_id WHERE source = 'search' AND image_id IS NOT NULL"
                " GROUP BY hashtag_id",
            )
            assert had == [(most,), (most,)]
