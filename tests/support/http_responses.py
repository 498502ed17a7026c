"""Responses of sites, as spiders get them from Scrapy."""

from collections.abc import Mapping

from scrapy.http import Response


def http_response(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    url: str = "https://site.example",
) -> Response:
    """Return a response to a request."""
    return Response(url, status, headers, body)
