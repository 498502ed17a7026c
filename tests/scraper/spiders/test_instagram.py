"""Tests of the Instagram spider on recorded responses."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from scraper.errors import LayoutChanged, SiteRefused
from scraper.spiders.base import Photo
from scraper.spiders.instagram import HIDDEN_MEDIA, Spider, read
from tests.support.http_responses import http_response

RECORDED = Path(__file__).parents[2] / "recorded" / "instagram"
GRAPH = "https://graph.facebook.com/v25.0"
RECENT = f"{GRAPH}/17843853986012965/recent_media?user_id=1&limit=50"
SECRETS = {"INSTAGRAM_TOKEN": "EAAGsecret", "INSTAGRAM_USER": "17841400000000000"}


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def test_posts_and_their_images() -> None:
    page = read(recorded("polo.json"), RECENT)
    first, album = page.posts
    assert (first.site_id, first.url) == (
        "17873440459141021",
        "https://www.instagram.com/p/CxPolo00001/",
    )
    assert first.posted == datetime(2026, 11, 20, 9, 15, 2)
    assert first.hashtags == ("поло", "polo_shirt")
    assert first.photos == (
        Photo(
            "https://scontent.cdninstagram.com/v/t51.29350-15/301_n.jpg?_nc_cat=1&oh=00_AfB&oe=6920AB12",
            key="17873440459141021",
        ),
    )
    assert [photo.key for photo in album.photos] == ["17880997618081620", "17880997618081622"]
    assert page.skipped == {"videos": 1, HIDDEN_MEDIA: 1}


def test_search_reads_the_hashtag_id_then_recent_then_top_media() -> None:
    spider = Spider(credentials=SECRETS)
    request = spider.search_request("Polo Shirt", None)
    assert request.url == f"{GRAPH}/ig_hashtag_search?user_id=17841400000000000&q=PoloShirt"
    assert request.headers.to_unicode_dict() == {"Authorization": "Bearer EAAGsecret"}
    hashtag_page = spider.read(recorded("hashtag.json"), request.url)
    assert (
        hashtag_page.posts == ()
        and hashtag_page.next_cursor == hashtag_page.later_cursor == "17843853986012965"
    )
    recent = spider.search_request("polo", hashtag_page.next_cursor)
    assert recent.url.startswith(f"{GRAPH}/17843853986012965/recent_media?user_id=")
    page = spider.read(recorded("polo.json"), recent.url)
    assert page.next_cursor == "17843853986012965/recent_media?after=QVFIUmx1ZAWFX"
    second = spider.search_request("polo", page.next_cursor).url
    assert "/recent_media?" in second and second.endswith("&after=QVFIUmx1ZAWFX")
    assert "SECRET" not in second
    last = json.loads(recorded("polo.json")) | {"paging": {"cursors": {"after": "x"}}}
    page = spider.read(json.dumps(last).encode(), second)
    assert page.next_cursor == "17843853986012965/top_media"
    top = spider.search_request("polo", page.next_cursor).url
    assert spider.read(json.dumps(last).encode(), top).next_cursor is None


@pytest.mark.parametrize(("media", "edge"), [("recent", "recent_media"), ("top", "top_media")])
def test_media_option_selects_one_list(media: str, edge: str) -> None:
    spider = Spider(options={"media": media})
    url = spider.search_request("polo", "17843853986012965").url
    assert f"/{edge}?" in url
    body = json.dumps({"data": json.loads(recorded("polo.json"))["data"]}).encode()
    assert spider.read(body, url).next_cursor is None


def test_terms_with_equal_hashtags_are_searched_once() -> None:
    terms = ("polo", "poloshirt", "polo shirt", "поло")
    assert Spider().queries(terms) == [("polo",), ("poloshirt",), ("поло",)]
    with pytest.raises(SiteRefused, match="no letter"):
        Spider().search_request("👗", None)


def test_unused_hashtag_is_an_empty_page() -> None:
    response = http_response(400, recorded("no_hashtag.json"))
    assert Spider().is_readable(response)
    page = read(response.body, RECENT)
    assert (page.posts, page.next_cursor, page.total) == ((), None, 0)
    assert read(b'{"data": []}', f"{GRAPH}/ig_hashtag_search?q=x").next_cursor is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (190, "set INSTAGRAM_TOKEN"),
        (10, "Instagram Public Content Access"),
        (200, "Instagram Public Content Access"),
        (18, "30 different hashtags"),
        (4, "in about 23 minutes"),
        (17, "in about 23 minutes"),
        (32, "in about 23 minutes"),
        (100, "INSTAGRAM_USER"),
        (1, "Instagram reports: oh"),
    ],
)
def test_error_codes_are_explained_with_a_remedy(code: int, message: str) -> None:
    usage = '{"1":[{"estimated_time_to_regain_access":23},{"call_count":1}],"2":7}'
    body = json.dumps({"error": {"code": code, "message": "oh"}}).encode()
    response = http_response(400, body, {"X-Business-Use-Case-Usage": usage})
    assert not Spider().is_readable(response)
    assert message in (Spider().explain_refusal(response) or "")


def test_response_without_error_object_is_not_explained() -> None:
    for body in (b"", b"<html>", b'{"error": 7}'):
        assert Spider().explain_refusal(http_response(500, body)) is None
    invalid_code = http_response(500, b'{"error": {"code": [190], "message": "oh"}}')
    assert Spider().explain_refusal(invalid_code) == "Instagram reports: oh (code [190])"
    limited = http_response(403, b'{"error": {"code": 4}}', {"x-business-use-case-usage": "["})
    assert "in an hour" in (Spider().explain_refusal(limited) or "")


@pytest.mark.parametrize(
    "change", [{"id": None}, {"id": "../x"}, {"media_type": None}, {"media_type": 7}]
)
def test_media_without_required_fields_is_a_changed_layout(change: dict[str, object]) -> None:
    record = json.loads(recorded("polo.json"))["data"][0] | change
    with pytest.raises(LayoutChanged):
        read(json.dumps({"data": [record]}).encode(), RECENT)


def test_checks_report_account_and_weekly_quota() -> None:
    account, week = Spider(credentials=SECRETS).checks()
    assert account.describe(b'{"username": "shop", "id": "1"}') == "@shop"
    assert week.describe(b'{"data": [{"id": "1", "name": "polo"}]}') == "1 of 30 (polo)"
    with pytest.raises(LayoutChanged):
        account.describe(b"[]")


def media(number: int, kind: str, **more: object) -> dict[str, object]:
    return {"id": str(number), "media_type": kind, **more}


def response_body(*records: dict[str, object], **more: object) -> bytes:
    return json.dumps({"data": records, **more}).encode()


def test_videos_in_albums_are_skipped() -> None:
    video, photo = media(2, "VIDEO", media_url="https://s/2.mp4"), {"media_url": "https://s/3.jpg"}
    mixed = media(1, "CAROUSEL_ALBUM", children={"data": [video, media(3, "IMAGE", **photo)]})
    videos = media(4, "CAROUSEL_ALBUM", children={"data": [video]})
    page = read(
        response_body(mixed, videos, media(5, "REELS", media_url="https://s/5.mp4")), RECENT
    )
    assert [[photo.key for photo in post.photos] for post in page.posts] == [["3"]]
    assert page.skipped == {"videos": 2}


def test_media_with_only_ids_is_not_a_hashtag_list() -> None:
    with pytest.raises(LayoutChanged, match="without a type"):
        read(b'{"data": [{"id": "1"}, {"id": "2"}]}', RECENT)


def test_page_with_only_hidden_images_is_a_changed_layout() -> None:
    few = [media(number, "IMAGE") for number in range(5)]
    assert read(response_body(*few), RECENT).skipped == {HIDDEN_MEDIA: 5}
    with pytest.raises(LayoutChanged, match="no media object has a photo URL"):
        read(response_body(*few, media(5, "IMAGE")), RECENT)


def test_cursor_is_read_from_the_next_url() -> None:
    paging = {"next": f"{RECENT}&access_token=%5Bhidden%5D&after=QVF%3D"}
    page = read(response_body(paging=paging), RECENT)
    assert page.next_cursor == "17843853986012965/recent_media?after=QVF="


TOO_MUCH = b"""{"error": {"message": "Please reduce the amount of data you're asking for, then retry
 your request", "type": "OAuthException", "code": 1, "fbtrace_id": "A1"}}""".replace(b"\n", b"")


def test_too_much_data_halves_the_limit_until_it_is_one() -> None:
    spider = Spider(credentials=SECRETS)
    cursor, limits = "17843853986012965/recent_media?after=QVF=", []
    while True:
        url = spider.search_request("polo", cursor).url
        limits.append(int(url.partition("limit=")[2].partition("&")[0]))
        assert url.endswith("&after=QVF%3D")
        response = http_response(500, TOO_MUCH, url=url)
        if not spider.is_readable(response):
            break
        page = spider.read(TOO_MUCH, url)
        assert page.is_lookup and page.next_cursor is not None
        cursor = page.next_cursor
    assert limits == [50, 25, 12, 6, 3, 1]
    assert "can't send even a single post" in (spider.explain_refusal(response) or "")
    # The next pages of the list keep the limit; the next list starts with the usual one.
    paging = {"cursors": {"after": "QVG="}, "next": "https://graph.facebook.com/x"}
    url = spider.search_request("polo", "1/recent_media?limit=12&after=QVF=").url
    assert spider.read(response_body(paging=paging), url).next_cursor == (
        "1/recent_media?limit=12&after=QVG="
    )
    assert spider.read(response_body(), url).next_cursor == "1/top_media"
    # The lookup of a hashtag has no limit to reduce.
    lookup = f"{GRAPH}/ig_hashtag_search?user_id=1&q=polo"
    assert not spider.is_readable(http_response(500, TOO_MUCH, url=lookup))
