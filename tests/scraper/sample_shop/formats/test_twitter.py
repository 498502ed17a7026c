"""Tests of the shop's X API: response fields, limits and errors."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.formats import twitter
from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse
from scraper.sample_shop.stock import Stock, drawn_plans, make_stock
from tests.support.response_shapes import assert_known

RECORDED = Path(__file__).parents[3] / "recorded" / "twitter"
POLO = "query=" + quote("(#polo OR #поло) has:images -is:retweet")


@pytest.fixture(scope="module")
def stock() -> Stock:
    return make_stock(drawn_plans(60, 0), load_vocabulary(), duplicates=0, double_tagged=0)


def get(stock: Stock, target: str, generation: str = "today") -> tuple[int, dict[str, Any]]:
    response = twitter.respond(
        stock, SiteRequest(target, {"authorization": "Bearer AAAA"}), generation
    )
    assert isinstance(response, SiteResponse)
    return response.status, json.loads(response.body)


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_bytes())


def test_search_responses_match_the_recorded_one(stock: Stock) -> None:
    _, page = get(stock, f"/2/tweets/search/recent?{POLO}&max_results=10")
    recorded_page = recorded("polo.json")
    assert_known(page, recorded_page)
    # Long texts and image descriptions are optional.
    del recorded_page["data"][1]["note_tweet"], recorded_page["includes"]["media"][0]["alt_text"]
    assert_known(recorded_page, page)
    types = {item["media_key"]: item["type"] for item in page["includes"]["media"]}
    assert {types[key] for item in page["data"] for key in item["attachments"]["media_keys"]} == {
        "photo",
        "video",
    }


def test_other_responses_match_the_recorded_ones(stock: Stock) -> None:
    none = quote("(#кимоно) has:images")
    assert get(stock, f"/2/tweets/search/recent?query={none}") == (
        200,
        recorded("nothing.json"),
    )
    _, count = get(stock, f"/2/tweets/counts/recent?{POLO}")
    _, usage = get(stock, "/2/usage/tweets")
    status, old = get(stock, f"/2/tweets/search/recent?{POLO}&since_id=7", "old-since")
    assert status == 400
    for response, name in ((count, "count"), (usage, "usage"), (old, "old_since")):
        assert_known(response, recorded(f"{name}.json"))
        assert_known(recorded(f"{name}.json"), response)
    _, partial = get(stock, f"/2/tweets/search/recent?{POLO}", "partial")
    assert "users" not in partial["includes"]
    assert_known(partial["errors"], recorded("partial.json")["errors"])
    assert_known(recorded("partial.json")["errors"], partial["errors"])


def test_pages_cover_every_post_once(stock: Stock) -> None:
    ids, token, pages = list[str](), "", 0
    while pages < 20:
        _, page = get(stock, f"/2/tweets/search/recent?{POLO}&max_results=25{token}")
        pages, ids = pages + 1, ids + [item["id"] for item in page["data"]]
        if "next_token" not in page["meta"]:
            break
        token = f"&next_token={page['meta']['next_token']}"
    polos = sum("polo" in item.labels for item in stock.items)
    # All posts, a video and a sensitive post.
    assert (pages, len(ids), len(set(ids))) == (3, polos + 2, polos + 2)
    _, count = get(stock, f"/2/tweets/counts/recent?{POLO}")
    assert count["meta"]["total_tweet_count"] == polos
    _, half = get(stock, f"/2/tweets/counts/all?{POLO}")
    token = half["meta"]["next_token"]
    _, rest = get(stock, f"/2/tweets/counts/all?{POLO}&next_token={token}")
    assert sum(item["meta"]["total_tweet_count"] for item in (half, rest)) == polos
    newest = max(map(int, ids))
    assert get(stock, f"/2/tweets/search/recent?{POLO}&since_id={newest}")[1] == {
        "meta": {"result_count": 0}
    }


@pytest.mark.parametrize(
    "query",
    [
        "query=" + "a" * 513,
        "max_results=10",
        f"{POLO}&max_results=9",
        f"{POLO}&max_results=101",
        f"{POLO}&next_token=b1",
        f"{POLO}&since_id=1&start_time=2024-01-31T00:00:00Z",
    ],
)
def test_invalid_parameters_are_rejected(stock: Stock, query: str) -> None:
    assert get(stock, f"/2/tweets/search/recent?{query}")[0] == 400


@pytest.mark.parametrize(
    ("generation", "status"),
    [
        ("wrong-token", 401),
        ("no-credits", 402),
        ("not-enrolled", 403),
        ("usage-capped", 429),
        ("limited", 429),
        ("overloaded", 503),
    ],
)
def test_error_responses_are_problem_documents(stock: Stock, generation: str, status: int) -> None:
    actual, problem = get(stock, f"/2/tweets/search/recent?{POLO}", generation)
    assert (actual, problem["status"]) == (status, status)
    assert_known(problem, recorded("unauthorized.json"))
    assert_known(recorded("unauthorized.json"), problem)
    response = twitter.respond(stock, SiteRequest("/2/usage/tweets"))
    assert isinstance(response, SiteResponse) and response.status == 401
    assert response.headers["x-rate-limit-reset"].isdecimal()


def test_images_are_served_in_the_sizes_of_x(stock: Stock) -> None:
    _, page = get(stock, f"/2/tweets/search/recent?{POLO}")
    path = page["includes"]["media"][0]["url"].removeprefix(twitter.HOST)
    boxes = {"orig": None, "large": (2048, 2048), "small": (680, 680)}
    for name, box in boxes.items():
        response = twitter.respond(stock, SiteRequest(f"{path}?name={name}"))
        assert isinstance(response, PhotoRequest)
        assert response.path in stock.by_path and response.box == box
    missing = twitter.respond(stock, SiteRequest(f"{path}?name=orig"), "no-orig")
    assert isinstance(missing, SiteResponse) and missing.status == 404
