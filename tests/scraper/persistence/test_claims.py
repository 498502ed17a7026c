"""Tests of claims on pending images and of quotas per tag."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from dataset.catalogue import workers
from dataset.catalogue.models import Worker, now
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.duplicates.index import FingerprintIndex
from dataset.maintenance.takedown import TakedownList
from scraper.crawl.searches import CrawlLimits, Search, SearchAction, SearchPlanner
from scraper.crawl.summary import SearchStats
from scraper.decoding.inspection import AcceptedImage, RejectedImage, inspect_image
from scraper.persistence import claims, frontier
from scraper.persistence.writer import save_outcomes
from scraper.sample_shop.server import ShopOptions, serve
from scraper.spiders.base import Page, Photo, Post
from scraper.spiders.lamoda import Spider as Lamoda
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import class_folder, crawl

SITE, WORKER_ID = "lamoda", 7


def url(name: str) -> str:
    return f"https://x.test/{name}.jpg"


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return open_catalogue(str(tmp_path / "c.sqlite"))


def save_page(sessions: Sessions, tag: str, *posts: str) -> None:
    """Save a page of the search for a tag.

    Args:
        sessions: The catalogue.
        tag: The searched tag.
        posts: Site id and image name of each post, separated by a colon.
    """
    page = Page(
        tuple(
            Post(name, "https://x.test", (Photo(url(image)),))
            for name, image in (pair.split(":") for pair in posts)
        ),
        None,
    )
    with sessions.begin() as session:
        frontier.save_page(session, frontier.get_or_create_search(session, SITE, tag), page)


def claim_images(sessions: Sessions, tag: str, quota: int, *tags: str) -> list[str]:
    """Claim images for a tag and return their names.

    Args:
        sessions: The catalogue.
        tag: The tag whose images are claimed.
        quota: Maximum number of images per tag.
        tags: Tags that have the quota.
    """
    with sessions.begin() as session:
        quotas = [claims.remaining_quota(session, SITE, [searched], quota) for searched in tags]
        images = claims.claim_images(session, SITE, [tag], 9, WORKER_ID, quotas)
        return [image.url.rpartition("/")[2][:-4] for image in images]


def store_image(sessions: Sessions, name: str, seed: int) -> None:
    outcome = inspect_image(photo_bytes(seed, (80, 80)))
    assert isinstance(outcome, AcceptedImage)
    with sessions.begin() as session:
        save_outcomes(session, [(url(name), outcome)], FingerprintIndex(session))


def count_stored(sessions: Sessions, tag: str) -> int:
    with sessions() as session:
        return claims.count_stored(session, SITE, [tag], 99)


def test_image_of_two_tags_counts_for_both_quotas(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a", "2:b", "3:c")
    save_page(sessions, "dress", "1:a", "2:b")
    assert claim_images(sessions, "polo", 1, "polo", "dress") == ["a"]
    assert claim_images(sessions, "dress", 1, "polo", "dress") == []
    assert claim_images(sessions, "dress", 2, "polo", "dress") == ["b"]
    assert claim_images(sessions, "polo", 2, "polo", "dress") == []


def test_images_of_a_full_tag_are_not_claimed_for_other_tags(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a", "2:b")
    save_page(sessions, "dress", "2:b", "3:c")
    assert claim_images(sessions, "polo", 1, "polo", "dress") == ["a"]
    assert claim_images(sessions, "dress", 1, "polo", "dress") == ["c"]
    with sessions() as session:
        quotas = [claims.remaining_quota(session, SITE, [tag], 1) for tag in ("polo", "dress")]
        assert claims.has_claimable(session, SITE, ["dress"])
        assert not claims.has_claimable(session, SITE, ["dress"], quotas)


def test_image_fetched_for_another_post_is_assigned_within_the_quota(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a", "2:b")
    assert claim_images(sessions, "polo", 9) == ["a", "b"]
    save_page(sessions, "dress", "3:a", "4:b", "5:c")
    # Another worker has claimed them.
    assert claim_images(sessions, "dress", 1, "dress") == []
    store_image(sessions, "a", 1)
    store_image(sessions, "b", 2)
    assert (count_stored(sessions, "polo"), count_stored(sessions, "dress")) == (2, 0)
    assert claim_images(sessions, "dress", 1, "dress") == []
    assert count_stored(sessions, "dress") == 1
    assert claim_images(sessions, "dress", 9, "dress") == ["c"]
    assert count_stored(sessions, "dress") == 2


def test_image_rejected_meanwhile_is_not_fetched_again(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a", "2:gone")
    assert claim_images(sessions, "polo", 9) == ["a", "gone"]
    save_page(sessions, "dress", "3:a", "4:gone")
    with sessions.begin() as session:
        save_outcomes(
            session, [(url("a"), RejectedImage("broken or no image"))], FingerprintIndex(session)
        )
        save_outcomes(
            session, [(url("gone"), RejectedImage("HTTP 404"))], FingerprintIndex(session)
        )
    assert claim_images(sessions, "dress", 9) == ["gone"]
    with sessions.begin() as session:
        assert claims.retry_failed(session, SITE, ["dress"]) == 2


def test_result_of_a_worker_presumed_dead_is_stored(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a")
    assert claim_images(sessions, "polo", 9) == ["a"]
    with sessions.begin() as session:
        claims.release_images(session, [url("a")], WORKER_ID)
    store_image(sessions, "a", 1)
    assert count_stored(sessions, "polo") == 1


def test_no_tag_exceeds_max_images(tmp_path: Path) -> None:
    photos = class_folder(tmp_path / "photos", "кимоно", 14, 0, (90, 120))
    class_folder(tmp_path / "photos", "юката", 14, 50, (90, 120))
    with serve(ShopOptions(photos=photos, duplicates=0, double_tagged=0.5)) as shop:
        for limit in (3, 7):
            status, output = crawl(
                shop, tmp_path, "--tags", "кимоно,юката", "--max-images", str(limit)
            )
            assert status == 0, output
            counts = rows(
                tmp_path,
                "SELECT count(DISTINCT image_id) FROM sightings s JOIN post_hashtags p"
                " ON p.post_id = s.post_id WHERE source = 'search' AND image_id IS NOT NULL"
                " GROUP BY hashtag_id",
            )
            assert counts == [(limit,), (limit,)]


def test_stored_and_claimed_images_of_posts_of_other_tags_are_counted(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a", "2:b", "3:c")
    save_page(sessions, "dress", "3:c")
    store_image(sessions, "a", 1)
    with sessions() as session:
        ids = ["1", "2", "3", "4"]
        assert claims.images_by_post(session, SITE, ids, ["dress"]) == {"1": 1}
    assert claim_images(sessions, "polo", 9) == ["b", "c"]
    with sessions() as session:
        assert claims.images_by_post(session, SITE, ids, ["dress"]) == {"1": 1, "2": 1}
        assert claims.images_by_post(session, SITE, ids, ["polo"]) == {}


def test_posts_of_another_tag_are_found_only_within_the_limit(sessions: Sessions) -> None:
    save_page(sessions, "polo", "1:a", "2:b", "3:c")
    for number, name in enumerate("abc", start=1):
        store_image(sessions, name, number)
    tags: dict[str, tuple[str, ...]] = {"polo": ("polo",), "dress": ("dress",)}
    with sessions.begin() as session:
        worker = workers.register(session)
        planner = SearchPlanner(Lamoda(), worker, now(), tags, CrawlLimits(max_images=2))
        search = Search(SearchStats(SITE, "dress", "dress"))
        assert planner.next_action(session, search) == (SearchAction.PAGE, None)
        posts = tuple(Post(name, "https://x.test", (Photo(url(name)),)) for name in "123d")
        page = Page(posts, "page=2")
        saved = planner.save_page(session, search, None, page, TakedownList())
        assert saved is not None and [post.site_id for post in saved.posts] == ["1", "2", "d"]
        # The page is requested again by a run with a higher limit.
        row = frontier.get_or_create_search(session, SITE, "dress")
        assert (row.state, row.cursor) == ("open", None)
        assert planner.next_action(session, search) == (SearchAction.LIMIT, None)
    assert count_stored(sessions, "dress") == 2


@pytest.mark.parametrize("has_pages", [False, True])
def test_claims_of_a_worker_that_was_removed_as_dead_are_released_when_it_dies(
    sessions: Sessions, has_pages: bool
) -> None:
    if not has_pages:
        save_page(sessions, "polo", "1:a")
    tags: dict[str, tuple[str, ...]] = {"polo": ("polo",)}
    search = Search(SearchStats(SITE, "polo", "polo"))
    with sessions.begin() as session:
        slept, other = workers.register(session), workers.register(session)
        # The other process takes it for dead, because its machine slept.
        workers.unregister(session, slept, is_complete=True)
    planners = [
        SearchPlanner(Lamoda(), worker, now(), tags, CrawlLimits()) for worker in (slept, other)
    ]
    with sessions.begin() as session:
        if has_pages:
            assert planners[0].next_action(session, search) == (SearchAction.PAGE, None)
        else:
            assert [image.url for image in planners[0].claim(session, search)] == [url("a")]
    with sessions.begin() as session:
        assert planners[1].next_action(session, search) == (SearchAction.WAIT, None)
        session.execute(sa.update(Worker).where(Worker.id == slept).values(heartbeat=workers.NEVER))
    with sessions.begin() as session:
        action, _ = planners[1].next_action(session, search)
        assert action is (SearchAction.PAGE if has_pages else SearchAction.IMAGES)
