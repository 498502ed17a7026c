"""Queues narrowed and turned: filters, pages, and what is shown of a row."""

from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from dataset.catalogue.models import ImageRow
from dataset.review import pagination, server
from dataset.review.pagination import QueueFilters, count_progress
from dataset.review.queues import CONFLICTS, CROPS, DUPLICATES, MISTAKES, QUEUES, Key, ReviewQueue
from dataset.vocabulary import load_vocabulary
from tests.support.catalogue_data import Filling
from tests.support.review_server import Page, filled, judge, said, value_of

WORDS = load_vocabulary()


@pytest.fixture
def filling(tmp_path: Path, backend: str) -> Filling:
    return filled(tmp_path)


def keys(filling: Filling, queue: ReviewQueue, **chosen: str) -> list[Key]:
    with filling.sessions() as session:
        return pagination.list_keys(session, queue, QueueFilters(**chosen), WORDS, 100)


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


def test_filters(filling: Filling) -> None:
    for queue, chosen, images in CASES:
        assert [key[0] for key in keys(filling, queue, **chosen)] == images, (queue.name, chosen)
        with filling.sessions() as session:
            assert count_progress(session, queue, QueueFilters(**chosen), WORDS) == (0, len(images))


def test_pages_meet_forwards_and_backwards(filling: Filling) -> None:
    for image in range(1, 5):
        for cost in (0.6, 0.7):
            judge(filling, image, label=f"other {cost}", cost=cost)
    whole = keys(filling, MISTAKES)
    assert len(whole) == 12
    with filling.sessions() as session:
        for place, key in enumerate(whole):
            after = pagination.list_keys(session, MISTAKES, QueueFilters(), WORDS, 3, key)
            before = pagination.list_keys(
                session, MISTAKES, QueueFilters(), WORDS, 3, key, backwards=True
            )
            assert after == whole[place + 1 : place + 4]
            assert before == whole[max(0, place - 3) : place][::-1]


def test_what_is_not_stored_is_not_asked_about(filling: Filling) -> None:
    with filling.sessions.begin() as session:
        session.execute(sa.update(ImageRow).values(state="rejected"))
    assert [keys(filling, queue) for queue in QUEUES.values()] == [[], [], [], []]


def test_an_item_shows_what_is_known(page: Page) -> None:
    shown = page
    html = shown.get("/queue/mistakes")
    for part in (
        *("Is this <bdi>polo</bdi>?", "Take jacket", "at 90 %", '<img src="/thumb/2"'),
        *("Рубашка 3", "https://x.test/p/polo-2/", 'rel="noopener noreferrer"', "lamoda"),
    ):
        assert part in html, part
    crop = shown.get("/queue/crops")
    assert crop.count('<circle class="point" cx="60.0" cy="80.0"') == 17


def test_next_and_previous_walk_what_is_left(page: Page) -> None:
    shown = page
    second = shown.get("/queue/mistakes?after=" + quote("3/polo"))
    assert value_of(second, "item") == "4/polo"
    assert value_of(shown.get("/queue/mistakes?before=4%2Fpolo"), "item") == "3/polo"
    first = shown.get("/queue/mistakes?before=3/polo")
    assert (value_of(first, "item"), said(first)) == ("3/polo", "This is the first one.")
    shown.decide(second, "out")
    assert value_of(shown.get("/queue/mistakes?after=3/polo"), "item") == "2/polo"
    end = shown.get("/queue/mistakes?after=1/polo")
    assert "3 items before this are left" in end


def test_filters_go_on_with_a_decision(page: Page) -> None:
    shown = page
    html = shown.get("/queue/mistakes?title=shirt&label=polo")
    assert value_of(html, "item") == "4/polo"
    answer = shown.post(
        "/queue/mistakes/decide",
        html,
        **{"item": "4/polo", "state": "open", "answer": "out", "title": "shirt", "label": "polo"},
    )
    assert value_of(answer.text, "item") == "2/polo"


def test_many_at_once(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ROWS", 3)
    first = page.get("/queue/mistakes/list")
    assert first.count("/thumb/") == 3 and "More" in first
    assert page.get("/queue/mistakes/list?after=2/polo").count("/thumb/") == 1
    assert page.get("/queue/duplicates/list").count("/thumb/") == 2
    page.decide(page.get("/queue/mistakes"), "out")
    decided = page.get("/queue/mistakes/list?show=decided")
    assert decided.count("/thumb/") == 1 and "left out" in decided


def test_what_is_slow_to_count_is_told_as_it_was_and_follows_decisions(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagination, "QUICK_SECONDS", 0)
    monkeypatch.setattr(pagination, "TIMES", 1e6)
    html = page.get("/queue/mistakes")
    monkeypatch.setattr(pagination, "count_progress", lambda *_: pytest.fail("counted again"))
    html = page.decide(html, "out").text
    assert "1 decided, 3 left" in html
    # Deciding again what is decided changes no count.
    again = page.get("/queue/mistakes?item=3/polo")
    assert "1 decided, 3 left" in page.decide(again, "label", chosen="polo").text
    monkeypatch.setattr(pagination, "count_progress", count_progress)
    assert "1 decided, 3 left" in page.undo(page.get("/queue/mistakes?item=3/polo")).text
