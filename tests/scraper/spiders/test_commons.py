"""Tests of the spider of Wikimedia Commons: recorded pages, continuations, rules, a crawl."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from scrapy.http import Response

import fashion_tagger
from dataset.errors import BadInput
from scraper.errors import LayoutChanged, SiteRefused, TemporarilyEmpty
from scraper.middlewares import ACCEPTS_API_TERMS
from scraper.spiders.base import Credit, Page, Photo
from scraper.spiders.commons import NO_PHOTO, Spider, read
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import crawl
from tests.support.photo_site import serving

POLO = Path(__file__).parents[2] / "recorded" / "commons" / "polo.json"
CAPTURE = (
    Path(fashion_tagger.__file__).parent.parent
    / "shared/sites/commons/allimages_continue.capture.json"
)
API = "https://commons.wikimedia.org/w/api.php?action=query"
UPLOAD = "https://upload.wikimedia.org/wikipedia/commons"


def parameters(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


def test_photos_have_license_author_and_source_page() -> None:
    page = read(POLO.read_bytes(), API)
    post, second = page.posts
    assert second.photos[0].credit == Credit("pdm", source_page=second.url)
    assert (post.site_id, post.title, post.author) == ("801", "Blue polo shirt", "User & One")
    assert post.url == "https://commons.wikimedia.org/wiki/File:Blue_polo_shirt.jpg"
    assert post.attributes == ("Blue polo shirts",)
    thumb = "https://thumb.wikimedia.org/wikipedia/commons/thumb/a/ab/Blue_polo_shirt.jpg"
    assert post.photos == (
        Photo(
            f"{thumb}/1920px-Blue_polo_shirt.jpg",
            (f"{UPLOAD}/a/ab/Blue_polo_shirt.jpg",),
            "801",
            Credit(
                "by-sa",
                "https://creativecommons.org/licenses/by-sa/4.0/",
                "User & One",
                "Photo: User One",
                post.url,
            ),
        ),
    )
    # A drawing is skipped; the metadata of the third file come with a later page.
    assert page.skipped == {NO_PHOTO: 1}
    url = Spider().search_request("polo", page.next_cursor).url
    assert (parameters(url)["gsroffset"], parameters(url)["continue"]) == ("50", "gsroffset||")


@pytest.mark.skipif(not CAPTURE.exists(), reason=f"{CAPTURE} is not there")
def test_captured_page_of_the_older_format() -> None:
    page = read(CAPTURE.read_bytes(), API)
    volcano, street = page.posts
    assert volcano.photos[0].credit == Credit(
        license="pdm",
        author="The original uploader was UserTwo at Italian Wikipedia .",
        source_page="https://commons.wikimedia.org/wiki/File:Minchinmavida_Volcano.jpg",
    )
    credit = street.photos[0].credit
    assert (credit.license, credit.author) == ("by-sa", "User One")
    assert credit.license_url == "https://creativecommons.org/licenses/by-sa/3.0/de/"
    assert credit.attribution == "Photo: User One / Wikimedia Commons / CC BY-SA 3.0 DE"
    assert volcano.site_id == "18263872" and page.next_cursor is not None
    assert dict(parse_qsl(page.next_cursor))["continue"] == "||imageinfo"


def test_metadata_of_a_later_page_are_read_there() -> None:
    complete = json.loads(POLO.read_bytes())
    first, *_, third = complete["query"]["pages"]
    pages = [{**first, "imageinfo": None}, {**third, "imageinfo": first["imageinfo"]}]
    body = json.dumps({"batchcomplete": True, "query": {"pages": pages}}).encode()
    page = read(body, API)
    assert [post.site_id for post in page.posts] == ["803"] and page.next_cursor is None
    # A page may have none yet.
    waiting = {"continue": {"iistart": "1", "continue": "||"}, "query": {"pages": [third]}}
    assert read(json.dumps(waiting).encode(), API) == Page((), "iistart=1&continue=%7C%7C")


def test_no_hits_are_an_empty_page() -> None:
    for body in (b'{"batchcomplete": true}', b'{"batchcomplete": ""}'):
        assert read(body, API) == Page(())
    for body in (b'{"batchcomplete": true, "query": {}}', b'{"query": {"pages": []}}'):
        with pytest.raises(LayoutChanged):
            read(body, API)


def test_errors_of_the_api_come_with_status_200() -> None:
    with pytest.raises(TemporarilyEmpty, match="is busy"):
        read(b'{"error": {"code": "maxlag", "info": "Waiting for a database"}}', API)
    with pytest.raises(SiteRefused, match="badvalue"):
        read(b'{"error": {"code": "badvalue", "info": "x"}}', API)


def test_requests_follow_the_rules_of_the_api() -> None:
    spider = Spider(options={"photo-size": "960"})
    found = parameters(spider.search_request('polo "shirt', None).url)
    assert found["gsrsearch"] == 'filetype:bitmap "polo  shirt"'
    assert (found["gsrlimit"], found["maxlag"], found["iiurlwidth"]) == ("50", "5", "960")
    spider = Spider(options={"search": "category", "photo-size": "original"})
    found = parameters(spider.search_request("polo shirts", None).url)
    assert (found["gcmtitle"], found["gcmtype"]) == ("Category:Polo shirts", "file")
    assert "iiurlwidth" not in found
    assert Spider.custom_settings["CONCURRENT_REQUESTS_PER_DOMAIN"] == 1
    assert 1 / Spider.request_interval < 5
    with pytest.raises(BadInput, match="--contact"):
        spider.check_contact()
    Spider("http://127.0.0.1:8000").check_contact()


def test_robots_txt_is_obeyed_unless_the_terms_of_the_api_are_accepted() -> None:
    assert ACCEPTS_API_TERMS not in Spider().search_request("polo", None).meta
    accepting = Spider(options={"api-terms": "accept"})
    assert accepting.search_request("polo", None).meta[ACCEPTS_API_TERMS] is True


def test_refusals_are_named() -> None:
    spider = Spider()
    for status, text in ((403, "--contact"), (429, "rate limit")):
        assert text in (spider.explain_refusal(Response("https://x.example", status)) or "")


def test_crawl_stores_licenses(tmp_path: Path) -> None:
    spider = Spider()
    targets = {}
    for word in ("polo", "poloshirt", "polo shirt", "поло", "рубашка поло", "футболка поло"):
        url = spider.search_request(word, None).url.removeprefix("https://commons.wikimedia.org")
        targets[url] = b'{"batchcomplete": true}'
    first = next(iter(targets))
    body = json.loads(POLO.read_bytes()) | {"continue": None}
    body["query"]["pages"] = body["query"]["pages"][:1]
    photo = {
        "/wikipedia/commons/thumb/a/ab/Blue_polo_shirt.jpg/1920px-Blue_polo_shirt.jpg": photo_bytes(
            1, (200, 260)
        )
    }
    with serving(targets | {first: json.dumps(body).encode()} | photo) as site:
        status, output = crawl(
            site, tmp_path, "--tags", "polo", "--license", "cc0,by", site="commons"
        )
        assert status == 0, output
        assert rows(tmp_path, "SELECT count(*) FROM sightings") == [(0,)]
        assert "skipped 1 post: license by-sa" in output, output
        status, output = crawl(
            site, tmp_path, "--tags", "polo", "--license", "by-sa", "--full", site="commons"
        )
        assert status == 0, output
        site.bodies["/robots.txt"] = b"User-agent: *\nDisallow: /w/\n"
        status, output = crawl(site, tmp_path, "--tags", "polo", "--full", site="commons")
        assert status == 1 and "--set api-terms=accept" in output, output
        status, output = crawl(
            site,
            tmp_path,
            *("--tags", "polo", "--full", "--set", "api-terms=accept"),
            site="commons",
            secrets={"FASHION_TAGGER_CONTACT": "me@lab.example"},
        )
        assert status == 0, output
        # Name, contact and library, as Wikimedia asks for them.
        named = re.compile(r"fashion-tagger/[\d.]+ \(me@lab\.example; [^()]+\) aiohttp/[\d.]+")
        assert any(named.fullmatch(agent) for agent in site.agents), site.agents
    columns = "state, license, license_url, author, attribution, source_page"
    assert rows(tmp_path, f"SELECT {columns} FROM sightings") == [
        (
            "stored",
            "by-sa",
            "https://creativecommons.org/licenses/by-sa/4.0/",
            "User & One",
            "Photo: User One",
            "https://commons.wikimedia.org/wiki/File:Blue_polo_shirt.jpg",
        )
    ]
