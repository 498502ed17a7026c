"""Read tables of feeds: CSV and TSV files of any program, and Excel workbooks.

Encoding, delimiter and the row of the header are detected.
"""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import re
import warnings
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from dataset.errors import BadInput, first_line
from dataset.feeds.cells import looks_like_photo

# A longer cell is not an id, a tag or a path.
MAX_CELL_CHARACTERS = 16 << 20
# A longer row is one with a quote that is not closed.
MAX_ROW_LINES, MAX_ROW_CHARACTERS = 5_000, 2 << 20
# Stands for bytes that are invalid in the feed's encoding.
REPLACEMENT = "\ufffd"
DELIMITERS = ("\t", ";", ",", "|")
DELIMITER_NAMES = {"\t": "tab", ";": "semicolon", ",": "comma", "|": "vertical bar"}
# Rows in which the header is searched.
MAX_HEADER_ROWS = 40
# Uncompressed size of a part of a workbook.
MAX_WORKBOOK_BYTES = 2 << 30
# Errors of damaged or encrypted archives; RuntimeError is raised for a password.
ARCHIVE_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
CHUNK_BYTES, MAX_SAMPLE_BYTES, START_BYTES = 1 << 20, 1 << 16, 1 << 16
# First bytes of documents and images.
NO_TEXT = (
    b"%PDF",
    b"{\\rtf",
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"RIFF",
    b"7z\xbc\xaf",
    b"Rar!",
)
SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Letters from the most to the least frequent one, which tells encodings of one alphabet apart.
CYRILLIC = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфіїєґўъ"
LETTERS = {
    "cp1251": CYRILLIC,
    "cp1252": "éèàäöüßñóíáúçêôâîûãõåøæëïœìòù",
    "cp1250": "áéíóúýąćęłńśźżčďěňřšťůžőűäöüßăâîşţ",
    "cp1254": "çğıöşüéâî",
    "cp1253": "αειοτσνηρκπυςλμωάίόέή",
    "koi8-r": CYRILLIC,
    "cp866": CYRILLIC,
    "iso8859_5": CYRILLIC,
    "mac_cyrillic": CYRILLIC,
}
# Windows writes the first ones; others need more evidence.
ENCODING_BONUS = {"cp1251": 0.06, "cp1252": 0.06, "iso8859_5": -0.1, "mac_cyrillic": -0.1}
SYMBOLS = "€£¥§©®™°²³½«»„“”‘’‚–—…•№·\u00a0×"


@dataclass(frozen=True)
class FeedFile:
    """A feed file, which may be compressed.

    Attributes:
        path: The file.
        compression: `gzip`, `bzip2`, `zip` or empty.
        member: The file in a ZIP archive.
        start: The first bytes of the content.
    """

    path: Path
    compression: str = ""
    member: str = ""
    start: bytes = b""

    @contextmanager
    def open_binary(self) -> Iterator[BinaryIO]:
        """Open the content, without compression."""
        if self.compression == "gzip":
            with gzip.open(self.path) as file:
                yield cast("BinaryIO", file)
        elif self.compression == "bzip2":
            with bz2.open(self.path) as file:
                yield cast("BinaryIO", file)
        elif self.compression == "zip":
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
                yield cast("BinaryIO", file)
        else:
            with self.path.open("rb") as file:
                yield file

    @contextmanager
    def open_text(self, encoding: str) -> Iterator[TextIO]:
        """Open the content as text; invalid bytes become REPLACEMENT."""
        with (
            self.open_binary() as binary,
            io.TextIOWrapper(binary, encoding, errors="replace", newline="") as file,
        ):
            yield file


def find_content(path: Path) -> FeedFile:
    """Return a feed file with its first bytes.

    Raises:
        BadInput: It does not exist, can't be read, or is an archive of several files.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error.strerror}; name a readable feed") from error
    feed = FeedFile(path)
    if magic.startswith(b"\x1f\x8b"):
        feed = FeedFile(path, "gzip")
    elif magic.startswith(b"BZh"):
        feed = FeedFile(path, "bzip2")
    elif magic == b"PK\x03\x04":
        feed = _find_member(path)
    try:
        with feed.open_binary() as content:
            start = content.read(START_BYTES)
    except ARCHIVE_ERRORS as error:
        raise BadInput(f"{path} can't be unpacked: {first_line(error)}; unpack it") from error
    return FeedFile(path, feed.compression, feed.member, start)


def _find_member(path: Path) -> FeedFile:
    """Return the only feed in a ZIP archive; a workbook is an archive that is read as a whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path} is a broken archive: {first_line(error)}; export it again") from (
            error
        )
    if "[Content_Types].xml" in names:
        return FeedFile(path)
    if "content.xml" in names and "mimetype" in names:
        raise BadInput(f"{path} is an OpenDocument file; save it as .xlsx or .csv")
    feeds = [name for name in names if not name.startswith(("__MACOSX/", "."))]
    if len(feeds) != 1:
        raise BadInput(f"{path} is an archive of {len(feeds)} files; unpack it and name one feed")
    return FeedFile(path, "zip", feeds[0])


