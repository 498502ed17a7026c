"""Rules that every spider must follow, tested on each registered site."""

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scraper.credentials import is_account
from scraper.errors import LayoutChanged
from scraper.spiders.base import HashtagSpider, Page, site_names, spider_class

RECORDED = Path(__file__).parents[2] / "recorded"
SITES = site_names()


def module(site: str) -> ModuleType:
    return importlib.import_module(f"scraper.spiders.{site}")


def recorded(site: str) -> bytes:
    pages = sorted(RECORDED.glob(f"{site}/polo.*"))
    assert pages, f"record a page of {site}'s search for polo: tests/recorded/{site}/polo.html"
    return pages[0].read_bytes()


def read(site: str, body: bytes, url: str | None = None) -> Page:
    page: Page = module(site).read(body, url or search_url(site))
    return page


def search_url(site: str, cursor: str | None = None) -> str:
    spider_type = spider_class(site)
    spider = spider_type(
        credentials={
            credential.name: f"value-of-{credential.name}" for credential in spider_type.credentials
        }
    )
    return spider.search_request("polo", cursor).url


@pytest.mark.parametrize("site", SITES)
def test_spider_describes_itself_to_users(site: str) -> None:
    spider = spider_class(site)
    assert issubclass(spider, HashtagSpider) and spider.name == site
    for name in ("title", "needs", "limits_text"):
        assert len(getattr(spider, name)) >= 5, name
    assert re.fullmatch(r"20\d\d-\d\d", spider.checked)
    for address in (spider.site_url, spider.image_url):
        assert re.fullmatch(r"https://[\w.-]+", address)


@pytest.mark.parametrize("site", SITES)
def test_parsing_a_recorded_page_is_deterministic(site: str) -> None:
    first = read(site, recorded(site))
    assert first.posts
    assert first == read(site, recorded(site))
    assert len({post.site_id for post in first.posts}) == len(first.posts)
    for post in first.posts:
        assert post.url.startswith("https://")
        assert all(photo.url.startswith("https://") for photo in post.photos)
        assert len(set(post.photos)) == len(post.photos)
        json.dumps(post.record)


@pytest.mark.parametrize("site", SITES)
def test_credentials_have_the_site_prefix_and_secrets_are_not_in_urls(site: str) -> None:
    for credential in spider_class(site).credentials:
        assert re.fullmatch(rf"{site.upper()}_[A-Z0-9_]+", credential.name)
        assert is_account(credential.name) or f"value-of-{credential.name}" not in search_url(site)


@pytest.mark.parametrize("site", SITES)
def test_parsing_is_pure(site: str) -> None:
    assert list(inspect.signature(module(site).read).parameters) == ["body", "url"]
    spider = spider_class(site)("http://127.0.0.1:8000", "http://127.0.0.1:8001")
    assert spider.read(recorded(site), search_url(site)) == read(site, recorded(site))


@pytest.mark.parametrize("site", SITES)
def test_truncated_page_gives_complete_posts_or_a_changed_layout(site: str) -> None:
    body = recorded(site)
    complete = {post.site_id for post in read(site, body).posts}
    for tenth in range(10):
        try:
            page = read(site, body[: len(body) * tenth // 10])
        except LayoutChanged:
            continue
        assert page.posts
        assert {post.site_id for post in page.posts} <= complete


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"<html></html>", b"\xff\xfe\x00"])
@pytest.mark.parametrize("site", SITES)
def test_empty_page_is_a_changed_layout(site: str, body: bytes) -> None:
    with pytest.raises(LayoutChanged):
        read(site, body)


@pytest.mark.parametrize("replacement", [b"7", b"null", b"[]", b"{}", b'"x"', b"true"])
@pytest.mark.parametrize("site", SITES)
def test_value_of_another_type_does_not_crash(site: str, replacement: bytes) -> None:
    body = recorded(site)
    values = [*re.finditer(rb'(?<=":)\s*("(?:[^"\\]|\\.)*"|\d+)', body)]
    for value in values:
        retyped = body[: value.start()] + replacement + body[value.end() :]
        try:
            assert read(site, retyped).posts
        except LayoutChanged:
            continue


def without_each(value: object) -> Iterator[object]:
    """Yield copies of a value, each without one of its (nested) fields."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield {key: v for key, v in value.items() if key != name}
            yield from ({**value, name: reduced} for reduced in without_each(inner))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from (
                [*value[:index], reduced, *value[index + 1 :]] for reduced in without_each(inner)
            )


@pytest.mark.parametrize("site", SITES)
def test_missing_field_gives_no_crash_and_no_empty_page(site: str) -> None:
    body = recorded(site)
    if not body.startswith(b"{"):
        pytest.skip(f"the recorded page of {site} is not JSON; its own tests cover missing parts")
    complete = {post.site_id for post in read(site, body).posts}
    for reduced in without_each(json.loads(body)):
        try:
            page = read(site, json.dumps(reduced).encode())
        except LayoutChanged:
            continue
        assert page.posts or page.skipped or page.next_cursor, reduced
        assert {post.site_id for post in page.posts} <= complete


@pytest.mark.parametrize("site", SITES)
def test_paging_advances_and_ends(site: str) -> None:
    cursor = read(site, recorded(site)).next_cursor
    seen, url = {search_url(site)}, search_url(site)
    while cursor is not None and len(seen) < 500:
        url = search_url(site, cursor)
        assert url not in seen, f"the paging of {site} comes back to {url}"
        seen.add(url)
        following = read(site, recorded(site), url).next_cursor
        # A cursor that the recorded page itself contains never changes; a crawl ends there.
        cursor = following if following != cursor else None
    assert len(seen) < 500, f"the paging of {site} never ends"
