"""Parse the rate-limit headers of responses."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from scraper.parsing.fields import format_wait, parse_count, parse_datetime

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
    """Return for how many seconds the headers of a response ask for no further requests.

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
