"""Requests and replies of the sample shop, and the faults of replies: `sample-shop --faults`.

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


def _rate_limit(reply: Reply, asked: Asked) -> Reply:
    if asked.times > 1:
        return reply
    return replace(plain("slow down", 429), headers={"Retry-After": str(RETRY_AFTER)})


def _changed_layout(reply: Reply, asked: Asked) -> Reply:
    return html("<html><body><article>A new design</article></body></html>")


def _page_noai(reply: Reply, asked: Asked) -> Reply:
    meta = b'<head><meta name="robots" content="noai, noimageai">'
    return replace(reply, body=reply.body.replace(b"<head>", meta))


def _server_error(reply: Reply, asked: Asked) -> Reply:
    return plain("out of order", 500)


def _stall(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, sending=Sending(wait=STALL))


def _slow_drip(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, sending=Sending(drip=1))


def _cut_off(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, sending=Sending(cut=len(reply.body) // 2))


def _wrong_length(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, sending=Sending(length=len(reply.body) // 2))


def _wrong_type(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, content_type="text/html")


def _page_for_photo(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, body=b"<html><body>Sorry!</body></html>" * 20)


def _broken_image(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, body=reply.body[: len(reply.body) * 2 // 3])


def _huge_file(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, body=reply.body + bytes(21_000_000))


@lru_cache
def _png(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def _huge_image(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, content_type="image/png", body=_png(7_500))


def _bomb_image(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, content_type="image/png", body=_png(15_000))


@lru_cache
def _zeros() -> bytes:
    return gzip.compress(bytes(100_000_000))


def _gzip_bomb(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, body=_zeros(), headers={"Content-Encoding": "gzip"})


def _polyglot(reply: Reply, asked: Asked) -> Reply:
    archive = io.BytesIO(reply.body)
    with zipfile.ZipFile(archive, "a") as added:
        added.writestr("run.me", "rm -r")
    return replace(reply, body=archive.getvalue())


def _photo_noai(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, headers={"X-Robots-Tag": "noai, noimageai"})


def _redirect(reply: Reply, target: str) -> Reply:
    return replace(reply, status=302, body=b"", headers={"Location": target})


def _private_redirect(reply: Reply, asked: Asked) -> Reply:
    return _redirect(reply, "http://169.254.169.254/latest/meta-data/")


def _redirect_loop(reply: Reply, asked: Asked) -> Reply:
    return _redirect(reply, asked.target)


def _changing_image(reply: Reply, asked: Asked) -> Reply:
    return replace(reply, body=as_jpeg(open_photo(reply.body), 60 + asked.times % 35))


Change = Callable[[Reply, Asked], Reply]
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

    def of_photo(self, number: int, reply: Reply, asked: Asked) -> Reply:
        """Return `reply`, the photo with index `number`, with its fault applied."""
        if not self.photos or number % 2 == 0 or reply.status != 200:
            return reply
        return self.photos[number // 2 % len(self.photos)](reply, asked)

    def of_page(self, reply: Reply, asked: Asked) -> Reply:
        """Return `reply`, a page, with all page faults applied."""
        if asked.path != "/robots.txt":
            for fault in self.pages:
                reply = fault(reply, asked)
        return reply


def faults_named(names: Sequence[str], generations: Sequence[str]) -> Faults:
    """Return the faults with `names`; `photos` stands for all photo faults.

    Args:
        names: Names given to `--faults`.
        generations: What the site's format offers; paging faults must be among them.

    Raises:
        BadInput: A name is unknown, or the site's format does not have that fault.
    """
    wanted = [one for name in names for one in (PHOTO_FAULTS if name == "photos" else [name])]
    for name in wanted:
        if name not in NAMES:
            raise BadInput(
                f"--faults {name}: choose from photos (all photo faults), {', '.join(NAMES)}"
            )
        if name in PAGING_FAULTS and name not in generations:
            raise BadInput(f"--faults {name}: not available for this site; use --site lamoda")
    paging = [name for name in wanted if name in PAGING_FAULTS]
    return Faults(
        tuple(PAGE_FAULTS[name] for name in wanted if name in PAGE_FAULTS),
        tuple(PHOTO_FAULTS[name] for name in wanted if name in PHOTO_FAULTS),
        paging[0] if paging else None,
    )
