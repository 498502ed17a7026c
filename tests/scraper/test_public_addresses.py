"""Tests that links on a site cannot reach the user's private network (SSRF)."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scraper.middlewares import host_and_port, is_public
from scraper.sample_shop.server import ShopOptions, serve
from tests.support.catalogues import rows
from tests.support.crawls import crawl

SECRETS = {"INSTAGRAM_TOKEN": "EAAGverysecret", "INSTAGRAM_USER": "17841400000000000"}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("172.20.0.1", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00:ec2::254", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:1::", False),
        ("192.0.0.8", False),
        ("192.0.0.9", False),
        ("192.0.0.192", False),
        ("168.63.129.16", False),
        ("192.88.99.1", False),
        ("100.100.100.200", False),
        ("198.18.0.1", False),
        ("127.1", False),
        ("0x7f000001", False),
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2001:20::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("fec0::1", False),
        ("100::1", False),
        ("2a00:1450:4001::1", True),
    ],
)
def test_public_addresses_are_recognized(address: str, public: bool) -> None:
    assert is_public(address) == public


def test_host_and_port_of_a_url() -> None:
    assert host_and_port("http://LocalHost/x") == ("localhost", 80)
    assert host_and_port("https://[::1]:8443/") == ("::1", 8443)
    with pytest.raises(ValueError, match="no host"):
        host_and_port("file:///etc/passwd")


class SiteHandler(BaseHTTPRequestHandler):
    """Serve one hashtag with images, and a redirect into the private network."""

    photos: tuple[str, ...] = ()
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", self.photos[0])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        records: list[object] = []
        if "ig_hashtag_search" in self.path:
            records = [{"id": "17843853986012965"}]
        elif "recent_media" in self.path:
            records = [media(number, url) for number, url in enumerate(self.photos)]
        body = json.dumps({"data": records}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def media(number: int, url: str) -> dict[str, object]:
    address = "https://www.instagram.com/p/x/"
    shared: dict[str, object] = {
        "id": str(179 + number),
        "media_type": "IMAGE",
        "permalink": address,
    }
    return shared | {"media_url": url, "caption": "#kimono"}


@pytest.fixture
def site() -> Iterator[tuple[str, type[SiteHandler]]]:
    class Handler(SiteHandler):
        requests: list[str] = []  # noqa: RUF012 - used by one server only

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("allowed", [False, True])
def test_image_urls_cannot_reach_the_private_network(
    tmp_path: Path, site: tuple[str, type[SiteHandler]], allowed: bool
) -> None:
    url, handler = site
    with serve(ShopOptions(per_label=1)) as inner:
        port = inner.url.rpartition(":")[2]
        secret = f"{inner.url}/robots.txt"
        handler.photos = (
            secret,
            f"http://localhost:{port}/secret",
            f"http://2130706433:{port}/secret",
            f"{url}/redirect",
        )
        options = ("--tags", "kimono", *(["--allow-private-hosts"] if allowed else []))
        status, output = crawl(
            inner,
            tmp_path,
            *options,
            site="instagram",
            secrets=SECRETS,
            address=("--site-url", url),
        )
        request_count = sum(inner.requests.values())
    assert status == 0, output
    reasons = dict(rows(tmp_path, "SELECT reason, count(*) FROM sightings GROUP BY 1"))
    if allowed:
        assert request_count and "private address" not in reasons
    else:
        assert (request_count, reasons) == (0, {"private address": 4})
        assert "rejected 4 photos: private address" in output
