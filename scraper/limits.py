"""What headers say of a site's limits."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from scraper.reading import in_words, number

# What sites put before -remaining and -reset (X; Pinterest and others; the draft of a standard).
PREFIXES = ("x-rate-limit", "x-ratelimit", "ratelimit")
# Of Instagram; they hold JSON.
USAGES = ("x-business-use-case-usage", "x-app-usage")
REGAIN = "estimated_time_to_regain_access"
# Headers of rate limits.
ASKING = {"retry-after", *(f"{prefix}-reset" for prefix in PREFIXES), *USAGES}
# A reset below this is a number of seconds from now, above it a moment.
EPOCH = 1_000_000_000
# A quota of a day is the longest that a site has; more is a mistake.
LONGEST = 86_400


def at(epoch: str | None) -> str | None:
    """The second EPOCH, as a header writes it; None where there is none."""
    seconds = number(epoch)
    try:
        time = datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
    except (ValueError, OverflowError, OSError):
        return None
    return f"at {time:%H:%M} UTC on {time:%Y-%m-%d}" if time else None


def left(headers: Mapping[str, str], prefix: str) -> str | None:
    """How many requests are left, where PREFIX with `remaining` and `limit` says it."""
    rest, limit = (_first(headers, f"{prefix}-{name}") for name in ("remaining", "limit"))
    return None if rest is None or limit is None else f"{rest} of {limit} requests are left"


def _first(headers: Mapping[str, str], name: str) -> int | None:
    # Some say of several limits: 1000, 1000;w=60.
    return number(headers.get(name, "").partition(",")[0].partition(";")[0].strip())


def seconds_until(moment: str, now: datetime) -> int | None:
    """How long until the Retry-After MOMENT (RFC 9110, 10.2.3): seconds or a date; NOW has a zone.

    None where it is neither.
    """
    seconds = number(moment.strip())
    if seconds is None:
        try:
            at = parsedate_to_datetime(moment)
            zoned = at if at.tzinfo else at.replace(tzinfo=timezone.utc)
            seconds = max(0, round((zoned - now).total_seconds()))
        except (ValueError, TypeError, OverflowError):
            return None
    return seconds


def retry_after(headers: Mapping[str, str]) -> str:
    """When the Retry-After of HEADERS lets us ask again, in words for people."""
    seconds = seconds_until(headers.get("retry-after", ""), datetime.now(timezone.utc))
    return "in some minutes" if seconds is None else in_words(seconds)


def pause(headers: Mapping[str, str], now: datetime, busy: bool = False) -> int | None:
    """For how many seconds HEADERS ask us to ask nothing; None where they don't.

    BUSY: the answer said that nothing is left of a limit.
    """
    if ASKING.isdisjoint(headers):
        return None
    asked = [
        seconds_until(headers.get("retry-after", ""), now),
        *(_reset(headers, prefix, now, busy) for prefix in PREFIXES),
        *(60 * minutes for name in USAGES for minutes in _regain(headers.get(name, ""))),
    ]
    known = max((seconds for seconds in asked if seconds), default=None)
    return None if known is None else min(known, LONGEST)


def _reset(headers: Mapping[str, str], prefix: str, now: datetime, busy: bool) -> int | None:
    """Return when an exhausted limit is reset."""
    reset, rest = (_first(headers, f"{prefix}-{name}") for name in ("reset", "remaining"))
    if reset is None or (rest != 0 and not busy):
        return None
    return max(0, reset - round(now.timestamp())) if reset > EPOCH else reset


def _regain(usage: str) -> Iterator[int]:
    """Minutes until access is given again, of each use that USAGE, JSON, speaks of."""
    try:
        values = [json.loads(usage)] if usage else []
    except (ValueError, RecursionError):
        return
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if minutes := number(value.get(REGAIN)):
                yield minutes
            values += value.values()
        elif isinstance(value, list):
            values += value
