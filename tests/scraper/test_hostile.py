"""Tests of a hostile site: its responses are rejected with a reason and leak nothing."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from scraper.sample_shop.http import SiteRequest, SiteResponse
from scraper.sample_shop.server import ShopOptions, serve
from tests.support.catalogue_data import photo_bytes
from tests.support.catalogues import rows
from tests.support.crawls import run, start

TOKEN = "a-token-that-nobody-may-see"
ESCAPES = "\x1b]0;title\x07\x1b[2J"
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n"


def with_length(body: bytes, *headers: bytes) -> bytes:
    return OK % len(body) + b"".join(headers) + b"\r\n" + body


def send_endless_headers(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        peer.sendall(b"X-%d: " % number + b"y" * 1000 + b"\r\n")


def send_endless_continues(peer: socket.socket) -> None:
    for _ in range(100):
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


def send_slowly(peer: socket.socket) -> None:
    peer.sendall(OK % 1000 + b"\r\n")
    for _ in range(100):
        peer.sendall(b"x")
        time.sleep(0.1)


def send_many_cookies(peer: socket.socket) -> None:
    flood = (b"Set-Cookie: c%d=%s\r\n" % (number, b"v" * 50) for number in range(1000))
    peer.sendall(with_length(photo_bytes(1, (100, 100)), *flood))


RESPONSES: dict[str, Callable[[socket.socket], None]] = {
    "endless-head": send_endless_headers,
    "endless-preludes": send_endless_continues,
    "drip": send_slowly,
    "cookies": send_many_cookies,
    "cookies-again": send_many_cookies,
}
REASONS = {
    "endless-head": "no connection (invalid HTTP response)",
    "endless-preludes": "no connection (invalid HTTP response)",
    "drip": "timeout",
    "cookies": None,
    "cookies-again": None,
    "inside": "private address",
}


@contextmanager
def site() -> Iterator[tuple[str, list[str]]]:
    """Serve hostile responses; yield the URL and the raw requests."""
    requests: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{server.getsockname()[1]}"

    def respond(peer: socket.socket) -> None:
        with suppress(OSError), peer:
            request = peer.recv(100_000).decode("latin-1")
            requests.append(request)
            path = request.split(" ")[1]
            if send := RESPONSES.get(path.strip("/")):
                send(peer)
            else:
                peer.sendall(with_length(_page(path, url)))

    def accept_connections() -> None:
        with suppress(OSError):
            while True:
                Thread(target=respond, args=(server.accept()[0],), daemon=True).start()

    Thread(target=accept_connections, daemon=True).start()
    with server:
        yield url, requests


def _page(path: str, url: str) -> bytes:
    if "ig_hashtag_search" in path:
        return json.dumps({"data": [{"id": "1"}]}).encode()
    if "top_media" in path:
        return json.dumps({"data": [f"{ESCAPES} {TOKEN} %s {{0}}"]}).encode()
    # 0 is an alias of this machine, and a substring of many messages.
    photos = [*(f"{url}/{name}" for name in RESPONSES), "http://0:9/inside"]
    records = [
        {"id": str(n), "media_type": "IMAGE", "media_url": photo, "caption": f"{ESCAPES} ../../x"}
        for n, photo in enumerate(photos)
    ]
    return json.dumps({"data": records}).encode()


@pytest.mark.slow
def test_hostile_responses_are_rejected_without_leaks(tmp_path: Path) -> None:
    secrets = {"INSTAGRAM_TOKEN": TOKEN, "INSTAGRAM_USER": "17841400000000000"}
    keys = tmp_path / "keys.env"
    keys.write_text("".join(f"{name}={value}\n" for name, value in secrets.items()))
    keys.chmod(0o600)
    with site() as (url, requests):
        done = run(
            tmp_path,
            *("crawl", "instagram", "--tags", "polo", "--site-url", url, "--timeout", "6"),
            *("--credentials", "keys.env", "--catalogue", "c.sqlite"),
        )
    assert done.returncode == 1 and "layout changed" in done.stderr
    output = done.stdout + done.stderr
    assert "\x1b" not in output and "\x07" not in output and "Traceback" not in output
    sightings = rows(tmp_path, "SELECT url, reason FROM sightings")
    assert {address.rpartition("/")[2]: reason for address, reason in sightings} == REASONS
    assert rows(tmp_path, "SELECT DISTINCT title FROM posts") == [("]0;title [2J ../../x",)]
    assert not any("cookie:" in request.lower() for request in requests)
    keys.unlink()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert TOKEN not in output and not any(TOKEN.encode() in path.read_bytes() for path in files)


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="the system tells of no ports")
def test_crawl_opens_no_listening_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(ShopOptions(per_label=2)) as shop:
        original_respond, addresses = shop.respond, list[list[str]]()

        def respond(request: SiteRequest) -> SiteResponse:
            if request.path.startswith("/img"):
                addresses.append(process.listening_addresses())
            return original_respond(request)

        monkeypatch.setattr(shop, "respond", respond)
        process = start(shop, tmp_path, "--tags", "polo")
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert addresses
    assert not any(addresses)
