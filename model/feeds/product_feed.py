"""Read product feeds row by row: CSV, TSV or JSON lines with an id, an image and a tag."""

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

# File suffix -> usual delimiter; empty for JSON lines.
DELIMITERS = {".csv": ",", ".tsv": "\t", ".jsonl": "", ".ndjson": ""}
# Names of the columns in feeds of shops and of Google, Meta and Yandex; the first one is used.
COLUMN_NAMES = {
    "id": ("id", "item_id", "product_id", "sku", "offer_id", "article"),
    "image": ("image", "image_link", "image_url", "picture", "photo", "img", "path", "file"),
    "tag": ("tag", "label", "category", "product_type", "google_product_category", "class"),
}
# A longer cell is not an id, a tag or a path.
MAX_CELL_CHARACTERS = 16 << 20
# Stands for bytes that are invalid in the feed's encoding.
REPLACEMENT = "\ufffd"
# Separates the levels of a category in feeds of Google and Yandex.
LEVEL_SEPARATOR = re.compile(r"\s*[>»›/|]\s*")


@dataclass(frozen=True)
class FeedColumns:
    """Names of a feed's columns.

    Attributes:
        id: Column of the item's id.
        image: Column of the path or URL of its photo.
        tag: Column of its tag.
        cost: Column of the cost of a wrong tag; None: all cost the same.
    """

    id: str
    image: str
    tag: str
    cost: str | None = None


@dataclass(frozen=True)
class FeedRow:
    """A row of a feed.

    Attributes:
        number: Number of the row, from 1.
        values: Column -> value; empty if the row can't be parsed.
        id: The item's id.
        image: Path or URL of its photo.
        tag: Its tag.
        cost: Cost of a wrong tag.
        problem: Why the row can't be used, or empty.
    """

    number: int
    values: Mapping[str, Any]
    id: str = ""
    image: str = ""
    tag: str = ""
    cost: float = 1.0
    problem: str = ""


@dataclass(frozen=True)
class ProductFeed:
    """A feed file.

    Attributes:
        path: The file.
        header: Names of all columns in their order.
        columns: Names of the columns that are used.
        delimiter: Delimiter of cells; empty for JSON lines.
        encoding: Python's name of the encoding.
    """

    path: Path
    header: tuple[str, ...]
    columns: FeedColumns
    delimiter: str = ","
    encoding: str = "utf-8"

    @property
    def is_json(self) -> bool:
        """Whether the feed is JSON lines."""
        return not self.delimiter

    def rows(self) -> Iterator[FeedRow]:
        """Yield all rows in their order; broken rows have a problem."""
        with _open_text(self.path, self.encoding) as file:
            rows = _read_json_rows(file) if self.is_json else self._read_table_rows(file)
            for number, (values, problem) in enumerate(rows, 1):
                yield self._row(number, values, problem)

    def _read_table_rows(self, file: TextIO) -> Iterator[tuple[dict[str, Any], str]]:
        reader = csv.reader(file, delimiter=self.delimiter)
        next(reader)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield {}, f"broken row: {first_line(error)}"
                continue
            if not cells:
                continue
            has_wrong_length = len(cells) != len(self.header)
            problem = f"{len(cells)} cells, not {len(self.header)}" if has_wrong_length else ""
            padded = [*cells, *[""] * (len(self.header) - len(cells))]
            yield dict(zip(self.header, padded, strict=False)), problem

    def _row(self, number: int, values: dict[str, Any], problem: str) -> FeedRow:
        texts = {name: _text(values.get(getattr(self.columns, name))) for name in COLUMN_NAMES}
        cost, cost_problem = self._parse_cost(values)
        missing = [name for name in COLUMN_NAMES if not texts[name]]
        row_problem = problem or (f"no {' and no '.join(missing)}" if missing else cost_problem)
        if not row_problem and REPLACEMENT in texts["tag"]:
            encoding = self.encoding.removesuffix("-sig")
            row_problem = f"the tag is not valid {encoding}: see --encoding"
        # With a wrong number of cells, values may belong to other columns.
        known = {} if problem else values
        return FeedRow(number, known, texts["id"], texts["image"], texts["tag"], cost, row_problem)

    def _parse_cost(self, values: Mapping[str, Any]) -> tuple[float, str]:
        """Return the cost of a row and, if it is invalid, a problem."""
        if self.columns.cost is None:
            return 1.0, ""
        value = values.get(self.columns.cost)
        try:
            cost = float(str(value).replace(",", "."))
        except ValueError:
            cost = math.nan
        if cost >= 0 and math.isfinite(cost):
            return cost, ""
        return 0.0, f"{self.columns.cost} {str(value)[:40]!r} is not a cost of 0 or more"


