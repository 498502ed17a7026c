"""Inspect the bytes of a photo: hashes and measures, or the reason for its rejection.

Includes the detection of polyglots: files that another program would open or run as something
else than an image. Imports are few, because the processes of `readers.py` start with this module.
"""

import io
import json
import re
import zipfile
from dataclasses import dataclass

import imagehash

from dataset.duplicates.hashing import (
    MIN_DECODED_PIXELS,
    VIEW_COUNT,
    Fingerprint,
    fingerprint,
    unpack,
)
from dataset.images.io import EXTENSIONS, TooManyPixels, Unreadable, open_photo, sha256_of
from dataset.images.store import ImageStore

# What begins a page, script, document or archive, in small letters. Long enough that a million
# photos hold none of it by chance.
PAGE = re.compile(rb"<(script[ >]|!doctype |html[ >]|\?php |svg xmlns|iframe |body )")
FOREIGN = (
    *(b"javascript:", b"#!/bin/", b"#!/usr/bin/"),
    *(b"%pdf-1.", b"rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c\x00", b"\xfd7zxz\x00"),
    *(b"ustar\x0000", b"ustar  \x00", b"\x7felf\x01\x01\x01\x00", b"\x7felf\x02\x01\x01\x00"),
    b"this program cannot be run in dos mode",
)
# A photo whose width, size or first part is written so that a browser reads the whole as a script:
# GIF89a/* … */=1. No photo of use has a width or a part that these signs stand for.
SCRIPT = re.compile(
    rb"(GIF8[79]a(/\*|[/=][ -~])|BM/\*|RIFF/\*|\xff\xd8\xff[\xe0-\xef\xfe]/\*)", re.DOTALL
)


def is_polyglot(body: bytes) -> bool:
    """Whether BODY, which a reader of photos opens, holds a page, script, document or archive."""
    small = body.lower()
    if SCRIPT.match(body) or PAGE.search(small) or any(one in small for one in FOREIGN):
        return True
    # An archive is read from its end.
    return zipfile.is_zipfile(io.BytesIO(body))


# Below the backbone's minimum input size, so no classifier could use it.
SMALLEST_SIDE = 75
TOO_SMALL, TOO_MANY = f"smaller than {SMALLEST_SIDE} pixels", "too many pixels"
POLYGLOT, BROKEN, EMPTY = "photo and program in one", "broken or no image", "empty"
REASONS = (TOO_SMALL, TOO_MANY, POLYGLOT, BROKEN, EMPTY)
LARGEST_SIDE = 1 << 20
PHASH, VIEW_BYTES = re.compile("[0-9a-f]{16}"), VIEW_COUNT * 8


@dataclass(frozen=True)
class Refused:
    """Why a photo is not kept. With `sha256` when its bytes came: the same bytes are known then."""

    reason: str
    sha256: str | None = None
    bytes: int = 0


@dataclass(frozen=True)
class Fetched:
    """A stored photo. `phash`: 16 hex digits; width and height in pixels, turned as EXIF says."""

    sha256: str
    phash: str
    width: int
    height: int
    format: str
    bytes: int
    store_key: str
    fingerprint: Fingerprint


def examine(body: bytes) -> Fetched | Refused:
    """What BODY is: a photo with its hashes, or the reason to refuse it."""
    if not body:
        return Refused(EMPTY)
    try:
        image = open_photo(body, MIN_DECODED_PIXELS)
    except TooManyPixels:
        return _refused(TOO_MANY, body)
    except Unreadable:
        return _refused(BROKEN, body)
    if is_polyglot(body):
        return _refused(POLYGLOT, body)
    if min(image.info["size"]) < SMALLEST_SIDE:
        return _refused(TOO_SMALL, body)
    kind, (width, height) = str(image.info["format"]), image.info["size"]
    return _fetched(body, kind, (width, height), str(imagehash.phash(image)), fingerprint(image))


def _refused(reason: str, body: bytes) -> Refused:
    return Refused(reason, sha256_of(body), len(body)) if body else Refused(reason)


def _fetched(
    body: bytes, kind: str, size: tuple[int, int], phash: str, found: Fingerprint
) -> Fetched:
    sha256 = sha256_of(body)
    key = ImageStore.key(sha256, EXTENSIONS[kind])
    return Fetched(sha256, phash, *size, kind, len(body), key, found)


def as_bytes(outcome: Fetched | Refused) -> bytes:
    """OUTCOME without what BODY tells: a line of JSON, then the fingerprint, for `from_bytes`."""
    if isinstance(outcome, Refused):
        return json.dumps({"reason": outcome.reason}).encode()
    size = outcome.width, outcome.height
    told = {"format": outcome.format, "size": size, "phash": outcome.phash}
    return b"\n".join([json.dumps(told).encode(), b"".join(outcome.fingerprint.packed)])


def from_bytes(told: bytes, body: bytes) -> Fetched | Refused:
    """Validate a decoder process's reply: a hostile image may have taken over that process.

    Args:
        told: The reply, as `as_bytes` writes it.
        body: The image's bytes.

    Raises:
        ValueError: The reply is malformed.
    """
    line, _, packed = told.partition(b"\n")
    try:
        words = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    match words:
        case {"reason": str(reason)} if reason in REASONS:
            return _refused(reason, body)
        case {"format": str(kind), "size": [int(width), int(height)], "phash": str(phash)}:
            if (
                kind in EXTENSIONS
                and min(width, height) >= SMALLEST_SIDE
                and max(width, height) <= LARGEST_SIDE
                and PHASH.fullmatch(phash)
            ):
                views, looks = packed[:VIEW_BYTES], packed[VIEW_BYTES:]
                return _fetched(body, kind, (width, height), phash, unpack(views, looks))
    raise ValueError(f"{line[:100]!r} is nothing that is said of a photo")
