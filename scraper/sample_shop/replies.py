"""What a site's format answers with."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Reply:
    """A page."""

    status: int
    content_type: str
    body: bytes


@dataclass(frozen=True)
class PhotoWanted:
    """The photo under PATH, inside BOX (width, height), or as the original when BOX is None."""

    path: str
    box: tuple[int, int] | None


def html(text: str, status: int = 200) -> Reply:
    """TEXT as a web page."""
    return Reply(status, "text/html; charset=utf-8", text.encode())


def plain(text: str, status: int = 200) -> Reply:
    """TEXT as it is."""
    return Reply(status, "text/plain; charset=utf-8", text.encode())


def as_json(value: object, status: int = 200) -> Reply:
    """VALUE as JSON."""
    return Reply(status, "application/json", json.dumps(value, ensure_ascii=False).encode())
