"""Tests of the shop's Pinterest API and web search: response fields and errors."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.formats import pinterest
from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse
from scraper.sample_shop.stock import Stock, drawn_plans, make_stock
from tests.support.response_shapes import assert_known

RECORDED = Path(__file__).parents[3] / "recorded" / "pinterest"
HEADERS = {"authorization": "Bearer pina", "x-pinterest-pws-handler": "www/search/[scope].js"}
POLO = "/v5/search/partner/pins?term=polo&country_code=GB&locale=en-GB"


@pytest.fixture(scope="module")
def stock() -> Stock:
    return make_stock(drawn_plans(60, 0), load_vocabulary(), duplicates=0, double_tagged=0)


def respond(stock: Stock, target: str, generation: str = "today") -> SiteResponse:
    response = pinterest.respond(stock, SiteRequest(target, HEADERS), generation)
    assert isinstance(response, SiteResponse)
    return response


def get(stock: Stock, target: str, generation: str = "today") -> Any:
    return json.loads(respond(stock, target, generation).body)


def web(options: dict[str, Any]) -> str:
    data = json.dumps({"options": {"scope": "pins", "page_size": 25} | options, "context": {}})
    return f"/resource/BaseSearchResource/get/?source_url=%2F&data={quote(data)}"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_bytes())


def test_api_responses_match_the_recorded_ones(stock: Stock) -> None:
    response, recorded_response = get(stock, POLO + "&limit=25"), recorded("polo.json")
    assert {pin["media"]["media_type"] for pin in response["items"]} == {
        *("image", "multiple_images", "video")
    }
    assert_known(sizes_merged(response), sizes_merged(recorded_response))
    assert_known(sizes_merged(recorded_response), sizes_merged(response))
    assert set(response["items"][0]["media"]["images"]) == {"150x150", "400x300", "600x", "1200x"}
    nothing = "/v5/search/partner/pins?term=kimono&country_code=GB"
    assert get(stock, nothing) == recorded("nothing.json")
    assert_known(get(stock, "/v5/user_account"), recorded("account.json"))
    assert_known(recorded("account.json"), get(stock, "/v5/user_account"))


def test_web_responses_match_the_recorded_ones(stock: Stock) -> None:
    response, recorded_response = get(stock, web({"query": "polo"})), recorded("web.json")
    assert_known(sizes_merged(response), sizes_merged(recorded_response))
    assert_known(sizes_merged(recorded_response), sizes_merged(response))
    images = response["resource_response"]["data"]["results"][0]["images"]
    assert set(images) == {"236x", "736x", "orig"}


def sizes_merged(value: Any) -> Any:
    """Return a value whose image sizes are lists, since the available sizes differ."""
    if isinstance(value, dict):
        merged = {name: sizes_merged(item) for name, item in value.items()}
        return list(merged.values()) if {"600x", "736x"} & set(merged) else merged
    return [sizes_merged(item) for item in value] if isinstance(value, list) else value


def test_pages_cover_every_pin_once(stock: Stock) -> None:
    polos = sum("polo" in item.labels for item in stock.items)
    ids, bookmark = list[str](), ""
    while bookmark is not None:
        page = get(stock, f"{POLO}&limit=25&bookmark={bookmark}")
        bookmark, ids = page["bookmark"], ids + [pin["id"] for pin in page["items"]]
    # All pins and a video.
    assert (len(ids), len(set(ids))) == (polos + 1, polos + 1)
    ids, end, bookmark = [], False, ""
    while not end:
        page = get(stock, web({"query": "polo", "bookmarks": [bookmark]}))
        ids += [pin["id"] for pin in page["resource_response"]["data"]["results"]]
        bookmark = page["resource_response"]["bookmark"]
        end = page["resource"]["options"]["bookmarks"] == ["-end-"]
    # All pins, a video and a story.
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
def test_error_responses(stock: Stock, target: str, generation: str, status: int) -> None:
    response = respond(stock, target, generation)
    assert response.status == status
    if target.startswith("/v5/"):
        assert_known(json.loads(response.body), recorded("unauthorized.json"))
    if status == 429:
        assert {name.lower(): v for name, v in response.headers.items()}["retry-after"] == "1380"


def test_requests_without_headers_are_refused(stock: Stock) -> None:
    for target, status in ((POLO, 401), (web({"query": "polo"}), 403)):
        response = pinterest.respond(stock, SiteRequest(target))
        assert isinstance(response, SiteResponse) and response.status == status


def test_robots_txt_depends_on_the_generation(stock: Stock) -> None:
    assert b"Disallow: /resource/" in respond(stock, "/robots.txt").body
    assert b"Disallow" not in respond(stock, "/robots.txt", "web").body


def test_images_are_served_in_the_sizes_of_the_site(stock: Stock) -> None:
    images = pinterest.web_pin(stock, 0)["images"] | pinterest.pin(stock, 1)["media"].get(
        "images", {}
    )
    for name, image in images.items():
        path = image["url"].removeprefix(pinterest.HOST)
        response = pinterest.respond(stock, SiteRequest(path))
        assert isinstance(response, PhotoRequest) and response.path in stock.by_path
        assert (response.box is None) == (name == "orig")
        missing = pinterest.respond(stock, SiteRequest(path), "no-originals")
        assert isinstance(missing, SiteResponse) == (name == "orig")
