"""The sample shop speaks Pinterest's formats: the fields of the recorded answers, and refusals."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dataset.labels import load_vocabulary
from scraper.sample_shop.formats import pinterest
from scraper.sample_shop.replies import Asked, PhotoWanted, Reply
from scraper.sample_shop.stock import Stock, drawn_plans, make_stock
from tests.scraper.sample_shop.formats.shapes import shape

RECORDED = Path(__file__).parents[3] / "recorded" / "pinterest"
HEADERS = {"authorization": "Bearer pina", "x-pinterest-pws-handler": "www/search/[scope].js"}
POLO = "/v5/search/partner/pins?term=polo&country_code=GB&locale=en-GB"


@pytest.fixture(scope="module")
def stock() -> Stock:
    return make_stock(drawn_plans(60, 0), load_vocabulary(), duplicates=0, double_tagged=0)


def reply(stock: Stock, target: str, generation: str = "today") -> Reply:
    found = pinterest.answer(stock, Asked(target, HEADERS), generation)
    assert isinstance(found, Reply)
    return found


def ask(stock: Stock, target: str, generation: str = "today") -> Any:
    return json.loads(reply(stock, target, generation).body)


def web(options: dict[str, Any]) -> str:
    data = json.dumps({"options": {"scope": "pins", "page_size": 25} | options, "context": {}})
    return f"/resource/BaseSearchResource/get/?source_url=%2F&data={quote(data)}"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_bytes())


def by_kind(pins: list[dict[str, Any]]) -> dict[str, Any]:
    """The shape of the first pin of each media type, whose sizes may differ."""
    shapes = {}
    for pin in reversed(pins):
        kind = pin["media"]["media_type"]
        items = pin["media"].get("items")
        for one in items or [pin["media"]]:
            one["images"] = shape(next(iter(one["images"].values())))
        shapes[kind] = shape(pin | {"link": "", "title": "", "alt_text": ""})
    return shapes


def test_pins_have_the_fields_of_the_recorded_ones(stock: Stock) -> None:
    ours, theirs = ask(stock, POLO + "&limit=25"), recorded("polo.json")
    assert set(ours) == set(theirs) and isinstance(ours["bookmark"], str)
    assert set(ours["items"][0]["media"]["images"]) <= {"150x150", "400x300", "600x", "1200x"}
    assert by_kind(ours["items"]) == by_kind(theirs["items"])
    nothing = "/v5/search/partner/pins?term=kimono&country_code=GB"
    assert ask(stock, nothing) == recorded("nothing.json")
    assert shape(ask(stock, "/v5/user_account")) == shape(recorded("account.json"))


def test_web_pins_have_the_fields_of_the_recorded_ones(stock: Stock) -> None:
    ours, theirs = ask(stock, web({"query": "polo"})), recorded("web.json")
    assert shape(ours["resource"]) == shape(theirs["resource"])
    response = ours["resource_response"]
    assert set(response) == set(theirs["resource_response"])
    results, known = (one["resource_response"]["data"]["results"] for one in (ours, theirs))
    single = next(one for one in results if one["videos"] is None and not one["carousel_data"])
    assert shape(single) == shape(known[0])
    album, known_album = (
        results_with(results, "carousel_data"),
        results_with(known, "carousel_data"),
    )
    album["images"] = known_album["images"] = None
    for one in (album, known_album):
        for slot in one["carousel_data"]["carousel_slots"]:
            slot["images"] = shape(slot["images"]["736x"])
    assert shape(album) == shape(known_album)
    film, known_film = results_with(results, "videos"), results_with(known, "videos")
    assert shape(film["videos"]) == shape(known_film["videos"])
    assert shape(results[-1]) == shape(known[-1])


def results_with(results: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in results if one.get(name))


def test_pages_end_and_together_hold_every_pin_once(stock: Stock) -> None:
    polos = sum("polo" in item.labels for item in stock.items)
    ids, bookmark = list[str](), ""
    while bookmark is not None:
        page = ask(stock, f"{POLO}&limit=25&bookmark={bookmark}")
        bookmark, ids = page["bookmark"], ids + [one["id"] for one in page["items"]]
    # And a video.
    assert (len(ids), len(set(ids))) == (polos + 1, polos + 1)
    ids, end, bookmark = [], False, ""
    while not end:
        page = ask(stock, web({"query": "polo", "bookmarks": [bookmark]}))
        ids += [one["id"] for one in page["resource_response"]["data"]["results"]]
        bookmark = page["resource_response"]["bookmark"]
        end = page["resource"]["options"]["bookmarks"] == ["-end-"]
    # A video, and a story.
    assert (len(ids), len(set(ids)), bookmark) == (polos + 2, polos + 2, "-end-")


@pytest.mark.parametrize(
    ("target", "generation", "status"),
    [
        (POLO, "wrong-token", 401),
        (POLO, "not-approved", 403),
        (POLO, "limited", 429),
        (POLO + "&limit=51", "today", 400),
        ("/v5/search/partner/pins?term=polo", "today", 400),
        ("/v5/boards", "today", 404),
        (web({}), "web", 400),
        (web({"query": "polo"}), "limited", 429),
    ],
)
def test_refusals(stock: Stock, target: str, generation: str, status: int) -> None:
    found = reply(stock, target, generation)
    assert found.status == status
    if target.startswith("/v5/"):
        assert shape(json.loads(found.body)) == shape(recorded("unauthorized.json"))
    if status == 429:
        assert {name.lower(): v for name, v in found.headers.items()}["retry-after"] == "1380"


def test_what_is_asked_without_what_it_needs(stock: Stock) -> None:
    for target, status in ((POLO, 401), (web({"query": "polo"}), 403)):
        found = pinterest.answer(stock, Asked(target))
        assert isinstance(found, Reply) and found.status == status


def test_robots_txt_forbids_the_web_search_or_allows_it(stock: Stock) -> None:
    assert b"Disallow: /resource/" in reply(stock, "/robots.txt").body
    assert b"Disallow" not in reply(stock, "/robots.txt", "web").body


def test_photos_come_in_the_sizes_of_the_site(stock: Stock) -> None:
    images = pinterest.web_pin(stock, 0)["images"] | pinterest.pin(stock, 1)["media"].get(
        "images", {}
    )
    for name, one in images.items():
        path = one["url"].removeprefix(pinterest.HOST)
        found = pinterest.answer(stock, Asked(path))
        assert isinstance(found, PhotoWanted) and found.path in stock.by_path
        assert (found.box is None) == (name == "orig")
        gone = pinterest.answer(stock, Asked(path), "no-originals")
        assert isinstance(gone, Reply) == (name == "orig")
