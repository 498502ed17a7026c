"""Parse cells of feeds: column names, photos, tags, prices and Google's category numbers."""

import html
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from price_parser import Price

URL_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://|(data):", re.IGNORECASE)
# Keys of an object that is a photo or a category, in JSON and XML.
TEXT_KEYS = ("url", "src", "href", "link", "value", "name", "title", "#text")
PHOTO_SUFFIX = re.compile(
    r"\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])(\?\S*|#\S*)?\s*$", re.IGNORECASE
)
URL_START = re.compile(r"https?://|//", re.IGNORECASE)
# Separators of several photos in one cell; a comma may also be part of a name or URL.
PHOTO_SEPARATORS = ("|", "\n", ";", ",")
NEXT_URL = r"\s*{}\s*(?=https?://|//)"
SPACE_BEFORE_URL = re.compile(r"\s+(?=https?://|//)", re.IGNORECASE)

CAMEL_CASE = re.compile(r"(?<=[a-zа-яё\d])(?=[A-ZА-ЯЁ])")
NAME_SEPARATORS = re.compile(r"[\s_\-./:]+")
NAME_NOTES = re.compile(r"\([^)]*\)|[*\ufeff\"']")


def normalize_name(name: object) -> str:
    """Return the name of a column in lower case, with `_` between words.

    Namespaces such as `g:`, notes in parentheses and stars of mandatory columns are removed:
    `g:Image Link*` and `imageLink` are both `image_link`.
    """
    text = CAMEL_CASE.sub("_", NAME_NOTES.sub(" ", str(name)).strip().removeprefix("g:"))
    return NAME_SEPARATORS.sub("_", text.casefold().replace("ё", "е")).strip("_")


def cell_text(value: Any) -> str:
    """Return the text of a value; of a list the first one, of an object its URL or name."""
    if isinstance(value, str):
        text = value.strip()
        # JSON may have lone surrogates, which neither a file nor SQLite can store.
        return text if text.isascii() else text.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return next(filter(None, map(cell_text, value)), "")
    if isinstance(value, dict):
        texts = (value.get(key) for key in TEXT_KEYS)
        return next(
            (cell_text(text) for text in texts if isinstance(text, str) and text.strip()), ""
        )
    return "" if value is None or isinstance(value, bool) else str(value)


def split_photos(value: Any) -> list[str]:
    """Return the paths and URLs of the photos in a cell, in their order.

    Several photos may be a list, or be separated by `|`, line breaks, `;` or `,`; a separator
    counts only if all parts are URLs or names of image files.
    """
    if isinstance(value, list):
        return [photo for part in value for photo in split_photos(part)]
    if isinstance(value, dict):
        text = cell_text(value)
        nested = [part for part in value.values() if isinstance(part, list | dict)]
        return split_photos(text) if text else split_photos(nested)
    text = cell_text(value)
    if text.startswith(("[", "{")):
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            parsed = None
        if isinstance(parsed, list | dict):
            return split_photos(parsed)
    return [photo for part in _split_cell(text) if (photo := normalize_photo(part))]


def _split_cell(text: str) -> list[str]:
    for separator in PHOTO_SEPARATORS:
        if separator in text:
            parts = [part.strip() for part in text.split(separator) if part.strip()]
            is_url = {bool(URL_START.match(part)) for part in parts}
            if is_url == {True} or (is_url == {False} and all(map(looks_like_photo, parts))):
                return [photo for part in parts for photo in _split_cell(part)]
            # A URL may contain the separator.
            parts = re.split(NEXT_URL.format(re.escape(separator)), text, flags=re.IGNORECASE)
            if len(parts) > 1 and URL_START.match(text):
                return [photo for part in parts for photo in _split_cell(part.strip())]
    if URL_START.match(text):
        return SPACE_BEFORE_URL.split(text)
    return [text]


def looks_like_photo(text: str) -> bool:
    """Return whether a text is a URL or ends as the name of an image file."""
    return bool(URL_SCHEME.match(text.strip()) or PHOTO_SUFFIX.search(text))


