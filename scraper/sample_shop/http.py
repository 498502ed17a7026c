"""Requests and replies of the sample shop."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request for `target` (path and query); header names are lower-case.

    Attributes:
        body: The form of a POST request.
        times: How often `target` was requested, including this request.
    """

    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    body: str = ""

    @property
    def path(self) -> str:
        """The path without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query parameters; the first value of each."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def form(self) -> dict[str, str]:
        """The fields of the form; the first value of each."""
        return {name: values[0] for name, values in parse_qs(self.body).items()}

    @property
    def token(self) -> str | None:
        """The bearer token of the request, or None."""
        kind, _, value = self.headers.get("authorization", "").partition(" ")
        return value or None if kind.lower() == "bearer" else None


@dataclass(frozen=True)
class Sending:
    """How a reply is sent when it has a transport fault.

    Attributes:
        length: Announced content length in bytes.
        cut: Bytes after which the connection is closed.
        wait: Seconds before anything is sent.
        drip: Seconds between two bytes.
    """

    length: int | None = None
    cut: int | None = None
    wait: float = 0
    drip: float = 0


@dataclass(frozen=True)
class Reply:
    """A response; `headers` are those besides content type and length."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sending: Sending = Sending()


@dataclass(frozen=True)
class PhotoWanted:
    """The photo at `path`, scaled to fit `box` (width, height), or in its own size for None.

    Attributes:
        kind: JPEG or WEBP; None keeps the original's format, and means JPEG where it is scaled
            down.
    """

    path: str
    box: tuple[int, int] | None
    kind: str | None = None


def html(text: str, status: int = 200) -> Reply:
    """Return an HTML response."""
    return Reply(status, "text/html; charset=utf-8", text.encode())


def plain(text: str, status: int = 200) -> Reply:
    """Return a plain-text response."""
    return Reply(status, "text/plain; charset=utf-8", text.encode())


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return `value` as a JSON response."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return Reply(status, "application/json", body, headers or {})


def number_in(text: str | None, otherwise: int) -> int:
    """Return the query value `text` as a number, or `otherwise` where it is not one."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,6}", text) else otherwise
