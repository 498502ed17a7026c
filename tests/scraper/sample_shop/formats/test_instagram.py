"""Tests of the shop's Instagram API: response fields and errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from dataset.vocabulary import load_vocabulary
from scraper.sample_shop.formats import instagram
from scraper.sample_shop.http import PhotoRequest, SiteRequest, SiteResponse
from scraper.sample_shop.stock import Stock, drawn_plans, make_stock

RECORDED = Path(__file__).parents[3] / "recorded" / "instagram"
TOKEN = {"authorization": "Bearer EAAG"}


@pytest.fixture(scope="module")
def stock() -> Stock:
    return make_stock(drawn_plans(60, 0), load_vocabulary(), duplicates=0, double_tagged=0)


def get(stock: Stock, target: str, generation: str = "today") -> tuple[int, dict[str, Any]]:
    response = instagram.respond(stock, SiteRequest(target, TOKEN), generation)
    assert isinstance(response, SiteResponse)
    return response.status, json.loads(response.body)


def shape(value: Any) -> Any:
    """Return a value's keys and types without its values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return type(value).__name__


def test_responses_match_the_recorded_ones(stock: Stock) -> None:
    _, response = get(stock, "/v25.0/ig_hashtag_search?q=polo")
    recorded_id = json.loads((RECORDED / "hashtag.json").read_bytes())
    assert shape(response) == shape(recorded_id)
    number = response["data"][0]["id"]
    _, page = get(stock, f"/v25.0/{number}/recent_media?limit=50")
    recorded = json.loads((RECORDED / "polo.json").read_bytes())
    shapes, recorded_shapes = (
        {
            record["media_type"]: shape(record)
            for record in reversed(body["data"])
            if "children" in record or record.get("media_url")
        }
        for body in (page, recorded)
    )
    assert shapes == recorded_shapes
    _, page = get(stock, f"/v25.0/{number}/recent_media?limit=5")
    assert shape(page["paging"]) == shape(recorded["paging"])
    assert "access_token=EAAG" in page["paging"]["next"]


def test_recent_and_top_media_overlap_and_cover_all_posts(stock: Stock) -> None:
    number = instagram.hashtag_id("polo")
    lists = []
    for edge in ("recent_media", "top_media"):
        ids, after = [], "&after="
        while after:
            _, page = get(stock, f"/v25.0/{number}/{edge}?limit=7{after}")
            ids += [record["id"] for record in page["data"] if record["media_type"] != "VIDEO"]
            following = page.get("paging")
            after = f"&after={following['cursors']['after']}" if following else ""
        assert len(ids) == len(set(ids))
        lists.append(set(ids))
    assert len(lists[0] | lists[1]) == sum("polo" in item.labels for item in stock.items)
    assert lists[0] & lists[1]


def test_error_responses_have_the_codes_of_the_api(stock: Stock) -> None:
    target = "/v25.0/ig_hashtag_search?q=polo"
    without = instagram.respond(stock, SiteRequest(target), "today")
    assert isinstance(without, SiteResponse) and without.status == 400
    for generation, code in (("expired-token", 190), ("limited", 4), ("hashtag-limit", 18)):
        status, response = get(stock, target, generation)
        assert status in (400, 403) and response["error"]["code"] == code
    recorded = json.loads((RECORDED / "no_hashtag.json").read_bytes())["error"]
    status, response = get(stock, "/v25.0/ig_hashtag_search?q=nothing")
    assert status == 400
    for key in ("code", "error_subcode", "type"):
        assert response["error"][key] == recorded[key]


def test_expired_image_urls_are_renewed_by_requesting_the_post(stock: Stock) -> None:
    number = instagram.hashtag_id("polo")
    _, page = get(stock, f"/v25.0/{number}/recent_media", "expiring")
    post = next(record for record in page["data"] if record["media_type"] == "IMAGE")
    old = post["media_url"].removeprefix(instagram.HOST)
    expired = instagram.respond(stock, SiteRequest(old), "expiring")
    assert isinstance(expired, SiteResponse) and expired.status == 403
    _, post_alone = get(stock, f"/v25.0/{post['id']}?fields=id", "expiring")
    renewed = instagram.respond(
        stock, SiteRequest(post_alone["media_url"].removeprefix(instagram.HOST)), "expiring"
    )
    assert isinstance(renewed, PhotoRequest) and renewed.path in stock.by_path
