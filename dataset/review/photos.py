"""Photos for pages: by their number alone, as the bytes that were verified, or small."""

import contextlib

from sqlalchemy.orm import Session

from dataset.catalogue.models import ImageRow
from dataset.images.io import Unreadable, open_photo, sha256_of, thumbnail
from dataset.images.store import ImageStore

JPEG = "image/jpeg"
# What was found to be of a kind that every browser shows.
TYPES = {
    "JPEG": JPEG,
    "MPO": JPEG,
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
THUMB, LARGE = 160, 1600


def whole(session: Session, store: ImageStore, number: int) -> tuple[bytes, str] | None:
    """The photo of the image NUMBER and its content type; None where it can't be shown."""
    row = session.get(ImageRow, number)
    data = _verified(store, row)
    if row is None or data is None:
        return None
    kind = TYPES.get(row.format or "")
    return (data, kind) if kind else _small(data, LARGE)


def small(session: Session, store: ImageStore, number: int) -> tuple[bytes, str] | None:
    """Return the photo of image NUMBER as a re-encoded JPEG of at most THUMB x THUMB pixels."""
    data = _verified(store, session.get(ImageRow, number))
    return None if data is None else _small(data, THUMB)


def _verified(store: ImageStore, row: ImageRow | None) -> bytes | None:
    """The bytes of ROW's photo, if they are still those that were looked at."""
    if row is None or row.state != "stored" or not row.store_key:
        return None
    with contextlib.suppress(OSError):
        data = store.read(row.store_key)
        return data if sha256_of(data) == row.sha256 else None
    return None


def _small(data: bytes, side: int) -> tuple[bytes, str] | None:
    with contextlib.suppress(Unreadable):
        return thumbnail(open_photo(data, side), side), JPEG
    return None
