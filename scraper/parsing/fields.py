"""Parse and validate fields and rate-limit headers of responses.

A body that can't be parsed raises `LayoutChanged`; a single invalid value gives None.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sized
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from bs4 import BeautifulSoup, Tag
from bs4.element import PageElement
from parsel import Selector
from price_parser import Price
from w3lib.encoding import html_to_unicode

from scraper.errors import LayoutChanged

# Ten times the size of a page of 60 products.
MAX_PAGE_BYTES = 10_000_000
# The largest page of any site has 500 records.
MAX_RECORDS = 2_000
# A page of products has some thousands; Beautiful Soup takes seconds for more.
MAX_ELEMENTS = 100_000
# Nodes of an element whose text is read.
MAX_TEXT_NODES = 200
# Lone surrogates (half an emoji) are replaced: neither a database nor a text file can store them.
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
# Control characters could change the state of a terminal.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# PostgreSQL can't store NUL characters. After an even number of backslashes, `\u0000` is an escape.
NUL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
# Longer numbers are unknown values; Python refuses to convert more than 4,300 digits.
MAX_DIGITS = 30
# No site counts more; larger values are errors, and a float can't hold all of them.
MAX_COUNT = 10**18
# Prefixes of -limit, -remaining and -reset: X, Pinterest, and the IETF draft
# https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
HEADER_PREFIXES = ("x-rate-limit", "x-ratelimit", "ratelimit")
# JSON headers of Instagram,
# https://developers.facebook.com/docs/graph-api/overview/rate-limiting/
USAGE_HEADERS = ("x-business-use-case-usage", "x-app-usage")
WAIT_MINUTES_KEY = "estimated_time_to_regain_access"
RATE_LIMIT_HEADERS = {
    "retry-after",
    *(f"{prefix}-reset" for prefix in HEADER_PREFIXES),
    *USAGE_HEADERS,
}
# A reset up to this number is in seconds from now; a larger one is a Unix time.
MIN_TIMESTAMP = 1_000_000_000
# No site has a longer limit than a day; larger values are errors.
MAX_BACKOFF_SECONDS = 86_400


def json_object(body: bytes, url: str) -> dict[str, Any]:
    """Parse a response body as a JSON object.

    Args:
        body: The body, in UTF-8, UTF-16 or UTF-32.
        url: The URL of the response, for the error message.

    Raises:
        LayoutChanged: The body is too large or not a JSON object.
    """
    value = _json_value(body, url)
    if not isinstance(value, dict):
        raise LayoutChanged("the response is JSON, but not an object", url)
    return value


def json_list(body: bytes, url: str) -> list[Any]:
    """Parse a response body as a JSON list, as `json_object` does.

    Raises:
        LayoutChanged: The body is too large or not a JSON list.
    """
    value = _json_value(body, url)
    if not isinstance(value, list):
        raise LayoutChanged("the response is JSON, but not a list", url)
    check_count(value, url)
    return value


def check_count(records: Sized, url: str) -> None:
    """Check that a response has no more records than a page can have.

    Raises:
        LayoutChanged: It has more.
    """
    if len(records) > MAX_RECORDS:
        raise LayoutChanged(f"{len(records):,} records in a response, more than any page", url)


def _json_value(body: bytes, url: str) -> Any:
    _check_size(body, url)
    try:
        return parse_json(body.decode(json.detect_encoding(body), "replace"))
    except (ValueError, RecursionError) as error:
        raise LayoutChanged("the response is not JSON", url) from error


# Group 1 is a string, which may be cut off at the end; otherwise a comma before a closing bracket.
TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*(?:"|\\?\Z))|,(?=\s*[}\]])', re.DOTALL)


def without_trailing_commas(text: str) -> str:
    """Return JSON without commas before closing brackets."""
    # Strings are matched first and kept, so that only commas outside of strings are removed.
    return TRAILING_COMMA.sub(lambda match: match.group(1) or "", text)


def parse_json(text: str, may_have_more: bool = False) -> Any:
    """Parse JSON, so that the catalogue can store its values.

    Lone surrogates are replaced and NUL characters removed. Numbers that are infinite, undefined
    (NaN) or too long become None.

    Args:
        text: The JSON text.
        may_have_more: Whether other text may follow the value.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    text = text.lstrip("\ufeff \t\r\n")
    if r"\u0000" in text:
        text = NUL_ESCAPE.sub(r"\1", text)
    value, end = _DECODER.raw_decode(text)
    if not may_have_more and text[end:].strip():
        raise ValueError("more text after the JSON value")
    if SURROGATE_ESCAPE.search(text):
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    return value


