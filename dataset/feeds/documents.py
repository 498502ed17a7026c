"""Read feeds that are documents: XML of Google, Meta and Yandex, and JSON."""

import codecs
import html
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from html.entities import html5
from itertools import islice
from typing import Any, NamedTuple, TextIO

import ijson
from lxml import etree

from dataset.errors import first_line
from dataset.feeds.tables import FeedFile, detect_encoding


class Record(NamedTuple):
    """A row of a feed.

    Attributes:
        values: Column -> value.
        problem: Why it can't be parsed, or empty.
        note: What was repaired, or empty.
    """

    values: dict[str, Any]
    problem: str = ""
    note: str = ""


XML_DECLARATION = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)""")
# Names of the elements of products in XML feeds.
PRODUCT_ELEMENTS = {
    *("item", "entry", "offer", "product", "shopitem", "good", "товар", "row", "record"),
    *("article", "ad", "produkt", "artikel", "producto", "listing"),
}
# Bare ampersands and entities of HTML, which XML does not have.
AMPERSAND = re.compile(r"&(?:(#\d+;|#[xX][0-9a-fA-F]+;|(?:amp|lt|gt|quot|apos);)|(\w+;)?)")
XML_INVALID = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
MAX_ENTITY_CHARACTERS = 40
# Elements that are examined for the name of the products' element.
MAX_EXAMINED_ELEMENTS = 20_000
MAX_EXAMINED_EVENTS = 100_000
MAX_DEPTH = 6
MAX_LINE_CHARACTERS = 16 << 20


def xml_encoding(feed: FeedFile) -> tuple[str, bool]:
    """Return the encoding of an XML file, which may differ from the declared one.

    Returns:
        The encoding, and whether it is only a guess.
    """
    declared = XML_DECLARATION.search(feed.start[:1000])
    name = declared[1].decode() if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
    except LookupError:
        codec = "utf-8"
    is_8_bit = not codec.startswith(("utf", "ascii"))
    encoding, is_guess = detect_encoding(feed)
    return (codec, False) if is_8_bit and is_guess else (encoding, is_guess)


class _XmlSource:
    """The text of an XML file in UTF-8 for lxml, without what XML does not allow.

    Entities of a document type are not defined any more, so that they can't fill the memory.
    """

    def __init__(self, file: TextIO) -> None:
        self._file, self._rest = file, ""
        self._is_start = True

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        text = self._file.read(max(1, size // 2))
        is_end = not text
        text = self._rest + text
        cut = text.rfind("&", max(0, len(text) - MAX_ENTITY_CHARACTERS))
        if is_end or cut < 0 or ";" in text[cut:]:
            cut = len(text)
        text, self._rest = text[:cut], text[cut:]
        if self._is_start:
            text, self._is_start = text.lstrip("\ufeff \t\r\n"), not text
        if not text and not is_end:
            return self.read(size)
        return AMPERSAND.sub(_valid_entity, XML_INVALID.sub("", text)).encode("utf-8", "replace")


def _valid_entity(match: re.Match[str]) -> str:
    if match[1]:
        return f"&{match[1]}"
    return html5.get(match[2], f"&amp;{match[2]}") if match[2] else "&amp;"


def _events(file: TextIO) -> Any:
    return etree.iterparse(
        _XmlSource(file),
        events=("start", "end"),
        encoding="utf-8",
        recover=True,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
    )


def find_product_element(feed: FeedFile, encoding: str) -> str:
    """Return the name of the elements that are products in an XML file, or an empty text.

    Of the elements with several children, the usual names count first, else those that are
    repeated, and of these the outermost one: a product may contain lists, too.
    """
    counts: Counter[str] = Counter()
    depths: dict[str, int] = {}
    children: list[int] = []
    with feed.open_text(encoding) as file:
        for event, element in islice(_safe(_events(file)), MAX_EXAMINED_ELEMENTS):
            if not isinstance(element.tag, str):
                continue
            if event == "start":
                if children:
                    children[-1] += 1
                children.append(0)
                continue
            count, depth = children.pop(), len(children)
            if count > 1 and depth:
                name = _local_name(element.tag)
                counts[name] += 1
                depths[name] = min(depth, depths.get(name, depth))
            if count:
                element.clear()

    def rank(name: str) -> tuple[bool, bool, int]:
        is_unusual = name.casefold() not in PRODUCT_ELEMENTS
        return is_unusual, is_unusual and counts[name] == 1, depths[name]

    return min(counts, key=rank, default="")


def _safe(events: Any) -> Iterator[tuple[str, Any]]:
    """Yield the events of a document up to an error that the parser can't recover from."""
    try:
        yield from events
    except etree.XMLSyntaxError:
        return


def _local_name(name: str) -> str:
    """Return the name of an element or attribute without its namespace or prefix.

    Feeds may use a prefix that they do not define.
    """
    return name.rpartition("}")[2].rpartition(":")[2]


def xml_records(feed: FeedFile, encoding: str, name: str) -> Iterator[Record]:
    """Yield the products of an XML file.

    Args:
        feed: The file.
        encoding: Its encoding.
        name: Name of the elements that are products.
    """
    categories: dict[str, tuple[str, str]] = {}
    product: Any = None
    with feed.open_text(encoding) as file:
        events = _events(file)
        for event, element in _safe(events):
            if not isinstance(element.tag, str):
                continue
            local_name = _local_name(element.tag)
            if event == "start":
                if product is None and local_name == name:
                    product = element
                continue
            if element is product:
                yield Record(_record(element, categories))
                product = None
            elif product is None and local_name == "category" and element.get("id"):
                text = (element.text or "").strip()
                categories[element.get("id")] = (text, element.get("parentId") or "")
            if product is None:
                _forget(element)
        if problem := _fatal_problem(events):
            yield Record({}, problem)


