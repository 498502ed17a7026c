"""Tests of the spider of a Mastodon server: recorded pages, consent, access, a crawl."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from scrapy.http import Response

import fashion_tagger
from dataset.errors import BadInput
from scraper.errors import LayoutChanged, SiteRefused
from scraper.parsing.fields import backoff_seconds
from scraper.spiders.base import Credit, Page, Photo
from scraper.spiders.mastodon import (
    BRIDGED,
    FIRST,
    INSTANCE,
    NO_PHOTO,
    NOT_PUBLIC,
    OPTED_OUT,
    SENSITIVE,
    SHARED,
    Spider,
    describe_access,
    read,
)
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import crawl
from tests.support.photo_site import serving

POLO = Path(__file__).parents[2] / "recorded" / "mastodon" / "polo.json"
CAPTURES = Path(fashion_tagger.__file__).parent.parent / "shared/sites/mastodon"
SERVER = "https://mastodon.example.com"
TIMELINE = f"{SERVER}/api/v1/timelines/tag/polo?only_media=true&limit=40#public"
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason=f"{CAPTURES} is not there")


def spider(**arguments: Any) -> Spider:
    return Spider(options={"server": "mastodon.example.com"}, **arguments)


def test_posts_with_photos_of_their_own_server() -> None:
    page = read(POLO.read_bytes(), TIMELINE)
    first, second = page.posts
    assert (first.title, first.author) == ("My # Polo & jeans", "user1@other.example")
    assert first.hashtags == ("polo", "ootd")
    assert first.photos == (
        Photo(
            "https://cdn.other.example/901.png",
            ("https://files.mastodon.example.com/cache/901.png",),
            "901",
            Credit(author="user1@other.example", source_page="https://other.example/@user1/1"),
        ),
    )
    assert second.author == "user2@mastodon.example.com"
    assert str(second.posted) == "2025-07-17 16:57:57"
    assert (page.next_cursor, page.is_by_date) == ("114869631572884594", True)
    url = spider().search_request("polo or t-shirt", page.next_cursor).url
    assert url == (
        f"{SERVER}/api/v1/timelines/tag/polo?only_media=true&limit=40&any%5B%5D=tshirt"
        "&max_id=114869631572884594#public"
    )
    assert spider().queries(["polo", "polo shirt", "poloshirt", "a", "b", "c", "♥"]) == [
        ("polo", "polo shirt", "a", "b"),
        ("c",),
    ]


@needs_captures
def test_captured_timeline() -> None:
    page = read((CAPTURES / "tag_timeline.capture.json").read_bytes(), TIMELINE)
    # Two authors do not want to be indexed, the third post has no photo.
    assert not page.posts and page.skipped[OPTED_OUT] == 2
    assert page.next_cursor == "114869144089828147"
    headers = json.loads((CAPTURES / "tag_timeline.headers.json").read_bytes())["headers"]
    assert f"max_id={page.next_cursor}" in headers["link"]
    response = Response(TIMELINE, headers={k: str(v) for k, v in headers.items()})
    assert spider().describe_remaining(response) == "299 of 300 requests are left"
    now = datetime(2025, 7, 17, 20, 3, tzinfo=timezone.utc)
    assert backoff_seconds({**headers, "x-ratelimit-remaining": "0"}, now) == 120
    assert backoff_seconds(headers, now) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"account": {"acct": "a", "noindex": True}}, OPTED_OUT),
        ({"account": {"acct": "a", "indexable": False}}, OPTED_OUT),
        ({"account": {"acct": "a", "discoverable": False}}, OPTED_OUT),
        ({"visibility": "unlisted"}, NOT_PUBLIC),
        ({"sensitive": True}, SENSITIVE),
        ({"spoiler_text": "cw"}, SENSITIVE),
        ({"reblog": {"id": "1"}}, SHARED),
        ({"account": {"acct": "x@bsky.brid.gy"}}, BRIDGED),
        ({"media_attachments": []}, NO_PHOTO),
        ({"account": {"acct": "a"}}, None),
    ],
)
def test_consent_of_authors(change: dict[str, object], reason: str | None) -> None:
    record = {**json.loads(POLO.read_bytes())[0], **change}
    page = read(json.dumps([record]).encode(), TIMELINE)
    assert page.skipped == ({reason: 1} if reason else {})
    assert len(page.posts) == (0 if reason else 1)


def access(local: str, remote: str) -> bytes:
    feeds = {"hashtag_feeds": {"local": local, "remote": remote}}
    return json.dumps({"configuration": {"timelines_access": feeds}}).encode()


def test_access_is_asked_before_a_search() -> None:
    assert spider().lookup_request("polo").url == f"{SERVER}{INSTANCE}"
    url = f"{SERVER}{INSTANCE}"
    for body in (access("public", "public"), access("public", "disabled"), b'{"version": "4.2"}'):
        page = read(body, url)
        assert (page.is_lookup, page.next_cursor) == (True, FIRST)
    with pytest.raises(SiteRefused, match="disabled its timelines"):
        read(access("disabled", "disabled"), url)
    with pytest.raises(SiteRefused, match="MASTODON_TOKEN"):
        read(access("authenticated", "authenticated"), url)
    with_token = spider(credentials={"MASTODON_TOKEN": "secret-token"})
    assert with_token.read(access("authenticated", "disabled"), url).next_cursor == FIRST
    headers = with_token.search_request("polo", FIRST).headers
    assert headers["Authorization"] == b"Bearer secret-token"


@needs_captures
def test_captured_description() -> None:
    body = (CAPTURES / "instance_v2.capture.json").read_bytes()
    assert read(body, f"{SERVER}{INSTANCE}").next_cursor == FIRST
    assert describe_access(body) == "public; Mastodon 4.6.0-nightly.2026-04-09"


def test_empty_timeline_is_trusted_only_after_the_description() -> None:
    assert read(b"[]", TIMELINE) == Page((), is_by_date=True)
    assert read(b'{"error":"Record not found"}', TIMELINE) == Page(())
    with pytest.raises(LayoutChanged):
        read(b"[]", TIMELINE.removesuffix("#public"))


def test_server_must_be_named() -> None:
    with pytest.raises(BadInput, match="--set server=mastodon"):
        Spider().check_arguments()
    assert spider().name == "mastodon:mastodon.example.com"


def test_refusals_are_named() -> None:
    for status, body, text in (
        (401, b'{"error":"The access token is invalid"}', "MASTODON_TOKEN"),
        (422, b'{"error":"x"}', "MASTODON_TOKEN"),
        (429, b'{"error":"Too many requests"}', "rate limit"),
        (404, b"<html>", "not a Mastodon server"),
        (200, b"<html>", "not a Mastodon server"),
    ):
        response = Response(TIMELINE, status, body=body)
        assert not spider().is_readable(response)
        assert text in (spider().explain_refusal(response) or "")


def test_crawl_shows_rules_and_terms(tmp_path: Path) -> None:
    tags = "any%5B%5D=poloshirt&any%5B%5D=%D0%BF%D0%BE%D0%BB%D0%BE"
    tags += "&any%5B%5D=%D1%80%D1%83%D0%B1%D0%B0%D1%88%D0%BA%D0%B0%D0%BF%D0%BE%D0%BB%D0%BE"
    other = "/api/v1/timelines/tag/%D1%84%D1%83%D1%82%D0%B1%D0%BE%D0%BB%D0%BA%D0%B0"
    other += "%D0%BF%D0%BE%D0%BB%D0%BE?only_media=true&limit=40"
    first = f"/api/v1/timelines/tag/polo?only_media=true&limit=40&{tags}"
    terms = {"effective_date": "2025-07-01", "content": "<p>Be nice. No scraping, please.</p>"}
    bodies = {
        INSTANCE: access("public", "public"),
        "/api/v1/instance/rules": b'[{"id": "1", "text": "No spam"}]',
        "/api/v1/instance/terms_of_service": json.dumps(terms).encode(),
        first: POLO.read_bytes(),
        f"{first}&max_id=114869631572884594": b"[]",
        other: b"[]",
        "/901.png": photo_bytes(1, (200, 260)),
        "/903.jpg": photo_bytes(2, (200, 260)),
    }
    with serving(bodies) as site:
        named = ("--set", "server=mastodon.example.com")
        address = (*named, "--site-url", site.url, "--image-url", site.url)
        status, output = crawl(site, tmp_path, "--tags", "polo", site="mastodon", address=address)
    assert status == 0, output
    assert "mastodon.example.com: rule: No spam" in output
    assert "terms of service since 2025-07-01" in output and "No scraping, please." in output
    assert rows(tmp_path, "SELECT author, state FROM sightings ORDER BY author") == [
        ("user1@other.example", "stored"),
        ("user2@mastodon.example.com", "stored"),
    ]
