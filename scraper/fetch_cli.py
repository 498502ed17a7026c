"""`fetch-photos`: options -> one call -> exit status."""

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
    """Fetch the photos at ADDRESSES, a file with one a line, or - for what comes in.

    check-tags and find-similar do this by themselves for feeds. The rules are those of crawl:
    robots.txt, each host's pace, limits of size, no private addresses. Prints a line of JSON for
    each address, as it is done: "url", and "problem", empty where the photo is there.
    """
    from scraper.fetch import fetch
    from scraper.settings import Manners

    manners = Manners(**chosen, purpose=PURPOSE)
    try:
        with click.open_file(addresses, "rb") as file:
            ended = fetch(_lines(file), fetched, manners, _say)
    except FileNotFoundError as error:
        raise BadInput(f"{addresses}: no such file; name one with an address a line") from error
    finally:
        _let_go_of_broken_pipe()
    if not ended:
        raise click.ClickException("stopped before all was fetched; the same command goes on")


def _lines(addresses: IO[bytes]) -> Iterator[str]:
    # Past Python's own buffer: it reads ahead while who sends waits for answers, and a thread that
    # is held up in it lets no program end.
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
    """See that Python does not complain at its end that nobody hears it any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
