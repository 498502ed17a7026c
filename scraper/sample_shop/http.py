"""Requests and responses of the sample shop, and the faults of responses: `sample-shop --faults`.

Every second photo has one of the photo faults, in turn; page faults are on every page.
"""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from dataset.errors import BadInput
from dataset.images.io import open_photo
from scraper.sample_shop.stock import as_jpeg

# Seconds without a response: longer than any client's timeout.
STALL = 600
RETRY_AFTER = 2


@dataclass(frozen=True)
class SiteRequest:
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
    """How a response is sent when it has a transport fault.

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
class SiteResponse:
    """A response; `headers` are those besides content type and length."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    sending: Sending = Sending()


@dataclass(frozen=True)
class PhotoRequest:
    """The photo at `path`, scaled to fit `box` (width, height), or in its own size for None.

    Attributes:
        kind: JPEG or WEBP; None keeps the original's format, and means JPEG where it is scaled
            down.
    """

    path: str
    box: tuple[int, int] | None
    kind: str | None = None


def html(text: str, status: int = 200) -> SiteResponse:
    """Return an HTML response."""
    return SiteResponse(status, "text/html; charset=utf-8", text.encode())


def plain(text: str, status: int = 200) -> SiteResponse:
    """Return a plain-text response."""
    return SiteResponse(status, "text/plain; charset=utf-8", text.encode())


def as_json(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> SiteResponse:
    """Return `value` as a JSON response."""
    body = json.dumps(value, ensure_ascii=False).encode()
    return SiteResponse(status, "application/json", body, headers or {})


def number_in(text: str | None, otherwise: int) -> int:
    """Return the query value `text` as a number, or `otherwise` where it is not one."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,6}", text) else otherwise


def _rate_limit(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    if request.times > 1:
        return response
    return replace(plain("slow down", 429), headers={"Retry-After": str(RETRY_AFTER)})


def _changed_layout(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return html("<html><body><article>A new design</article></body></html>")


def _page_noai(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    meta = b'<head><meta name="robots" content="noai, noimageai">'
    return replace(response, body=response.body.replace(b"<head>", meta))


def _server_error(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return plain("out of order", 500)


def _stall(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, sending=Sending(wait=STALL))


def _slow_drip(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, sending=Sending(drip=1))


def _cut_off(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, sending=Sending(cut=len(response.body) // 2))


def _wrong_length(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, sending=Sending(length=len(response.body) // 2))


def _wrong_type(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, content_type="text/html")


def _page_for_photo(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, body=b"<html><body>Sorry!</body></html>" * 20)


def _broken_image(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, body=response.body[: len(response.body) * 2 // 3])


def _huge_file(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, body=response.body + bytes(21_000_000))


@lru_cache
def _png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def _huge_image(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, content_type="image/png", body=_png(7_500))


def _bomb_image(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, content_type="image/png", body=_png(15_000))


@lru_cache
def _zeros() -> bytes:
    return gzip.compress(bytes(100_000_000))


def _gzip_bomb(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, body=_zeros(), headers={"Content-Encoding": "gzip"})


def _polyglot(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    archive = io.BytesIO(response.body)
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr("run.me", "rm -r")
    return replace(response, body=archive.getvalue())


def _photo_noai(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, headers={"X-Robots-Tag": "noai, noimageai"})


def _redirect(response: SiteResponse, target: str) -> SiteResponse:
    return replace(response, status=302, body=b"", headers={"Location": target})


def _private_redirect(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return _redirect(response, "http://169.254.169.254/latest/meta-data/")


def _redirect_loop(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return _redirect(response, request.target)


def _changing_image(response: SiteResponse, request: SiteRequest) -> SiteResponse:
    return replace(response, body=as_jpeg(open_photo(response.body), 60 + request.times % 35))


Change = Callable[[SiteResponse, SiteRequest], SiteResponse]
PAGE_FAULTS: dict[str, Change] = {
    "rate-limit": _rate_limit,
    "changed-layout": _changed_layout,
    "page-noai": _page_noai,
}
PHOTO_FAULTS: dict[str, Change] = {
    "server-error": _server_error,
    "stall": _stall,
    "slow-drip": _slow_drip,
    "cut-off": _cut_off,
    "wrong-length": _wrong_length,
    "wrong-type": _wrong_type,
    "page-for-photo": _page_for_photo,
    "broken-image": _broken_image,
    "huge-file": _huge_file,
    "huge-image": _huge_image,
    "bomb-image": _bomb_image,
    "gzip-bomb": _gzip_bomb,
    "polyglot": _polyglot,
    "noai": _photo_noai,
    "private-redirect": _private_redirect,
    "redirect-loop": _redirect_loop,
    "changing-image": _changing_image,
}
# Paging faults are implemented by the site's format; see GENERATIONS there.
PAGING_FAULTS = ("endless-pages", "repeating-pages")
NAMES = (*PAGE_FAULTS, *PAGING_FAULTS, *PHOTO_FAULTS)


@dataclass(frozen=True)
class Faults:
    """The faults of one shop: of its pages, its photos and its paging."""

    pages: tuple[Change, ...] = ()
    photos: tuple[Change, ...] = ()
    generation: str | None = None

    def of_photo(self, number: int, response: SiteResponse, request: SiteRequest) -> SiteResponse:
        """Return `response`, the photo with index `number`, with its fault applied."""
        if not self.photos or number % 2 == 0 or response.status != 200:
            return response
        return self.photos[number // 2 % len(self.photos)](response, request)

    def of_page(self, response: SiteResponse, request: SiteRequest) -> SiteResponse:
        """Return `response`, a page, with all page faults applied."""
        if request.path != "/robots.txt":
            for fault in self.pages:
                response = fault(response, request)
        return response


def faults_named(names: Sequence[str], generations: Sequence[str]) -> Faults:
    """Return the faults with `names`; `photos` stands for all photo faults.

    Args:
        names: Names given to `--faults`.
        generations: What the site's format offers; paging faults must be among them.

    Raises:
        BadInput: A name is unknown, or the site's format does not have that fault.
    """
    selected = [fault for name in names for fault in (PHOTO_FAULTS if name == "photos" else [name])]
    for name in selected:
        if name not in NAMES:
            raise BadInput(
                f"--faults {name}: choose from photos (all photo faults), {', '.join(NAMES)}"
            )
        if name in PAGING_FAULTS and name not in generations:
            raise BadInput(f"--faults {name}: not available for this site; use --site lamoda")
    paging = [name for name in selected if name in PAGING_FAULTS]
    return Faults(
        tuple(PAGE_FAULTS[name] for name in selected if name in PAGE_FAULTS),
        tuple(PHOTO_FAULTS[name] for name in selected if name in PHOTO_FAULTS),
        paging[0] if paging else None,
    )
