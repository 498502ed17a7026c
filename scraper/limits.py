"""What headers say of a site's limits, in words."""

import math
from collections.abc import Mapping
from datetime import datetime, timezone

from scraper.reading import number


def at(epoch: str | None) -> str | None:
    """The second EPOCH, as a header writes it; None where there is none."""
    seconds = number(epoch)
    try:
        time = datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
    except (ValueError, OverflowError, OSError):
        return None
    return f"at {time:%H:%M} UTC on {time:%Y-%m-%d}" if time else None


def after(seconds: str | None) -> str | None:
    """In how many minutes SECONDS are over, as a header writes them."""
    wait = number(seconds)
    if wait is None:
        return None
    minutes = max(1, math.ceil(wait / 60))
    return f"in {minutes} minute{'s' if minutes > 1 else ''}"


def left(headers: Mapping[str, str], prefix: str) -> str | None:
    """How many requests are left, where PREFIX with `remaining` and `limit` says it."""
    rest, limit = (number(headers.get(f"{prefix}-{name}")) for name in ("remaining", "limit"))
    return None if rest is None or limit is None else f"{rest} of {limit} requests are left"
