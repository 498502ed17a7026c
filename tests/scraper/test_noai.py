"""Tests of the directives `noai` and `noimageai`."""

import json
from pathlib import Path

import pytest
from protego import Protego
from scrapy import Request
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from scraper.middlewares import (
    IS_IMAGE,
    NoAiMiddleware,
    find_ai_opt_out,
    reservations_as_rules,
)
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import crawl
from tests.support.http_responses import http_response
from tests.support.photo_site import serving

URL = "https://x.test/"


def response(headers: dict[str, str], body: bytes = b"") -> Response:
    return Response(URL, headers=headers, body=body)


@pytest.mark.parametrize(
    ("directives", "is_forbidden"),
    [
        ("noindex, noai", True),
        ("otherbot: noindex,NoImageAI", True),
        ("noindex", False),
        ("", False),
    ],
)
def test_directives_of_the_header(directives: str, is_forbidden: bool) -> None:
    image = Request(URL, meta={IS_IMAGE: True})
    reply = response({"X-Robots-Tag": directives})
    assert (find_ai_opt_out(reply) is not None) == is_forbidden
    if is_forbidden:
        with pytest.raises(IgnoreRequest, match=r"^noai$"):
            NoAiMiddleware().process_response(image, reply)
    else:
        assert NoAiMiddleware().process_response(image, reply) is reply


@pytest.mark.parametrize(
    ("meta", "is_forbidden"),
    [
        ('<meta name="robots" content="noai">', True),
        ('<meta name="SomeBot" content="noindex noimageai">', True),
        ('<meta name="description" content="noai">', False),
    ],
)
def test_directives_of_a_page(meta: str, is_forbidden: bool) -> None:
    body = f"<html><head>{meta}</head></html>".encode()
    reply = NoAiMiddleware().process_response(
        Request(URL), response({"Content-Type": "text/html"}, body)
    )
    assert ("noai" in reply.flags) == is_forbidden


@pytest.mark.parametrize(
    ("headers", "body", "is_reserved"),
    [
        ({"tdm-reservation": "1"}, b"", True),
        ({"TDM-Reservation": " 1 "}, b"", True),
        ({"tdm-reservation": "0"}, b"", False),
        ({"Content-Type": "text/html"}, b'<meta name="tdm-reservation" content="1">', True),
        ({"Content-Type": "text/html"}, b'<meta name="TDM-Reservation" content="1">', True),
        ({"Content-Type": "text/html"}, b'<meta name="tdm-reservation" content="0">', False),
    ],
)
def test_reservations_of_text_and_data_mining(
    headers: dict[str, str], body: bytes, is_reserved: bool
) -> None:
    reply = http_response(headers=headers, body=body)
    assert find_ai_opt_out(reply) == ("tdm-reservation" if is_reserved else None)


def test_locations_of_a_reservation_file() -> None:
    entries = [
        {"location": "/", "tdm-reservation": 0},
        {"location": "/photos/*", "tdm-reservation": 1},
        {"location": "*.png$", "tdm-reservation": "1"},
        {"location": 7, "tdm-reservation": 1},
        "x",
    ]
    rules = Protego.parse(reservations_as_rules(json.dumps(entries).encode()))
    allowed = [rules.can_fetch(f"https://x.example{p}", "*") for p in ("/a.jpg", "/photos/a.jpg")]
    assert allowed == [True, False]
    for body in (b"", b"{}", b"<html>", b"[" * 9000):
        assert Protego.parse(reservations_as_rules(body)).can_fetch("https://x.example/a", "*")


def test_reserved_photos_and_pages_are_not_used(tmp_path: Path) -> None:
    image = {"id": 1, "src": "https://cdn.example/photos/1.jpg"}
    record = {"id": 1, "handle": "a", "tags": ["polo"], "images": [image]}
    bodies = {
        "/products.json?limit=250&page=1": json.dumps({"products": [record]}).encode(),
        "/photos/1.jpg": photo_bytes(1, (200, 260)),
    }
    for location in ("/photos/", "/products.json"):
        reserved = json.dumps([{"location": location, "tdm-reservation": 1}]).encode()
        folder = tmp_path / location.strip("/")
        folder.mkdir()
        with serving(bodies | {"/.well-known/tdmrep.json": reserved}) as site:
            address = ("--set", "shop=a.example", "--site-url", site.url, "--image-url", site.url)
            status, output = crawl(site, folder, "--tags", "polo", site="shopify", address=address)
        assert status == 0, output
        found = rows(folder, "SELECT state, reason FROM sightings")
        assert found == [("rejected", "tdm-reservation")]
        assert site.requests["/photos/1.jpg"] == 0
