"""Fingerprints of photos: 64-bit DCT hashes of eight views, and a thumbnail.

A view is a part of the photo without its uniform border. Near duplicates have a view whose hash is
near that of a view of the original, also with a border added, cropped or mirrored; alignment.py
then compares the thumbnails.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from PIL import Image

# Longer side of the photo that views are taken from; sides of the thumbnail and its colours.
WORKING_PIXELS, THUMBNAIL_PIXELS, COLOUR_PIXELS = 128, 48, 8
# Side of the picture that is transformed, and of the block of coefficients that make the hash.
HASH_PIXELS, HASH_COEFFICIENTS = 32, 8
# Pixels per side that a JPEG is decoded to, at least: decoding it that small changes at most 2 bits
# of 99 in 100 hashes (benchmarks/crawl.py hashes).
MIN_DECODED_PIXELS = 192
# Parts of the photo as left, top, right, bottom: all, the middle, and its four corners.
VIEW_AREAS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.05, 0.05, 0.95, 0.95),
    (0.0, 0.0, 0.92, 0.92),
    (0.08, 0.0, 1.0, 0.92),
    (0.0, 0.08, 0.92, 1.0),
    (0.08, 0.08, 1.0, 1.0),
)
# The views are all areas, then the first two mirrored.
VIEW_COUNT = len(VIEW_AREAS) + 2
MIRRORED = np.arange(VIEW_COUNT) >= len(VIEW_AREAS)
# Widest border as a fraction of a side, and the largest range of grey levels of its rows.
MAX_BORDER, MAX_BORDER_RANGE = 0.35, 12
# Radius of the Lanczos filter in pixels of the smaller picture.
LANCZOS_RADIUS = 3
# Mirroring a picture changes the sign of every other coefficient.
_SIGNS = np.where(np.arange(HASH_COEFFICIENTS) % 2, -1.0, 1.0)


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of a photo.

    Attributes:
        views: Hashes of the views, (8,) uint64.
        thumbnail: Small greyscale photo without the border, (48, 48) uint8.
        colours: Its Cb and Cr channels, (2, 8, 8) uint8.
    """

    views: np.ndarray
    thumbnail: np.ndarray
    colours: np.ndarray

    @cached_property
    def packed(self) -> tuple[bytes, bytes]:
        """The views, and the thumbnail with its colours, as the catalogue stores them."""
        return self.views.astype("<u8").tobytes(), self.thumbnail.tobytes() + self.colours.tobytes()


def unpack(views: bytes, pixels: bytes) -> Fingerprint:
    """Return the fingerprint that `Fingerprint.packed` stored."""
    values = np.frombuffer(pixels, np.uint8)
    size = THUMBNAIL_PIXELS * THUMBNAIL_PIXELS
    return Fingerprint(
        np.frombuffer(views, "<u8").astype(np.uint64),
        values[:size].reshape(THUMBNAIL_PIXELS, THUMBNAIL_PIXELS),
        values[size:].reshape(2, COLOUR_PIXELS, COLOUR_PIXELS),
    )


def fingerprint(image: Image.Image) -> Fingerprint:
    """Compute the fingerprint of an RGB image."""
    small = image if max(image.size) <= WORKING_PIXELS else image.copy()
    small.thumbnail((WORKING_PIXELS, WORKING_PIXELS), Image.Resampling.BOX, reducing_gap=None)
    luma, *chroma = small.convert("YCbCr").split()
    grey = np.asarray(luma)
    box = content_box(grey)
    areas = [_area_in(box, area) for area in VIEW_AREAS]
    straight = _coefficients(grey.astype(np.float32), areas)
    mirrored = straight[: VIEW_COUNT - len(VIEW_AREAS)] * _SIGNS
    size, colour_size = (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), (COLOUR_PIXELS, COLOUR_PIXELS)
    return Fingerprint(
        _hashes(np.concatenate([straight, mirrored])),
        np.asarray(luma.resize(size, Image.Resampling.LANCZOS, box)),
        np.asarray(
            [np.asarray(plane.resize(colour_size, Image.Resampling.BOX, box)) for plane in chroma]
        ),
    )


