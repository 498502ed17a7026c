"""Serving the page: a port, an address to open, until Ctrl-C."""

import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path

import click
import uvicorn

from dataset.catalogue.session import open_catalogue
from dataset.errors import BadInput, Failure, first_line
from dataset.labels import load_vocabulary
from dataset.review.app import create_app
from dataset.review.conflicts import find_conflicts
from dataset.review.guard import LOOPBACK, door_to
from dataset.review.views import Review
from dataset.stores import open_store

# Requests that are being answered get so long when the server is stopped.
GRACE_SECONDS = 5


@dataclass(frozen=True)
class ReviewOptions:
    """What `review` was asked for (see `review --help`)."""

    catalogue: str
    images: str
    who: str
    vocabulary: Path | None = None
    host: str = LOOPBACK
    port: int = 0
    url_file: Path | None = None


def serve(options: ReviewOptions) -> None:
    """Serve the page until Ctrl-C, having said where.

    Raises:
        BadInput: no catalogue, or no such host.
        Failure: the port is taken, or the catalogue can't be used.
    """
    sessions = open_catalogue(options.catalogue, must_exist=True)
    vocabulary, store = load_vocabulary(options.vocabulary), open_store(options.images)
    listening = _listen(options.host, options.port)
    port = listening.getsockname()[1]
    door = door_to(options.host, port)
    find_conflicts(sessions, vocabulary)
    app = create_app(Review(sessions, store, vocabulary, options.who, door))
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    _announce(options, port, door.token)
    # Ctrl-C is how this ends.
    with contextlib.suppress(KeyboardInterrupt), contextlib.closing(listening):
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise BadInput(
            f"--host {host}: {first_line(error)}; name an address of this machine"
        ) from error
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()
    except OSError as error:
        made.close()
        raise Failure(
            f"nobody can listen at {host}, port {port}: {error.strerror}; name another one with"
            " --port (0 takes a free one), or another address with --host"
        ) from error
    return made


def _announce(options: ReviewOptions, port: int, token: str | None) -> None:
    """Say, once, where the page is."""
    shown = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
    shown = f"[{shown}]" if ":" in shown else shown
    url = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    click.echo(f"Review at {url} until Ctrl-C")
    if options.url_file:
        try:
            options.url_file.write_text(url, encoding="utf-8")
        except OSError as error:
            raise Failure(f"{options.url_file} can't be written: {error.strerror}") from error
