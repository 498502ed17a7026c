"""Tests of the spider of Openverse: recorded pages, captures, limits, refusals."""

import json
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from scrapy.http import Response

import fashion_tagger
from dataset.errors import BadInput
from scraper.crawl.searches import CrawlLimits
from scraper.errors import LayoutChanged, SiteRefused
from scraper.parsing.fields import license_code, license_url
from scraper.spiders.base import Credit, Page
from scraper.spiders.openverse import MATURE, NO_PHOTO, Spider, read
from tests.support.http_responses import http_response

POLO = Path(__file__).parents[2] / "recorded" / "openverse" / "polo.json"
CAPTURES = Path(fashion_tagger.__file__).parent.parent / "shared/sites/openverse"
SEARCH = "https://api.openverse.org/v1/images/?q=%22polo%22&page=1&page_size=20"


def test_photos_have_license_creator_and_attribution() -> None:
    page = read(POLO.read_bytes(), SEARCH)
    post, second = page.posts
    assert second.photos[0].credit.license == "cc0" and second.author is None
    assert (post.title, post.author, post.hashtags) == ("Polo shirt", "User One", ("polo",))
    (photo,) = post.photos
    assert (post.url, photo.url) == (
        "https://www.flickr.com/photos/1/2",
        "https://live.staticflickr.com/65535/2_b.jpg",
    )
    assert photo.credit == Credit(
        "by-sa",
        "https://creativecommons.org/licenses/by-sa/2.0/",
        "User One",
        '"Polo shirt" by User One is licensed under CC BY-SA 2.0.',
        "https://www.flickr.com/photos/1/2",
    )
    # 240 is the limit of results, and no count.
    assert (page.next_cursor, page.total, page.skipped) == ("2", None, {NO_PHOTO: 1})


@pytest.mark.skipif(not CAPTURES.exists(), reason=f"{CAPTURES} is not there")
def test_captured_results() -> None:
    page = read((CAPTURES / "images_search.documented.json").read_bytes(), SEARCH)
    (post,) = page.posts
    assert post.hashtags == ("tree", "bark") and page.total == 1 and page.next_cursor is None
    assert post.photos[0].credit.license == "cc0"
    item = json.loads((CAPTURES / "images_item_2026.capture.json").read_bytes())
    body = json.dumps({"result_count": 1, "page_count": 1, "results": [item]}).encode()
    (post,) = read(body, SEARCH).posts
    credit = post.photos[0].credit
    assert (credit.license, credit.author) == ("by-sa", "UserOne")
    assert credit.source_page == "https://commons.wikimedia.org/w/index.php?curid=73850232"
    errors = json.loads((CAPTURES / "errors.documented.json").read_bytes())
    for error in errors:
        body = json.dumps(error["body"]).encode()
        response = http_response(error["status"], body)
        if "depth" in error["why"] or "above 240" in error["why"]:
            assert Spider().is_readable(response) and read(body, SEARCH) == Page(())
        else:
            assert error["body"]["detail"][:30] in (Spider().explain_refusal(response) or "")


def test_paging_ends_at_the_limit_of_results() -> None:
    body = POLO.read_bytes()
    cursors = [read(body, f"{SEARCH}&page={page}").next_cursor for page in (1, 11, 12)]
    assert cursors == ["2", "12", None]
    assert read(b'{"result_count": 0, "results": []}', SEARCH) == Page((), total=0)
    with pytest.raises(LayoutChanged):
        read(b'{"result_count": 9, "results": []}', SEARCH)


def test_mature_results_are_skipped() -> None:
    body = POLO.read_bytes().replace(b'"mature": false, "height"', b'"mature": true, "height"')
    assert read(body, SEARCH).skipped == {MATURE: 1, NO_PHOTO: 1}


def parameters(spider: Spider, query: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(spider.search_request(query, None).url).query))


def test_search_has_the_phrase_and_the_chosen_licenses() -> None:
    spider = Spider(limits=CrawlLimits(licenses=("cc0", "by", "unknown")))
    found = parameters(spider, "polo shirt")
    assert (found["q"], found["license"], found["page_size"]) == ('"polo shirt"', "cc0,by", "20")
    assert len(parameters(spider, "x" * 300)["q"]) == 200
    found = parameters(Spider(options={"search": "tags", "source": "flickr"}), "polo")
    assert (found["tags"], found["source"], "q" in found) == ("polo", "flickr", False)


