"""Tests of the Pinterest spider on recorded responses."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dataset.errors import BadInput
from scraper.errors import CredentialsMissing, LayoutChanged
from scraper.spiders.base import Photo
from scraper.spiders.pinterest import NO_PIN, Spider, read
from tests.support.http_responses import http_response

RECORDED = Path(__file__).parents[2] / "recorded" / "pinterest"
SEARCH = "https://api.pinterest.com/v5/search/partner/pins?term=polo"
WEB = "https://www.pinterest.co.uk/resource/BaseSearchResource/get/?data=%7B%7D"
SECRETS = {"PINTEREST_TOKEN": "pina_secret"}
IMAGES = "https://i.pinimg.com"


def recorded(name: str) -> bytes:
    return (RECORDED / name).read_bytes()


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_pins_and_their_images() -> None:
    page = read(recorded("polo.json"), SEARCH)
    first, album = page.posts
    assert (first.site_id, first.author) == ("813744226420795884", "polo_and_co")
    assert first.url == "https://www.pinterest.com/pin/813744226420795884/"
    assert (first.title, first.posted) == ("Поло с вышивкой", datetime(2026, 11, 20, 9, 15, 2))
    assert first.hashtags == ("поло", "polo_shirt", "flatlay")
    # Sizes that crop the image (150x150, 400x300) are not used as fallbacks.
    assert first.photos == (
        Photo(
            f"{IMAGES}/originals/0d/f6/f1/0df6f1f0bfe7.jpg",
            (
                f"{IMAGES}/1200x/0d/f6/f1/0df6f1f0bfe7.jpg",
                f"{IMAGES}/600x/0d/f6/f1/0df6f1f0bfe7.jpg",
            ),
        ),
    )
    assert [photo.url for photo in album.photos] == [
        f"{IMAGES}/originals/1a/b2/c3/1ab2c3000001.jpg",
        f"{IMAGES}/originals/1a/b2/c3/1ab2c3000002.png",
    ]
    assert album.photos[1].fallbacks == (f"{IMAGES}/600x/1a/b2/c3/1ab2c3000002.jpg",)
    assert album.title == "Three ways to wear it #polo"
    assert page.skipped == {"videos": 1}


def test_cropped_images_are_used_if_no_other_size_exists() -> None:
    response = json.loads(recorded("polo.json"))
    sizes = response["items"][0]["media"]["images"]
    del sizes["600x"], sizes["1200x"]
    (photo,) = read(json.dumps(response).encode(), SEARCH).posts[0].photos
    assert photo.fallbacks == (
        f"{IMAGES}/400x300/0d/f6/f1/0df6f1f0bfe7.jpg",
        f"{IMAGES}/150x150/0d/f6/f1/0df6f1f0bfe7.jpg",
    )


def test_partner_search_sends_the_token_in_a_header() -> None:
    spider = Spider(credentials=SECRETS, options={"country": "US", "locale": "en-US"})
    request = spider.search_request("polo shirt", None)
    assert request.headers.to_unicode_dict() == {"Authorization": "Bearer pina_secret"}
    assert request.url.startswith("https://api.pinterest.com/v5/search/partner/pins?")
    expected = {"term": "polo shirt", "country_code": "US", "locale": "en-US", "limit": "50"}
    assert query_of(request.url) == expected
    page = read(recorded("polo.json"), request.url)
    assert page.later_cursor == "partner:"
    assert page.next_cursor == "partner:Y2JVSG81V2sxcmNHRnpiVFl6|UFo4=="
    second = spider.search_request("polo shirt", page.next_cursor).url
    assert query_of(second) == expected | {"bookmark": "Y2JVSG81V2sxcmNHRnpiVFl6|UFo4=="}
    # A repeated bookmark is a pagination loop; a bookmark of the web search is ignored here.
    again = read(recorded("polo.json"), second)
    assert (again.next_cursor, again.later_cursor) == (page.next_cursor, None)
    assert query_of(spider.search_request("polo shirt", "web:abc").url) == expected


@pytest.mark.parametrize("bookmark", [None, "", "-end-"])
def test_last_page_has_no_bookmark(bookmark: str | None) -> None:
    body = json.dumps(json.loads(recorded("polo.json")) | {"bookmark": bookmark}).encode()
    assert read(body, SEARCH).next_cursor is None
    page = read(recorded("nothing.json"), SEARCH)
    assert (page.posts, page.next_cursor, page.total) == ((), None, 0)


def test_web_search_sends_no_token_and_no_browser_headers() -> None:
    spider = Spider(credentials=SECRETS, options={"search": "web"})
    request = spider.search_request("поло", None)
    # Scrapy normalizes the case of header names.
    assert request.headers.to_unicode_dict() == {"X-Pinterest-Pws-Handler": "www/search/[scope].js"}
    assert request.url.startswith("https://www.pinterest.co.uk/resource/BaseSearchResource/get/?")
    assert query_of(request.url)["source_url"] == "/search/pins/?q=%D0%BF%D0%BE%D0%BB%D0%BE"
    options = {"query": "поло", "scope": "pins", "page_size": 25}
    assert json.loads(query_of(request.url)["data"]) == {"options": options, "context": {}}
    page = spider.read(recorded("web.json"), request.url)
    assert page.next_cursor == "web:Y2JVSG1234fDk5|GQL=="
    second = spider.search_request("поло", page.next_cursor).url
    bookmarks = {"bookmarks": ["Y2JVSG1234fDk5|GQL=="]}
    assert json.loads(query_of(second)["data"])["options"] == options | bookmarks
    again = spider.read(recorded("web.json"), second)
    assert (again.next_cursor, again.later_cursor) == (page.next_cursor, None)
    assert spider.read(recorded("web_end.json"), request.url).next_cursor is None
    assert spider.checks() == ()
    mirror = Spider("http://127.0.0.1:8000", options={"search": "web"})
    assert mirror.search_request("polo", None).url.startswith("http://127.0.0.1:8000/resource/")


def test_pins_of_the_web_search() -> None:
    page = read(recorded("web.json"), WEB)
    first, album = page.posts
    assert (first.site_id, first.author) == ("1125968647761564", "polo_and_co")
    assert (first.title, first.hashtags) == ("Поло на каждый день", ("поло", "лето"))
    assert first.posted == datetime(2026, 11, 20, 9, 15, 2)
    assert first.photos == (
        Photo(
            f"{IMAGES}/originals/25/04/2f/25042f03473d.jpg",
            (
                f"{IMAGES}/736x/25/04/2f/25042f03473d.jpg",
                f"{IMAGES}/236x/25/04/2f/25042f03473d.jpg",
            ),
        ),
    )
    assert [photo.url[-17:] for photo in album.photos] == ["/2b950426a9d1.jpg", "/2b950426a9d2.jpg"]
    assert page.skipped == {"videos": 1, NO_PIN: 1}


def test_only_partner_search_needs_a_token() -> None:
    with pytest.raises(CredentialsMissing, match="PINTEREST_TOKEN"):
        Spider().check_arguments()
    Spider(credentials=SECRETS).check_arguments()
    Spider(options={"search": "web"}).check_arguments()
    for options in ({"country": "Britain"}, {"locale": "English"}):
        with pytest.raises(BadInput, match="--set"):
            Spider(credentials=SECRETS, options=options).check_arguments()


@pytest.mark.parametrize(
    ("status", "body", "headers", "message"),
    [
        (401, recorded("unauthorized.json"), {}, "set PINTEREST_TOKEN"),
        (403, b'{"code": 29, "message": "No."}', {}, "not approved for partner search"),
        (429, b"", {"retry-after": "1380"}, "continue in about 23 minutes"),
        (429, b"", {"x-ratelimit-reset": "60"}, "continue in about 60 seconds"),
        (429, b"<html>", {"retry-after": "later"}, "continue in some minutes"),
        (400, b'{"code": 1, "message": "Bad term"}', {}, "Pinterest reports: Bad term"),
    ],
)
def test_error_responses_are_explained_with_a_remedy(
    status: int, body: bytes, headers: dict[str, str], message: str
) -> None:
    response = http_response(status, body, headers)
    assert not Spider().is_readable(response)
    assert message in (Spider().explain_refusal(response) or "")


def test_web_search_errors_are_explained_and_unknown_errors_are_not() -> None:
    web = Spider(options={"search": "web"})
    body = b'{"resource_response": {"status": "failure", "message": "Invalid resource request"}}'
    message = web.explain_refusal(http_response(403, body)) or ""
    assert "use partner search instead" in message and "Invalid resource request" in message
    assert Spider().explain_refusal(http_response(500, b"<html>")) is None


def test_check_reports_account_and_remaining_requests() -> None:
    (account,) = Spider(credentials=SECRETS).checks()
    assert account.request.url == "https://api.pinterest.com/v5/user_account"
    assert account.describe(recorded("account.json")) == "@sample.shop (business)"
    headers = {"x-ratelimit-limit": "1000, 1000;w=60", "x-ratelimit-remaining": "999"}
    remaining = Spider().describe_remaining(http_response(headers=headers))
    assert remaining == "999 of 1000 requests are left"


def changed(name: str, old: str, new: Any) -> bytes:
    body = recorded(name)
    assert old.encode() in body
    return body.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    "body",
    [
        changed("polo.json", '"items"', '"pins"'),
        changed("polo.json", '"url"', '"address"'),
        changed("polo.json", '"media_type"', '"kind"'),
        changed("polo.json", '"813744226420795884"', "7"),
        changed("polo.json", '"813744226420795884"', '"../x"'),
        changed("polo.json", '"Y2JVSG81V2sxcmNHRnpiVFl6|UFo4=="', "[7]"),
        changed("web.json", '"results"', '"pins"'),
        changed("web.json", '"url"', '"address"'),
        changed("web.json", '"videos": null', '"videos": 7'),
        b'{"items": [7], "bookmark": null}',
        b'{"resource_response": {"status": "failure", "data": null}}',
        recorded("unauthorized.json"),
    ],
)
def test_response_without_pins_is_a_changed_layout(body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        read(body, SEARCH)


def pins(*media: object) -> bytes:
    items = [{"id": str(number), "media": item} for number, item in enumerate(media, 1)]
    return json.dumps({"items": items, "bookmark": None}).encode()


def test_cover_of_a_video_album_is_not_an_image() -> None:
    cover = {"600x": {"width": 600, "url": f"{IMAGES}/600x/0d/f6/f1/0df6f1f0bfe7.jpg"}}
    videos = {"media_type": "multiple_mixed", "images": cover, "items": [{"item_type": "video"}]}
    page = read(pins(videos, videos | {"items": []}), SEARCH)
    assert [post.site_id for post in page.posts] == ["2"]
    assert page.skipped == {"videos": 1}


def test_pin_without_media_does_not_affect_other_pins() -> None:
    album = json.loads(recorded("polo.json"))["items"][0]["media"]
    page = read(pins(None, album), SEARCH)
    assert [post.site_id for post in page.posts] == ["2"]
    assert page.skipped == {"no photo URL": 1}
    with pytest.raises(LayoutChanged):
        read(pins(None, None), SEARCH)
