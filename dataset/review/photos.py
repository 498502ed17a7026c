"""Photos as the review pages show them: full size with a verified checksum, or as thumbnails."""

import contextlib

from sqlalchemy.orm import Session

from dataset.catalogue.models import ImageRow
from dataset.images.io import Unreadable, sha256_of, thumbnail
from dataset.images.store import ImageStore

JPEG = "image/jpeg"
# Content types of formats that every browser shows; others are re-encoded.
CONTENT_TYPES = {
    "JPEG": JPEG,
    "MPO": JPEG,
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
}
THUMBNAIL_PIXELS, MAX_REENCODED_PIXELS = 160, 1600


def full_size(session: Session, store: ImageStore, image_id: int) -> tuple[bytes, str] | None:
    """Return a photo and its content type, or None if it cannot be shown."""
    row = session.get(ImageRow, image_id)
    data = _verified(store, row)
    if row is None or data is None:
        return None
    content_type = CONTENT_TYPES.get(row.format or "")
    return (data, content_type) if content_type else _reencoded(data, MAX_REENCODED_PIXELS)


def small(session: Session, store: ImageStore, image_id: int) -> tuple[bytes, str] | None:
    """Return a JPEG thumbnail of a photo and its content type, or None if it cannot be shown."""
    data = _verified(store, session.get(ImageRow, image_id))
    return None if data is None else _reencoded(data, THUMBNAIL_PIXELS)


def _verified(store: ImageStore, row: ImageRow | None) -> bytes | None:
    """Return the photo if its file still has the SHA-256 of its row."""
    if row is None or row.state != "stored" or not row.store_key:
        return None
    with contextlib.suppress(OSError):
        data = store.read(row.store_key)
        return data if sha256_of(data) == row.sha256 else None
    return None


def _reencoded(data: bytes, side: int) -> tuple[bytes, str] | None:
    with contextlib.suppress(Unreadable):
        return thumbnail(data, side), JPEG
    return None