def test_limits_and_refusals_are_named() -> None:
    headers = {
        "X-RateLimit-Available-anon_burst": "17",
        "X-RateLimit-Available-anon_sustained": "180",
    }
    left = Spider().describe_remaining(http_response(headers=headers))
    assert left == "17 requests are left for this minute, 180 for this day"
    assert 60 / Spider.request_interval <= 20
    text = Spider().explain_refusal(http_response(429, headers={"Retry-After": "60"}))
    assert text is not None and "OPENVERSE_CLIENT_ID" in text and "60 seconds" in text
    spider = Spider(credentials={"OPENVERSE_TOKEN": "abcdefgh"})
    request = spider.search_request("polo", None)
    assert request.headers["Authorization"] == b"Bearer abcdefgh"
    text = spider.explain_refusal(Response(SEARCH, 401, body=b'{"detail": "expired"}'))
    assert text is not None and "request a new OPENVERSE_TOKEN" in text


KEY = {"OPENVERSE_CLIENT_ID": "pm8GMaIX", "OPENVERSE_CLIENT_SECRET": "YhVjvIBc7T4J"}


def test_key_gives_a_token_larger_pages_and_a_higher_rate() -> None:
    spider = Spider(credentials=KEY)
    spider.check_arguments()
    request = spider.setup_request()
    assert request is not None and (request.method, request.url) == (
        "POST",
        "https://api.openverse.org/v1/auth_tokens/token/",
    )
    assert request.headers["Content-Type"] == b"application/x-www-form-urlencoded"
    assert dict(parse_qsl(request.body.decode())) == {
        "grant_type": "client_credentials",
        "client_id": "pm8GMaIX",
        "client_secret": "YhVjvIBc7T4J",
    }
    with pytest.raises(SiteRefused, match="check both"):
        spider.search_request("polo", None)
    spider.set_up(b'{"access_token": "DLBYIcfnKfolaXKcmMC8", "expires_in": 36000}')
    search = spider.search_request("polo", None)
    assert search.headers["Authorization"] == b"Bearer DLBYIcfnKfolaXKcmMC8"
    assert parameters(spider, "polo")["page_size"] == "240"
    assert 60 / spider.request_interval == 100
    # More than 240 results if the key was granted more; otherwise an error ends the search.
    body = POLO.read_bytes().replace(b'"page_size": 20', b'"page_size": 240')
    assert read(body, SEARCH).next_cursor == "2"
    assert Spider(credentials={"OPENVERSE_TOKEN": "abcdefgh"}).setup_request() is None


@pytest.mark.parametrize("name", KEY)
def test_half_a_key_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="set both"):
        Spider(credentials={name: KEY[name]}).check_arguments()
    for body in (b"", b'{"access_token": 7}', b'{"access_token": "a b"}'):
        spider = Spider(credentials=KEY)
        spider.set_up(body)
        with pytest.raises(SiteRefused):
            spider.search_request("polo", None)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("cc-by-sa-4.0", "by-sa"),
        ("cc-by-sa-3.0-de", "by-sa"),
        ("CC BY 2.0", "by"),
        ("CC BY-NC-ND 4.0", "by-nc-nd"),
        ("by-nc-sa", "by-nc-sa"),
        ("cc0", "cc0"),
        ("cc-zero", "cc0"),
        ("CC0 1.0", "cc0"),
        ("pd", "pdm"),
        ("pd-old-100", "pdm"),
        ("Public domain", "pdm"),
        ("pdm", "pdm"),
        ("https://creativecommons.org/licenses/by-sa/4.0/", "by-sa"),
        ("http://creativecommons.org/publicdomain/zero/1.0/deed.en", "cc0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "pdm"),
        ("GFDL", "gfdl"),
        ("sampling+", "sampling+"),
        ("All rights reserved by the shop", "all rights reserved by the shop"),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_license_codes(text: object, code: str | None) -> None:
    assert license_code(text) == code


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            "http://creativecommons.org/licenses/by/4.0",
            "https://creativecommons.org/licenses/by/4.0/",
        ),
        (
            "https://creativecommons.org/licenses/by-sa/3.0/de/deed.en",
            "https://creativecommons.org/licenses/by-sa/3.0/de/",
        ),
        ("https://www.gnu.org/copyleft/fdl.html", "https://www.gnu.org/copyleft/fdl.html"),
        (None, None),
    ],
)
def test_license_urls(text: object, url: str | None) -> None:
    assert license_url(text) == url
