"""Tests of the spider of Flickr: recorded pages, captures, licenses, depth, errors."""

import json
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import pytest
from scrapy import Request

import fashion_tagger
from scraper.crawl.searches import CrawlLimits
from scraper.errors import LayoutChanged, SiteRefused, TemporarilyEmpty
from scraper.spiders.base import Credit, Photo
from scraper.spiders.flickr import LICENSES, NO_PHOTO, Spider, read

POLO = Path(__file__).parents[2] / "recorded" / "flickr" / "polo.json"
CAPTURES = Path(fashion_tagger.__file__).parent.parent / "shared/sites/flickr"
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason=f"{CAPTURES} is not there")
REST = "https://api.flickr.com/services/rest/"
SEARCH = f"{REST}#words=polo&page=1&latest="
HOST = "https://live.staticflickr.com/65535"


def form(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode()))


def test_photos_have_license_author_and_page() -> None:
    page = read(POLO.read_bytes(), SEARCH)
    first, second = page.posts
    assert (first.title, first.author, first.posted) == (
        *("Polo & sky", "User 1"),
        datetime(2020, 2, 10, 7, 3, 55),
    )
    assert first.hashtags == ("polo", "poloshirt", "blue")
    source = "https://www.flickr.com/photos/00000001@N00/49514824541"
    by = Credit("by", "https://creativecommons.org/licenses/by/2.0/", "User 1", None, source)
    assert first.photos == (
        Photo(
            f"{HOST}/49514824541_35d1b4f8db_b.jpg",
            (f"{HOST}/49514824541_35d1b4f8db.jpg",),
            "49514824541",
            by,
        ),
    )
    assert second.photos[0].credit.license == "cc0" and second.title is None
    assert (page.total, page.skipped, page.is_by_date) == (1203, {NO_PHOTO: 1}, True)
    assert page.next_cursor == "#words=&page=2&latest="


@needs_captures
def test_captured_page() -> None:
    page = read((CAPTURES / "photos_search.capture.json").read_bytes(), SEARCH)
    assert [len(post.photos[0].fallbacks) for post in page.posts] == [1, 1, 1]
    assert page.posts[1].title == "Warsy (église) • 7433" and page.next_cursor is None
    assert {post.photos[0].credit.license for post in page.posts} == {"by-nc-sa"}


def test_search_has_all_tags_open_licenses_and_no_key_in_its_url() -> None:
    spider = Spider(credentials={"FLICKR_KEY": "0123456789abcdef"})
    assert spider.queries(["polo shirt", "poloshirt", "Polo"]) == [("polo shirt", "Polo")]
    request = spider.search_request("polo shirt or Polo", None)
    sent = form(request)
    assert request.method == "POST" and "0123456789abcdef" not in request.url
    assert (sent["tags"], sent["tag_mode"], sent["api_key"]) == (
        *("poloshirt,polo", "any"),
        "0123456789abcdef",
    )
    assert "0" not in sent["license"].split(",") and len(sent["license"].split(",")) == 16
    limits = CrawlLimits(licenses=("cc0", "by"), since=datetime(2026, 1, 1))
    sent = form(Spider(limits=limits).search_request("polo", "#words=&page=3&latest=1581318003"))
    assert set(sent["license"].split(",")) == {"4", "9", "11"}
    assert (sent["page"], sent["max_upload_date"]) == ("3", "1581318003")
    assert sent["min_upload_date"] == "1767225600"


def test_licenses_are_those_that_the_api_lists() -> None:
    spider = Spider()
    listed = [
        {"id": 0, "name": "All Rights Reserved", "url": ""},
        {"id": 4, "name": "CC BY 2.0", "url": "https://creativecommons.org/licenses/by/2.0/"},
        {"id": 17, "name": "New", "url": "https://creativecommons.org/licenses/by-sa/5.0/"},
        {"id": 18, "name": "Unknown", "url": ""},
    ]
    spider.set_up(json.dumps({"licenses": {"license": listed}}).encode())
    assert set(spider.licenses) == {"4", "17"}
    assert spider.licenses["17"] == ("by-sa", "https://creativecommons.org/licenses/by-sa/5.0/")
    body = POLO.read_bytes().replace(b'"license": "4"', b'"license": "17"')
    assert spider.read(body, SEARCH).posts[0].photos[0].credit.license == "by-sa"
    spider.set_up(b"<html>")
    assert spider.licenses == LICENSES


@needs_captures
def test_captured_licenses() -> None:
    tree = ElementTree.parse(CAPTURES / "licenses_getinfo_2025.capture.xml")
    spider, listed = Spider(), [dict(entry.attrib) for entry in tree.iter("license")]
    spider.set_up(json.dumps({"licenses": {"license": listed}}).encode())
    assert {number: code for number, (code, _) in spider.licenses.items()} == {
        number: code for number, (code, _) in LICENSES.items()
    }


def test_older_photos_than_a_query_shows_are_read_by_date() -> None:
    body = POLO.read_bytes().replace(b'"pages": 3', b'"pages": 20')
    pages = [read(body, f"{REST}#page={number}&latest=").next_cursor for number in (1, 7, 8)]
    assert pages == [
        "#words=&page=2&latest=",
        "#words=&page=8&latest=",
        "#words=&page=1&latest=1581318003",
    ]
    # All photos of a page have the same time.
    assert read(body, f"{REST}#page=8&latest=1581318003").next_cursor is None


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (b'{"stat":"fail","code":100,"message":"Invalid API Key"}', SiteRefused, "FLICKR_KEY"),
        (b'{"stat":"fail","code":105,"message":"down"}', TemporarilyEmpty, "not available"),
        (b'"stat":"fail","code":201,"message":"down"', TemporarilyEmpty, "not available"),
        (b'{"stat":"fail","code":3,"message":"x"}', SiteRefused, "reports an error"),
        (b'{"photos":{"total":"9","photo":[]},"stat":"ok"}', LayoutChanged, "neither photos"),
        (b'{"photos":{"photo":[{"id":"x"}]},"stat":"ok"}', LayoutChanged, "without an id"),
    ],
)
def test_errors_are_named(body: bytes, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read(body, SEARCH)
    assert read(b'{"photos":{"total":0,"photo":[]},"stat":"ok"}', SEARCH).total == 0