def category_levels(tag: str) -> list[str]:
    """Return a tag and, if it is a path of categories, its levels, the last one first."""
    levels = [level for level in LEVEL_SEPARATOR.split(tag) if level]
    return [tag, *reversed(levels)] if len(levels) > 1 else [tag]


def open_feed(
    path: Path,
    names: Mapping[str, str],
    cost: str | None = None,
    encoding: str | None = None,
) -> ProductFeed:
    """Open a feed and find its columns.

    Args:
        path: The file.
        names: id, image or tag -> name of the column, where it is not one of COLUMN_NAMES.
        cost: Column of the cost of a wrong tag.
        encoding: Encoding of the file; None: by its byte order mark, else UTF-8.

    Raises:
        BadInput: The file is missing or has another format or encoding, or lacks a column.
    """
    if path.suffix.lower() not in DELIMITERS:
        raise BadInput(f"{path}: a feed ends in {', '.join(DELIMITERS)}; save it in such a format")
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    encoding = encoding or _detect_encoding(path)
    try:
        with _open_text(path, encoding) as file:
            line = file.readline()
            file.seek(0)
            delimiter = _detect_delimiter(path, line)
            header = _read_header(path, file, delimiter)
    except (LookupError, UnicodeError, csv.Error) as error:
        raise BadInput(f"{path} can't be read as {encoding} ({error}); see --encoding") from error
    columns = {name: _find_column(path, header, name, names.get(name)) for name in COLUMN_NAMES}
    if cost is not None and cost not in header:
        raise BadInput(f"{path} has no column {cost!r}; it has {', '.join(header)}")
    return ProductFeed(path, tuple(header), FeedColumns(**columns, cost=cost), delimiter, encoding)


def _detect_encoding(path: Path) -> str:
    """Return the encoding by the byte order mark of a file; UTF-8 without one."""
    with path.open("rb") as file:
        start = file.read(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig" if start == codecs.BOM_UTF8 else "utf-8"


def _detect_delimiter(path: Path, line: str) -> str:
    """Return the delimiter by the suffix and the first line; empty for JSON lines."""
    delimiter = DELIMITERS[path.suffix.lower()]
    # Programs write semicolons in locales with a decimal comma.
    return max(",;\t|", key=line.count) if delimiter == "," else delimiter


def _read_header(path: Path, file: TextIO, delimiter: str) -> list[str]:
    if delimiter:
        header = next(csv.reader(file, delimiter=delimiter), [])
    else:
        # The first object has the columns; later ones may lack some.
        header = list(next((row for row, problem in _read_json_rows(file) if not problem), {}))
    if not header:
        raise BadInput(
            f"{path} is empty; a feed has columns for id, image and tag, and one row per item"
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise BadInput(f"{path} has two columns named {', '.join(repeated)}; rename one of them")
    return header


def _find_column(path: Path, header: Sequence[str], name: str, given: str | None) -> str:
    if given is not None and given in header:
        return given
    by_lower_name = {column.strip().lower(): column for column in header}
    for usual_name in COLUMN_NAMES[name] if given is None else ():
        if usual_name in by_lower_name:
            return by_lower_name[usual_name]
    raise BadInput(
        f"{path} has no column {given or name!r}; name it with --columns {name}=NAME. Columns:"
        f" {', '.join(header)}"
    )


@contextmanager
def _open_text(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a text file; invalid bytes become REPLACEMENT."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        yield file


def _read_json_rows(file: TextIO) -> Iterator[tuple[dict[str, Any], str]]:
    for line in file:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield {}, f"not JSON: {first_line(error)}"
            continue
        if isinstance(row, dict):
            yield row, ""
        else:
            yield {}, "not a JSON object"


def _text(value: Any) -> str:
    if isinstance(value, list):
        # Of several photos or tags, the first is used.
        value = value[0] if value else ""
    return "" if value is None or isinstance(value, dict | bool) else str(value).strip()
