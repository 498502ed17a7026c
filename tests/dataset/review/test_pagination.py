"""Filters, pages and progress of the queues."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from dataset.catalogue.models import CropRow, ImageRow, TagVerdictRow
from dataset.review import pagination, server
from dataset.review.pagination import QueueFilters, count_progress
from dataset.review.queues import CONFLICTS, CROPS, DUPLICATES, MISTAKES, QUEUES, Key, ReviewQueue
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import CatalogueBuilder
from tests.support.review_server import ReviewClient, add_verdict, filled, message_of, value_of

WORDS = load_vocabulary()


@pytest.fixture
def builder(tmp_path: Path, backend: str) -> CatalogueBuilder:
    return filled(tmp_path)


def keys(builder: CatalogueBuilder, queue: ReviewQueue, **chosen: str) -> list[Key]:
    with builder.sessions() as session:
        return pagination.list_keys(session, queue, QueueFilters(**chosen), WORDS, 100)


def test_what_teaches_a_model_most_comes_first_if_asked_for(page: ReviewClient) -> None:
    with page.builder.sessions.begin() as session:
        for image, rank in ((1, 0), (2, 1), (4, 2)):
            verdict = session.get_one(TagVerdictRow, (image, "polo"))
            verdict.learning_rank = rank
    order, path = [], "/queue/mistakes?order=learning"
    html = page.get(path)
    for _ in range(4):
        order.append(value_of(html, "item"))
        html = page.get(f"{path}&after={order[-1]}")
    # A tag without a rank comes last.
    assert order == ["1/polo", "2/polo", "4/polo", "3/polo"]
    assert page.get(f"{path}&before=4/polo").count('value="2/polo"')
    shown = re.findall(
        r'name="item-\d" value="([^"]*)"', page.get("/queue/mistakes/list?order=learning")
    )
    assert shown == order


CASES: list[tuple[ReviewQueue, dict[str, str], list[int]]] = [
    (MISTAKES, {}, [3, 4, 2, 1]),
    (MISTAKES, {"verdict": "unsure"}, [1]),
    (MISTAKES, {"suggested": "jacket"}, [3]),
    (MISTAKES, {"label": "поло"}, [3, 4, 2, 1]),
    (MISTAKES, {"label": "dress"}, []),
    (MISTAKES, {"site": "lamoda"}, [3, 4, 2, 1]),
    (MISTAKES, {"site": "twitter"}, []),
    (MISTAKES, {"title": "рубашка"}, [3, 1]),
    (MISTAKES, {"title": "SHIRT"}, [4, 2]),
    (MISTAKES, {"title": "%"}, []),
    (CONFLICTS, {"label": "jeans"}, [5]),
    (CONFLICTS, {"label": "dress"}, []),
    (DUPLICATES, {"label": "dress", "title": "shirt"}, [6]),
    (DUPLICATES, {"label": "polo"}, []),
    (CROPS, {}, [8]),
    (CROPS, {"label": "polo"}, []),
]


def test_filters(builder: CatalogueBuilder) -> None:
    for queue, chosen, images in CASES:
        assert [key[0] for key in keys(builder, queue, **chosen)] == images, (queue.name, chosen)
        with builder.sessions() as session:
            assert count_progress(session, queue, QueueFilters(**chosen), WORDS) == (0, len(images))


def test_pages_are_consistent_forwards_and_backwards(builder: CatalogueBuilder) -> None:
    for image in range(1, 5):
        for cost in (0.6, 0.7):
            add_verdict(builder, image, label=f"other {cost}", cost=cost)
    all_keys = keys(builder, MISTAKES)
    assert len(all_keys) == 12
    with builder.sessions() as session:
        for position, key in enumerate(all_keys):
            after = pagination.list_keys(session, MISTAKES, QueueFilters(), WORDS, 3, key)
            before = pagination.list_keys(
                session, MISTAKES, QueueFilters(), WORDS, 3, key, backwards=True
            )
            assert after == all_keys[position + 1 : position + 4]
            assert before == all_keys[max(0, position - 3) : position][::-1]


def test_real_crops_come_before_photos_left_whole(builder: CatalogueBuilder) -> None:
    with builder.sessions.begin() as session:
        for image, outcome, score in ((1, "whole", 0.0), (2, "whole", 0.3), (3, "person", 0.2)):
            row = CropRow(image_id=image, model="m", outcome=outcome, reason="x", score=score)
            row.left, row.top, row.right, row.bottom = 0.0, 0.0, 90.0, 90.0
            session.add(row)
    all_keys = keys(builder, CROPS)
    assert [key[0] for key in all_keys] == [3, 8, 1, 2]
    with builder.sessions() as session:
        after = pagination.list_keys(session, CROPS, QueueFilters(), WORDS, 2, all_keys[1])
    assert after == all_keys[2:]


def test_images_that_are_not_stored_are_not_shown(builder: CatalogueBuilder) -> None:
    with builder.sessions.begin() as session:
        session.execute(sa.update(ImageRow).values(state="rejected"))
    assert [keys(builder, queue) for queue in QUEUES.values()] == [[]] * len(QUEUES)


def test_an_item_shows_posts_and_suggestions(page: ReviewClient) -> None:
    shown = page
    html = shown.get("/queue/mistakes")
    for part in (
        *("Is this <bdi>polo</bdi>?", "Change to jacket", "with 90%", '<img src="/thumb/2"'),
        *("Рубашка 3", "https://x.test/p/polo-2/", 'rel="noopener noreferrer"', "lamoda"),
    ):
        assert part in html, part
    crop = shown.get("/queue/crops")
    assert crop.count('<circle class="point" cx="60.0" cy="80.0"') == 17


def test_next_and_previous_show_open_items(page: ReviewClient) -> None:
    shown = page
    second = shown.get("/queue/mistakes?after=" + quote("3/polo"))
    assert value_of(second, "item") == "4/polo"
    assert value_of(shown.get("/queue/mistakes?before=4%2Fpolo"), "item") == "3/polo"
    first = shown.get("/queue/mistakes?before=3/polo")
    assert (value_of(first, "item"), message_of(first)) == ("3/polo", "This is the first item.")
    shown.decide(second, "exclude")
    assert value_of(shown.get("/queue/mistakes?after=3/polo"), "item") == "2/polo"
    end = shown.get("/queue/mistakes?after=1/polo")
    assert "3 items before this one are left" in end


def test_filters_are_kept_after_a_decision(page: ReviewClient) -> None:
    shown = page
    html = shown.get("/queue/mistakes?title=shirt&label=polo")
    assert value_of(html, "item") == "4/polo"
    answer = shown.post(
        "/queue/mistakes/decide",
        html,
        **{
            "item": "4/polo",
            "state": "open",
            "answer": "exclude",
            "title": "shirt",
            "label": "polo",
        },
    )
    assert value_of(answer.text, "item") == "2/polo"


def test_lists_have_pages(page: ReviewClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LIST_ROWS", 3)
    first = page.get("/queue/mistakes/list")
    assert first.count("/thumb/") == 3 and "More" in first
    assert page.get("/queue/mistakes/list?after=2/polo").count("/thumb/") == 1
    assert page.get("/queue/duplicates/list").count("/thumb/") == 2
    page.decide(page.get("/queue/mistakes"), "exclude")
    decided = page.get("/queue/mistakes/list?show=decided")
    assert decided.count("/thumb/") == 1 and "excluded" in decided


def test_slow_counts_are_cached_and_follow_decisions(
    page: ReviewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "SLOW_SECONDS", 0)
    monkeypatch.setattr(pagination, "CACHE_FACTOR", 1e6)
    html = page.get("/queue/mistakes")
    monkeypatch.setattr(pagination, "count_progress", lambda *_: pytest.fail("counted again"))
    html = page.decide(html, "exclude").text
    assert "1 decided, 3 left" in html
    # A second decision on the same item does not change the counts.
    again = page.get("/queue/mistakes?item=3/polo")
    assert "1 decided, 3 left" in page.decide(again, "label", chosen="polo").text
    monkeypatch.setattr(pagination, "count_progress", count_progress)
    assert "1 decided, 3 left" in page.undo(page.get("/queue/mistakes?item=3/polo")).text