def detect_encoding(feed: FeedFile) -> tuple[str, bool]:
    """Return the encoding of a file, and whether it is only a guess.

    A byte order mark decides; else the whole content is UTF-8 or has the encoding whose letters
    fit best.

    Raises:
        BadInput: The content is not text, or has an unknown encoding.
    """
    start = feed.start
    for mark, encoding in BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding, False
    zeros = (start[::2].count(0), start[1::2].count(0))
    if sum(zeros) > len(start) // 5:
        return ("utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"), False
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1a\x1b" for byte in start)
    if start.startswith(NO_TEXT) or control > len(start) // 50:
        raise BadInput(f"{feed.path} is not text; a feed is CSV, TSV, .xlsx, XML or JSON")
    valid, invalid, sample = _count_utf8(feed)
    if not invalid or valid > 2 * invalid:
        return "utf-8", False
    scores = {name: _score(sample, name, letters) for name, letters in LETTERS.items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] <= 0:
        raise BadInput(f"{feed.path} is not UTF-8; name its encoding with --encoding")
    return best, True


def _count_utf8(feed: FeedFile) -> tuple[int, int, bytes]:
    """Return the numbers of valid and invalid characters beyond ASCII, and lines with the latter.

    The file is read in chunks.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    valid = invalid = 0
    sample = bytearray()
    # `ProductFeed.rows` reports archives that end early.
    with feed.open_binary() as file, contextlib.suppress(*ARCHIVE_ERRORS):
        while chunk := file.read(CHUNK_BYTES):
            text = decoder.decode(chunk)
            if text.isascii():
                continue
            wrong = text.count(REPLACEMENT) - chunk.count(REPLACEMENT.encode())
            valid += len(text) - len(text.encode("ascii", "ignore")) - wrong
            invalid += wrong
            if wrong and len(sample) < MAX_SAMPLE_BYTES:
                lines = (line for line in chunk.splitlines() if not line.isascii())
                sample += b"\n".join(lines)[:MAX_SAMPLE_BYTES]
    return valid, invalid + len(decoder.decode(b"", final=True)), bytes(sample)


def _score(sample: bytes, encoding: str, letters: str) -> float:
    """Return how well an encoding fits bytes beyond ASCII, about -1 to 1 per character."""
    text = sample.decode(encoding, "replace")
    is_latin = "é" in letters
    total = score = 0.0
    for before, character, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        if character.isascii():
            continue
        total += 1
        if character in SYMBOLS:
            # A currency sign, quote or dash stands beside a word, not in it.
            score += -1 if before.isalpha() and after.isalpha() and character != "’" else 0.7
        elif not character.isalpha():
            score -= 1
        else:
            score += _letter_score(before, character, after, letters, is_latin)
    return score / total + ENCODING_BONUS.get(encoding, 0.0) if total else 0.0


def _letter_score(before: str, letter: str, after: str, letters: str, is_latin: bool) -> float:
    neighbours = [character for character in (before, after) if character.isalpha()]
    if letter.isupper() and before.islower():
        return -1
    # Words of Latin letters have few accents; Cyrillic and Greek words have no Latin letters.
    is_odd = [not c.isascii() if is_latin else c.isascii() for c in neighbours]
    if is_odd and all(is_odd) and (len(is_odd) > 1 or not is_latin):
        return -1
    if letter.lower() not in letters:
        return -0.5
    # The frequency of letters falls about exponentially with their rank.
    frequency = 1 - 1.2 * letters.index(letter.lower()) / len(CYRILLIC)
    return frequency if neighbours else 0.2 * frequency


class _Lines:
    """Lines of a file for `csv.reader`; the lines of a row can be returned and read again."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._returned = file, deque[str]()
        self._characters = 0
        self.number, self.row = 0, list[str]()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if len(self.row) >= MAX_ROW_LINES or self._characters > MAX_ROW_CHARACTERS:
            raise StopIteration
        line = self._returned.popleft() if self._returned else self._file.readline(1 << 24)
        if not line:
            raise StopIteration
        # Python 3.10 cannot parse NUL characters.
        line = line.replace("\0", "")
        self.row.append(line)
        self.number += 1
        self._characters += len(line)
        return line

    def begin_row(self) -> None:
        """Forget the lines of the previous row."""
        self.row, self._characters = [], 0

    def return_lines(self) -> None:
        """Return all lines of the row but the first one."""
        self._returned.extendleft(reversed(self.row[1:]))
        self.number -= len(self.row) - 1
        del self.row[1:]