def normalize_photo(text: str) -> str:
    """Return a path or URL with a scheme, and without HTML entities."""
    text = text.strip().strip("\"'<>").strip()
    if "&" in text and (URL_START.match(text) or "&amp;" in text):
        text = text.replace("&amp;", "&").replace("&#38;", "&").replace("&#038;", "&")
    if text.startswith(("//", "\\\\")) and "." in text[2:].partition("/")[0]:
        return f"https:{text}".replace("\\", "/")
    scheme = URL_SCHEME.match(text)
    if scheme and scheme[0].lower() in ("http://", "https://"):
        return scheme[0].lower() + text[scheme.end() :].replace("\\", "/")
    return text


def find_inside(root: Path, name: str) -> Path:
    """Return the path of a file inside a folder.

    A name with backslashes, or in another Unicode normalization than the file's, is found too.

    Args:
        root: The folder.
        name: Path of the file relative to it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is outside the folder, also by a symbolic link, or is not a file name.
        OSError: It can't be read.
    """
    if "\0" in name:
        raise ValueError("not a file name")
    base = Path(os.path.normpath(root.absolute()))
    path = next((p for p in _spellings(base, name) if os.path.lexists(p)), base / name)
    normalized = Path(os.path.normpath(path))
    # Symbolic links are resolved too: the owner of a feed must not read other files by them.
    if not normalized.is_relative_to(base) or not _is_inside(normalized, base):
        raise ValueError(f"it is outside --image-root {root}")
    return normalized


def describe_photo(root: Path, image: str) -> str:
    """Return whether a photo is there, for users.

    Args:
        root: Folder of the photos that are paths.
        image: Its path or URL.
    """
    if URL_SCHEME.match(image):
        return "a URL"
    try:
        return "found" if find_inside(root, image).is_file() else "no such file"
    except (OSError, ValueError) as error:
        return str(error)


def _spellings(base: Path, name: str) -> Iterator[Path]:
    """Yield the paths that a name may mean."""
    for text in dict.fromkeys((name, name.replace("\\", "/"))):
        for form in ("NFC", "NFD"):
            if text != name or form == "NFC":
                yield base / text
            yield base / unicodedata.normalize(form, text)
        mixed = _mixed_spelling(base, unicodedata.normalize("NFC", text))
        if mixed is not None:
            yield mixed


def _mixed_spelling(base: Path, name: str) -> Path | None:
    """Return the path of a name whose folders have different Unicode normalizations."""
    path = base
    for part in Path(name).parts:
        if part in ("/", ".."):
            return None
        forms = (part, unicodedata.normalize("NFD", part))
        existing = next((form for form in forms if os.path.lexists(path / form)), None)
        if existing is None:
            return None
        path /= existing
    return path


def _is_inside(path: Path, base: Path) -> bool:
    try:
        return path.resolve().is_relative_to(base.resolve())
    # A circle of symbolic links.
    except RuntimeError:
        return False


