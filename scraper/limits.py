"""What headers say of a site's limits, in words."""

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


def left(headers: Mapping[str, str], prefix: str) -> str | None:
    """How many requests are left, where PREFIX with `remaining` and `limit` says it."""
    # Some say of several limits: 1000, 1000;w=60.
    said = (headers.get(f"{prefix}-{name}", "") for name in ("remaining", "limit"))
    rest, limit = (number(one.partition(",")[0].strip()) for one in said)
    return None if rest is None or limit is None else f"{rest} of {limit} requests are left"
