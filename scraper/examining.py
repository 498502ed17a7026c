"""What the bytes of a photo are: its hashes and measures, or why they are refused (pure).

It imports little, since the processes of `readers.py` begin with it.
"""

from dataclasses import dataclass

from PIL import Image

from dataset.duplicates.fingerprint import ENOUGH, Fingerprint, fingerprint, perceptual_hash
from dataset.images import EXTENSIONS, TooManyPixels, Unreadable, open_photo, sha256_of
from dataset.stores import ImageStore
from scraper.polyglots import is_polyglot

# Smaller than the trunk's smallest input: of no use to any classifier of ours.
SMALLEST_SIDE = 75
TOO_SMALL, TOO_MANY = f"smaller than {SMALLEST_SIDE} pixels", "too many pixels"
POLYGLOT, BROKEN = "photo and program in one", "broken or no image"


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
    sha256 = sha256_of(body)
    if not body:
        return Refused("empty")
    try:
        image = open_photo(body, ENOUGH)
    except TooManyPixels:
        return Refused(TOO_MANY, sha256, len(body))
    except Unreadable:
        return Refused(BROKEN, sha256, len(body))
    if is_polyglot(body):
        return Refused(POLYGLOT, sha256, len(body))
    if min(image.info["size"]) < SMALLEST_SIDE:
        return Refused(TOO_SMALL, sha256, len(body))
    return _fetched(body, sha256, image)


def _fetched(body: bytes, sha256: str, image: Image.Image) -> Fetched:
    kind, (width, height) = str(image.info["format"]), image.info["size"]
    return Fetched(
        sha256=sha256,
        phash=perceptual_hash(image),
        width=width,
        height=height,
        format=kind,
        bytes=len(body),
        store_key=ImageStore.key(sha256, EXTENSIONS[kind]),
        fingerprint=fingerprint(image),
    )