def _forget(element: Any) -> None:
    """Free the memory of a parsed element and of those before it."""
    element.clear()
    parent = element.getparent()
    while parent is not None and element.getprevious() is not None:
        del parent[0]


def _fatal_problem(events: Any) -> str:
    """Return why the rest of a document can't be read, or an empty text."""
    for entry in events.error_log:
        message = entry.message.strip()
        is_end = "Premature end" in message or "Extra content" in message
        if entry.level_name == "FATAL" and is_end:
            return f"line {entry.line}: the XML ends early or is broken ({message})"
    return ""


def _record(element: Any, categories: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a product: its attributes and the values of its children."""
    fields: dict[str, Any] = {_local_name(key): value for key, value in element.attrib.items()}
    is_google: dict[str, bool] = {}
    for child in element:
        if not isinstance(child.tag, str):
            continue
        name, value = _local_name(child.tag), _value(child)
        if name == "param" and child.get("name"):
            name = f"param {child.get('name')}"
        if value in ("", None):
            continue
        # `g:title` is the product's, `title` that of its page.
        from_google = "base.google.com" in child.tag or child.tag.startswith("g:")
        if name in is_google and is_google[name] != from_google:
            if from_google:
                fields[name] = value
                is_google[name] = True
            continue
        is_google[name] = from_google
        known = fields.get(name)
        if known is None:
            fields[name] = value
        else:
            fields[name] = [*known, value] if isinstance(known, list) else [known, value]
    category = fields.get("categoryId")
    if categories and category is not None:
        first = category[0] if isinstance(category, list) else category
        if path := _category_path(str(first).strip(), categories):
            fields.setdefault("category", path)
    return fields


def _value(element: Any, depth: int = 0) -> Any:
    """Return the text of an element, or the values of its children by name."""
    children = [child for child in element if isinstance(child.tag, str)]
    if not children or depth == MAX_DEPTH:
        text = html.unescape("".join(element.itertext())).strip()
        return text or element.get("href") or element.get("url") or element.get("src") or ""
    values: dict[str, Any] = {}
    for child in children:
        name, value = _local_name(child.tag), _value(child, depth + 1)
        known = values.get(name)
        if known is None:
            values[name] = value
        else:
            values[name] = [*known, value] if isinstance(known, list) else [known, value]
    return values


def _category_path(number: str, categories: dict[str, tuple[str, str]]) -> str:
    """Return the names of a category and of those that contain it, from the outside in."""
    names: list[str] = []
    seen: set[str] = set()
    while number in categories and number not in seen:
        seen.add(number)
        name, number = categories[number]
        names.append(name)
    return " > ".join(reversed([name for name in names if name]))


class _Utf8Source:
    """The text of a file in UTF-8 for ijson."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        return self._file.read(max(1, size) if size else 0).encode("utf-8", "replace")


def is_json_lines(file: TextIO) -> bool:
    """Return whether a JSON file has an object per line."""
    # A document may be a single line of any length.
    lines = (line for line in iter(lambda: file.readline(MAX_LINE_CHARACTERS), "") if line.strip())
    first = next(lines, "")
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return False
    has_list = isinstance(value, dict) and any(map(_is_list_of_objects, value.values()))
    return isinstance(value, dict) and (next(lines, None) is not None or not has_list)


def _is_list_of_objects(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_list_of_objects, value.values()))
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def find_product_list(file: TextIO, score: Callable[[Sequence[str]], int]) -> str:
    """Return the path of the list of products in a JSON document, as ijson writes it.

    Args:
        file: The document.
        score: Returns how many columns of feeds are among names.

    Returns:
        The path of the list whose objects have most columns of feeds, and of those the outermost
        one; an empty text if there is no list of objects.
    """
    names: dict[str, dict[str, None]] = {}
    try:
        events = ijson.basic_parse(_Utf8Source(file), use_float=True)
        for prefix, event, value in islice(ijson.parse(events), MAX_EXAMINED_EVENTS):
            if event == "start_map" and prefix.endswith("item"):
                names.setdefault(prefix, {})
            elif event == "map_key" and prefix in names:
                names[prefix][value] = None
    # The rest is found by `json_records`.
    except (ijson.JSONError, ValueError):
        pass
    return max(names, key=lambda p: (score(list(names[p])), -p.count(".")), default="")


def json_records(file: TextIO, prefix: str) -> Iterator[Record]:
    """Yield the objects of a list in a JSON document.

    Args:
        file: The document.
        prefix: Path of the list's items.
    """
    try:
        for value in ijson.items(_Utf8Source(file), prefix, use_float=True):
            yield Record(value) if isinstance(value, dict) else Record({}, "not a JSON object")
    except (ijson.JSONError, ValueError) as error:
        yield Record({}, f"not JSON from here on: {first_line(error)}")


def json_line_records(file: TextIO) -> Iterator[Record]:
    """Yield the objects of a file with a JSON object per line."""
    for line in file:
        if not line.strip().strip("\ufeff"):
            continue
        try:
            row = json.loads(line.strip("\ufeff"))
        except (ValueError, RecursionError) as error:
            yield Record({}, f"not JSON: {first_line(error)}")
            continue
        yield Record(row) if isinstance(row, dict) else Record({}, "not a JSON object")
