"""What makes a photo useless to learn from, measured: blank, blurred, covered with text (pure)."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Photos are measured at most this long, in pixels; large letters on copies so many times smaller.
LOOK, SMALLER = 384, (1, 2, 4)
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
class Quality:
    """`contrast`: grey levels between the darkest and the lightest, strays aside, of any channel.

    `blur`: median width of the sharpest edges, in pixels of a photo at most 384 long; 2 is sharp.
    `text`: part of the photo that lines of text cover.
    """

    contrast: float
    blur: float
    text: float


def measure(image: Image.Image) -> Quality:
    """The quality of IMAGE, RGB."""
    small = image.copy()
    small.thumbnail((LOOK, LOOK), Image.Resampling.BOX, reducing_gap=None)
    channels = small.convert("YCbCr").split()
    grey = np.asarray(channels[0])
    return Quality(
        float(max(_levels(channel) for channel in channels)),
        round(edge_width(grey), 3),
        round(text_share(grey), 4),
    )


def _levels(channel: Image.Image) -> int:
    """Levels between the darkest and the lightest pixel of CHANNEL, strays aside."""
    count = np.cumsum(channel.histogram())
    low, high = np.searchsorted(count, [STRAY * count[-1], (1 - STRAY) * count[-1]])
    return int(high - low)


def edge_width(grey: np.ndarray) -> float:
    """Median of the pixels that the steepest edges of GREY (height, width) uint8 are wide."""
    if min(grey.shape) < 2:
        return 0.0
    down, right = np.gradient(grey.astype(np.float32))
    steep = np.square(down) + np.square(right)
    most = int(steep.size * (1 - STEEPEST))
    limit = np.partition(steep, most, axis=None)[most]
    if limit <= 0:
        return 0.0
    places = np.nonzero(steep >= limit)
    levels = _highest(grey, AROUND)[places].astype(np.float32) - _lowest(grey, AROUND)[places]
    return float(np.median(levels / np.sqrt(steep[places])))


def _highest(grey: np.ndarray, side: int) -> np.ndarray:
    """The lightest pixel of the square of SIDE pixels (odd) around each of GREY.

    The highest of 2, 4, 8 … in a row are those of two halves: much faster than scipy's filters.
    """
    half, reach = side // 2, 1
    height, width = grey.shape
    found = np.zeros((height + 2 * half, width + 2 * half), np.uint8)
    found[half:-half, half:-half] = grey
    while reach < side:
        step = min(reach, side - reach)
        found = np.maximum(found[:-step], found[step:])
        found = np.maximum(found[:, :-step], found[:, step:])
        reach += step
    return found


def _lowest(grey: np.ndarray, side: int) -> np.ndarray:
    return ~_highest(~grey, side)


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
    ground = _lowest(_highest(grey, STROKE), STROKE)
    strokes = ground - grey > OUTSTANDING
    numbered, count = ndimage.label(strokes, np.ones((3, 3)))
    places = np.flatnonzero(strokes)
    mark = numbered.ravel()[places]
    # What is too small is most of the marks.
    large = np.bincount(mark, minlength=count + 1) >= SMALLEST
    places = places[large[mark]]
    marks = _marks((np.cumsum(large) - 1)[numbered.ravel()[places]], places, grey, ground)
    fits = (marks.height >= LOWEST) & (marks.height <= TALLEST)
    fits &= (marks.width <= 3 * marks.height) & (marks.filled > 0.2) & (marks.filled < 0.95)
    kept = np.flatnonzero(fits)
    return marks.take(kept[np.argsort(marks.bottom[kept], kind="stable")])


def _marks(mark: np.ndarray, places: np.ndarray, grey: np.ndarray, ground: np.ndarray) -> _Marks:
    """The marks 0 to n - 1: MARK of the pixel at each of PLACES in GREY and GROUND."""
    order = np.argsort(mark, kind="stable")
    mark, places = mark[order], places[order]
    first = np.flatnonzero(np.diff(mark, prepend=-1))
    if not len(first):
        return _Marks(*(np.zeros(0, int) for _ in range(7)))
    row, column = np.divmod(places, grey.shape[1])
    top, bottom = np.minimum.reduceat(row, first), np.maximum.reduceat(row, first) + 1
    left, right = np.minimum.reduceat(column, first), np.maximum.reduceat(column, first) + 1
    area = np.bincount(mark)
    return _Marks(
        top,
        bottom,
        left,
        right,
        area / ((bottom - top) * (right - left)),
        np.minimum.reduceat(grey.ravel()[places], first).astype(float),
        np.bincount(mark, ground.ravel()[places]) / area,
    )


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
