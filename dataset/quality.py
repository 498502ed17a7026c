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
    grey = np.asarray(channels[0]).astype(np.float32)
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
    """Median of the pixels that the steepest edges of GREY (height, width) are wide."""
    if min(grey.shape) < 2:
        return 0.0
    down, right = np.gradient(grey)
    steep = np.hypot(down, right)
    most = int(steep.size * (1 - STEEPEST))
    limit = np.partition(steep, most, axis=None)[most]
    if limit <= 0:
        return 0.0
    places = np.nonzero(steep >= limit)
    lightest = ndimage.maximum_filter(grey, AROUND)[places]
    darkest = ndimage.minimum_filter(grey, AROUND)[places]
    return float(np.median((lightest - darkest) / steep[places]))


def text_share(grey: np.ndarray) -> float:
    """The part of GREY (height, width) that lines of text cover, dark on light or light on dark."""
    covered = np.zeros(grey.shape, bool)
    for times in SMALLER:
        smaller = np.asarray(Image.fromarray(grey).reduce(times)) if times > 1 else grey
        for strokes in (
            ndimage.grey_closing(smaller, (STROKE, STROKE)) - smaller,
            smaller - ndimage.grey_opening(smaller, (STROKE, STROKE)),
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
    boxes = np.array(
        [(y.start, y.stop, x.start, x.stop) for y, x in ndimage.find_objects(marks)], np.int64
    ).reshape(-1, 4)
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    area = np.bincount(marks.ravel(), minlength=count + 1)[1:]
    level = np.bincount(marks.ravel(), grey.ravel(), count + 1)[1:] / np.maximum(area, 1)
    filled = area / np.maximum(height * width, 1)
    fits = (height >= LOWEST) & (height <= TALLEST) & (width <= 1.6 * height) & (width >= 2)
    fits &= (filled > 0.2) & (filled < 0.95)
    return boxes[fits], filled[fits], level[fits]


def _lines(boxes: np.ndarray, filled: np.ndarray, level: np.ndarray) -> list[np.ndarray]:
    """Bounds of rows of LETTERS letters or more: of one height, base and colour, close together.

    Checks and stripes are rows too, but of equal marks; letters differ in width and filling.
    """
    if len(boxes) < LETTERS:
        return []
    top, bottom, left, right = boxes.T
    height, width = bottom - top, right - left
    tall = np.maximum(height[:, None], height[None])
    gap = np.maximum(left[:, None], left[None]) - np.minimum(right[:, None], right[None])
    beside = (
        (tall < 1.5 * np.minimum(height[:, None], height[None]))
        & (np.abs(bottom[:, None] - bottom[None]) <= np.maximum(1, 0.12 * tall))
        & (np.abs(level[:, None] - level[None]) <= SAME_INK)
        & (gap > -0.2 * tall)
        & (gap < 0.7 * tall)
    )
    count, group = connected_components(coo_array(beside), directed=False)
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
