"""Tests of the base spider: arguments, and the callbacks of images."""

import asyncio
from datetime import datetime
from typing import Any, cast

import pytest
from scrapy import Request
from scrapy.http import Response

from dataset.errors import BadInput
from scraper.crawl.searches import CrawlLimits, Search
from scraper.crawl.summary import SearchStats
from scraper.decoding.inspection import RejectedImage
from scraper.items import ImageItem
from scraper.persistence.claims import PendingImage
from scraper.spiders.lamoda import Spider as Lamoda
from scraper.spiders.twitter import Spider as Twitter
from scraper.spiders.wildberries import Spider as Wildberries

IMAGE = PendingImage("https://x.test/large", ("https://x.test/small",), "1", None)
SEARCH = Search(SearchStats("lamoda", "polo", "polo"))


def parse_image(status: int, index: int) -> list[Any]:
    spider, url = Lamoda(), (IMAGE.url, *IMAGE.fallbacks)[index]

    async def collect() -> list[Any]:
        results = spider.parse_image(Response(url, status, body=b"x"), IMAGE, SEARCH, index)
        return [result async for result in results]

    return asyncio.run(collect())


@pytest.mark.parametrize("status", [403, 404, 410])
def test_next_url_is_requested_if_there_is_no_image(status: int) -> None:
    (request,) = parse_image(status, 0)
    assert isinstance(request, Request)
    assert (request.url, request.cb_kwargs["index"]) == ("https://x.test/small", 1)
    (item,) = parse_image(status, 1)
    assert isinstance(item, ImageItem)
    assert item.outcome == RejectedImage(f"HTTP {status}")


def test_image_and_other_errors_end_the_search_for_a_url() -> None:
    (item,) = parse_image(200, 0)
    assert (item.body, item.outcome) == (b"x", None)
    (item,) = parse_image(500, 0)
    assert (item.body, item.outcome) == (b"", RejectedImage("HTTP 500"))


def test_arguments_of_scrapy_crawl() -> None:
    spider = Wildberries(tags="polo", max_images="7", since="2026-01-31", full="1", photo_size="hq")
    assert spider.limits == CrawlLimits(max_images=7, since=datetime(2026, 1, 31), full=True)
    assert spider.chosen["photo-size"] == "hq"
    # X has an option of the same name, which `crawl --set since=…` sets.
    assert Twitter(since="2026-01-31").limits.since == datetime(2026, 1, 31)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_images": "0"},
        {"max_pages": "many"},
        {"since": "yesterday"},
        {"full": "perhaps"},
        {"photo_size": "tiny"},
        {"max_image": "7"},
    ],
)
def test_invalid_arguments_are_rejected(arguments: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        Wildberries(**cast("dict[str, Any]", arguments))
