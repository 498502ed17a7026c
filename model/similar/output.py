"""Write search results as text, JSON and an HTML page, and recommendations as CSV."""

import base64
import contextlib
import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click

from dataset.errors import Failure, first_line, shorten_for_display
from dataset.images.io import Unreadable, thumbnail
from dataset.utils.cli_options import format_table
from dataset.utils.files import atomic_path, spreadsheet_row
from dataset.utils.html import render
from model.similar.index_file import IndexItem, SearchResult
from model.similar.query import QueryResult
from model.similar.search import Recommendations
from model.similar.sources import read_photo

# Pixels of the page's photos, for screens with two pixels per CSS pixel.
SIDE_PIXELS = 360
TABLE_COLUMNS = ("similarity", "label", "price", "title", "item")
CSV_COLUMNS = (
    *("id", "label", "product", "rank", "similar_id", "similar_label", "similar_product"),
    *("similarity", "price", "currency", "site", "url"),
)


def write_results(
    results: Sequence[QueryResult],
    facts: Mapping[str, Any],
    json_file: Path | None,
    html: Path | None,
) -> None:
    """Print the results of queries and write the requested files.

    Args:
        results: The results.
        facts: Facts of the index.
        json_file: JSON file to write; "-": print JSON instead of text.
        html: HTML file to write.

    Raises:
        Failure: A file can't be written.
    """
    note = ""
    if "recall" in facts:
        note = (
            f"The search is approximate: it finds {facts['recall']:.1%} of the 10 nearest items"
            " (measured on a sample of the index)."
        )
    if html:
        with atomic_text_file("--html", html) as file:
            file.write(render_page(results, facts["source"], note))
    about = {"index": {"model": facts["run"], "recall": facts.get("recall")}}
    if json_file == Path("-"):
        click.echo(as_json(results, about), nl=False)
        return
    if json_file:
        with atomic_text_file("--json", json_file) as file:
            file.write(as_json(results, about))
    if text := format_results(results):
        click.echo(text)
    if note:
        click.echo(note)
    for path in (json_file, html):
        if path:
            click.echo(f"written: {path}")


def format_results(results: Sequence[QueryResult]) -> str:
    """Format the results of queries for the terminal, without those that have a problem."""
    return "\n\n".join(_format_result(result) for result in results if result.item)


def _format_result(result: QueryResult) -> str:
    assert result.item is not None
    label = shorten_for_display(result.item.label)
    suffix = ", predicted by the model" if result.is_label_predicted else ""
    title = shorten_for_display(result.name) + (f" ({label}{suffix})" if label else "")
    if not result.results:
        return f"{title}: no item passes the filters"
    return f"{title}\n{format_table(TABLE_COLUMNS, list(map(_result_cells, result.results)))}"


def _result_cells(result: SearchResult) -> tuple[str, ...]:
    item, count = result.item, len(result.duplicates)
    duplicates = f" and {count} duplicate{'s' if count > 1 else ''}" if count else ""
    name = shorten_for_display(item.url or item.id) + duplicates
    title = shorten_for_display(item.title)
    short_title = title if len(title) <= 40 else title[:39] + "…"
    label = shorten_for_display(item.label)
    return f"{result.similarity:.3f}", label, format_price(item), short_title, name


def format_price(item: IndexItem) -> str:
    """Format the price of an item with its currency; empty without a price."""
    if item.price is None:
        return ""
    return f"{item.price:g} {shorten_for_display(item.currency)}".strip()


def as_json(results: Sequence[QueryResult], about: Mapping[str, Any]) -> str:
    """Format the results of queries as JSON, with facts about the index."""
    queries = [
        {
            "query": result.name,
            "problem": result.problem or None,
            "item": asdict(result.item) if result.item else None,
            "is_label_predicted": result.is_label_predicted,
            "results": [
                {
                    "rank": rank,
                    "similarity": round(found.similarity, 4),
                    **asdict(found.item),
                    "duplicates": list(found.duplicates),
                }
                for rank, found in enumerate(result.results, 1)
            ],
        }
        for result in results
    ]
    return json.dumps({**about, "queries": queries}, ensure_ascii=False, indent=2) + "\n"


def render_page(results: Sequence[QueryResult], source: Mapping[str, str], note: str) -> str:
    """Render an HTML page with photos.

    Args:
        results: The results of queries.
        source: Facts of the index's source, to find the photos.
        note: A note on the search.
    """
    strips = [
        {
            "query": result,
            "photo": _thumbnail_uri(result.item, source) if result.item else "",
            "results": [(found, _thumbnail_uri(found.item, source)) for found in result.results],
        }
        for result in results
    ]
    count = len(strips)
    return render(
        Path(__file__).with_name("templates"),
        "strips.html",
        title="Items similar to " + (f"{count:,} queries" if count > 1 else "the query"),
        strips=strips,
        format_price=format_price,
        safe_url=safe_url,
        note=note,
    )


def _thumbnail_uri(item: IndexItem, source: Mapping[str, str]) -> str:
    """Return a small photo of an item as a data URI; empty if it can't be read."""
    with contextlib.suppress(OSError, ValueError, Unreadable):
        jpeg = thumbnail(read_photo(source, item.image), SIDE_PIXELS)
        return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return ""


def safe_url(item: IndexItem) -> str:
    """Return the URL of an item if it is http or https; others may run scripts."""
    return item.url if item.url.startswith(("https://", "http://")) else ""


@contextlib.contextmanager
def atomic_text_file(option: str, path: Path) -> Iterator[TextIO]:
    """Open a text file that replaces a path when the block succeeds.

    Args:
        option: The option that names the path, for messages.
        path: The file to replace.

    Raises:
        Failure: The file can't be written.
    """
    if path.exists() and not path.is_file():
        raise Failure(f"{option} {path} is not a regular file; name another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            yield file
    except OSError as error:
        raise Failure(
            f"{option} {path} can't be written: {first_line(error)}; free disk space, or name"
            " another file"
        ) from error


def write_recommendations(
    path: Path, items: Sequence[IndexItem], batches: Iterable[Recommendations]
) -> tuple[int, int]:
    """Write recommendations as CSV.

    Args:
        path: The file to write.
        items: The items by row.
        batches: Recommendations for all rows.

    Returns:
        Numbers of recommendations, and of items without any.

    Raises:
        Failure: The file can't be written.
    """
    count = items_without = 0
    with atomic_text_file("--out", path) as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for batch in batches:
            for row, chosen, similarities in zip(
                batch.rows.tolist(), batch.chosen.tolist(), batch.similarity.tolist(), strict=True
            ):
                lines = list(_recommendation_rows(items, row, chosen, similarities))
                writer.writerows(map(spreadsheet_row, lines))
                count, items_without = count + len(lines), items_without + (not lines)
    return count, items_without


def _recommendation_rows(
    items: Sequence[IndexItem], row: int, chosen: Sequence[int], similarities: Sequence[float]
) -> Iterator[tuple[object, ...]]:
    item = items[row]
    for rank, (other, similarity) in enumerate(zip(chosen, similarities, strict=True), 1):
        if other < 0:
            return
        similar = items[other]
        price = "" if similar.price is None else f"{similar.price:g}"
        yield (
            *(item.id, item.label, item.product, rank),
            *(similar.id, similar.label, similar.product, f"{similarity:.4f}"),
            *(price, similar.currency, similar.site, similar.url),
        )
