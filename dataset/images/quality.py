"""What makes a photo useless to learn from, measured: blank, blurred, covered with text (pure)."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Photos are judged side by side already: more threads for one would only wait for each other.
cv2.setNumThreads(1)
# Photos are measured at most this long, in pixels; large letters on copies so many times smaller.
LOOK, SMALLER = 384, (1, 2, 4)
# Pixels a side that a JPEG is decoded to, at least.
MIN_DECODED_PIXELS = 2 * LOOK
# One pixel in so many is looked at to guess which are the steepest.
SAMPLED = 16
# Of all pixels, those that a stain or a logo may take; the steepest ones that edges are judged by.
STRAY, STEEPEST = 0.005, 0.004
# Around an edge, how far its lightest and darkest pixel are looked for.
AROUND = 25
# A letter's strokes are thinner than STROKE and stand out by OUTSTANDING grey levels.
STROKE, OUTSTANDING = 9, 48
LOWEST, TALLEST = 5, 56
# The fewest pixels of a letter.
SMALLEST = 3
# A line of text has at least this many letters, or parts of words whose letters touch.
LETTERS = 3
# Letters of a line, side by side, have bases so near, in parts of their height.
ONE_BASE = 0.08
# What is printed by a computer is even, and what a camera saw is not: by so many grey levels the
# ink and the ground of two letters side by side may differ, and deviate in a whole line.
SAME_INK, SAME_GROUND = 5, 4
EVEN_INK, EVEN_GROUND = 3, 2
# Widths and fillings of a line's letters deviate by these parts.
UNLIKE_WIDTHS, UNLIKE_FILLINGS = 0.03, 0.035


@dataclass(frozen=True)
class ImageQuality:
    """`contrast`: grey levels between the darkest and the lightest, strays aside, of any channel.

    `blur`: median width of the sharpest edges, in pixels of a photo at most 384 long; 2 is sharp.
    `text`: part of the photo that lines of text cover.
    """

    contrast: float
    blur: float
    text: float


def measure(image: Image.Image) -> ImageQuality:
    """The quality of IMAGE, RGB."""
    channels = cv2.split(cv2.cvtColor(np.asarray(shrink(image, LOOK)), cv2.COLOR_RGB2YCrCb))
    return ImageQuality(
        float(max(_levels(channel) for channel in channels)),
        round(edge_width(channels[0]), 3),
        round(text_share(channels[0]), 4),
    )


def shrink(image: Image.Image, side: int) -> Image.Image:
    """IMAGE, made smaller where a side has more than SIDE pixels."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _levels(channel: np.ndarray) -> int:
    """Levels between the darkest and the lightest pixel of CHANNEL, strays aside."""
    count = np.cumsum(cv2.calcHist([channel], [0], None, [256], [0, 256]))
    low, high = np.searchsorted(count, [STRAY * count[-1], (1 - STRAY) * count[-1]])
    return int(high - low)


def edge_width(grey: np.ndarray) -> float:
    """Median of the pixels that the steepest edges of GREY (height, width) uint8 are wide."""
    if min(grey.shape) < 2:
        return 0.0
    right, down = (
        cv2.Sobel(grey, cv2.CV_32F, *way, ksize=1, scale=0.5) for way in ((1, 0), (0, 1))
    )
    steep = np.square(down) + np.square(right)
    limit = _highest(steep, int(steep.size * STEEPEST) + 1)
    if limit <= 0:
        return 0.0
    places = np.nonzero(steep >= limit)
    lightest, darkest = cv2.dilate(grey, _square(AROUND)), cv2.erode(grey, _square(AROUND))
    return float(np.median(cv2.subtract(lightest, darkest)[places] / np.sqrt(steep[places])))


