"""What a site's format answers with."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A GET of TARGET, path and query; headers with lower-case names.

    `times`: how often TARGET was asked for, this time included.
    """

    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1

    @property
    def path(self) -> str:
        """The path, without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query's values, the first of each name."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def token(self) -> str | None:
        """The bearer token that was sent, or None."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value or None if kind.lower() == "bearer" else None


@dataclass(frozen=True)
class Sending:
    """How a reply is sent, where that is not as it should be.

    `length`: what is announced; `cut`: bytes after which the line goes dead; `wait`: seconds before
    anything is sent; `drip`: seconds between two bytes.
    """

    length: int | None = None
    cut: int | None = None
    wait: float = 0
    drip: float = 0


@dataclass(frozen=True)
class Reply:
    """A page; `headers` beside content type and length."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sending: Sending = Sending()


@dataclass(frozen=True)
class PhotoWanted:
    """The photo under PATH, inside BOX (width, height), or in its own size when BOX is None.

    `kind`: the file's format, JPEG or WEBP; None for the original, and for JPEG where it shrinks.
    """

    path: str
    box: tuple[int, int] | None
    kind: str | None = None


def html(text: str, status: int = 200) -> Reply:
    """TEXT as a web page."""
    return Reply(status, "text/html; charset=utf-8", text.encode())


def plain(text: str, status: int = 200) -> Reply:
    """TEXT as it is."""
    return Reply(status, "text/plain; charset=utf-8", text.encode())


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """VALUE as JSON."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Reply(status, "application/json", body, headers or {})


def number_in(text: str | None, otherwise: int) -> int:
    """The number that a query's value TEXT is; OTHERWISE where it is none."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,6}", text) else otherwise
