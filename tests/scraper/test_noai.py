"""Tests of the directives `noai` and `noimageai`."""

import pytest
from scrapy import Request
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response

from scraper.middlewares import IS_IMAGE, NoAiMiddleware, forbids_ai

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
    assert forbids_ai(reply) == is_forbidden
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
