"""Read product feeds row by row: tables, Excel workbooks, XML and JSON, found by their content."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from dataset.errors import BadInput, first_line, shorten_for_display
from dataset.feeds import documents
from dataset.feeds.cells import (
    PriceStyle,
    category_name,
    cell_text,
    describe_photo,
    detect_price_style,
    is_ambiguous_price,
    normalize_name,
    parse_price,
    split_photos,
)
from dataset.feeds.tables import (
    ARCHIVE_ERRORS,
    DELIMITER_NAMES,
    MAX_HEADER_ROWS,
    REPLACEMENT,
    CsvLayout,
    FeedFile,
    TableRow,
    detect_csv_layout,
    detect_encoding,
    find_content,
    is_workbook,
    workbook_rows,
)
from dataset.utils.files import original_cell

CSV, WORKBOOK, XML, JSON, JSON_LINES = "table", "Excel workbook", "XML", "JSON", "JSON lines"
# Suffixes of feeds, for messages and to tell feeds from lists of URLs.
FEED_SUFFIXES = (".csv", ".tsv", ".txt", ".xlsx", ".xml", ".yml", ".json", ".jsonl", ".ndjson")
# Normalized names of the columns in feeds of shops and of Google, Meta and Yandex, in exports of
# Shopify and WooCommerce, and in Russian tables. The first one that has values is used.
COLUMN_NAMES = {
    "id": (
        *("id", "item_id", "product_id", "handle", "url_handle", "sku", "offer_id", "article"),
        *("product_code", "code", "variant_sku", "reference", "mpn", "asin", "gtin", "barcode"),
        *("артикул", "код_товара", "код", "ид", "id_товара", "артикул_товара"),
        *("артикул_продавца", "номер", "artikelnummer", "referencia", "référence"),
    ),
    "image": (
        *("image", "image_link", "image_url", "picture", "photo", "img", "path", "file"),
        *("image_src", "product_image_url", "images", "photos", "pictures", "photo_url"),
        *("picture_url", "photo_link", "picture_link", "image_path", "photo_path", "main_image"),
        *("main_image_url", "main_photo", "base_image", "image_urls", "img_url", "imgurl"),
        *("image[0]_url", "image_1", "image1", "photo_1", "photo1", "picture_1", "picture1"),
        *("filename", "file_name", "featured_image", "variant_image", "variant_image_url"),
        *("фото", "фотография", "фотографии", "картинка", "изображение", "изображения"),
        *("ссылка_на_фото", "ссылка_на_главное_фото", "главное_фото", "основное_фото"),
        *("ссылка_на_изображение", "файл", "путь", "foto", "fotos", "bild", "bilder", "bild_url"),
        *("imagen", "imagenes", "imágenes", "immagine", "zdjęcie", "zdjecie", "obrazek"),
    ),
    "tag": (
        *("tag", "label", "category", "product_type", "google_product_category", "class"),
        *("product_category", "categories", "fb_product_category", "custom_product_type"),
        *("standardized_product_type", "standard_product_type", "category_name", "category_path"),
        *("category_text", "categorytext", "item_type", "garment", "garment_type"),
        *("категория", "категории", "категория_товара", "предмет", "тип_товара", "вид_товара"),
        *("тип", "раздел", "рубрика", "kategorie", "categorie", "catégorie", "categoria"),
        *("categoría", "kategoria", "type", "type_prefix", "category_id"),
        *("tags", "labels", "hashtags", "теги", "метки", "хештеги"),
    ),
}
# Columns that may have numbers of Google's categories.
GOOGLE_COLUMNS = ("google_product_category", "fb_product_category", "product_category")
# Values of columns that tell how a shop sells a product, not what it is.
SALES_TYPES = {
    *("simple", "variable", "variation", "configurable", "virtual", "bundle", "grouped"),
    *("downloadable", "external", "simple, virtual", "simple, downloadable", "subscription"),
}
# Columns of further photos of a product.
MORE_IMAGES = re.compile(
    r"(additional|other|extra|gallery|more|alternate|дополнительн\w*|ссылки_на_дополнительные)"
    r"_?(image|photo|picture|img|фото|изображени\w*)?s?(_?(link|url|src)s?)?(_?\d+)?"
    r"|(image|photo|picture|img|фото|foto|bild)s?(_?(link|url|src))?_?\d+(_?(link|url|src))?"
    r"|image\[\d+\]_url|variant_image(_url)?|images|photos|pictures|gallery"
)
# Columns whose equal values in consecutive rows mean one product.
GROUP_COLUMNS = ("handle", "url_handle", "parent")
# Rows that are examined for the columns that have values, and rows that are shown.
SAMPLE_ROWS, PREVIEW_ROWS = 200, 5
# Keys of the amount of a price that is an object.
AMOUNT_KEYS = ("value", "amount", "price")
# The problem of a row that has an id and a photo, but no tag.
NO_TAG = "no tag"
# A higher cost is an error, and would exceed the range of sums.
MAX_COST = 1e100


@dataclass(frozen=True)
class FeedColumns:
    """Names of a feed's columns.

    Attributes:
        id: Column of the item's id.
        image: Column of the path or URL of its photo.
        tag: Column of its tag.
        cost: Column of the cost of a wrong tag; None: all cost the same.
        more_images: Columns of further photos.
        group: Column whose equal values in consecutive rows mean one product, or empty.
        facets: Facet and column of each column of tags, where there are several; `tag` is empty
            then. The facet is empty for a column of tags of all facets.
    """

    id: str
    image: str
    tag: str
    cost: str | None = None
    more_images: tuple[str, ...] = ()
    group: str = ""
    facets: tuple[tuple[str, str], ...] = ()

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        """Facet and column of all columns of tags; the facet of `tag` is empty."""
        return self.facets or ((("", self.tag),) if self.tag else ())


@dataclass(frozen=True)
class TagColumns:
    """Several columns of tags.

    Attributes:
        given: Facet and name of each column, as the user gave them; the facet may be empty.
        facets: Facets whose names may be those of columns.
    """

    given: tuple[tuple[str, str], ...] = ()
    facets: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeedRow:
    """A product of a feed: a row, or several rows of one product.

    Attributes:
        number: Number of the product, from 1.
        rows: Column -> value of each row; empty if the row can't be parsed.
        id: The item's id.
        images: Paths or URLs of its photos, the first one is the main one.
        tag: Its tag.
        cost: Cost of a wrong tag; None if it can't be read.
        problem: Why the product can't be used, or empty.
        note: What was repaired or can't be read, although the product is used.
    """

    number: int
    rows: tuple[Mapping[str, Any], ...]
    id: str = ""
    images: tuple[str, ...] = ()
    tag: str = ""
    cost: float | None = 1.0
    problem: str = ""
    note: str = ""

    @property
    def values(self) -> Mapping[str, Any]:
        """Column -> value of the first row."""
        return self.rows[0] if self.rows else {}

    @property
    def image(self) -> str:
        """Path or URL of the main photo, or empty."""
        return self.images[0] if self.images else ""


@dataclass(frozen=True)
class ProductFeed:
    """A feed file.

    Attributes:
        path: The file.
        header: Names of all columns in their order, without repetitions.
        columns: Names of the columns that are used.
        kind: CSV, WORKBOOK, XML, JSON or JSON_LINES.
        encoding: Python's name of the encoding; empty for workbooks.
        notes: What was detected and may be wrong, for users.
        titles: Names of the columns as the file has them.
    """

    path: Path
    header: tuple[str, ...]
    columns: FeedColumns
    kind: str = CSV
    encoding: str = "utf-8"
    notes: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    _content: FeedFile = field(default_factory=lambda: FeedFile(Path()), repr=False)
    _layout: CsvLayout = field(default_factory=lambda: CsvLayout(","), repr=False)
    _place: str = field(default="", repr=False)

    @property
    def delimiter(self) -> str:
        """Delimiter of cells; empty for other formats than CSV."""
        return self._layout.delimiter if self.kind == CSV else ""

    @property
    def is_json(self) -> bool:
        """Whether the feed is JSON."""
        return self.kind in (JSON, JSON_LINES)

    def rows(self) -> Iterator[FeedRow]:
        """Yield all products in their order; broken rows have a problem."""
        products = _group_rows(self._records(), self.columns)
        for number, records in enumerate(products, 1):
            yield self._product(number, records)

    def _records(self) -> Iterator[documents.Record]:
        """Yield the rows, and why a row can't be parsed; a damaged file ends with such a row."""
        try:
            yield from self._read_records()
        except BadInput as error:
            yield documents.Record({}, f"the rest can't be read: {error.message}")
        # A damaged archive, or a disk that fails.
        except ARCHIVE_ERRORS as error:
            yield documents.Record({}, f"the rest can't be read: {first_line(error)}")

    def _read_records(self) -> Iterator[documents.Record]:
        if self.kind == WORKBOOK:
            rows = (row for _, row in workbook_rows(self.path, self._place))
            yield from map(self._table_record, islice(rows, self._layout.skipped_rows + 1, None))
        elif self.kind == XML:
            yield from documents.xml_records(self._content, self.encoding, self._place)
        else:
            with self._content.open_text(self.encoding) as file:
                if self.kind == CSV:
                    start = self._layout.skipped_rows + 1
                    yield from map(self._table_record, islice(self._layout.rows(file), start, None))
                elif self.kind == JSON:
                    yield from documents.json_records(file, self._place)
                else:
                    yield from documents.json_line_records(file)

    def _table_record(self, row: TableRow) -> documents.Record:
        # A corrected copy, or a table of another program that defuses formulas.
        cells, width = list(map(original_cell, row.cells)), len(self.header)
        while len(cells) > width and not str(cells[-1]).strip():
            cells.pop()
        problem = row.problem
        tags = (name for _, name in self.columns.tags)
        used = (self.columns.id, self.columns.image, *tags)
        last = max(self.header.index(name) for name in used if name)
        # Excel omits empty cells at the end of some rows.
        if not problem and not last < len(cells) <= width:
            problem = f"{len(cells)} cells, not {width}"
        padded = [*cells, *[""] * (width - len(cells))]
        note = f"line {row.line}: a quote is not closed; it was read as a character"
        values = dict(zip(self.header, padded, strict=False))
        return documents.Record(values, problem, note if row.is_repaired and not problem else "")

    def _product(self, number: int, records: Sequence[documents.Record]) -> FeedRow:
        columns, rows = self.columns, [record.values for record in records]
        problem = records[0].problem
        values = (_first_text(rows, name) for _, name in columns.tags)
        tag = ", ".join(filter(None, values))
        is_google = normalize_name(columns.tag) in GOOGLE_COLUMNS
        texts = {
            "id": _first_text(rows, columns.id),
            "tag": category_name(tag) if is_google else tag,
        }
        names = (columns.image, *columns.more_images)
        images = [photo for row in rows for name in names for photo in split_photos(row.get(name))]
        texts["image"] = next(iter(images), "")
        column_names = {"id": columns.id, "image": columns.image, "tag": columns.tags}
        missing = [name for name, column in column_names.items() if column and not texts[name]]
        row_problem = problem or (f"no {' and no '.join(missing)}" if missing else "")
        if not row_problem and REPLACEMENT in texts["tag"]:
            encoding = self.encoding.removesuffix("-sig")
            row_problem = f"the tag is not valid {encoding}: see --encoding"
        # With a wrong number of cells, values may belong to other columns.
        known = () if problem else tuple(rows)
        unique = tuple(dict.fromkeys(images))
        cost, cost_note = self._cost(rows)
        notes = filter(None, (*(record.note for record in records), cost_note))
        return FeedRow(
            number, known, texts["id"], unique, texts["tag"], cost, row_problem, "; ".join(notes)
        )

    def _cost(self, rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, str]:
        """Return the cost of a wrong tag, and a note if it can't be read."""
        column = self.columns.cost
        if column is None:
            return 1.0, ""
        values = (row.get(column) for row in rows)
        value = next((value for value in values if value not in (None, "", [], {})), "")
        if isinstance(value, dict):
            value = next((value[key] for key in AMOUNT_KEYS if key in value), "")
        if isinstance(value, int | float) and not isinstance(value, bool):
            # A comparison with NaN is false.
            cost = float(value) if 0 <= value < MAX_COST else None
        else:
            cost = self.parse_price(column, value)[0]
        note = f"{column} {cell_text(value)[:40]!r} can't be read: the mean cost is used"
        return (cost, "") if cost is not None and cost < MAX_COST else (None, note)

    def parse_price(self, column: str, value: Any, currency: str = "") -> tuple[float | None, str]:
        """Parse a price of a column, see `cells.parse_price`."""
        text = cell_text(value)
        style = self.price_style(column) if is_ambiguous_price(text) else None
        return parse_price(text, currency, style)

    def price_style(self, column: str) -> PriceStyle:
        """Return how a column writes prices; the whole column is read once."""
        if column not in self._price_styles:
            texts = (cell_text(record.values.get(column)) for record in self._records())
            self._price_styles[column] = detect_price_style(texts)
        return self._price_styles[column]

    @cached_property
    def _price_styles(self) -> dict[str, PriceStyle]:
        return {}

    def preview(self, image_root: Path) -> list[str]:
        """Return lines that show how the first rows are parsed.

        Args:
            image_root: Folder of the photos that are paths.
        """
        layout = [self.kind]
        if self.kind == CSV:
            layout.append(f"delimiter {DELIMITER_NAMES.get(self.delimiter, self.delimiter)}")
        if self.encoding:
            layout.append(f"encoding {self.encoding.removesuffix('-sig')}")
        columns = self.columns
        used = {"id": columns.id, "image": columns.image}
        used |= {f"tag of {facet}" if facet else "tag": name for facet, name in columns.tags}
        used |= {"cost": columns.cost} if columns.cost else {}
        lines = [
            f"{self.path}: {', '.join(layout)}",
            "columns: " + ", ".join(f"{role}={name!r}" for role, name in used.items()),
            "all columns: " + ", ".join(map(repr, self.header)),
        ]
        if columns.more_images:
            lines.insert(2, "further photos: " + ", ".join(map(repr, columns.more_images)))
        for row in islice(self.rows(), PREVIEW_ROWS):
            cost = f", cost {'unknown' if row.cost is None else f'{row.cost:g}'}"
            shown = [
                f"row {row.number}: id {row.id!r}, tag {row.tag!r}{cost if columns.cost else ''}"
                + (f": {row.problem}" if row.problem else "")
            ]
            shown += [
                f"  photo {image}: {describe_photo(image_root, image)}" for image in row.images
            ]
            lines += map(shorten_for_display, shown)
        return lines


