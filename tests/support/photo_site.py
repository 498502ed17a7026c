"""A local web site with photos that counts its requests."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROBOTS = b"User-agent: *\nDisallow: /secret\n"
STALLS = "/stalls.jpg"


class PhotoSite:
    """Serves bodies by path; robots.txt disallows /secret, and STALLS never responds.

    Attributes:
        robots_delay: Seconds before robots.txt is served.
        statuses: Path -> status of its response, if not 200.
        redirects: Path -> path or URL that it redirects to.
    """

    def __init__(self, bodies: Mapping[str, bytes]) -> None:
        self.robots_delay = 0.0
        self.bodies = {"/robots.txt": ROBOTS, **bodies}
        self.statuses: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.released = threading.Event()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests[self.path] += 1
                site.agents.add(str(self.headers["User-Agent"]))
                if self.path == STALLS:
                    site.released.wait(30)
                if self.path == "/robots.txt":
                    time.sleep(site.robots_delay)
                body = site.bodies.get(self.path)
                status = site.statuses.get(self.path, 404 if body is None else 200)
                target = site.redirects.get(self.path)
                self.send_response(302 if target else status)
                if target:
                    self.send_header("Location", target)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def serving(bodies: Mapping[str, bytes]) -> Iterator[PhotoSite]:
    """Start a PhotoSite and stop it at the end of the block."""
    site = PhotoSite(bodies)
    thread = threading.Thread(target=site.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        site.server.shutdown()
        site.server.server_close()
        thread.join()
