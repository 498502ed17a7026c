"""What readers of pages share: strict about what they need, tolerant about the rest."""

import json
import re
import warnings
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from parsel import Selector
from w3lib.encoding import html_to_unicode

from scraper.errors import LayoutChanged

# A page of sixty products with all their words is a tenth of this.
LARGEST_PAGE = 10_000_000
# One half of a pair is no letter: neither SQLite nor a file takes it.
HALF = re.compile(rb"\\u[dD][89a-fA-F]")
# What a terminal obeys, and nobody writes.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Nor does PostgreSQL take a NUL; an even number of backslashes before it is no escape of it.
NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


def json_object(body: bytes, url: str) -> dict[str, Any]:
    """BODY as a JSON object.

    Raises:
        LayoutChanged: it is none.
    """
    _refuse_huge(body, url)
    try:
        value = json.loads(NUL.sub(rb"\1", body))
        if HALF.search(body):
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    # Deep nesting ends in a RecursionError, other encodings in a UnicodeDecodeError (a ValueError).
    except (ValueError, RecursionError) as error:
        raise LayoutChanged(f"the response is not JSON ({type(error).__name__})", url) from error
    if not isinstance(value, dict):
        raise LayoutChanged(f"the answer is {type(value).__name__} instead of a JSON object", url)
    return value


def web_page(body: bytes, url: str) -> Selector:
    """BODY as a web page, in the encoding that it says, else UTF-8.

    Raises:
        LayoutChanged: it is far too large for one.
    """
    _refuse_huge(body, url)
    _, page = html_to_unicode(None, body)
    with warnings.catch_warnings():
        # What is nested deeper than any page is cut off: the reader misses it then.
        warnings.simplefilter("ignore", UserWarning)
        return Selector(text=page, type="html", huge_tree=False)


def _refuse_huge(body: bytes, url: str) -> None:
    if len(body) > LARGEST_PAGE:
        raise LayoutChanged(f"the answer has {len(body):,} bytes, more than any page", url)


def json_or_nothing(body: bytes) -> dict[str, Any]:
    """BODY as a JSON object, empty where it is none: what an error says is read if it can be."""
    try:
        return json_object(body, "")
    except LayoutChanged:
        return {}


def inside(value: object, *keys: str | int) -> Any:
    """What stands in VALUE under KEYS, or None where the way breaks off."""
    for key in keys:
        if isinstance(key, int):
            value = (
                value[key] if isinstance(value, list) and -len(value) <= key < len(value) else None
            )
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def objects(value: object) -> list[dict[str, Any]]:
    """The JSON objects of the list VALUE; none where it is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def by_key(value: object, key: str) -> dict[str, dict[str, Any]]:
    """The JSON objects of the list VALUE by their text under KEY."""
    return {name: one for one in objects(value) if (name := text(one.get(key)))}


def text(value: object) -> str | None:
    """VALUE with single spaces and no control characters, None where it is no text or blank."""
    return " ".join(CONTROL.sub(" ", value).split()) or None if isinstance(value, str) else None


def number(value: object) -> int | None:
    """VALUE as a whole number that is not negative, also where it is written as text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def web_address(value: object) -> str | None:
    """VALUE where it is an http or https address."""
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        return None
    try:
        good = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
    except ValueError:
        return None
    # No space, and nothing that a terminal obeys.
    fits = value.isprintable() and " " not in value and len(value) < 4000
    return value if good and fits else None


def with_query(url: str, **changed: str) -> str:
    """URL with the values CHANGED in its query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode(dict(parse_qsl(parts.query)) | changed)))


def moment(value: object) -> datetime | None:
    """VALUE, a time in ISO 8601 or as mails have it, in UTC without a zone, for the catalogue."""
    if not isinstance(value, str):
        return None
    try:
        if value[:1].isalpha():
            known = parsedate_to_datetime(value)
        else:
            # 2026-11-01T10:00:00+0000 is Instagram's; Python 3.10 wants the colon.
            known = datetime.fromisoformat(_with_colon(value.replace("Z", "+00:00")))
        zoned = known if known.tzinfo else known.replace(tzinfo=timezone.utc)
        return zoned.astimezone(timezone.utc).replace(tzinfo=None, microsecond=0)
    except (ValueError, OverflowError):
        return None


def _with_colon(value: str) -> str:
    if len(value) > 5 and value[-5] in "+-" and value[-4:].isdecimal():
        value = f"{value[:-2]}:{value[-2:]}"
    # Python 3.10 reads three or six digits of a second only.
    head, dot, tail = value.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[:digits][:6].ljust(6, '0')}{tail[digits:]}" if dot else value


def in_words(seconds: int) -> str:
    """SECONDS from now, such as "in about 15 minutes"."""
    if seconds < 90:
        return f"in about {max(1, seconds)} seconds"
    minutes = -(-seconds // 60)
    return f"in about {minutes} minutes" if minutes < 120 else f"in about {-(-minutes // 60)} hours"
