"""A shop's product feed, a row an item: id, image, tag. CSV, TSV or JSON lines, row by row."""

import codecs
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dataset.errors import BadInput, first_line

FORMATS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": ""}
# What columns are called in feeds of shops and of Google, Meta and Yandex, the first that is there.
NAMES = {
    "id": ("id", "item_id", "product_id", "sku", "offer_id", "article"),
    "image": ("image", "image_link", "image_url", "picture", "photo", "img", "path", "file"),
    "tag": ("tag", "label", "category", "product_type", "google_product_category", "class"),
}
# A longer cell than this is no id, tag or path.
LONGEST_CELL = 16 << 20
# Stands for bytes that are invalid in the feed's encoding.
REPLACEMENT = "\ufffd"
# Between the levels of a category, as Google's and Yandex' feeds write them.
LEVELS = re.compile(r"\s*[>»›/|]\s*")


@dataclass(frozen=True)
class Columns:
    """The names of a feed's columns; `cost`: what a wrong tag costs, None where all cost alike."""

    id: str
    image: str
    tag: str
    cost: str | None = None


@dataclass(frozen=True)
class Row:
    """A row of a feed: its number from 1, its values by column, or why it can't be used.

    `values` is empty where the row can't be parsed.
    """

    number: int
    values: Mapping[str, Any]
    id: str = ""
    image: str = ""
    tag: str = ""
    cost: float = 1.0
    problem: str = ""


@dataclass(frozen=True)
class Feed:
    """A feed's file, its columns in order, and which of them are what.

    `delimiter`: between its cells; empty for JSON lines. `encoding`: Python's name of it.
    """

    path: Path
    header: tuple[str, ...]
    columns: Columns
    delimiter: str = ","
    encoding: str = "utf-8"

    @property
    def is_json(self) -> bool:
        """Whether it is JSON lines."""
        return not self.delimiter

    def rows(self) -> Iterator[Row]:
        """Its rows in their order; one that is broken says why."""
        with _opened(self.path, self.encoding) as file:
            rows = _json_rows(file) if self.is_json else self._table_rows(file)
            for number, (values, problem) in enumerate(rows, 1):
                yield self._row(number, values, problem)

    def _table_rows(self, file: TextIO) -> Iterator[tuple[dict[str, Any], str]]:
        lines = csv.reader(file, delimiter=self.delimiter)
        next(lines)
        while True:
            try:
                cells = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                yield {}, f"broken row: {first_line(error)}"
                continue
            if not cells:
                continue
            wrong = len(cells) != len(self.header)
            problem = f"{len(cells)} cells, not {len(self.header)}" if wrong else ""
            padded = [*cells, *[""] * (len(self.header) - len(cells))]
            yield dict(zip(self.header, padded, strict=False)), problem

    def _row(self, number: int, values: dict[str, Any], problem: str) -> Row:
        said = {name: _text(values.get(getattr(self.columns, name))) for name in NAMES}
        cost, wrong = self._cost(values)
        lacking = [name for name in NAMES if not said[name]]
        why = problem or (f"no {' and no '.join(lacking)}" if lacking else wrong)
        if not why and REPLACEMENT in said["tag"]:
            why = f"the tag is not {self.encoding.removesuffix('-sig')}: see --encoding"
        # Cells of a row with too many or too few may be of other columns.
        kept = {} if problem else values
        return Row(number, kept, said["id"], said["image"], said["tag"], cost, why)

    def _cost(self, values: Mapping[str, Any]) -> tuple[float, str]:
        if self.columns.cost is None:
            return 1.0, ""
        given = values.get(self.columns.cost)
        try:
            cost = float(str(given).replace(",", "."))
        except ValueError:
            cost = math.nan
        if cost >= 0 and math.isfinite(cost):
            return cost, ""
        return 0.0, f"{self.columns.cost} {str(given)[:40]!r} is no cost from 0 up"


def levels(tag: str) -> list[str]:
    """TAG, and where it is a way through categories its levels, the last first."""
    parts = [part for part in LEVELS.split(tag) if part]
    return [tag, *reversed(parts)] if len(parts) > 1 else [tag]


def open_feed(
    path: Path, named: Mapping[str, str], cost: str | None = None, encoding: str | None = None
) -> Feed:
    """The feed at PATH, its columns found by their usual names unless NAMED: id, image, tag.

    ENCODING None: UTF-8, or UTF-16 where the file begins with its mark.

    Raises:
        BadInput: no such file, another format or encoding, or a column that is not there.
    """
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"{path}: a feed ends in {', '.join(FORMATS)}; save it as one of these")
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    encoding = encoding or _encoding(path)
    try:
        with _opened(path, encoding) as file:
            first = file.readline()
            file.seek(0)
            delimiter = _delimiter(path, first)
            header = _header(path, file, delimiter)
    except (LookupError, UnicodeError, csv.Error) as error:
        raise BadInput(f"{path} can't be read as {encoding} ({error}); see --encoding") from error
    found = {name: _column(path, header, name, named.get(name)) for name in NAMES}
    if cost is not None and cost not in header:
        raise BadInput(f"{path} has no column {cost!r}; it has {', '.join(header)}")
    return Feed(path, tuple(header), Columns(**found, cost=cost), delimiter, encoding)


def _encoding(path: Path) -> str:
    """Return the encoding that the byte order mark of PATH names; UTF-8 without one."""
    with path.open("rb") as file:
        begins = file.read(3)
    if begins.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if begins == codecs.BOM_UTF8 else "utf-8"


def _delimiter(path: Path, first: str) -> str:
    """Between the cells of the feed PATH, by its FIRST line; empty for JSON lines."""
    usual = FORMATS[path.suffix.lower()]
    # Where the comma is of numbers, programs write semicolons.
    return max(",;\t|", key=first.count) if usual == "," else usual


def _header(path: Path, file: TextIO, delimiter: str) -> list[str]:
    if delimiter:
        header = next(csv.reader(file, delimiter=delimiter), [])
    else:
        # Later objects may have fewer keys, and seldom more.
        first = next((values for values, problem in _json_rows(file) if not problem), {})
        header = list(first)
    if not header:
        raise BadInput(f"{path} is empty; a feed has columns id, image, tag and a row an item")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInput(f"{path} has two columns called {', '.join(twice)}; give one another name")
    return header


def _column(path: Path, header: Sequence[str], name: str, named: str | None) -> str:
    if named is not None and named in header:
        return named
    lower = {one.strip().lower(): one for one in header}
    usual = () if named is not None else NAMES[name]
    for one in usual:
        if one in lower:
            return lower[one]
    raise BadInput(
        f"{path} has no column {named or name!r}; name the one that it is with"
        f" --columns {name}=NAME. It has: {', '.join(header)}"
    )


@contextmanager
def _opened(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open PATH as text; invalid bytes become REPLACEMENT."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        yield file


def _json_rows(file: TextIO) -> Iterator[tuple[dict[str, Any], str]]:
    for line in file:
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield {}, f"no JSON: {first_line(error)}"
            continue
        if isinstance(found, dict):
            yield found, ""
        else:
            yield {}, "no JSON object"


def _text(value: Any) -> str:
    if isinstance(value, list):
        # Several photos or tags: the first speaks for the item.
        value = value[0] if value else ""
    return "" if value is None or isinstance(value, dict | bool) else str(value).strip()
