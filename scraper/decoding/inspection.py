"""Inspect the bytes of an image: compute its size and hashes, or the reason for its rejection.

Polyglots are rejected: image files that another program would open as a web page, script, document
or archive. This module has few imports, so that the processes of `pool.py` start fast.
"""

import json
import re
from dataclasses import dataclass

import imagehash

from dataset.duplicates.hashing import (
    MIN_DECODED_PIXELS,
    VIEW_COUNT,
    Fingerprint,
    fingerprint,
    unpack,
)
from dataset.images.io import (
    EXTENSIONS,
    TooManyPixels,
    Unreadable,
    UnsupportedHeic,
    open_photo,
    sha256_of,
)
from dataset.images.store import ImageStore
from dataset.images.structure import ImageStructure, detect_format

# Signs of programs that no image has by chance, wherever they are, in lower case. Text of web pages
# is found in UTF-16, too: its zero bytes are removed.
FOREIGN_TAGS = re.compile(
    rb"<(?:script[\s/>]|!doctype |html[\s>]|\?php\s|svg xmlns|iframe[\s>]|body[\s>])"
)
FOREIGN_MARKERS = (
    *(b"javascript:", b"+adw-script", b"__halt_compiler("),
    *(b"#!/bin/", b"#!/usr/bin/", b"%pdf-1.", b"%pdf-2."),
    *(b"rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c\x00", b"\xfd7zxz\x00"),
    *(b"ustar\x0000", b"ustar  \x00", b"\x7felf\x01\x01\x01\x00", b"\x7felf\x02\x01\x01\x00"),
    b"this program cannot be run in dos mode",
)
# Signs that pixels may have by chance, so that only what is outside of them is searched: tags of
# PHP and ASP before more text (XMP data starts with <?xpacket), event handlers, and elements that
# load or run something.
HIDDEN_TAGS = re.compile(
    rb"<(?:"
    rb"(?:\?[=\s]|%[@=\s])[\t\n\r -~]{8}"
    rb"|(?:object|embed|applet|frameset|frame|meta|link|base|svg|math|form)[\s/>][\t\n\r -~]{4}"
    rb"|[a-z][a-z0-9:-]*(?=[\s/\"'])[^<>]{0,500}?[\s/\"']on[a-z]{3,30}\s*=\s*[\"'`a-z]"
    rb")"
)
# The header of a file in a ZIP archive, with a plausible version and compression method, and the
# end of its directory.
_ZIP_MEMBER = re.compile(rb"PK\x03\x04[\x0a-\x3f]\x00..[\x00-\x63]\x00", re.DOTALL)
_ZIP_END, _ZIP_DIRECTORY, _ZIP_END_BYTES, _ZIP_TAIL_BYTES = b"PK\x05\x06", b"PK\x01\x02", 22, 65557
# Where the header of a format may be read as JavaScript, as in GIF89a/*...*/=1;alert(1), and how
# many characters are a script after a comment or text in quotes, or without one.
_SCRIPT_OFFSETS = {"GIF": 6, "BMP": 2, "WEBP": 4, "JPEG": 4}
_MIN_SCRIPT_CHARACTERS, _MIN_PLAIN_SCRIPT_CHARACTERS = 8, 24
_TEXT_BYTES = frozenset(b"\t\n\r" + bytes(range(32, 127)))
_CODE = frozenset(b"=(`")
_HIDDEN_ENDS = {b"/*": b"*/", b"//": b"\n", b"'": b"'", b'"': b'"', b"`": b"`"}


def is_polyglot(body: bytes) -> bool:
    """Return whether an image file is also a web page, script, document or archive.

    Long signs count anywhere; short ones only in metadata and after the end of the image, because
    pixels may have them by chance.
    """
    structure = ImageStructure(body, detect_format(body) or "")
    lower_case = body.lower()
    if (
        _starts_script(structure)
        or any(marker in lower_case for marker in FOREIGN_MARKERS)
        or FOREIGN_TAGS.search(lower_case)
        or FOREIGN_TAGS.search(_without_zeros(lower_case))
        or _has_zip_directory(body)
    ):
        return True
    outside = b"\0".join(structure.outside_pixels)
    lower_case = outside.lower()
    texts = (lower_case, lower_case.replace(b"\0", b""))
    return bool(_ZIP_MEMBER.search(outside)) or any(HIDDEN_TAGS.search(text) for text in texts)


def _without_zeros(data: bytes) -> bytes:
    """Return text in UTF-16 or UTF-32 as one byte per character; nothing if there is no tag."""
    return data.replace(b"\0", b"") if b"<\0" in data else b""


def _starts_script(structure: ImageStructure) -> bool:
    """Return whether a file is a script from its first byte.

    Comments and quotes hide the bytes of the image from the script.
    """
    data, position = structure.data, _SCRIPT_OFFSETS.get(structure.format)
    if position is None:
        return False
    needed, code = _MIN_PLAIN_SCRIPT_CHARACTERS, bytearray()
    while len(code) < _MIN_PLAIN_SCRIPT_CHARACTERS:
        start = next((s for s in _HIDDEN_ENDS if data.startswith(s, position)), None)
        if start is not None:
            end = data.find(_HIDDEN_ENDS[start], position + len(start))
            if end < 0:
                break
            needed, position = _MIN_SCRIPT_CHARACTERS, end + len(_HIDDEN_ENDS[start])
        elif position < len(data) and data[position] in _TEXT_BYTES:
            code.append(data[position])
            position += 1
        else:
            break
    return len(code) >= needed and not _CODE.isdisjoint(code)


def _has_zip_directory(body: bytes) -> bool:
    """Return whether a file ends with the directory of a ZIP archive that is not empty."""
    position = body.find(_ZIP_END, max(0, len(body) - _ZIP_TAIL_BYTES))
    while position >= 0:
        record = body[position : position + _ZIP_END_BYTES]
        if len(record) == _ZIP_END_BYTES:
            size = int.from_bytes(record[12:16], "little")
            is_zip64 = body[position - 20 : position - 16] == b"PK\x06\x07"
            start = position - size
            if is_zip64 or (start >= 0 and body.startswith(_ZIP_DIRECTORY, start)):
                return True
        position = body.find(_ZIP_END, position + 1)
    return False


# The minimum input size of Inception v3.
MIN_SIDE_PIXELS = 75
TOO_SMALL, TOO_MANY_PIXELS = f"smaller than {MIN_SIDE_PIXELS} pixels", "too many pixels"
HEIC = "HEIC needs the extra heif"
POLYGLOT, BROKEN, EMPTY = "photo and program in one", "broken or no image", "empty"
REASONS = (TOO_SMALL, TOO_MANY_PIXELS, POLYGLOT, BROKEN, EMPTY, HEIC)
_UNREADABLE: dict[type[Unreadable], str] = {TooManyPixels: TOO_MANY_PIXELS, UnsupportedHeic: HEIC}
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
    except Unreadable as error:
        return _UNREADABLE.get(type(error), BROKEN)
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
