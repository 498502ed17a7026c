"""Tests of the `fetch-photos` command: input lists, Ctrl-C and closed pipes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import fashion_tagger
from dataset.errors import BadInput
from scraper.fetch import FeedUrls, open_url_feed
from tests.support.catalogue_data import photo_bytes
from tests.support.crawls import run
from tests.support.photo_site import PhotoSite, serving

ALLOW = "--allow-private-hosts"
PHOTO = photo_bytes(1, (200, 260))


@pytest.fixture
def site() -> Iterator[PhotoSite]:
    with serving({f"/{number}.jpg": PHOTO for number in range(300)}) as photo_site:
        yield photo_site


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command as a user does, for tests of its input, of signals and of its end."""
    return subprocess.Popen(
        [
            sys.executable,
            fashion_tagger.__file__,
            "fetch-photos",
            *arguments,
        ],
        cwd=folder,
        env=dict(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fetch(folder: Path, *arguments: str) -> tuple[dict[str, str], str]:
    """Run the command; return the problem of each URL and the standard error."""
    done = run(folder, "fetch-photos", *arguments)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {line["url"]: line["problem"] for line in lines}, done.stderr


def test_list_with_valid_and_invalid_lines(tmp_path: Path, site: PhotoSite) -> None:
    lines = [f"{site.url}/1.jpg", f"  {site.url}/2.jpg\r", "", "nothing", f"{site.url}/gone.jpg"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    problems, _ = fetch(tmp_path, ALLOW, "list.txt")
    assert problems == {
        f"{site.url}/1.jpg": "",
        f"{site.url}/2.jpg": "",
        "nothing": "invalid URL",
        f"{site.url}/gone.jpg": "HTTP 404",
    }
    photos = [path for path in (tmp_path / "fetched").rglob("*.*") if ".sqlite" not in path.name]
    assert [path.read_bytes() for path in photos] == [PHOTO] * 2


def test_all_requests_that_wait_for_robots_txt_obey_it(tmp_path: Path, site: PhotoSite) -> None:
    site.robots_delay = 1.0
    site.bodies |= {f"/secret/{number}.jpg": PHOTO for number in range(6)}
    process = start(tmp_path, ALLOW)
    urls = [f"{site.url}/secret/{number}.jpg" for number in range(6)]
    output, errors = process.communicate("\n".join(urls), timeout=120)
    assert process.returncode == 0, errors
    problems = [json.loads(line)["problem"] for line in output.splitlines()]
    assert problems == ["robots.txt"] * 6
    assert site.requests == {"/robots.txt": 1}


def test_ctrl_c_ends_the_command_while_it_waits_for_input(tmp_path: Path, site: PhotoSite) -> None:
    process = start(tmp_path, ALLOW)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{site.url}/1.jpg\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["problem"] == ""
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read() if process.stderr else ""
    assert process.wait(60) == 1
    assert "repeat the command to continue" in errors and "Fatal" not in errors


@pytest.mark.slow
def test_closed_output_pipe_ends_the_command(tmp_path: Path, site: PhotoSite) -> None:
    process = start(tmp_path, ALLOW)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("".join(f"{site.url}/{number}.jpg\n" for number in range(300)))
    process.stdin.flush()
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read() if process.stderr else ""
    assert process.wait(60) == 1
    assert "Traceback" not in errors
    assert 0 < sum(site.requests.values()) < 300


def problems_of(folder: Path, urls: list[str], *options: str) -> dict[str, str]:
    """Fetch a list of URLs and return the problem of each one."""
    (folder / "urls.txt").write_text("\n".join(urls))
    return fetch(folder, *options, "urls.txt")[0]


def test_crawl_delay_is_kept(tmp_path: Path, site: PhotoSite) -> None:
    site.bodies["/robots.txt"] = b"User-agent: *\nCrawl-delay: 0.5\n"
    start_time = time.monotonic()
    problems = problems_of(tmp_path, [f"{site.url}/{n}.jpg" for n in range(6)], ALLOW)
    assert set(problems.values()) == {""}
    assert time.monotonic() - start_time >= 5 * 0.5


class ProxyHandler(BaseHTTPRequestHandler):
    """An HTTP proxy that answers for all hosts."""

    urls: list[str]
    authorizations: set[str | None]

    def do_GET(self) -> None:
        self.urls.append(self.path)
        self.authorizations.add(self.headers["Proxy-Authorization"])
        body = b"" if self.path.endswith("robots.txt") else PHOTO
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def test_proxy_gets_only_requests_of_public_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(ProxyHandler):
        urls: list[str] = []  # noqa: RUF012 - used by one server only
        authorizations: set[str | None] = set()  # noqa: RUF012

    public, private = "http://shop.example/1.jpg", "private address"
    expected = {
        public: "",
        "http://10.1.2.3/1.jpg": private,
        "http://[::1]/1.jpg": private,
        "http://2130706433/1.jpg": private,
        "http://localhost/1.jpg": private,
        "http://router/1.jpg": private,
        "http://wiki.corp/1.jpg": private,
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://me:secret@127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("no_proxy", "")
        assert problems_of(tmp_path, list(expected)) == expected
        server.shutdown()
    assert Handler.urls == ["http://shop.example/robots.txt", public]
    assert Handler.authorizations == {"Basic bWU6c2VjcmV0"}


def test_proxy_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    (problem,) = problems_of(tmp_path, ["http://shop.example/1.jpg"]).values()
    assert "proxy" in problem


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_ipv6_hosts(tmp_path: Path) -> None:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    class Handler(ProxyHandler):
        urls: list[str] = []  # noqa: RUF012 - used by one server only
        authorizations: set[str | None] = set()  # noqa: RUF012

    with Server(("::1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://[::1]:{server.server_address[1]}/1.jpg"
        assert problems_of(tmp_path, [url], ALLOW) == {url: ""}
        assert problems_of(tmp_path, [url], "--fetched", "other") == {url: "private address"}
        server.shutdown()


def test_urls_of_a_feed_are_requested_once(tmp_path: Path, site: PhotoSite) -> None:
    (tmp_path / "feed.csv").write_text(
        "id;image;tag\n"
        f"1;{site.url}/1.jpg|{site.url}/2.jpg;hat\n2;{site.url}/2.jpg;hat\n3;a.jpg;hat\n4;;hat\n"
    )
    problems, errors = fetch(tmp_path, ALLOW, "feed.csv")
    assert problems == {f"{site.url}/1.jpg": "", f"{site.url}/2.jpg": ""}
    assert site.requests["/2.jpg"] == 1
    assert errors.splitlines() == [
        "not requested: 1: a path, which needs no download",
        "not requested: 1: no image",
    ]


def test_each_url_has_a_result(tmp_path: Path) -> None:
    urls = [
        "http://",
        "http:///a.jpg",
        f"http://a.invalid/{'a' * 9_000}",
        "http://[::1",
        "http://?x",
    ]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    problems, _ = fetch(tmp_path, "list.txt")
    assert set(problems) == set(urls)
    assert problems[urls[2]] == "a URL of more than 8,000 characters"


def test_lists_and_feeds_are_told_apart(tmp_path: Path) -> None:
    feed, urls = tmp_path / "feed", tmp_path / "list"
    feed.write_text("photo\tname\nhttp://a.example/1.jpg\tx\n")
    urls.write_text("http://a.example/1.jpg\nhttp://a.example/2.jpg\n")
    opened = open_url_feed(feed, {}, None, is_feed=False)
    assert opened is not None
    assert list(FeedUrls(opened)) == ["http://a.example/1.jpg"]
    assert open_url_feed(urls, {}, None, is_feed=False) is None
    assert open_url_feed(urls.rename(tmp_path / "list.csv"), {}, None, is_feed=False) is None
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="no row with names"):
        open_url_feed(tmp_path / "bad.csv", {}, None, is_feed=False)