@dataclass(frozen=True)
class TableRow:
    """A row of a table.

    Attributes:
        line: Number of its first line, from 1.
        cells: Its cells.
        problem: Why it can't be parsed, or empty.
        is_repaired: Whether it has a quote that is not closed, which was read as a character.
    """

    line: int
    cells: Sequence[Any]
    problem: str = ""
    is_repaired: bool = False


@dataclass(frozen=True)
class CsvLayout:
    """How a text file is a table.

    Attributes:
        delimiter: Delimiter of cells.
        skipped_rows: Rows above the header's.
        width: Number of columns; 0: unknown.
        image_column: Index of the column of photos; -1: unknown.
        escape: Character before a quote in a quoted cell, or empty: quotes are doubled.
    """

    delimiter: str
    skipped_rows: int = 0
    width: int = 0
    image_column: int = -1
    escape: str = ""

    def rows(self, file: TextIO) -> Iterator[TableRow]:
        """Yield all rows that are not empty, with the header and what stands above it."""
        csv.field_size_limit(MAX_CELL_CHARACTERS)
        lines = _Lines(file)
        reader = self._reader(lines, strict=True)
        while True:
            lines.begin_row()
            first = lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                cells = None
            if cells is None or self._has_swallowed_rows(lines.row):
                is_one_line = len(lines.row) == 1
                lines.return_lines()
                yield self._repair(first, lines.row[0], is_one_line)
                # A reader that raised an error may remember that it is in a quoted cell.
                reader = self._reader(lines, strict=True)
            elif first == 1 and SEPARATOR_LINE.match(lines.row[0]):
                continue
            elif any(cell and not cell.isspace() for cell in cells):
                yield TableRow(first, cells)

    def _reader(self, lines: Iterable[str], *, strict: bool = False) -> Iterator[list[str]]:
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            escapechar=self.escape or None,
            doublequote=not self.escape,
            strict=strict,
        )

    def _has_swallowed_rows(self, lines: Sequence[str]) -> bool:
        """Return whether a cell with line breaks contains whole rows: its quote is not closed."""
        if len(lines) < 2 or self.width < 2 or not self._is_row(lines[0]):
            return False
        return any(
            self.delimiter in line.partition('"')[0] and self._is_row(line) for line in lines[1:]
        )

    def _is_row(self, line: str) -> bool:
        """Return whether a line looks like a whole row, if quotes are characters as others."""
        cells = self._split(line)
        return len(cells) == self.width and (
            self.image_column < 0 or looks_like_photo(cells[self.image_column])
        )

    def _split(self, line: str) -> list[str]:
        cells = line.rstrip("\r\n").split(self.delimiter)
        is_quoted = [len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells]
        return [
            cell[1:-1].replace('""', '"') if quoted else cell
            for cell, quoted in zip(cells, is_quoted, strict=True)
        ]

    def _repair(self, number: int, line: str, is_one_line: bool) -> TableRow:
        """Return the row of one line with a quote that is not closed or follows a closed one."""
        readings = [self._split(line)]
        if is_one_line:
            try:
                readings.insert(0, next(self._reader([line]), []))
            except csv.Error as error:
                return TableRow(number, [], f"line {number}: {first_line(error)}")
        for cells in readings:
            if len(cells) == self.width or not self.width:
                return TableRow(number, cells, is_repaired=True)
        return TableRow(number, readings[-1], f"line {number}: a quote is not closed")


