"""What headers say of a site's limits, in words."""

import math
from collections.abc import Mapping
from datetime import datetime, timezone

from scraper.reading import moment, number


def at(epoch: str | None) -> str | None:
    """The second EPOCH, as a header writes it; None where there is none."""
    seconds = number(epoch)
    try:
        time = datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
    except (ValueError, OverflowError, OSError):
        return None
    return _clock(time) if time else None


def _clock(time: datetime) -> str:
    return f"at {time:%H:%M} UTC on {time:%Y-%m-%d}"


def after(header: str | None) -> str | None:
    """When a wait is over that HEADER says in seconds or, as Retry-After may, by the time."""
    wait = number(header)
    if wait is None:
        time = moment(header)
        return _clock(time) if time else None
    minutes = max(1, math.ceil(wait / 60))
    return f"in {minutes} minute{'s' if minutes > 1 else ''}"


def left(headers: Mapping[str, str], prefix: str) -> str | None:
    """How many requests are left, where PREFIX with `remaining` and `limit` says it."""
    # Some say of several limits: 1000, 1000;w=60.
    said = (headers.get(f"{prefix}-{name}", "") for name in ("remaining", "limit"))
    rest, limit = (number(one.partition(",")[0].strip()) for one in said)
    return None if rest is None or limit is None else f"{rest} of {limit} requests are left"
