"""Download a published file from a loopback server that breaks off, changes the file or is down."""

import hashlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dataset.errors import Failure
from dataset.utils.downloads import PublishedFile, fetch_published

DATA = bytes(range(256)) * 4000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves a file; `ranges` has each Range header, `cut` the length of the next response."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.cut: int | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}/weights.h5"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(DATA):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        end, self.server.cut = self.server.cut or len(DATA), None
        self.wfile.write(DATA[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(server: Server, folder: Path, digest: str = DIGEST) -> Path:
    return fetch_published(PublishedFile("weights.h5", server.url, digest), folder, "use --other")


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        assert get(server, tmp_path / "new").read_bytes() == DATA
    assert server.ranges == [None]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["weights.h5"]


@pytest.mark.parametrize("digest", [DIGEST[:15], "md5:" + hashlib.md5(DATA).hexdigest()])
def test_a_published_prefix_and_an_md5_are_enough(
    server: Server, tmp_path: Path, digest: str
) -> None:
    assert get(server, tmp_path, digest).read_bytes() == DATA


def test_a_broken_download_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cut = 300_000
    with pytest.raises(Failure, match="use --other"):
        get(server, tmp_path)
    assert not (tmp_path / "weights.h5").exists()
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.ranges == [None, "bytes=300000-"]


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.h5.part").write_bytes(DATA)
    assert get(server, tmp_path).read_bytes() == DATA


def test_another_file_than_the_published_one_is_thrown_away(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.h5.part").write_bytes(b"of something else")
    with pytest.raises(Failure, match="instead of sha256:") as raised:
        get(server, tmp_path)
    assert raised.value.exit_code == 1
    assert not (tmp_path / "weights.h5").exists()
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_wrong_file_in_its_place_is_named_and_kept(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(b"mine")
    with pytest.raises(Failure, match="remove it, or use --other"):
        get(server, tmp_path)
    assert (tmp_path / "weights.h5").read_bytes() == b"mine"
    assert server.ranges == []


@pytest.mark.parametrize(
    ("url", "reason"), [("http://127.0.0.1:9/x", "refused"), ("http://[", "http://[")]
)
def test_without_a_way_to_it_the_error_says_everything(
    tmp_path: Path, url: str, reason: str
) -> None:
    with pytest.raises(Failure) as raised:
        fetch_published(PublishedFile("weights.h5", url, DIGEST), tmp_path, "use --other")
    for part in ("weights.h5", url, DIGEST, reason, str(tmp_path / "weights.h5"), "use --other"):
        assert part in raised.value.message
    assert "\n" not in raised.value.message