def detect_csv_layout(
    file_start: str, score: Callable[[Sequence[str]], int], prefer: str = ""
) -> tuple[CsvLayout, TableRow] | None:
    """Find the delimiter and the header of a text file.

    Args:
        file_start: The first rows of the file.
        score: Returns how many columns of feeds are among the cells of a row.
        prefer: The delimiter that the file's suffix implies; it breaks ties.

    Returns:
        The layout and the row of the header, None if no row is a header.
    """
    lines = file_start.splitlines()
    named = SEPARATOR_LINE.match(lines[0]) if lines else None
    delimiters = (named[1],) if named else (prefer, *DELIMITERS)
    escape = "\\" if re.search(r'\\"(?!["\r\n]|\s*[,;\t|])', file_start) else ""
    best: tuple[int, int, CsvLayout, TableRow] | None = None
    for delimiter in dict.fromkeys(filter(None, delimiters)):
        layout = CsvLayout(delimiter, escape=escape)
        rows = islice(layout.rows(io.StringIO(file_start, newline="")), MAX_HEADER_ROWS)
        for index, row in enumerate(rows):
            points = score(row.cells)
            names = sum(bool(str(cell).strip()) for cell in row.cells)
            if points and (best is None or (points, names) > best[:2]):
                found = CsvLayout(delimiter, index, escape=escape)
                best = (points, names, found, row)
    return (best[2], best[3]) if best else None


def read_column(path: Path, name: str) -> list[str]:
    """Return the cells of a column of a table as any spreadsheet saves it.

    Args:
        path: A CSV file or an Excel workbook.
        name: Name of the column.

    Raises:
        BadInput: The file can't be read, or has no such column.
    """
    content = find_content(path)
    if is_workbook(content):
        rows = [row.cells for _, row in workbook_rows(path)]
    else:
        encoding, _ = detect_encoding(content)
        with content.open_text(encoding) as file:
            text = file.read().lstrip("\ufeff")
        detected = detect_csv_layout(text, lambda cells: name in cells)
        layout = detected[0] if detected else CsvLayout(",")
        rows = [row.cells for row in layout.rows(io.StringIO(text, newline=""))]
    header = next((index for index, cells in enumerate(rows) if name in cells), None)
    if header is None:
        raise BadInput(f"{path} has no column {name}; name the table that has it")
    column = rows[header].index(name)
    return [str(cells[column]) if column < len(cells) else "" for cells in rows[header + 1 :]]


def is_workbook(feed: FeedFile) -> bool:
    """Return whether a file is an Excel workbook.

    Raises:
        BadInput: It is one of Excel before 2007, or encrypted.
    """
    if feed.start.startswith(b"\xd0\xcf\x11\xe0"):
        raise BadInput(
            f"{feed.path} is an Excel file of before 2007 or has a password; save it as .xlsx"
            " without a password, or as .csv"
        )
    return not feed.compression and feed.start.startswith(b"PK\x03\x04")


def workbook_rows(path: Path, sheet: str | None = None) -> Iterator[tuple[str, TableRow]]:
    """Yield the rows of the sheets of a workbook with the name of their sheet.

    Args:
        path: The .xlsx file.
        sheet: Read only this sheet; None: all.

    Raises:
        BadInput: The file is not a workbook, or is damaged.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        with zipfile.ZipFile(path) as archive:
            if any(part.file_size > MAX_WORKBOOK_BYTES for part in archive.infolist()):
                raise BadInput(f"{path} is too large for a workbook; save it as .csv")
        with path.open("rb") as file, warnings.catch_warnings():
            # openpyxl warns of features that it does not read, such as drop-down lists.
            warnings.simplefilter("ignore", UserWarning)
            book = openpyxl.load_workbook(file, read_only=True, data_only=True)
            for worksheet in book.worksheets:
                if sheet is not None and worksheet.title != sheet:
                    continue
                # Some programs write a wrong size.
                worksheet.reset_dimensions()
                rows = worksheet.iter_rows(values_only=True)
                for number, values in enumerate(rows, 1):
                    cells = _strip_empty(list(map(_excel_text, values)))
                    if cells:
                        yield worksheet.title, TableRow(number, cells)
    # Errors of openpyxl and of its XML parser for damaged workbooks.
    except (
        *(*ARCHIVE_ERRORS, InvalidFileException, KeyError, ValueError, TypeError),
        *(AttributeError, IndexError, SyntaxError),
    ) as error:
        raise BadInput(
            f"{path} can't be read as a workbook: {first_line(error)}; save it as .csv"
        ) from error


def _strip_empty(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _excel_text(value: Any) -> str:
    """Return a value of a cell as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)
