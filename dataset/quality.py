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
LOWEST, TALLEST = 6, 56
# The fewest pixels of a letter: LOWEST high, 2 wide, a fifth of it filled.
SMALLEST = 3
# A line of text has at least this many letters.
LETTERS = 5
# Letters of a line: so near in grey levels, and their widths vary by this part of the mean.
SAME_INK, UNLIKE = 12, 0.07


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
    for _ in range(2):
        row = np.concatenate([grey[:1]] * (side // 2) + [grey] + [grey[-1:]] * (side // 2))
        reach = 1
        while reach < side:
            step = min(reach, side - reach)
            row, reach = np.maximum(row[:-step], row[step:]), reach + step
        grey = np.ascontiguousarray(row.T)
    return grey


def _lowest(grey: np.ndarray, side: int) -> np.ndarray:
    return ~_highest(~grey, side)


def text_share(grey: np.ndarray) -> float:
    """The part of GREY (height, width) uint8 that lines of text cover, dark or light."""
    covered = np.zeros(grey.shape, bool)
    for times in SMALLER:
        smaller = np.asarray(Image.fromarray(grey).reduce(times)) if times > 1 else grey
        for strokes in (
            _lowest(_highest(smaller, STROKE), STROKE) - smaller,
            smaller - _highest(_lowest(smaller, STROKE), STROKE),
        ):
            for line in _lines(*_letters(strokes > OUTSTANDING, smaller)):
                top, bottom, left, right = line * times
                covered[top:bottom, left:right] = True
    return float(covered.mean())


def _letters(strokes: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What in STROKES, (height, width) bool, has a letter's shape.

    Boxes (n, 4) int, the part of each that is filled, and its mean grey level.
    """
    marks, count = ndimage.label(strokes, np.ones((3, 3)))
    places = np.flatnonzero(strokes)
    mark = marks.ravel()[places]
    area = np.bincount(mark, minlength=count + 1)
    # What is too small is most of the marks.
    large = area >= SMALLEST
    places, mark = places[large[mark]], (np.cumsum(large) - 1)[mark[large[mark]]]
    boxes, area = _boxes(mark, *np.divmod(places, strokes.shape[1])), area[large]
    level = np.bincount(mark, grey.ravel()[places]) / area
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    filled = area / (height * width)
    fits = (height >= LOWEST) & (height <= TALLEST) & (width <= 1.6 * height) & (width >= 2)
    fits &= (filled > 0.2) & (filled < 0.95)
    return boxes[fits], filled[fits], level[fits]


def _boxes(mark: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Top, bottom, left and right (n, 4) int of the marks 0 to n - 1, from MARK of each pixel."""
    if not len(mark):
        return np.zeros((0, 4), int)
    order = np.argsort(mark, kind="stable")
    first = np.flatnonzero(np.diff(mark[order], prepend=-1))
    row, column = row[order], column[order]
    low, high = np.minimum.reduceat, np.maximum.reduceat
    return np.stack(
        [low(row, first), high(row, first) + 1, low(column, first), high(column, first) + 1], 1
    )


def _near_bases(bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places one < other of all pairs in BOTTOM, sorted, that differ by what a line allows."""
    last = np.searchsorted(bottom, bottom + 0.12 * TALLEST, "right")
    count = last - np.arange(1, len(bottom) + 1)
    one = np.repeat(np.arange(len(bottom)), count)
    return one, one + 1 + np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count)


def _lines(boxes: np.ndarray, filled: np.ndarray, level: np.ndarray) -> list[np.ndarray]:
    """Bounds of rows of LETTERS letters or more: of one height, base and colour, close together.

    Checks and stripes are rows too, but of equal marks; letters differ in width and filling.
    """
    if len(boxes) < LETTERS:
        return []
    order = np.argsort(boxes[:, 1], kind="stable")
    boxes, filled, level = boxes[order], filled[order], level[order]
    top, bottom, left, right = boxes.T
    height, width = bottom - top, right - left
    one, other = _near_bases(bottom)
    tall, low = np.maximum(height[one], height[other]), np.minimum(height[one], height[other])
    gap = np.maximum(left[one], left[other]) - np.minimum(right[one], right[other])
    beside = (
        (tall < 1.5 * low)
        & (bottom[other] - bottom[one] <= np.maximum(1, 0.12 * tall))
        & (np.abs(level[one] - level[other]) <= SAME_INK)
        & (gap > -0.2 * tall)
        & (gap < 0.7 * tall)
    )
    if beside.sum() < LETTERS - 1:
        return []
    ties = coo_array((beside[beside], (one[beside], other[beside])), (len(boxes), len(boxes)))
    count, group = connected_components(ties, directed=False)
    lines = []
    for number in np.flatnonzero(np.bincount(group, minlength=count) >= LETTERS):
        of = group == number
        varied = width[of].std() > UNLIKE * width[of].mean() and filled[of].std() > UNLIKE / 2
        wide = right[of].max() - left[of].min()
        if (
            varied
            and bottom[of].std() <= 0.12 * height[of].mean() + 0.5
            and wide > 3 * height[of].max()
        ):
            lines.append(
                np.array([top[of].min(), bottom[of].max(), left[of].min(), right[of].max()])
            )
    return lines
