"""Inspect the bytes of an image: compute its size and hashes, or the reason for its rejection.

Polyglots are rejected: image files that another program would open as a web page, script, document
or archive. This module has few imports, so that the processes of `decoder_processes.py` start fast.
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

# Markers of web pages, scripts, documents and archives, in lower case. They are long enough not to
# occur by chance in a million images.
HTML_MARKERS = re.compile(rb"<(script[ >]|!doctype |html[ >]|\?php |svg xmlns|iframe |body )")
FOREIGN_MARKERS = (
    *(b"javascript:", b"#!/bin/", b"#!/usr/bin/"),
    *(b"%pdf-1.", b"rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c\x00", b"\xfd7zxz\x00"),
    *(b"ustar\x0000", b"ustar  \x00", b"\x7felf\x01\x01\x01\x00", b"\x7felf\x02\x01\x01\x00"),
    b"this program cannot be run in dos mode",
)
# Image headers that start valid JavaScript, such as GIF89a/*...*/=1: width, file size or the first
# segment spells a comment or an operator. No real image has such values.
SCRIPT_HEADERS = re.compile(
    rb"(GIF8[79]a(/\*|[/=][ -~])|BM/\*|RIFF/\*|\xff\xd8\xff[\xe0-\xef\xfe]/\*)", re.DOTALL
)


def is_polyglot(body: bytes) -> bool:
    """Return whether an image file is also a web page, script, document or archive."""
    lower_case = body.lower()
    if (
        SCRIPT_HEADERS.match(body)
        or HTML_MARKERS.search(lower_case)
        or any(marker in lower_case for marker in FOREIGN_MARKERS)
    ):
        return True
    # A ZIP archive has its directory at the end, so it may follow an image.
    return zipfile.is_zipfile(io.BytesIO(body))


# The minimum input size of Inception v3.
MIN_SIDE_PIXELS = 75
TOO_SMALL, TOO_MANY_PIXELS = f"smaller than {MIN_SIDE_PIXELS} pixels", "too many pixels"
POLYGLOT, BROKEN, EMPTY = "photo and program in one", "broken or no image", "empty"
REASONS = (TOO_SMALL, TOO_MANY_PIXELS, POLYGLOT, BROKEN, EMPTY)
MAX_SIDE_PIXELS = 1 << 20
PHASH_DIGITS, VIEW_BYTES = re.compile("[0-9a-f]{16}"), VIEW_COUNT * 8


@dataclass(frozen=True)
class RejectedImage:
    """The reason why an image is not stored.

    Attributes:
        reason: The reason.
        sha256: Digest of the bytes, to recognize them at other URLs; None if there are no bytes.
        bytes: Number of bytes.
    """

    reason: str
    sha256: str | None = None
    bytes: int = 0


@dataclass(frozen=True)
class AcceptedImage:
    """The properties of an image to store.

    Attributes:
        sha256: Digest of the bytes.
        phash: Perceptual hash (`imagehash.phash`), 16 hexadecimal digits.
        width: Width in pixels, after rotation by the EXIF orientation.
        height: Height in pixels, after rotation by the EXIF orientation.
        format: Pillow's name of the format, such as JPEG.
        bytes: Number of bytes.
        store_key: Key in the image store.
        fingerprint: Hashes for near-duplicate detection.
    """

    sha256: str
    phash: str
    width: int
    height: int
    format: str
    bytes: int
    store_key: str
    fingerprint: Fingerprint


@dataclass(frozen=True)
class DecodedImage:
    """What decoding finds out about an image.

    Attributes:
        format: Pillow's name of the format, such as JPEG.
        size: Width and height in pixels, after rotation by the EXIF orientation.
        phash: Perceptual hash (`imagehash.phash`), 16 hexadecimal digits.
        fingerprint: Hashes for near-duplicate detection.
    """

    format: str
    size: tuple[int, int]
    phash: str
    fingerprint: Fingerprint


def inspect_image(body: bytes) -> AcceptedImage | RejectedImage:
    """Decode an image; return its properties, or the reason why it is rejected."""
    return _outcome(decode_image(body), body)


def decode_image(body: bytes) -> DecodedImage | str:
    """Decode an image; return what is found, or the reason why it is rejected."""
    if not body:
        return EMPTY
    try:
        image = open_photo(body, MIN_DECODED_PIXELS)
    except TooManyPixels:
        return TOO_MANY_PIXELS
    except Unreadable:
        return BROKEN
    if is_polyglot(body):
        return POLYGLOT
    if min(image.info["size"]) < MIN_SIDE_PIXELS:
        return TOO_SMALL
    phash = str(imagehash.phash(image))
    return DecodedImage(image.info["format"], image.info["size"], phash, fingerprint(image))


def _outcome(decoded: DecodedImage | str, body: bytes) -> AcceptedImage | RejectedImage:
    if not body:
        return RejectedImage(EMPTY)
    sha256 = sha256_of(body)
    if isinstance(decoded, str):
        return RejectedImage(decoded, sha256, len(body))
    key = ImageStore.key(sha256, EXTENSIONS[decoded.format])
    return AcceptedImage(
        sha256,
        decoded.phash,
        *decoded.size,
        decoded.format,
        len(body),
        key,
        decoded.fingerprint,
    )


def serialize_decoded(decoded: DecodedImage | str) -> bytes:
    """Encode a result as a line of JSON followed by the fingerprint, for `parse_outcome`."""
    if isinstance(decoded, str):
        return json.dumps({"reason": decoded}).encode()
    fields = {"format": decoded.format, "size": decoded.size, "phash": decoded.phash}
    return b"\n".join([json.dumps(fields).encode(), b"".join(decoded.fingerprint.packed)])


def parse_outcome(reply: bytes, body: bytes) -> AcceptedImage | RejectedImage:
    """Parse and validate the reply of a decoder process.

    The reply is not trusted, because a malicious image may have taken control of the process.

    Args:
        reply: The reply, as `serialize_decoded` returns it.
        body: The bytes of the image.

    Raises:
        ValueError: The reply is malformed.
    """
    line, _, packed = reply.partition(b"\n")
    try:
        fields = json.loads(line)
    except RecursionError as error:
        raise ValueError("the reply is nested too deeply") from error
    match fields:
        case {"reason": str(reason)} if reason in REASONS:
            return _outcome(reason, body)
        case {"format": str(image_format), "size": [int(width), int(height)], "phash": str(phash)}:
            if (
                image_format in EXTENSIONS
                and min(width, height) >= MIN_SIDE_PIXELS
                and max(width, height) <= MAX_SIDE_PIXELS
                and PHASH_DIGITS.fullmatch(phash)
            ):
                hashes = unpack(packed[:VIEW_BYTES], packed[VIEW_BYTES:])
                return _outcome(DecodedImage(image_format, (width, height), phash, hashes), body)
    raise ValueError(f"{line[:100]!r} is not a valid outcome of an image")
