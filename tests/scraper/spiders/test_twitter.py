"""Tests of the X spider on recorded responses."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.errors import BadInput
from scraper.errors import LayoutChanged, SiteRefused
from scraper.spiders.base import Photo
from scraper.spiders.twitter import NO_PHOTO, SENSITIVE, WITHHELD, Spider, read
from tests.support.http_responses import http_response

RECORDED = Path(__file__).parents[2] / "recorded" / "twitter"
CAPTURE = Path(__file__).parents[4] / "shared" / "sites" / "twitter" / "search_recent.capture.json"
SEARCH = "https://api.x.com/2/tweets/search/recent?query=%23polo"
HERE = "in=tweets%2Fsearch%2Frecent"
SECRETS = {"TWITTER_TOKEN": "AAAAsecret"}


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def query_of(spider: Spider, query: str, cursor: str | None = None) -> dict[str, str]:
    parameters = parse_qs(urlsplit(spider.search_request(query, cursor).url).query)
    return {name: values[0] for name, values in parameters.items()}


def polo(**changes: Any) -> bytes:
    return json.dumps(json.loads(recorded("polo.json")) | changes).encode()


def test_posts_authors_and_images() -> None:
    page = read(recorded("polo.json"), SEARCH)
    first, long = page.posts
    assert (first.site_id, first.author) == ("1991000000000000004", "polo_and_co")
    assert first.url == "https://x.com/polo_and_co/status/1991000000000000004"
    assert first.posted == datetime(2026, 11, 20, 9, 15, 2)
    assert first.hashtags == ("поло", "Polo_Shirt")
    assert (first.title or "").startswith("Новое #поло & #Polo_Shirt по скидке")
    assert first.photos == (
        Photo(
            "https://pbs.twimg.com/media/GPolo1AXYAAa1.jpg?name=orig",
            ("https://pbs.twimg.com/media/GPolo1AXYAAa1.jpg?name=large",),
        ),
        Photo(
            "https://pbs.twimg.com/media/GPolo2AXYAAa2?format=png&name=orig",
            ("https://pbs.twimg.com/media/GPolo2AXYAAa2?format=png&name=large",),
        ),
    )
    # `text` holds only the beginning of a long post.
    assert long.hashtags == ("polo", "vintage")
    assert (long.title or "").endswith("to its end. #polo #vintage")
    assert page.skipped == {SENSITIVE: 1, "videos": 1}


def test_sensitive_option_keeps_sensitive_posts() -> None:
    spider = Spider(options={"sensitive": "keep"})
    page = spider.read(recorded("polo.json"), SEARCH)
    assert [post.site_id[-1] for post in page.posts] == ["4", "3", "2"]
    assert page.skipped == {"videos": 1}


def test_post_without_sensitivity_is_treated_as_sensitive() -> None:
    response = json.loads(recorded("polo.json"))
    del response["data"][0]["possibly_sensitive"]
    page = read(json.dumps(response).encode(), SEARCH)
    assert [post.site_id[-1] for post in page.posts] == ["3"]
    # If no post has the field, it was not requested.
    for post in response["data"]:
        post.pop("possibly_sensitive", None)
    assert len(read(json.dumps(response).encode(), SEARCH).posts) == 3


def test_search_combines_hashtags() -> None:
    request = Spider(credentials=SECRETS).search_request(
        HASHTAG_SEPARATOR.join(("polo", "polo shirt", "поло")), None
    )
    assert request.headers.to_unicode_dict() == {"Authorization": "Bearer AAAAsecret"}
    assert "secret" not in request.url
    assert request.url.startswith("https://api.x.com/2/tweets/search/recent?")
    query = query_of(Spider(), HASHTAG_SEPARATOR.join(("polo", "polo shirt", "поло")))
    assert query["query"] == "(#polo OR #poloshirt OR #поло) has:images -is:retweet"
    assert query["max_results"] == "100"
    assert query["expansions"] == "attachments.media_keys,author_id"
    with pytest.raises(SiteRefused, match="no letter"):
        Spider().search_request("👗", None)


@pytest.mark.parametrize(
    ("search", "max_length", "max_groups"), [("recent", 512, 5), ("all", 1024, 3)]
)
def test_queries_respect_the_length_limit_and_keep_all_terms(
    search: str, max_length: int, max_groups: int
) -> None:
    terms = [f"рубашка поло номер {number}" for number in range(70)]
    spider = Spider(options={"search": search})
    groups = spider.queries([*terms, "рубашкаполо номер1", "👗"])
    assert [word for group in groups for word in group] == terms
    lengths = [len(query_of(spider, HASHTAG_SEPARATOR.join(group))["query"]) for group in groups]
    assert max(lengths) <= max_length and len(groups) <= max_groups
    assert spider.queries(["👗"]) == [("👗",)]


def test_cursors_of_the_next_page_and_of_later_runs() -> None:
    page = read(recorded("polo.json"), SEARCH)
    assert page.next_cursor == f"{HERE}&next_token=b26v89c19zqg8o3fpzbn1polo"
    assert page.later_cursor == f"{HERE}&since_id=1991000000000000004"
    assert query_of(Spider(), "polo", page.later_cursor)["since_id"] == "1991000000000000004"
    later = Spider().search_request("polo", page.later_cursor).url
    page = read(recorded("polo.json"), later)
    cursor = f"{HERE}&since_id=1991000000000000004&next_token=b26v89c19zqg8o3fpzbn1polo"
    assert page.next_cursor == cursor
    second = Spider().search_request("polo", cursor).url
    # The newest post is on the first page; a repeated token is a pagination loop.
    page = read(recorded("polo.json"), second)
    assert (page.later_cursor, page.next_cursor) == (None, cursor)
    assert read(polo(meta={"result_count": 4}), second).next_cursor is None


def test_archive_search_ignores_cursors_of_the_recent_search() -> None:
    spider = Spider(options={"search": "all", "since": "2020-02-29"})
    query = query_of(spider, "polo", f"{HERE}&since_id=7")
    assert "since_id" not in query and query["start_time"] == "2020-02-29T00:00:00Z"
    query = query_of(spider, "polo", "in=tweets%2Fsearch%2Fall&since_id=7")
    assert query["since_id"] == "7" and "start_time" not in query
    assert "/2/tweets/search/all?" in spider.search_request("polo", None).url


def test_no_results_end_the_search() -> None:
    page = read(recorded("nothing.json"), SEARCH)
    assert (page.posts, page.next_cursor, page.total, page.later_cursor) == ((), None, 0, None)
    gap = read(b'{"meta": {"result_count": 0, "next_token": "b26"}}', SEARCH)
    assert (gap.next_cursor, gap.total) == (f"{HERE}&next_token=b26", None)


@pytest.mark.parametrize("parameter", ["since_id", "next_token"])
def test_expired_cursor_restarts_the_search(parameter: str) -> None:
    body = recorded("old_since.json").replace(b'{"since_id"', f'{{"{parameter}"'.encode())
    spider = Spider()
    assert spider.is_readable(http_response(400, body))
    url = spider.search_request("polo", f"{HERE}&since_id=7&next_token=b26").url
    page = read(body, url)
    since = "&since_id=7" if parameter == "next_token" else ""
    assert (page.posts, page.next_cursor) == ((), HERE + since)
    with pytest.raises(LayoutChanged):
        read(body, SEARCH)


def test_partial_errors_are_withheld_posts() -> None:
    page = read(recorded("partial.json"), SEARCH)
    assert (page.posts, page.skipped) == ((), {WITHHELD: 1})
    media = json.loads(recorded("polo.json"))["includes"]["media"]
    response = json.loads(recorded("partial.json")) | {"includes": {"media": media}}
    response["data"][0]["attachments"]["media_keys"] += ["3_1990999000000000001"]
    (post,) = read(json.dumps(response).encode(), SEARCH).posts
    assert (post.author, post.url) == (None, "https://x.com/i/status/1991000000000000009")


@pytest.mark.parametrize(
    "body",
    [
        polo(includes=None),
        polo(includes={"media": []}),
        polo(meta=None),
        polo(data=None),
        polo(data=[]),
        polo(data={}),
        polo(data=[7]),
        polo(meta={"next_token": 7}),
        recorded("polo.json").replace(b'"attachments"', b'"attached"'),
        recorded("polo.json").replace(b'"url"', b'"address"'),
        recorded("polo.json").replace(b'"id": "1991000000000000004"', b'"id": 7'),
        recorded("polo.json").replace(b": true", b': "yes"'),
        recorded("unauthorized.json"),
    ],
)
def test_response_without_posts_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        read(body, SEARCH)


def problem(kind: str, detail: str = "oh") -> bytes:
    return json.dumps(
        {"type": f"https://api.twitter.com/2/problems/{kind}", "detail": detail}
    ).encode()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, recorded("unauthorized.json"), "set TWITTER_TOKEN"),
        (402, problem("credits"), "credits are used up: buy some"),
        (403, problem("client-not-enrolled"), "does not include this search"),
        (403, problem("client-forbidden"), "the app lacks a permission"),
        (429, problem("usage-capped"), "raise the cap"),
        (429, b"<html>", "continue at 10:15 UTC on 2026-11-18"),
        (
            400,
            recorded("old_since.json").replace(b'"since_id"', b'"query"'),
            "X reports: 'since_id'",
        ),
        (503, b"", "wait some minutes"),
    ],
)
def test_problems_are_explained_with_a_remedy(status: int, body: bytes, message: str) -> None:
    response = http_response(status, body, {"x-rate-limit-reset": "1794996900"})
    assert not Spider().is_readable(response)
    assert message in (Spider().explain_refusal(response) or "")


def test_invalid_rate_limit_headers() -> None:
    for reset in ("", "soon", "9" * 18):
        response = http_response(429, headers={"x-rate-limit-reset": reset})
        assert "in 15 minutes" in (Spider().explain_refusal(response) or "")
    assert Spider().explain_refusal(http_response(500)) is None
    headers = {"x-rate-limit-limit": "450", "x-rate-limit-remaining": "449"}
    remaining = "449 of 450 requests are left; the limit is reset in 15 minutes"
    assert Spider().describe_remaining(http_response(headers=headers)) == remaining
    assert Spider().describe_remaining(http_response()) is None


def test_count_requests_read_no_posts() -> None:
    spider = Spider(credentials=SECRETS)
    request = spider.count_request("polo")
    assert request is not None and "/2/tweets/counts/recent?query=" in request.url
    assert spider.read_count(recorded("count.json"), request.url) == 9
    assert spider.next_count_request(recorded("count.json"), request.url) is None
    more = spider.next_count_request(
        b'{"meta": {"total_tweet_count": 4, "next_token": "b"}}', request.url
    )
    assert more is not None and more.url == f"{request.url}&next_token=b"
    assert more.headers == request.headers
    for body in (b"{}", b'{"meta": {"total_tweet_count": "many"}}'):
        with pytest.raises(LayoutChanged):
            spider.read_count(body, request.url)


def test_check_reports_project_and_usage() -> None:
    (token,) = Spider().checks()
    assert token.describe(recorded("usage.json")) == (
        "project 1369785403853424 has read 43,435 of 2,000,000 posts of the month;"
        " the count is reset in 10 days"
    )
    with pytest.raises(LayoutChanged):
        token.describe(b'{"data": 7}')


@pytest.mark.parametrize(
    "options",
    [
        {"page-size": "9"},
        {"page-size": "101"},
        {"page-size": "many"},
        {"page-size": "501", "search": "all"},
        {"since": "2024-01-31"},
        {"since": "January", "search": "all"},
        {"since": "2024-02-30", "search": "all"},
    ],
)
def test_invalid_options_are_rejected(options: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="--set"):
        Spider(credentials=SECRETS, options=options).check_arguments()


def test_real_response_is_parsed() -> None:
    if not CAPTURE.exists():
        pytest.skip(f"{CAPTURE} is not there")
    page = read(CAPTURE.read_bytes(), SEARCH)
    # The captured request did not ask for media.
    assert (page.posts, page.skipped) == ((), {NO_PHOTO: 10})
    assert (page.next_cursor or "").startswith(f"{HERE}&next_token=b26v89c19z")
    assert page.later_cursor == f"{HERE}&since_id=1578522194770296832"
