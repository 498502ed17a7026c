"""Run a crawl of several sites, and report its results."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from scrapy.settings import Settings
from sqlalchemy.orm import Session

from dataset.errors import Failure
from dataset.selection.candidates import Exclusions
from dataset.selection.labeling import label_photos
from dataset.utils.files import write_atomically
from dataset.vocabulary import Vocabulary
from scraper.crawl.context import open_context
from scraper.crawl.process import run_spiders
from scraper.crawl.searches import CrawlLimits
from scraper.crawl.summary import (
    GOOD_ENDS,
    LabelShortage,
    SearchStats,
    format_results,
    label_shortage,
)

if TYPE_CHECKING:
    from scraper.spiders.base import HashtagSpider


@dataclass(frozen=True)
class CrawlResult:
    """The results of a crawl.

    Attributes:
        searches: Result of each search.
        problems: Why searches did not reach their end.
        is_complete: Whether the crawl was not interrupted.
        sizes: Tag -> number of its photos in the catalogue.
        seconds: Duration.
    """

    searches: list[SearchStats]
    problems: list[str]
    is_complete: bool
    sizes: dict[str, int]
    seconds: float


def crawl(
    spiders: "Sequence[HashtagSpider]",
    tags: Sequence[str],
    limits: CrawlLimits,
    vocabulary: Vocabulary,
    settings: Settings,
) -> CrawlResult:
    """Crawl sites into the catalogue and image store that the settings name.

    Raises:
        BadInput: A setting must not be changed.
        Failure: The catalogue or the image store can't be used.
    """
    start = time.monotonic()
    words = {tag: vocabulary.words_of(tag) for tag in tags}
    with open_context(settings["CATALOGUE"], settings["IMAGES"], vocabulary) as context:
        shared = {"tags": words, "limits": limits, "context": context}
        jobs = [(type(spider), {**spider.arguments, **shared}) for spider in spiders]
        is_complete = run_spiders(jobs, settings)
        context.is_complete = context.is_complete and is_complete
        if context.failure is not None:
            raise context.failure
        with context.sessions() as session:
            sizes = {tag: _count_photos(session, vocabulary, tag) for tag in tags}
    seconds = time.monotonic() - start
    return CrawlResult(context.searches, context.problems, context.is_complete, sizes, seconds)


def _count_photos(session: Session, vocabulary: Vocabulary, tag: str) -> int:
    """Return how many photos `catalogue stats` and a build have of the label of a tag."""
    photos = label_photos(session, vocabulary, Exclusions(), vocabulary.words_of(tag))
    return sum(photo.label == vocabulary.label_or_own(tag) for photo in photos)


def report(result: CrawlResult, minimum: int, file: Path | None, is_verbose: bool) -> None:
    """Print the results of a crawl and write them to a file.

    Args:
        result: The results.
        minimum: Number of photos that each tag should have.
        file: JSON file to write.
        is_verbose: Print one row per search instead of one per tag.

    Raises:
        Failure: A search did not reach its end or a limit, or the file can't be written.
    """
    shortages = [
        label_shortage(tag, size, minimum, result.seconds, result.searches)
        for tag, size in result.sizes.items()
    ]
    for line in (*format_results(result.searches, is_verbose), *shortages):
        click.echo(line)
    if file:
        _write(file, as_json(result, shortages))
    _check_complete(result)


def as_json(result: CrawlResult, shortages: list[LabelShortage]) -> dict[str, Any]:
    """Return the results as JSON values."""
    return {
        "searches": [
            {**stats.columns(), "rejected": dict(stats.rejected), "skipped": dict(stats.skipped)}
            for stats in result.searches
        ],
        "labels": [asdict(shortage) for shortage in shortages],
        "problems": result.problems,
        "ended": result.is_complete,
        "seconds": round(result.seconds, 1),
    }


def _write(file: Path, value: Mapping[str, Any]) -> None:
    try:
        write_atomically(file, json.dumps(value, ensure_ascii=False, indent=2).encode())
    except OSError as error:
        raise Failure(f"--json {file} can't be written: {error.strerror}") from error


def _check_complete(result: CrawlResult) -> None:
    if not result.is_complete:
        raise Failure("interrupted; repeat the command to continue")
    if result.problems:
        raise Failure("\nError: ".join(result.problems))
    if any(stats.ended not in GOOD_ENDS for stats in result.searches):
        raise Failure("not every search reached its end; repeat the command to continue")
