"""The `fetch-photos` command."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import (
    CONTEXT_SETTINGS,
    contact_option,
    fetched_option,
    private_hosts_option,
    timeout_option,
)

PURPOSE = "looks at photos of a product feed; obeys robots.txt"


@click.command(
    "fetch-photos",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: fetch-photos addresses.txt --contact me@shop.example",
)
@click.argument("addresses", type=click.Path(dir_okay=False, allow_dash=True), default="-")
@fetched_option
@private_hosts_option("none")
@contact_option
@timeout_option
@click.option("-v", "--verbose", is_flag=True, help="Show every request.")
def fetch_photos(addresses: str, fetched: Path, **chosen: Any) -> None:
    """Download the images at ADDRESSES, a file with one URL per line, or - for standard input.

    check-tags and find-similar do this for feeds. The rules of crawl apply: robots.txt, rate
    limits, size limits, no private addresses. Prints a line of JSON for each URL when it is done:
    "url", and "problem", which is empty if the image was downloaded.
    """
    from scraper.fetch import fetch
    from scraper.settings import Manners

    manners = Manners(**chosen, purpose=PURPOSE)
    try:
        with click.open_file(addresses, "rb") as file:
            ended = fetch(_lines(file), fetched, manners, _say)
    except FileNotFoundError as error:
        raise BadInput(f"{addresses}: no such file; name a file with one URL per line") from error
    finally:
        _let_go_of_broken_pipe()
    if not ended:
        raise click.ClickException("interrupted; repeat the command to continue")


def _lines(addresses: IO[bytes]) -> Iterator[str]:
    # Without Python's buffer, which reads ahead while the sender waits for results, and which can
    # block the exit of the program.
    rest = b""
    while data := os.read(addresses.fileno(), 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from filter(None, map(_line, lines))
    yield from filter(None, [_line(rest)])


def _line(given: bytes) -> str:
    return given.decode("utf-8", "replace").strip()


def _say(url: str, problem: str) -> None:
    sys.stdout.write(json.dumps({"url": url, "problem": problem}) + "\n")
    sys.stdout.flush()


def _let_go_of_broken_pipe() -> None:
    """Prevent an error at exit if nobody reads standard output any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
