"""The bytes of the shop's photos: files as stored, drawings made on request, and scaling."""

import io
import os
import threading
from concurrent.futures import Future
from pathlib import Path

from PIL import Image

from dataset.images.io import open_photo
from scraper.sample_shop.drawing.product import draw_product
from scraper.sample_shop.stock import SERVED_SUFFIXES, Drawn, PhotoSource

SHRUNK = 0.7
TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode an RGB image as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


class PhotoBytes:
    """Photos as files; a drawing is created once, however many clients request it concurrently."""

    def __init__(self) -> None:
        self._drawings: dict[Drawn, Future[bytes]] = {}
        self._lock = threading.Lock()
        # More concurrent drawings than processors only evict each other's pixels from the caches.
        self._processors = threading.Semaphore(os.cpu_count() or 1)

    def original(self, photo: PhotoSource) -> bytes:
        """Return the bytes of a photo in its own size.

        Raises:
            OSError: Its file was deleted after the stock was created.
            dataset.images.Unreadable: Its file was broken after the stock was created.
        """
        origin = photo.origin
        if isinstance(origin, Drawn):
            return changed(self._drawing(origin), photo.change)
        data = origin.read_bytes()
        if origin.suffix.lower() not in SERVED_SUFFIXES:
            data = as_jpeg(open_photo(data), 90)
        return changed(data, photo.change)

    def _drawing(self, wanted: Drawn) -> bytes:
        with self._lock:
            known = self._drawings.get(wanted)
            mine = known or self._drawings.setdefault(wanted, Future())
        if known is None:
            try:
                with self._processors:
                    drawing = draw_product(wanted.label, wanted.seed, view=wanted.view)
                    mine.set_result(as_jpeg(drawing.photo, 90))
            except BaseException as error:
                # Concurrent requests for the same photo get the error too.
                mine.set_exception(error)
                raise
        return mine.result()


def changed(data: bytes, change: str | None) -> bytes:
    """Return the photo as a duplicate shows it: unchanged, re-encoded or resized."""
    if change in (None, "exact"):
        return data
    image = open_photo(data)
    if change == "re-encoded":
        return as_jpeg(image, 70)
    size = (max(1, round(image.width * SHRUNK)), max(1, round(image.height * SHRUNK)))
    return as_jpeg(image.resize(size, Image.Resampling.LANCZOS), 90)


def fitted(data: bytes, box: tuple[int, int] | None, kind: str = "JPEG") -> bytes:
    """Return the photo as a `kind` file that fits `box` (width, height); never enlarged.

    A file of that kind that already fits is returned unchanged.
    """
    # Decoded as small as possible: only its format and size are needed.
    known = open_photo(data, at_least=1).info
    width, height = box or known["size"]
    if known["format"] == kind and known["size"][0] <= width and known["size"][1] <= height:
        return data
    photo = open_photo(data)
    photo.thumbnail((width, height), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    photo.save(file, kind, quality=90)
    return file.getvalue()


def content_type(path: str) -> str:
    """Return the content type of the original at `path`."""
    return TYPES[Path(path).suffix.lower()]