# Number of 0 or more, with any marks of thousands and decimals.
NUMBER = re.compile(r"\d[\d\s.,'’٬٫\u2019]*|[.,]\d+")
MINUS_SIGNS = ("-", "−", "–", "—")
# "от 1299", "from 5", "ab 12 €": the lowest price counts.
LOWEST_PRICE = re.compile(r"^\s*(от|from|ab|desde|dès|da)\s+(?=\D{0,4}\d)", re.IGNORECASE)
# Digits of ambiguous numbers: a single point before three digits.
AMBIGUOUS_POINT = re.compile(r"[1-9]\d{0,2}\.\d{3}")
# A comma before three digits separates thousands, also in groups of two as in India.
COMMA_THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?|[1-9]\d?(,\d{2})*,\d{3}(\.\d+)?")
POINT_THOUSANDS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+(,\d+)?")
PLAIN_NUMBER = re.compile(r"\d*[.,]\d+|\d+")
MAX_CURRENCY_CHARACTERS = 12
# Currencies whose smallest unit is a thousandth.
THREE_DECIMALS = {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
# Symbol or word -> code of ISO 4217.
CURRENCY_CODES = {
    **{"$": "USD", "us$": "USD", "$us": "USD", "r$": "BRL", "c$": "CAD", "ca$": "CAD"},
    **{"a$": "AUD", "au$": "AUD", "nz$": "NZD", "hk$": "HKD", "s$": "SGD", "mx$": "MXN"},
    **{"nt$": "TWD", "€": "EUR", "euro": "EUR", "euros": "EUR", "£": "GBP", "₽": "RUB"},
    **{"руб": "RUB", "р": "RUB", "рублей": "RUB", "рубля": "RUB", "rur": "RUB", "rub": "RUB"},
    **{"₴": "UAH", "грн": "UAH", "₸": "KZT", "тг": "KZT", "тенге": "KZT", "₹": "INR"},
    **{"rs": "INR", "inr": "INR", "¥": "JPY", "円": "JPY", "元": "CNY", "rmb": "CNY", "cn¥": "CNY"},
    **{"zł": "PLN", "zl": "PLN", "kč": "CZK", "ft": "HUF", "lei": "RON", "лв": "BGN"},
    **{"₺": "TRY", "tl": "TRY", "₩": "KRW", "₫": "VND", "₪": "ILS", "br": "BYN", "byr": "BYN"},
    **{"бел руб": "BYN", "fr": "CHF", "sfr": "CHF", "₾": "GEL", "֏": "AMD", "₼": "AZN"},
    **{"сум": "UZS", "so'm": "UZS", "сом": "KGS", "₦": "NGN", "฿": "THB", "₱": "PHP"},
}


@dataclass(frozen=True)
class PriceStyle:
    """How a column writes prices.

    Attributes:
        has_decimal_points: Whether a single point before three digits is a decimal point.
    """

    has_decimal_points: bool = False


def detect_price_style(texts: Iterable[str]) -> PriceStyle:
    """Return how prices are written, by those of a whole column that are not ambiguous."""
    decimal = thousands = 0
    for text in texts:
        match = NUMBER.search(text)
        digits = _digits(match.group()) if match else ""
        if AMBIGUOUS_POINT.fullmatch(digits) or "." not in digits:
            continue
        if POINT_THOUSANDS.fullmatch(digits):
            thousands += 1
        else:
            decimal += 1
    return PriceStyle(decimal > thousands)


def is_ambiguous_price(text: str) -> bool:
    """Return whether only the other prices of a column tell how a price is meant."""
    match = NUMBER.search(text)
    return bool(match and AMBIGUOUS_POINT.fullmatch(_digits(match.group())))


def _digits(number: str) -> str:
    number = re.sub(r"[\s'’]", "", number).replace("٬", ",").replace("٫", ".")
    # "1299.-" and "1299," end a sentence or replace the cents by a dash.
    return number.rstrip(".,")


# Prices repeat, and price-parser takes most of the time of reading a feed.
@lru_cache(maxsize=10_000)
def parse_price(
    text: str, currency: str = "", style: PriceStyle | None = None
) -> tuple[float | None, str]:
    """Parse a price such as `1 299,50 EUR`, `$1,299` or `₹1,29,999.00`.

    Args:
        text: The text.
        currency: The currency, if it is known; else it is taken from the text.
        style: How the column writes prices; without it, a single point or comma before three
            digits separates thousands.

    Returns:
        The price, None if the text has no number of 0 or more, and the code of the currency, or
        its name if it has no known code.
    """
    text = LOWEST_PRICE.sub("", text.strip())
    match = NUMBER.search(text)
    if match is None:
        return None, currency_code(currency)
    before, after = text[: match.start()].strip(), text[match.end() :].strip()
    word = (before + after.lstrip("-−–—")).strip()
    is_negative = before.endswith(MINUS_SIGNS)
    has_more_numbers = any(character.isdigit() for character in before + after)
    if is_negative or has_more_numbers or len(word) > MAX_CURRENCY_CHARACTERS:
        return None, currency_code(currency)
    symbol = Price.fromstring(text).currency if word and not currency else None
    code = currency_code(currency or symbol or word)
    return _parse_number(_digits(match.group()), code, style or PriceStyle()), code


def _parse_number(digits: str, currency: str, style: PriceStyle) -> float | None:
    """Parse digits, commas and points; None if they do not form a number."""
    is_decimal = style.has_decimal_points or currency in THREE_DECIMALS
    if (AMBIGUOUS_POINT.fullmatch(digits) and is_decimal) or COMMA_THOUSANDS.fullmatch(digits):
        separator = "."
    elif POINT_THOUSANDS.fullmatch(digits):
        separator = ","
    elif PLAIN_NUMBER.fullmatch(digits):
        separator = "," if "," in digits else "."
    else:
        return None
    # price-parser needs a digit before the decimal point.
    padded = f"0{digits}" if digits.startswith((".", ",")) else digits
    amount: Decimal | None = Price.fromstring(padded, decimal_separator=separator).amount
    value = math.nan if amount is None else float(amount)
    return value if math.isfinite(value) else None


def currency_code(currency: str) -> str:
    """Return the code of a currency; of an unknown one its name without spaces around it."""
    text = currency.strip()
    key = text.casefold().strip(" .:").replace(".", " ").replace("  ", " ")
    code = CURRENCY_CODES.get(key, text)
    return code.upper() if code.isascii() and len(code) == 3 and code.isalpha() else code


# Numbers of categories of garments in Google's product taxonomy -> their last two levels.
GOOGLE_CATEGORIES = {
    166: "Apparel & Accessories",
    1604: "Apparel & Accessories > Clothing",
    5322: "Clothing > Activewear",
    182: "Clothing > Baby & Toddler Clothing",
    5424: "Baby & Toddler Clothing > Dresses",
    5425: "Baby & Toddler Clothing > Outerwear",
    5409: "Baby & Toddler Clothing > Swimwear",
    5410: "Baby & Toddler Clothing > Tops",
    2271: "Clothing > Dresses",
    5182: "Clothing > One-Pieces",
    5250: "One-Pieces > Jumpsuits & Rompers",
    5490: "One-Pieces > Leotards & Unitards",
    7132: "One-Pieces > Overalls",
    203: "Clothing > Outerwear",
    5598: "Outerwear > Coats & Jackets",
    5514: "Outerwear > Rain Pants",
    3066: "Outerwear > Rain Suits",
    5909: "Outerwear > Snow Pants & Suits",
    1831: "Outerwear > Vests",
    7313: "Clothing > Outfit Sets",
    204: "Clothing > Pants",
    212: "Clothing > Shirts & Tops",
    207: "Clothing > Shorts",
    1581: "Clothing > Skirts",
    6229: "Skirts > Knee-Length Skirts",
    6228: "Skirts > Long Skirts",
    2331: "Skirts > Mini Skirts",
    5344: "Clothing > Skorts",
    208: "Clothing > Sleepwear & Loungewear",
    5713: "Sleepwear & Loungewear > Loungewear",
    5513: "Sleepwear & Loungewear > Nightgowns",
    2580: "Sleepwear & Loungewear > Pajamas",
    2302: "Sleepwear & Loungewear > Robes",
    1594: "Clothing > Suits",
    5183: "Suits > Pant Suits",
    1516: "Suits > Skirt Suits",
    1580: "Suits > Tuxedos",
    211: "Clothing > Swimwear",
    213: "Clothing > Underwear & Socks",
    214: "Underwear & Socks > Bras",
    209: "Underwear & Socks > Socks",
    2745: "Underwear & Socks > Undershirts",
    2562: "Underwear & Socks > Underwear",
    2306: "Clothing > Uniforms",
    5441: "Clothing > Wedding & Bridal Party Dresses",
    5329: "Wedding & Bridal Party Dresses > Wedding Dresses",
    167: "Apparel & Accessories > Clothing Accessories",
    169: "Clothing Accessories > Belts",
    173: "Clothing Accessories > Hats",
    177: "Clothing Accessories > Scarves & Shawls",
    187: "Apparel & Accessories > Shoes",
}
# Separates the levels of a category in feeds of Google and Yandex.
LEVEL_SEPARATOR = re.compile(r"\s*(?:->|=>|>|»|›|/|\||\\)\s*")


def category_name(tag: str) -> str:
    """Return the name of a category of Google's taxonomy that is a number, else the tag."""
    number = tag.partition(" - ")[0].strip()
    if not (number.isascii() and number.isdigit() and len(number) < 8):
        return tag
    return GOOGLE_CATEGORIES.get(int(number), tag)


def category_levels(tag: str) -> list[str]:
    """Return a tag and the levels of its category, the last one first.

    Of several categories, separated by commas as in exports of WooCommerce, the levels of each
    follow.
    """
    name = html.unescape(tag)
    levels = [level for level in LEVEL_SEPARATOR.split(name) if level]
    names = [tag, *(reversed(levels) if len(levels) > 1 or name != tag else ())]
    if "," in name:
        for category in re.split(r"(?<!\\),", name):
            names += reversed([part for part in LEVEL_SEPARATOR.split(category.strip()) if part])
    return list(dict.fromkeys(names))


# Keys of an object that is a tag: the first one that has a text.
TAG_KEYS = ("label", "tag", *TEXT_KEYS)
# Separators of several tags in one cell, the first one that occurs is used. WooCommerce escapes a
# comma that is part of a name.
TAG_SEPARATORS = (r"\n", r"\|", r";", r"(?<!\\),", r"\s\+\s")
# Levels of a category and the words of a name have these separators, too.
TAG_OR_LEVEL_SEPARATORS = ("/", r"\s+")
HASHTAGS = re.compile(r"#[^\s#,;|]+")
QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
DEFAULT_SEPARATOR = ", "


@dataclass(frozen=True)
class TagLists:
    """Reads and changes values of a feed that list several tags.

    A list is one of JSON or XML, a text with separators (a comma, `;`, `|`, a line break), a
    sequence of hashtags, or a JSON list or Python list as text. An object is a tag with properties,
    or tags by facet.

    Attributes:
        is_tag: Returns whether a text without levels is a tag that is known. A text is a list only
            if one of its parts is known: other texts are names of categories.
    """

    is_tag: Callable[[str], bool]

    def split(self, value: Any) -> list[str]:
        """Return the tags of a value, each once."""
        return list(dict.fromkeys(filter(None, self._split(value))))

    def _split(self, value: Any) -> list[str]:
        if isinstance(value, list):
            return [tag for item in value for tag in self._split(item)]
        if isinstance(value, dict):
            return [tag for key in _tag_keys(value) for tag in self._split(value[key])]
        text = cell_text(value)
        parsed = _parse_json(text)
        if parsed is not None:
            return self._split(parsed)
        return [token.tag for token in self._tokens(text)]

    def change(
        self,
        value: Any,
        changes: Mapping[str, str | None],
        added: Mapping[str, str] | None = None,
    ) -> Any:
        """Return a value with other tags, in its own notation.

        Args:
            value: The value.
            changes: Tag -> the tag that replaces it; None: it is removed.
            added: Facet -> tag to append.
        """
        changed = self._change(value, changes)
        for facet, tag in (added or {}).items():
            changed = self._append(changed, facet, tag)
        return changed

    def _change(self, value: Any, changes: Mapping[str, str | None]) -> Any:
        if isinstance(value, list):
            items = (self._change(item, changes) for item in value)
            return [
                new for old, new in zip(value, items, strict=True) if new not in ("", {}) or not old
            ]
        if isinstance(value, dict):
            keys = _tag_keys(value)
            new = {key: self._change(value[key], changes) for key in keys}
            return {} if keys and not any(new.values()) else value | new
        text = cell_text(value)
        parsed = _parse_json(text)
        if parsed is not None:
            return _dump_json_like(self._change(parsed, changes), text)
        tokens = self._tokens(text)
        if not any(token.tag in changes for token in tokens):
            return value
        kept, end = "", 0
        for token in tokens:
            new_tag = changes.get(token.tag, token.tag)
            separator = text[end : token.start]
            end = token.end
            if new_tag is None:
                # The first separator is what opens the list.
                kept += separator if token is tokens[0] else ""
                continue
            is_first = all(changes.get(t.tag, "") is None for t in tokens if t.start < token.start)
            kept += "" if is_first and token is not tokens[0] else separator
            kept += text[token.start : end] if new_tag == token.tag else token.write(new_tag)
        return kept + text[end:]

    def _append(self, value: Any, facet: str, tag: str) -> Any:
        if isinstance(value, list):
            is_object = bool(value) and isinstance(value[-1], dict)
            keys = _tag_keys(value[-1]) if is_object else []
            return [*value, {keys[0]: tag} if keys else tag]
        if isinstance(value, dict):
            has_name = not value.keys().isdisjoint(TAG_KEYS)
            return [value, {_tag_keys(value)[0]: tag}] if has_name else {**value, facet: tag}
        text = cell_text(value)
        parsed = _parse_json(text)
        if parsed is not None:
            return _dump_json_like(self._append(parsed, facet, tag), text)
        tokens = self._tokens(text)
        if not tokens:
            return tag
        last = tokens[-1]
        separator = text[tokens[-2].end : last.start] if len(tokens) > 1 else DEFAULT_SEPARATOR
        return text[: last.end] + separator + last.write(tag) + text[last.end :]

    def _tokens(self, text: str) -> list["_TagToken"]:
        """Return the tags of a text with their places."""
        if text.startswith("#") and (hashtags := list(HASHTAGS.finditer(text))):
            return [_TagToken(m.start(), m.end(), m[0][1:], "#") for m in hashtags]
        is_bracketed = text[:1] + text[-1:] in ("[]", "()", "{}")
        start, end = (1, len(text) - 1) if is_bracketed else (0, len(text))
        if is_bracketed and text[1:].lstrip().startswith(("'", '"')):
            quoted = QUOTED.finditer(text, start, end)
            return [_TagToken(m.start(), m.end(), m[0][1:-1], m[0][0]) for m in quoted]
        whole = _split_text(text, start, end, None)
        if self.is_tag(text):
            return whole
        for separator in (*TAG_SEPARATORS, *TAG_OR_LEVEL_SEPARATORS):
            tokens = _split_text(text, start, end, separator)
            are_known = (self._is_category(token.tag) for token in tokens)
            if separator in TAG_OR_LEVEL_SEPARATORS:
                is_list = all(self.is_tag(token.tag) for token in tokens)
            else:
                is_list = is_bracketed or any(are_known)
            if len(tokens) > 1 and is_list:
                return tokens
        return whole

    def _is_category(self, text: str) -> bool:
        return any(map(self.is_tag, category_levels(text)))


@dataclass(frozen=True)
class _TagToken:
    """A tag in a text, from `start` to `end`, with a mark: a quote or `#`."""

    start: int
    end: int
    tag: str
    mark: str = ""

    def write(self, tag: str) -> str:
        """Return another tag with the mark of this one."""
        if self.mark == "#":
            return "#" + "".join(tag.split())
        return self.mark + tag.replace(self.mark or "\0", "") + self.mark


def _split_text(text: str, start: int, end: int, separator: str | None) -> list[_TagToken]:
    """Return the parts of a text between separators; None: the whole text."""
    matches = re.compile(separator).finditer(text, start, end) if separator else ()
    tokens, first = [], start
    for last, following in [*((m.start(), m.end()) for m in matches), (end, end)]:
        part = text[first:last]
        if tag := part.strip():
            begin = first + part.index(tag)
            mark = tag[0] if len(tag) > 1 and tag[0] == tag[-1] and tag[0] in "'\"" else ""
            tokens.append(_TagToken(begin, begin + len(tag), tag.strip(mark or None), mark))
        first = following
    return tokens


def _tag_keys(value: Mapping[str, Any]) -> list[str]:
    """Return the keys of an object that have tags: that of its name, or those of facets."""
    texts = [key for key, item in value.items() if isinstance(item, str | list) and item]
    return [key for key in TAG_KEYS if key in texts][:1] or texts


def _parse_json(text: str) -> Any:
    """Return the list or object that a text is in JSON, or None."""
    if not text.startswith(("[", "{")):
        return None
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, list | dict) else None


def _dump_json_like(value: Any, text: str) -> str:
    """Write JSON with the spaces and the escapes of another text."""
    comma = ", " if ", " in text or "," not in text else ","
    colon = ": " if ": " in text or ":" not in text else ":"
    return json.dumps(
        value, ensure_ascii=text.isascii() and "\\u" in text, separators=(comma, colon)
    )
