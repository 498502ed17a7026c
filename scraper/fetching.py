"""The bytes of an image: asked for, checked, hashed and stored."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from dataset.catalogue.forgetting import REASON as FORGOTTEN
from dataset.duplicates.fingerprint import ENOUGH, Fingerprint, fingerprint, perceptual_hash
from dataset.images import EXTENSIONS, TooManyPixels, Unreadable, open_photo, sha256_of
from dataset.stores import ImageStore
from scraper import consent
from scraper.addresses import PRIVATE, SCHEME
from scraper.polyglots import is_polyglot
from scraper.spiders.base import Answer

# Smaller than the trunk's smallest input: of no use to any classifier of ours.
SMALLEST_SIDE = 75
LARGEST_BYTES = 20_000_000
# Photos are read on every core; more at once would only need more memory. A disk may have more.
READERS = threading.BoundedSemaphore(os.cpu_count() or 1)
# Refused for one of these, a photo under a signed address may be there under a new one.
GONE = ("HTTP 403", "HTTP 404", "HTTP 410")
TOO_SMALL = f"smaller than {SMALLEST_SIDE} pixels"
TOO_MANY, TOO_LARGE = "too many pixels", "too large"
POLYGLOT, BROKEN = "photo and program in one", "broken or no image"
# What asking again can't mend.
FINAL = (TOO_SMALL, TOO_MANY, TOO_LARGE, POLYGLOT, PRIVATE, SCHEME, consent.REASON, FORGOTTEN)


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


Download = Callable[[str], Awaitable[Answer | Refused]]


async def fetch_image(
    download: Download, addresses: Sequence[str], store: ImageStore
) -> Fetched | Refused:
    """Fetch the first of ADDRESSES that is there, check it and put it into STORE.

    What came before its process died is not asked for again.

    Raises:
        Failure: the store can't be written.
    """
    body: bytes | Refused | None = store.arrivals.find(addresses[0])
    if body is None:
        body = await ask_for(download, addresses)
    if isinstance(body, Refused):
        return body
    return await asyncio.to_thread(_keep, addresses[0], body, store)


async def ask_for(download: Download, addresses: Sequence[str]) -> bytes | Refused:
    """The body that the first of ADDRESSES has that is there."""
    outcome: Answer | Refused = Refused("no address")
    for address in addresses:
        outcome = await download(address)
        # Stores of photos say 403 of what is not there, too.
        if isinstance(outcome, Refused) or f"HTTP {outcome.status}" not in GONE:
            break
    if isinstance(outcome, Refused):
        return outcome
    return _refused_by_site(outcome) or outcome.body


def _refused_by_site(answer: Answer) -> Refused | None:
    if answer.status != 200:
        return Refused(f"HTTP {answer.status}")
    return Refused(consent.REASON) if consent.forbidden(answer.headers) else None


def _keep(url: str, body: bytes, store: ImageStore) -> Fetched | Refused:
    store.receive(url, body)
    with READERS:
        examined = examine(body)
    if isinstance(examined, Fetched):
        store.put(body, examined.store_key)
    return examined


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
