"""Tests of claims on pending images and of quotas per tag."""

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
    """Save a page of the search for a tag.

    Args:
        sessions: The catalogue.
        tag: The searched tag.
        posts: Site id and image name of each post, separated by a colon.
    """
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
    """Claim images for a tag and return their names.

    Args:
        sessions: The catalogue.
        tag: The tag whose images are claimed.
        most: Quota of images per tag.
        tags: Tags that have the quota.
    """
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


def test_image_of_two_tags_counts_for_both_quotas(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:b", "3:c")
    found(sessions, "dress", "1:a", "2:b")
    assert claimed(sessions, "polo", 1, "polo", "dress") == ["a"]
    assert claimed(sessions, "dress", 1, "polo", "dress") == []
    assert claimed(sessions, "dress", 2, "polo", "dress") == ["b"]
    assert claimed(sessions, "polo", 2, "polo", "dress") == []


def test_images_of_a_full_tag_are_not_claimed_for_other_tags(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:b")
    found(sessions, "dress", "2:b", "3:c")
    assert claimed(sessions, "polo", 1, "polo", "dress") == ["a"]
    assert claimed(sessions, "dress", 1, "polo", "dress") == ["c"]
    with sessions() as session:
        full = [claims.room(session, SITE, [tag], 1) for tag in ("polo", "dress")]
        assert claims.are_wanted(session, SITE, ["dress"])
        assert not claims.are_wanted(session, SITE, ["dress"], full)


def test_image_fetched_for_another_post_is_assigned_within_the_quota(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:b")
    assert claimed(sessions, "polo", 9) == ["a", "b"]
    found(sessions, "dress", "3:a", "4:b", "5:c")
    # Another worker has claimed them.
    assert claimed(sessions, "dress", 1, "dress") == []
    fetched(sessions, "a", 1)
    fetched(sessions, "b", 2)
    assert (count(sessions, "polo"), count(sessions, "dress")) == (2, 0)
    assert claimed(sessions, "dress", 1, "dress") == []
    assert count(sessions, "dress") == 1
    assert claimed(sessions, "dress", 9, "dress") == ["c"]
    assert count(sessions, "dress") == 2


def test_image_rejected_meanwhile_is_not_fetched_again(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a", "2:gone")
    assert claimed(sessions, "polo", 9) == ["a", "gone"]
    found(sessions, "dress", "3:a", "4:gone")
    with sessions.begin() as session:
        settle(session, [(url("a"), Refused("broken or no image"))], FingerprintIndex(session))
        settle(session, [(url("gone"), Refused("HTTP 404"))], FingerprintIndex(session))
    assert claimed(sessions, "dress", 9) == ["gone"]
    with sessions.begin() as session:
        assert claims.retry_failed(session, SITE, ["dress"]) == 2


def test_result_of_a_worker_presumed_dead_is_stored(sessions: Sessions) -> None:
    found(sessions, "polo", "1:a")
    assert claimed(sessions, "polo", 9) == ["a"]
    with sessions.begin() as session:
        claims.give_back(session, [url("a")], ME)
    fetched(sessions, "a", 1)
    assert count(sessions, "polo") == 1


def test_no_tag_exceeds_max_images(tmp_path: Path) -> None:
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