def _parse_int(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _parse_float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


# Control characters in strings are accepted.
_DECODER = json.JSONDecoder(
    parse_int=_parse_int,
    parse_float=_parse_float,
    parse_constant=lambda _: None,
    strict=False,
)


def html_page(body: bytes, url: str) -> Selector:
    """Parse a response body as HTML, in the encoding that it declares, or else in UTF-8.

    Raises:
        LayoutChanged: The body is too large for a page.
    """
    _check_size(body, url)
    _, page = html_to_unicode(None, body)
    with warnings.catch_warnings():
        # parsel warns if content is cut off because it is nested too deeply; callers validate the
        # fields that they need.
        warnings.simplefilter("ignore", UserWarning)
        return Selector(text=page, type="html", huge_tree=False)


def html_soup(body: bytes, url: str) -> BeautifulSoup:
    """Parse a response body as HTML with Beautiful Soup, in the encoding that it declares.

    Raises:
        LayoutChanged: The body is too large or has too many elements for a page.
    """
    _check_size(body, url)
    if (count := body.count(b"<")) > MAX_ELEMENTS:
        raise LayoutChanged(f"the response has {count:,} elements, more than any page", url)
    _, text = html_to_unicode(None, body)
    # lxml hands each NUL character over alone.
    return BeautifulSoup(text.replace("\0", ""), "lxml")


def element_text(tag: Tag) -> str:
    """Return the text of an element of an HTML page, with spaces between its parts.

    `Tag.get_text` first looks for the last node, which takes long in deeply nested elements.
    """
    strings: list[str] = []
    stack: list[PageElement] = [tag]
    for _ in range(MAX_TEXT_NODES):
        if not stack:
            break
        node = stack.pop()
        if isinstance(node, Tag):
            stack += reversed(node.contents[:MAX_TEXT_NODES])
        else:
            strings.append(str(node))
    return " ".join(strings)


def _check_size(body: bytes, url: str) -> None:
    if len(body) > MAX_PAGE_BYTES:
        raise LayoutChanged(f"the response has {len(body):,} bytes, more than any page", url)


def json_object_or_empty(body: bytes) -> dict[str, Any]:
    """Parse the body of an error response; return an empty object if it is not JSON."""
    try:
        return json_object(body, "")
    except LayoutChanged:
        return {}


def get_nested(value: object, *keys: str | int) -> Any:
    """Return a nested value of parsed JSON, or None if a key or index is missing.

    Args:
        value: Parsed JSON.
        keys: Keys of objects (str) and indexes of lists (int), from the outside in.
    """
    for key in keys:
        if isinstance(key, int):
            value = (
                value[key] if isinstance(value, list) and -len(value) <= key < len(value) else None
            )
        else:
            value = value.get(key) if isinstance(value, dict) else None
    return value


def json_objects(value: object) -> list[dict[str, Any]]:
    """Return the objects in a JSON list; an empty list if the value is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def index_by_key(value: object, key: str) -> dict[str, dict[str, Any]]:
    """Return the objects in a JSON list by the text under a key; exclude those without text."""
    return {text: item for item in json_objects(value) if (text := clean_text(item.get(key)))}


def clean_text(value: object) -> str | None:
    """Return a string with single spaces and without control characters; None if it is blank."""
    return (
        " ".join(CONTROL_CHARACTERS.sub(" ", value).split()) or None
        if isinstance(value, str)
        else None
    )


def parse_count(value: object) -> int | None:
    """Return a non-negative integer, given as a number or as decimal digits; None for others."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < MAX_COUNT else None


def http_url(value: object) -> str | None:
    """Return the value if it is an http or https URL, else None."""
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        return None
    try:
        has_host = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
    except ValueError:
        return None
    # Spaces and control characters are never part of a valid URL.
    has_valid_characters = value.isprintable() and " " not in value and len(value) < 4000
    return value if has_host and has_valid_characters else None


def with_query(url: str, **parameters: str) -> str:
    """Return a URL with some query parameters set to new values."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode(dict(parse_qsl(parts.query)) | parameters)))


def parse_datetime(value: object) -> datetime | None:
    """Parse a time in ISO 8601 or in the format of e-mail (RFC 5322).

    Returns:
        The time in UTC without time zone, as the catalogue stores it; None if it is invalid.
    """
    if not isinstance(value, str):
        return None
    try:
        if value[:1].isalpha():
            time = parsedate_to_datetime(value)
        else:
            # Instagram sends 2026-11-01T10:00:00+0000; Python 3.10 requires +00:00.
            time = datetime.fromisoformat(_normalize_iso_time(value.replace("Z", "+00:00")))
        aware_time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
        return aware_time.astimezone(timezone.utc).replace(tzinfo=None, microsecond=0)
    except (ValueError, OverflowError):
        return None


def _normalize_iso_time(value: str) -> str:
    """Rewrite the UTC offset and the fraction of a second as Python 3.10 requires them."""
    if len(value) > 5 and value[-5] in "+-" and value[-4:].isdecimal():
        value = f"{value[:-2]}:{value[-2:]}"
    # Python 3.10 accepts only three or six digits.
    seconds, point, rest = value.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    return f"{seconds}.{rest[:digits][:6].ljust(6, '0')}{rest[digits:]}" if point else value


AGE = re.compile(r"([0-9]{1,6})([hdw])", re.IGNORECASE)
AGE_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def parse_since(value: str, now: datetime | None = None) -> datetime:
    """Return the time of the oldest posts to keep, in UTC without time zone.

    Args:
        value: A date such as `2026-01-31`, or an age in hours, days or weeks such as `7d`.
        now: The time from which an age counts; by default the present.

    Raises:
        ValueError: It is neither.
    """
    text = value.strip()
    try:
        if match := AGE.fullmatch(text):
            age = timedelta(**{AGE_UNITS[match[2].lower()]: int(match[1])})
            if age:
                return (now or datetime.now(timezone.utc)).replace(tzinfo=None) - age
        else:
            return datetime.strptime(text, "%Y-%m-%d")
    except (ValueError, OverflowError):
        pass
    raise ValueError(
        f"{value!r} is neither a date such as 2026-01-31 nor an age such as 12h, 7d or 2w"
    )


def format_wait(seconds: int) -> str:
    """Format a waiting time, such as "in about 15 minutes"."""
    if seconds < 90:
        count = max(1, seconds)
        return f"in about {count} second{'' if count == 1 else 's'}"
    minutes = -(-seconds // 60)
    return f"in about {minutes} minutes" if minutes < 120 else f"in about {-(-minutes // 60)} hours"


# Product of a bot protection -> what its challenge pages contain.
CHALLENGES = {
    "Cloudflare": (b"cf-chl-", b"challenges.cloudflare.com", b"<title>Just a moment"),
    "Akamai": (b"errors.edgesuite.net", b"_sec/cp_challenge"),
    "PerimeterX": (b"px-captcha", b"perimeterx.net"),
    "DataDome": (b"captcha-delivery.com",),
    "Imperva": (b"_Incapsula_Resource",),
}


def explain_challenge(status: int, body: bytes) -> str | None:
    """Explain the challenge page of a bot protection; return None for other pages."""
    start = body[:50_000]
    for product, marks in CHALLENGES.items():
        if any(mark in start for mark in marks):
            return (
                f"{product} sent a bot challenge (HTTP {status}): the site blocks automated"
                " access; ask its owner to allow your user agent (--contact names you)"
            )
    return None


def is_html(body: bytes) -> bool:
    """Return whether a body is a web page, whatever its headers say."""
    return body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<"


def absolute_url(url: object, base: str) -> str | None:
    """Return the http or https URL of a link on a page; None if it is no such link."""
    if not isinstance(url, str) or not url.strip():
        return None
    try:
        return http_url(urljoin(base, url.strip().replace(" ", "%20")))
    except ValueError:
        return None


# A parser needs much memory for a longer text of elements, and much time for many short ones.
MAX_HTML_CHARS, MAX_SHORT_TEXT = 200_000, 500
MARKUP = re.compile(r"<!--.*?-->|</?[a-z][^<>]*>", re.IGNORECASE | re.DOTALL)


def html_text(value: object) -> str | None:
    """Return the text of a value with HTML elements and entities."""
    if not isinstance(value, str):
        return None
    if "<" not in value:
        return clean_text(unescape(value))
    if len(value) <= MAX_SHORT_TEXT:
        return clean_text(unescape(MARKUP.sub(" ", value)))
    # The texts of elements that are next to each other are words of their own.
    texts = Selector(text=value[:MAX_HTML_CHARS]).css("::text").getall()
    return clean_text(re.sub(r"\s+", " ", " ".join(texts)))


# A longer text is no price; price-parser takes quadratic time for it.
MAX_PRICE_CHARS = 200


def parse_price(value: object) -> float | None:
    """Return a price that is a number or a text such as "1.299,00 EUR"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        if len(value) > MAX_PRICE_CHARS:
            return None
        amount = Price.fromstring(value).amount
        return None if amount is None else float(amount)
    return float(value)


# The rights in a Creative Commons code, in their order, as in `by-nc-sa`.
CC_CODE = re.compile(r"\bby(?:-nc)?(?:-sa|-nd)?\b")
PUBLIC_DOMAIN = ("cc0", "pdm")


def license_code(value: object) -> str | None:
    """Return the code of a license from its name, code or URL.

    Returns:
        A Creative Commons code such as `by-sa`, `cc0`, `pdm` for the public domain, or the text in
        lower case of any other license; None if there is none.
    """
    text = (html_text(value) or "").lower()
    name = re.sub(r"[\s_/]+", "-", text)
    if not name:
        return None
    if re.search(r"\bcc-?(?:0|zero)\b|publicdomain-zero", name):
        return "cc0"
    if re.search(r"^(?:pd|pdm)\b|public-?domain|no-known-copyright", name):
        return "pdm"
    is_cc = re.search(r"\bcc\b|creative-?commons", name) or CC_CODE.match(name)
    match = CC_CODE.search(name) if is_cc else None
    return match[0] if match else text


def license_url(value: object) -> str | None:
    """Return the URL of a license; that of a Creative Commons license in its usual form."""
    url = absolute_url(html_text(value), "https://creativecommons.org/")
    if url is None or not re.match(r"https?://(?:www\.)?creativecommons\.org/", url):
        return url
    path = re.sub(r"(?:deed|legalcode)(?:\.[\w-]+)?$", "", urlsplit(url).path)
    return f"https://creativecommons.org{path.rstrip('/')}/"


def format_reset_time(epoch: str | None) -> str | None:
    """Format the Unix time of a reset header; return None if it is missing or invalid."""
    seconds = parse_count(epoch)
    try:
        time = datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
    except (ValueError, OverflowError, OSError):
        return None
    return f"at {time:%H:%M} UTC on {time:%Y-%m-%d}" if time else None


def format_remaining(headers: Mapping[str, str], prefix: str) -> str | None:
    """Format how many requests are left; return None if the headers do not say it.

    Args:
        headers: Headers with lower-case names.
        prefix: Prefix of the names of the headers `-remaining` and `-limit`.
    """
    remaining, limit = (
        _header_number(headers, f"{prefix}-{name}") for name in ("remaining", "limit")
    )
    if remaining is None or limit is None:
        return None
    return f"{remaining} of {limit} requests are left"


def _header_number(headers: Mapping[str, str], name: str) -> int | None:
    # A header may list several limits, such as "1000, 1000;w=60"; the first one is in effect.
    return parse_count(headers.get(name, "").partition(",")[0].partition(";")[0].strip())


def parse_retry_after(value: str, now: datetime) -> int | None:
    """Parse a Retry-After header (RFC 9110, section 10.2.3).

    Args:
        value: The header: seconds or a date.
        now: The current time, with time zone.

    Returns:
        The seconds to wait; None if the header is missing or invalid.
    """
    seconds = parse_count(value.strip())
    if seconds is None:
        try:
            time = parsedate_to_datetime(value)
            aware_time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
            seconds = max(0, round((aware_time - now).total_seconds()))
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds


def format_retry_after(headers: Mapping[str, str]) -> str:
    """Format when the Retry-After header permits the next request."""
    seconds = parse_retry_after(headers.get("retry-after", ""), datetime.now(timezone.utc))
    return "in some minutes" if seconds is None else format_wait(seconds)


def backoff_seconds(
    headers: Mapping[str, str], now: datetime, is_exhausted: bool = False
) -> int | None:
    """Return how many seconds to wait before the next request, by the headers of a response.

    Args:
        headers: Headers with lower-case names.
        now: The current time, with time zone.
        is_exhausted: Whether the status of the response says that a limit is used up.

    Returns:
        Seconds, at most MAX_BACKOFF_SECONDS; None if no header asks to wait.
    """
    if RATE_LIMIT_HEADERS.isdisjoint(headers):
        return None
    waits = [
        parse_retry_after(headers.get("retry-after", ""), now),
        *(_seconds_until_reset(headers, prefix, now, is_exhausted) for prefix in HEADER_PREFIXES),
        *(
            60 * minutes
            for name in USAGE_HEADERS
            for minutes in _wait_minutes(headers.get(name, ""))
        ),
    ]
    longest = max((seconds for seconds in waits if seconds), default=None)
    return None if longest is None else min(longest, MAX_BACKOFF_SECONDS)


def _seconds_until_reset(
    headers: Mapping[str, str], prefix: str, now: datetime, is_exhausted: bool
) -> int | None:
    """Return the seconds until an exhausted limit is reset; None if requests are left."""
    reset, remaining = (
        _header_number(headers, f"{prefix}-{name}") for name in ("reset", "remaining")
    )
    # Mastodon sends a time in ISO 8601.
    time = parse_datetime(headers.get(f"{prefix}-reset"))
    if reset is None and time is not None:
        reset = max(0, round(time.replace(tzinfo=timezone.utc).timestamp()))
    if reset is None or (remaining != 0 and not is_exhausted):
        return None
    return max(0, reset - round(now.timestamp())) if reset > MIN_TIMESTAMP else reset


def _wait_minutes(usage: str) -> Iterator[int]:
    """Yield the minutes until access is regained, for each limit in a usage header (JSON)."""
    try:
        values = [json.loads(usage)] if usage else []
    except (ValueError, RecursionError):
        return
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if minutes := parse_count(value.get(WAIT_MINUTES_KEY)):
                yield minutes
            values += value.values()
        elif isinstance(value, list):
            values += value
