"""Answers as text, JSON and a page that opens from disk; recommendations as CSV."""

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
from dataset.utils.files import atomic_path
from dataset.utils.html import environment
from dataset.utils.tables import format_table
from model.similar.items import Found, Item
from model.similar.query import Answer
from model.similar.recommend import Recommended
from model.similar.sources import read_photo

# Pixels a side of a page's photos, on a screen of two pixels a point.
SIDE = 360
HEAD = ("likeness", "label", "price", "title", "item")
CSV_HEAD = (
    *("id", "label", "product", "rank", "similar_id", "similar_label", "similar_product"),
    *("likeness", "price", "currency", "site", "url"),
)


def show(
    answers: Sequence[Answer],
    facts: Mapping[str, Any],
    json_file: Path | None,
    html: Path | None,
) -> None:
    """Print ANSWERS, of an index of FACTS; as JSON where JSON_FILE is "-". Write what is asked for.

    Raises:
        Failure: a file can't be written.
    """
    note = ""
    if "recall" in facts:
        note = (
            f"The search is approximate: it finds {facts['recall']:.1%} of the 10 nearest (measured"
            " on a sample of the index)."
        )
    if html:
        with whole_file("--html", html) as file:
            file.write(page(answers, facts["source"], note))
    about = {"index": {"model": facts["run"], "recall": facts.get("recall")}}
    if json_file == Path("-"):
        click.echo(as_json(answers, about), nl=False)
        return
    if json_file:
        with whole_file("--json", json_file) as file:
            file.write(as_json(answers, about))
    if said := text(answers):
        click.echo(said)
    if note:
        click.echo(note)
    for path in (json_file, html):
        if path:
            click.echo(f"written: {path}")


def text(answers: Sequence[Answer]) -> str:
    """ANSWERS for people at a terminal; problems are left out."""
    return "\n\n".join(_text(answer) for answer in answers if answer.asked)


def _text(answer: Answer) -> str:
    assert answer.asked is not None
    label = shorten_for_display(answer.asked.label)
    said = f" ({label}{', says the model' if answer.guessed else ''})" if label else ""
    head = f"{shorten_for_display(answer.name)}{said}"
    if not answer.found:
        return f"{head}: no item is let through by the filters"
    return f"{head}\n{format_table(HEAD, [_line(found) for found in answer.found])}"


def _line(found: Found) -> tuple[str, ...]:
    item = found.item
    more = f" and {len(found.folded)} more of it" if found.folded else ""
    name = shorten_for_display(item.url or item.id) + more
    title = shorten_for_display(item.title)
    short = title if len(title) <= 40 else title[:39] + "…"
    return f"{found.likeness:.3f}", shorten_for_display(item.label), price_of(item), short, name


def price_of(item: Item) -> str:
    """ITEM's price with its currency, or nothing."""
    return (
        "" if item.price is None else f"{item.price:g} {shorten_for_display(item.currency)}".strip()
    )


def as_json(answers: Sequence[Answer], about: Mapping[str, Any]) -> str:
    """ANSWERS as JSON, with what is said ABOUT the index."""
    told = [
        {
            "query": answer.name,
            "problem": answer.problem or None,
            "item": asdict(answer.asked) if answer.asked else None,
            "label_by_model": answer.guessed,
            "results": [
                {
                    "rank": rank,
                    "likeness": round(found.likeness, 4),
                    **asdict(found.item),
                    "folded": list(found.folded),
                }
                for rank, found in enumerate(answer.found, 1)
            ],
        }
        for answer in answers
    ]
    return json.dumps({**about, "answers": told}, ensure_ascii=False, indent=2) + "\n"


def page(answers: Sequence[Answer], source: Mapping[str, str], note: str) -> str:
    """ANSWERS as one page with their photos, which lie where SOURCE, an index's, says."""
    strips = [
        {
            "answer": answer,
            "photo": _photo(answer.asked, source) if answer.asked else "",
            "results": [(found, _photo(found.item, source)) for found in answer.found],
        }
        for answer in answers
    ]
    template = environment(Path(__file__).with_name("templates")).get_template("strips.html")
    return template.render(strips=strips, price_of=price_of, link_of=link_of, note=note)


def _photo(item: Item, source: Mapping[str, str]) -> str:
    """ITEM's photo, small, as an address that holds it; empty where it can't be had."""
    with contextlib.suppress(OSError, ValueError, Unreadable):
        small = thumbnail(read_photo(source, item.image), SIDE)
        return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
    return ""


def link_of(item: Item) -> str:
    """ITEM's address where no browser takes it for a program."""
    return item.url if item.url.startswith(("https://", "http://")) else ""


@contextlib.contextmanager
def whole_file(option: str, path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of PATH, which OPTION named, at its end, or never.

    Raises:
        Failure: it can't be written.
    """
    if path.exists() and not path.is_file():
        raise Failure(f"{option} {path} is no plain file; name another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            yield file
    except OSError as error:
        raise Failure(
            f"{option} {path} can't be written: {first_line(error)}; make room, or name another"
        ) from error


def write_recommendations(
    path: Path, items: Sequence[Item], parts: Iterable[Recommended]
) -> tuple[int, int]:
    """Write PARTS, of ITEMS by row, as CSV to PATH; returns how many rows, and items with none.

    Raises:
        Failure: it can't be written.
    """
    rows = lonely = 0
    with whole_file("--out", path) as file:
        out = csv.writer(file)
        out.writerow(CSV_HEAD)
        for part in parts:
            for row, chosen, likeness in zip(
                part.rows.tolist(), part.chosen.tolist(), part.likeness.tolist(), strict=True
            ):
                lines = list(_csv_lines(items, row, chosen, likeness))
                out.writerows(lines)
                rows, lonely = rows + len(lines), lonely + (not lines)
    return rows, lonely


def _csv_lines(
    items: Sequence[Item], row: int, chosen: Sequence[int], likeness: Sequence[float]
) -> Iterator[tuple[object, ...]]:
    own = items[row]
    for rank, (place, alike) in enumerate(zip(chosen, likeness, strict=True), 1):
        if place < 0:
            return
        its = items[place]
        price = "" if its.price is None else f"{its.price:g}"
        names = own.id, own.label, own.product, rank, its.id, its.label, its.product
        yield *names, f"{alike:.4f}", price, its.currency, its.site, its.url