def _highest(values: np.ndarray, count: int) -> float:
    """The lowest of the COUNT highest VALUES."""
    # Half of the highest of a sample is far below; what is not even that need not be sorted.
    sample = np.sort(values.ravel()[::SAMPLED])[-max(1, 2 * count // SAMPLED) :]
    above = values[values >= sample[0]]
    if len(above) < count:
        above = values.ravel()
    return float(np.partition(above, len(above) - count)[len(above) - count])


def _square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)


def text_share(grey: np.ndarray) -> float:
    """The part of GREY (height, width) uint8 that lines of text cover, dark or light."""
    covered = np.zeros(grey.shape, bool)
    for times in SMALLER:
        smaller = np.asarray(Image.fromarray(grey).reduce(times)) if times > 1 else grey
        for dark in (smaller, ~smaller):
            for line in _lines(_letters(dark)):
                top, bottom, left, right = line * times
                covered[top:bottom, left:right] = True
    return float(covered.mean())


@dataclass(frozen=True)
class _Marks:
    """Bounds, (n,) int each, of n marks; the part of them that is filled; their grey levels."""

    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray
    filled: np.ndarray
    ink: np.ndarray
    ground: np.ndarray

    @property
    def height(self) -> np.ndarray:
        return self.bottom - self.top

    @property
    def width(self) -> np.ndarray:
        return self.right - self.left

    def take(self, which: np.ndarray) -> "_Marks":
        return _Marks(*(column[which] for column in vars(self).values()))


def _letters(grey: np.ndarray) -> _Marks:
    """What in GREY, (height, width) uint8, is dark and has a letter's shape, by its base."""
    ground = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, _square(STROKE))
    strokes = cv2.subtract(ground, grey) > OUTSTANDING
    # 16 bits are enough for the most marks that fit in, and much faster than 32.
    _, numbered, found, _ = cv2.connectedComponentsWithStats(
        strokes.view(np.uint8), connectivity=8, ltype=cv2.CV_16U
    )
    left, top, width, height, area = found.T
    filled = area / (width * height)
    fits = (area >= SMALLEST) & (height >= LOWEST) & (height <= TALLEST)
    fits &= (width <= 3 * height) & (filled > 0.2) & (filled < 0.95)
    # The first is what is no mark.
    fits[0] = False
    kept = np.flatnonzero(fits)
    kept = kept[np.argsort((top + height)[kept], kind="stable")]
    if len(kept) < LETTERS:
        kept = kept[:0]
    places = np.flatnonzero(strokes)
    levels = _levels_of(kept, *(of.ravel()[places] for of in (numbered, grey, ground)))
    bounds = [column[kept] for column in (top, top + height, left, left + width, filled)]
    return _Marks(*[*bounds, *levels])


def _levels_of(
    kept: np.ndarray, number: np.ndarray, grey: np.ndarray, ground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Darkest level in GREY and mean in GROUND, (n,) each, of the marks KEPT, by pixels' NUMBER."""
    ink = np.full(len(kept), 255)
    if not len(kept):
        return ink, ink
    rank = np.full(number.max() + 1, -1)
    rank[kept] = np.arange(len(kept))
    mark = rank[number]
    inside = mark >= 0
    mark = mark[inside]
    np.minimum.at(ink, mark, grey[inside])
    return ink, np.bincount(mark, ground[inside]) / np.bincount(mark)


def _lines(letters: _Marks) -> list[np.ndarray]:
    """Bounds of rows of LETTERS or more: of one height, base, ink and ground, close together."""
    one, other = _beside(letters)
    if len(one) < LETTERS - 1:
        return []
    count = len(letters.top)
    ties = coo_array((np.ones(len(one), bool), (one, other)), (count, count))
    groups, group = connected_components(ties, directed=False)
    rows = np.flatnonzero(np.bincount(group, minlength=groups) >= LETTERS)
    lines = (letters.take(group == number) for number in rows)
    return [
        np.array([of.top.min(), of.bottom.max(), of.left.min(), of.right.max()])
        for of in lines
        if _is_text(of)
    ]


def _beside(letters: _Marks) -> tuple[np.ndarray, np.ndarray]:
    """Places of two LETTERS, sorted by their bases, that may follow each other in a line."""
    bottom, height = letters.bottom, letters.height
    last = np.searchsorted(bottom, bottom + max(1, ONE_BASE * TALLEST), "right")
    count = last - np.arange(1, len(bottom) + 1)
    one = np.repeat(np.arange(len(bottom)), count)
    other = one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)
    tall, low = np.maximum(height[one], height[other]), np.minimum(height[one], height[other])
    start, stop = np.maximum(letters.left[one], letters.left[other]), letters.right
    gap = start - np.minimum(stop[one], stop[other])
    beside = (
        (tall < 1.5 * low)
        & (bottom[other] - bottom[one] <= np.maximum(1, ONE_BASE * tall))
        & (np.abs(letters.ink[one] - letters.ink[other]) <= SAME_INK)
        & (np.abs(letters.ground[one] - letters.ground[other]) <= SAME_GROUND)
        & (gap > -0.2 * tall)
        & (gap < 1.3 * tall)
    )
    return one[beside], other[beside]


def _is_text(line: _Marks) -> bool:
    """Whether LINE is even as print is, straight and long, and of letters that differ.

    Checks and stripes are rows too, but of equal marks.
    """
    return bool(
        line.ink.std() <= EVEN_INK
        and line.ground.std() <= EVEN_GROUND
        and line.width.std() > UNLIKE_WIDTHS * line.width.mean()
        and line.filled.std() > UNLIKE_FILLINGS
        and line.bottom.std() <= 0.12 * line.height.mean() + 0.5
        and line.right.max() - line.left.min() > 1.5 * line.height.max()
    )