def _first_text(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return next(filter(None, (cell_text(row.get(name)) for row in rows)), "")


def _group_rows(
    records: Iterator[documents.Record], columns: FeedColumns
) -> Iterator[list[documents.Record]]:
    """Join the consecutive rows of each product."""
    product: list[documents.Record] = []
    names: set[str] = set()
    for record in records:
        group = "" if record.problem or not columns.group else record.values.get(columns.group)
        if product and cell_text(group).removeprefix("id:") in names:
            product.append(record)
            continue
        if product:
            yield product
        product, names = [record], set()
        if columns.group and not record.problem:
            # A variation of WooCommerce names the id or the SKU of its parent.
            keys = (columns.group, *(key for key in record.values if _is_id(key)))
            names = {cell_text(record.values.get(key)) for key in keys} - {""}
    if product:
        yield product


def _is_id(column: str) -> bool:
    return normalize_name(column) in ("id", "sku")


def open_feed(
    path: Path,
    names: Mapping[str, str],
    cost: str | None = None,
    encoding: str | None = None,
    required: Sequence[str] = ("id", "image", "tag"),
    tags: TagColumns | None = None,
) -> ProductFeed:
    """Open a feed and find its format and its columns by its content.

    Args:
        path: The file.
        names: id, image or tag -> name of the column, where it is not one of COLUMN_NAMES.
        cost: Column of the cost of a wrong tag.
        encoding: Encoding of the file; None: it is detected.
        required: Columns that the feed must have; the image is the one of others that it lacks.
        tags: Columns of tags, where there are several.

    Raises:
        BadInput: The file is missing or has another format or encoding, or lacks a column.
    """
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a feed file")
    if path.exists() and not path.is_file():
        raise BadInput(f"{path} can be read only once; save it as a file")
    content = find_content(path)
    finder = _ColumnFinder(path, names, cost, tuple(required), tags or TagColumns())
    if not content.start.strip():
        raise BadInput(
            f"{path} is empty; a feed has columns for id, image and tag, and one row per item"
        )
    if is_workbook(content):
        return _open_workbook(content, finder)
    try:
        return _open_text_feed(content, finder, encoding)
    except (LookupError, UnicodeError) as error:
        raise BadInput(
            f"{path} can't be read as {encoding} ({first_line(error)}); see --encoding"
        ) from error
    except ARCHIVE_ERRORS as error:
        raise BadInput(f"{path} can't be read: {first_line(error)}; export it again") from error


def _open_text_feed(
    content: FeedFile, finder: "_ColumnFinder", encoding: str | None
) -> ProductFeed:
    path = content.path
    given, is_guess = encoding, False
    if given is None:
        given, is_guess = detect_encoding(content)
    elif given.lower().replace("_", "-") in ("utf-8", "utf8"):
        given = "utf-8-sig" if content.start.startswith(b"\xef\xbb\xbf") else "utf-8"
    if given in ("utf-16", "utf-32") and not content.start.startswith(
        (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
    ):
        raise UnicodeError("it has no byte order mark")
    with content.open_text(given) as file:
        start = file.read(1 << 16)
    guess = f"{path} is read as {given}, which was detected; --encoding names another"
    notes: tuple[str, ...] = (guess,) if is_guess else ()
    text = start.lstrip("\ufeff \t\r\n")
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson") or text.startswith(("[", "{")):
        return _open_json(content, finder, given, notes)
    if text.startswith("<"):
        if encoding is None:
            given, is_guess = documents.xml_encoding(content)
            notes = notes if is_guess else ()
        return _open_xml(content, finder, given, notes, text)
    return _open_csv(content, finder, given, notes, start)


def _open_csv(
    content: FeedFile, finder: "_ColumnFinder", encoding: str, notes: tuple[str, ...], start: str
) -> ProductFeed:
    path = content.path
    if not start.strip("\ufeff \t\r\n"):
        raise BadInput(
            f"{path} is empty; a feed has columns for id, image and tag, and one row per item"
        )
    prefer = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    # The last line may be cut.
    lines = start if len(start) < 1 << 16 else start[: start.rfind("\n") + 1] or start
    detected = detect_csv_layout(lines, finder.score, prefer)
    if detected is None:
        raise finder.no_header(next(iter(lines.lstrip().splitlines()), ""))
    layout, header_row = detected
    header, titles = finder.unique_names(header_row.cells)
    sample_layout = replace(layout, width=len(header))
    with content.open_text(encoding) as file:
        rows = islice(sample_layout.rows(file), layout.skipped_rows + 1, None)
        sample = [dict(zip(header, row.cells, strict=False)) for row in islice(rows, SAMPLE_ROWS)]
    columns = finder.find(header, sample)
    notes += _header_note(path, layout.skipped_rows, header_row.line)
    layout = replace(sample_layout, image_column=header.index(columns.image))
    return ProductFeed(path, header, columns, CSV, encoding, notes, titles, content, layout)


def _header_note(path: Path, skipped: int, line: int) -> tuple[str, ...]:
    return (f"{path}: the names of the columns are in row {line}",) if skipped else ()


def _open_workbook(content: FeedFile, finder: "_ColumnFinder") -> ProductFeed:
    path = content.path
    best: tuple[int, str, int, TableRow] | None = None
    counts: dict[str, int] = {}
    for sheet, row in workbook_rows(path):
        index = counts[sheet] = counts.get(sheet, -1) + 1
        points = finder.score(row.cells) if index < MAX_HEADER_ROWS else 0
        if points and (best is None or points > best[0]):
            best = (points, sheet, index, row)
        # The best header has all columns; other sheets are not read to their ends.
        if index >= MAX_HEADER_ROWS and best is not None:
            break
    if best is None:
        raise finder.no_header("" if counts else "empty")
    _, sheet, skipped, header_row = best
    header, titles = finder.unique_names(header_row.cells)
    rows = (row for _, row in workbook_rows(path, sheet))
    sample = [
        dict(zip(header, row.cells, strict=False))
        for row in islice(rows, skipped + 1, skipped + 1 + SAMPLE_ROWS)
    ]
    columns = finder.find(header, sample)
    notes = _header_note(path, skipped, header_row.line)
    if len(counts) > 1:
        notes += (f"{path}: the sheet {sheet!r} is read",)
    layout = CsvLayout("", skipped, len(header))
    return ProductFeed(path, header, columns, WORKBOOK, "", notes, titles, content, layout, sheet)


def _open_xml(
    content: FeedFile,
    finder: "_ColumnFinder",
    encoding: str,
    notes: tuple[str, ...],
    start: str,
) -> ProductFeed:
    path = content.path
    if re.match(r"<!doctype html|<html|<table", start, re.IGNORECASE):
        raise BadInput(f"{path} is a web page, not a feed; download or export the feed again")
    name = documents.find_product_element(content, encoding)
    records = documents.xml_records(content, encoding, name)
    sample = [record.values for record in islice(records, SAMPLE_ROWS) if record.values]
    if not sample:
        raise BadInput(f"{path} is XML without products; name a feed with items or offers")
    header = tuple(dict.fromkeys(key for values in sample for key in values))
    columns = finder.find(header, sample)
    return ProductFeed(path, header, columns, XML, encoding, notes, header, content, _place=name)


def _open_json(
    content: FeedFile, finder: "_ColumnFinder", encoding: str, notes: tuple[str, ...]
) -> ProductFeed:
    path = content.path
    is_lines = path.suffix.lower() in (".jsonl", ".ndjson")
    prefix = ""
    with content.open_text(encoding) as file:
        if is_lines or documents.is_json_lines(file):
            is_lines = True
    if not is_lines:
        with content.open_text(encoding) as file:
            prefix = documents.find_product_list(file, finder.score)
    feed = ProductFeed(
        path,
        (),
        FeedColumns("", "", ""),
        JSON_LINES if is_lines else JSON,
        encoding,
        notes,
        _content=content,
        _place=prefix,
    )
    records = feed._records() if is_lines or prefix else iter(())
    sample = [record.values for record in islice(records, SAMPLE_ROWS) if record.values]
    if not sample:
        raise BadInput(
            f"{path} is empty or has no objects; a feed has an object with id, image and tag per"
            " item"
        )
    header = tuple(dict.fromkeys(key for values in sample for key in values))
    return replace(feed, header=header, titles=header, columns=finder.find(header, sample))


@dataclass(frozen=True)
class _ColumnFinder:
    """Finds the columns of a feed by their names.

    Attributes:
        path: The feed, for messages.
        names: id, image or tag -> name of the column, as the user gave it.
        cost: Column of the cost, as the user gave it.
        required: Columns that the feed must have.
        tags: Columns of tags, where there are several.
    """

    path: Path
    names: Mapping[str, str]
    cost: str | None
    required: tuple[str, ...]
    tags: TagColumns

    def score(self, cells: Sequence[Any]) -> int:
        """Return how many of the columns are among the cells of a row, with a bonus for all."""
        normalized = {normalize_name(cell) for cell in cells if len(str(cell)) < 100}
        columns = (*self.names.values(), *(name for _, name in self.tags.given), *self.tags.facets)
        given = {normalize_name(name) for name in columns}
        points = sum(
            bool(normalized & ({normalize_name(self.names[role])} if role in self.names else known))
            for role, known in _KNOWN_NAMES.items()
        )
        has_enough = len(normalized) > 1 or len(self.required) == 1
        return points + 3 * len(normalized & given) if has_enough else 0

    def no_header(self, line: str) -> BadInput:
        """Return the error for a feed without names of columns."""
        shown = shorten_for_display(line)
        return BadInput(
            f"{self.path} has no row with names of columns, such as id, image and tag; name them"
            f" with --columns id=NAME,image=NAME,tag=NAME. Columns: {shown}"
        )

    def unique_names(self, cells: Sequence[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return different names of the columns, and their names in the file.

        Empty names at the end are those of empty columns.
        """
        titles = [str(cell).strip("\ufeff") for cell in cells]
        while titles and not titles[-1].strip():
            titles.pop()
        names: list[str] = []
        for position, title in enumerate(titles, 1):
            name = title if title.strip() else f"column {position}"
            count = 2
            while name in names:
                name, count = f"{title} ({count})", count + 1
            names.append(name)
        return tuple(names), tuple(titles)

    def find(self, header: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> FeedColumns:
        """Return the columns of a feed.

        Args:
            header: Names of all columns.
            sample: The first rows.

        Raises:
            BadInput: A column is missing, or its name is repeated.
        """
        filled = {
            name
            for row in sample
            for name, value in row.items()
            if cell_text(value) and cell_text(value).lower() not in SALES_TYPES
        }
        facets = self._find_facets(header)
        columns = {"id": self._find(header, filled, "id")}
        columns["tag"] = "" if facets else self._find(header, filled, "tag")
        image = self._find(header, filled, "image")
        more = tuple(
            name
            for name in header
            if name != image
            and (MORE_IMAGES.fullmatch(_without_number(name)) or name.startswith(f"{image} ("))
        )
        for name in (*columns.values(), *(name for _, name in facets)):
            if f"{name} (2)" in header:
                raise BadInput(f"{self.path} has two columns named {name}; rename one of them")
        by_name = _by_normalized_name(header)
        group = next((by_name[name] for name in GROUP_COLUMNS if name in by_name), "")
        cost = self.cost
        if cost is not None and cost not in header:
            cost = by_name.get(normalize_name(cost))
            if cost is None:
                raise BadInput(
                    f"{self.path} has no column {self.cost!r}; it has {', '.join(header)}"
                )
        return FeedColumns(columns["id"], image, columns["tag"], cost, more, group, facets)

    def _find_facets(self, header: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return facet and column of each column of tags, if there are several.

        Without given ones, columns that are named as facets are used if there are at least two of
        them, or if there is no other column of tags.
        """
        by_name = _by_normalized_name(header)
        for _, name in self.tags.given:
            if name not in header and normalize_name(name) not in by_name:
                raise BadInput(
                    f"{self.path} has no column {name!r}; name it with --tag-column FACET=NAME."
                    f" Columns: {', '.join(header)}"
                )
        if self.tags.given:
            return tuple(
                (facet, name if name in header else by_name[normalize_name(name)])
                for facet, name in self.tags.given
            )
        if "tag" in self.names:
            return ()
        own = [(facet, by_name.get(normalize_name(facet), "")) for facet in self.tags.facets]
        own = [(facet, name) for facet, name in own if name]
        has_other = any(name in by_name for name in COLUMN_NAMES["tag"])
        return tuple(own) if len(own) > 1 or not has_other else ()

    def _find(self, header: Sequence[str], filled: set[str], role: str) -> str:
        given = self.names.get(role)
        by_name = _by_normalized_name(header)
        if given is not None:
            name = given if given in header else by_name.get(normalize_name(given))
            if name is not None:
                return name
        else:
            known = [by_name[name] for name in COLUMN_NAMES[role] if name in by_name]
            column = next((name for name in known if name in filled), next(iter(known), None))
            if column is None and role == "image":
                column = next(
                    (name for name in header if MORE_IMAGES.fullmatch(_without_number(name))), None
                )
            if column is not None:
                return column
            if role not in self.required:
                return ""
        raise BadInput(
            f"{self.path} has no column {given or role!r}; name it with --columns {role}=NAME."
            f" Columns: {', '.join(header)}"
        )


def _without_number(name: str) -> str:
    """Return the normalized name of a column without the number of a repetition."""
    return normalize_name(re.sub(r" \(\d+\)$", "", name))


def _by_normalized_name(header: Sequence[str]) -> dict[str, str]:
    """Return normalized name -> name; the first one of several counts."""
    names: dict[str, str] = {}
    for name in header:
        names.setdefault(normalize_name(name), name)
    return names


_KNOWN_NAMES = {role: frozenset(names) for role, names in COLUMN_NAMES.items()}
