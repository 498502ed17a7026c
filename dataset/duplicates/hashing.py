"""What a photo is recognised by: 64-bit DCT hashes of eight views, and a small picture of it.

A view is a part of the photo without its uniform border. A copy is found when any view of it is
near any view of the original, so borders, crops and mirrored copies are; `similarity.py` judges it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from PIL import Image

# The photo is looked at this small, sides in pixels; its little picture and the colours of it.
WORKING_PIXELS, PICTURE_PIXELS, COLOUR_PIXELS = 128, 48, 8
HASH_SIDE, HASH_BITS = 32, 8
# Pixels a side that are enough to look at a photo: a JPEG is decoded that small, which changes at
# most 2 bits of 99 in 100 hashes (benchmarks/crawl.py hashes).
MIN_DECODED_PIXELS = 192
# Parts of the photo as left, top, right, bottom: all, the middle, and the middle's four corners.
PARTS = (
    (0.0, 0.0, 1.0, 1.0),
    (0.05, 0.05, 0.95, 0.95),
    (0.0, 0.0, 0.92, 0.92),
    (0.08, 0.0, 1.0, 0.92),
    (0.0, 0.08, 0.92, 1.0),
    (0.08, 0.08, 1.0, 1.0),
)
# The views: all parts, then the first two mirrored. Two photos are mirrored when one of those fits.
VIEWS = len(PARTS) + 2
MIRRORED = np.arange(VIEWS) >= len(PARTS)
# A border is at most this part of a side, and its rows are this even, in grey levels.
WIDEST_BORDER, EVEN = 0.35, 12
# How far a pixel of a picture made smaller by Lanczos reaches, in pixels of the small one.
REACH = 3
_SIGNS = np.where(np.arange(HASH_BITS) % 2, -1.0, 1.0)


@dataclass(frozen=True)
class Fingerprint:
    """`views`: (8,) uint64. `picture`: (48, 48) uint8, grey. `colours`: (2, 8, 8) uint8, Cb, Cr."""

    views: np.ndarray
    picture: np.ndarray
    colours: np.ndarray

    @cached_property
    def packed(self) -> tuple[bytes, bytes]:
        """The views, and picture and colours, as the catalogue keeps them."""
        return self.views.astype("<u8").tobytes(), self.picture.tobytes() + self.colours.tobytes()


def unpack(views: bytes, looks: bytes) -> Fingerprint:
    """The fingerprint that was `packed` as VIEWS and LOOKS."""
    pixels = np.frombuffer(looks, np.uint8)
    grey, colours = (
        pixels[: PICTURE_PIXELS * PICTURE_PIXELS],
        pixels[PICTURE_PIXELS * PICTURE_PIXELS :],
    )
    return Fingerprint(
        np.frombuffer(views, "<u8").astype(np.uint64),
        grey.reshape(PICTURE_PIXELS, PICTURE_PIXELS),
        colours.reshape(2, COLOUR_PIXELS, COLOUR_PIXELS),
    )


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of IMAGE, RGB."""
    small = image if max(image.size) <= WORKING_PIXELS else image.copy()
    small.thumbnail((WORKING_PIXELS, WORKING_PIXELS), Image.Resampling.BOX, reducing_gap=None)
    luma, *chroma = small.convert("YCbCr").split()
    grey = np.asarray(luma)
    box = content_box(grey)
    coefficients = _coefficients(grey.astype(np.float32), [_part(box, part) for part in PARTS])
    both = np.concatenate([coefficients, coefficients[: VIEWS - len(PARTS)] * _SIGNS])
    little = (COLOUR_PIXELS, COLOUR_PIXELS)
    return Fingerprint(
        _bits(both),
        np.asarray(luma.resize((PICTURE_PIXELS, PICTURE_PIXELS), Image.Resampling.LANCZOS, box)),
        np.asarray([np.asarray(one.resize(little, Image.Resampling.BOX, box)) for one in chroma]),
    )