def _coefficients(grey: np.ndarray, areas: Sequence[tuple[float, ...]]) -> np.ndarray:
    """Return the lowest DCT coefficients of areas of a picture.

    Each area is resized to 32 x 32 pixels and transformed. Both are weighted sums of its pixels, so
    one matrix product does them for the rows and one for the columns.

    Args:
        grey: Picture, (height, width) float32.
        areas: Left, top, right, bottom of n areas in pixels.

    Returns:
        Array of shape (n, 8, 8).
    """
    height, width = grey.shape
    rows = np.stack([_area_basis(height, top, bottom) for _, top, _, bottom in areas])
    columns = np.stack([_area_basis(width, left, right) for left, _, right, _ in areas])
    return rows @ grey @ columns.transpose(0, 2, 1)


@lru_cache(1)
def _dct_basis(length: int) -> np.ndarray:
    """Return the first rows of the DCT-II matrix, (8, length)."""
    return 2 * np.cos(
        np.pi * np.outer(np.arange(HASH_COEFFICIENTS), 2 * np.arange(length) + 1) / (2 * length)
    )


@lru_cache(4096)
def _area_basis(length: int, start: float, stop: float) -> np.ndarray:
    """Return the matrix that resizes a part of a line to 32 pixels and transforms it.

    Returns:
        Array of shape (8, length), float32.
    """
    scale = (stop - start) / HASH_PIXELS
    centres = start + (np.arange(HASH_PIXELS) + 0.5) * scale
    distance = (np.arange(length) + 0.5 - centres[:, None]) / max(scale, 1.0)
    kernel = np.sinc(distance) * np.sinc(distance / LANCZOS_RADIUS)
    weights = np.where(np.abs(distance) < LANCZOS_RADIUS, kernel, 0)
    weights /= weights.sum(1, keepdims=True)
    return (_dct_basis(HASH_PIXELS) @ weights).astype(np.float32)


def _hashes(coefficients: np.ndarray) -> np.ndarray:
    """Return the hashes of coefficients: a bit is set where one exceeds the median.

    Args:
        coefficients: Array of shape (n, 8, 8).

    Returns:
        Array of shape (n,), uint64.
    """
    flat = coefficients.reshape(len(coefficients), -1)
    middle = np.sort(flat, axis=1)[:, flat.shape[1] // 2 - 1 :][:, :2]
    is_above = flat > middle.mean(1, keepdims=True)
    return np.packbits(is_above, axis=1).view(">u8")[:, 0].astype(np.uint64)


def quarter_turn_hashes(hashes: np.ndarray) -> np.ndarray:
    """Return the hashes of pictures turned to the left by 1, 2 and 3 quarters.

    A turned picture has the transposed coefficients, every other sign changed. The bits between the
    median and its negative are wrong, as a rule 2 or 4 of 64.

    Args:
        hashes: Hashes of n pictures, (n,) uint64.

    Returns:
        Array of shape (n, 3), uint64.
    """
    packed = hashes.astype(">u8").view(np.uint8)
    bits = np.unpackbits(packed).reshape(-1, HASH_COEFFICIENTS, HASH_COEFFICIENTS)
    turned = []
    for _ in range(3):
        bits = bits.transpose(0, 2, 1) ^ (_SIGNS < 0)[:, None]
        turned.append(np.packbits(bits.reshape(len(bits), -1), axis=1).view(">u8")[:, 0])
    return np.stack(turned, 1).astype(np.uint64)


def _area_in(
    box: tuple[int, int, int, int], area: tuple[float, ...]
) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return (
        left + area[0] * width,
        top + area[1] * height,
        left + area[2] * width,
        top + area[3] * height,
    )


def content_box(grey: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a picture without its uniform border.

    Args:
        grey: Picture, (height, width) uint8.
    """
    top, bottom = _content_range(grey)
    left, right = _content_range(grey[top:bottom].T)
    return left, top, right, bottom


def _content_range(rows: np.ndarray) -> tuple[int, int]:
    """Return the range of rows between the borders."""
    low, high = rows.min(axis=1).astype(int), rows.max(axis=1).astype(int)
    max_width = int(len(rows) * MAX_BORDER)

    def border_width(low: np.ndarray, high: np.ndarray) -> int:
        is_content = (high > low[0] + MAX_BORDER_RANGE) | (low < high[0] - MAX_BORDER_RANGE)
        if high[0] - low[0] > MAX_BORDER_RANGE or not is_content[:max_width].any():
            return 0
        first = int(is_content.argmax())
        # The row beside a border is a mixture of both.
        return first + 1 if first else 0

    return border_width(low, high), len(rows) - border_width(low[::-1], high[::-1])
