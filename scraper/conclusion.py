"""Print the results of a crawl, write them as JSON, and set the exit status."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dataset.errors import Failure
from dataset.utils.files import write_atomically
from dataset.utils.tables import format_table
from scraper.report import GOOD_ENDS, HEAD, Missing, missing, reasons, rows
from scraper.run import Crawled


def conclude(crawled: Crawled, minimum: int, file: Path | None) -> None:
    """Print the results of a crawl and write them to a file.

    Raises:
        Failure: A search did not reach its end or a limit, or the file can't be written.
    """
    tallies = crawled.tallies
    lacking = [
        missing(tag, size, minimum, crawled.seconds, tallies) for tag, size in crawled.sizes.items()
    ]
    if tallies:
        click.echo(format_table(HEAD, rows(tallies)))
    for line in (*reasons(tallies), *lacking):
        click.echo(line)
    if file:
        _write(file, as_json(crawled, lacking))
    _refuse_unfinished(crawled)


def as_json(crawled: Crawled, lacking: list[Missing]) -> dict[str, Any]:
    """Return the results for JSON."""
    return {
        "searches": [
            {**one.columns(), "rejected": dict(one.rejected), "skipped": dict(one.skipped)}
            for one in crawled.tallies
        ],
        "labels": [asdict(one) for one in lacking],
        "problems": crawled.problems,
        "ended": crawled.ended,
        "seconds": round(crawled.seconds, 1),
    }


def _write(file: Path, value: dict[str, Any]) -> None:
    try:
        write_atomically(file, json.dumps(value, ensure_ascii=False, indent=2).encode())
    except OSError as error:
        raise Failure(f"--json {file} can't be written: {error.strerror}") from error


def _refuse_unfinished(crawled: Crawled) -> None:
    if not crawled.ended:
        raise Failure("interrupted; repeat the command to continue")
    if crawled.problems:
        raise Failure("\nError: ".join(crawled.problems))
    if any(tally.ended not in GOOD_ENDS for tally in crawled.tallies):
        raise Failure("not every search reached its end; repeat the command to continue")