def _coefficients(grey: np.ndarray, parts: Sequence[tuple[float, ...]]) -> np.ndarray:
    """The lowest (n, 8, 8) DCT coefficients of n PARTS of GREY, (height, width) float32.

    Each part is made 32 x 32 pixels and transformed, both of which are sums of its pixels with
    weights: one product of matrices for the rows, one for the columns.
    """
    height, width = grey.shape
    rows = np.stack([_waves(height, top, bottom) for _, top, _, bottom in parts])
    columns = np.stack([_waves(width, left, right) for left, _, right, _ in parts])
    return rows @ grey @ columns.transpose(0, 2, 1)


@lru_cache(1)
def _lowest_waves(length: int) -> np.ndarray:
    """(8, LENGTH): what makes the lowest coefficients of a line, by the DCT of kind II."""
    return 2 * np.cos(
        np.pi * np.outer(np.arange(HASH_BITS), 2 * np.arange(length) + 1) / (2 * length)
    )


@lru_cache(4096)
def _waves(length: int, first: float, last: float) -> np.ndarray:
    """(8, LENGTH) float32: the same of a line's part from FIRST to LAST, made 32 pixels long."""
    scale = (last - first) / HASH_SIDE
    middles = first + (np.arange(HASH_SIDE) + 0.5) * scale
    wide = max(scale, 1.0)
    away = (np.arange(length) + 0.5 - middles[:, None]) / wide
    weights = np.where(np.abs(away) < REACH, np.sinc(away) * np.sinc(away / REACH), 0)
    weights /= weights.sum(1, keepdims=True)
    return (_lowest_waves(HASH_SIDE) @ weights).astype(np.float32)


def _bits(coefficients: np.ndarray) -> np.ndarray:
    """(n, 8, 8) DCT coefficients -> (n,) uint64, a bit each: whether it is over the median."""
    flat = coefficients.reshape(len(coefficients), -1)
    middle = np.sort(flat, axis=1)[:, flat.shape[1] // 2 - 1 :][:, :2]
    over = flat > middle.mean(1, keepdims=True)
    return np.packbits(over, axis=1).view(">u8")[:, 0].astype(np.uint64)


def quarter_turn_hashes(hashes: np.ndarray) -> np.ndarray:
    """HASHES, (n,) uint64, of the same pictures turned left by 1, 2 and 3 quarters: (n, 3).

    A turned picture has the same coefficients, rows for columns, every other sign changed. The bits
    between the median and its negative come out wrong: 2 or 4 of 64, as a rule.
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8)).reshape(-1, HASH_BITS, HASH_BITS)
    found = []
    for _ in range(3):
        bits = bits.transpose(0, 2, 1) ^ (_SIGNS < 0)[:, None]
        found.append(np.packbits(bits.reshape(len(bits), -1), axis=1).view(">u8")[:, 0])
    return np.stack(found, 1).astype(np.uint64)


def _part(
    box: tuple[int, int, int, int], part: tuple[float, ...]
) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return (
        left + part[0] * width,
        top + part[1] * height,
        left + part[2] * width,
        top + part[3] * height,
    )


def content_box(grey: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of GREY (height, width) uint8 without its uniform border."""
    top, bottom = _border(grey)
    left, right = _border(grey[top:bottom].T)
    return left, top, right, bottom


def _border(rows: np.ndarray) -> tuple[int, int]:
    """The first row and the last but one that are not of an even border."""
    low, high = rows.min(axis=1).astype(int), rows.max(axis=1).astype(int)
    most = int(len(rows) * WIDEST_BORDER)

    def width(low: np.ndarray, high: np.ndarray) -> int:
        inside = (high > low[0] + EVEN) | (low < high[0] - EVEN)
        if high[0] - low[0] > EVEN or not inside[:most].any():
            return 0
        first = int(inside.argmax())
        # The row beside a border is a mixture of both.
        return first + 1 if first else 0

    return width(low, high), len(rows) - width(low[::-1], high[::-1])
