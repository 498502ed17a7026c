"""Measure what makes a photo useless for training: no contrast, blur, text over it."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Photos are measured in parallel: more threads for one photo would only wait for each other.
cv2.setNumThreads(1)
# Photos are measured with this longer side; text also on copies smaller by these factors.
WORKING_PIXELS, TEXT_SCALES = 384, (1, 2, 4)
# Pixels per side that a JPEG is decoded to, at least.
MIN_DECODED_PIXELS = 2 * WORKING_PIXELS
# Middle of a photo whose detail is measured, in pixels per side; the scale above which its finest
# detail lies; the energy of JPEG's noise there; and the least fine detail of a photo that was not
# enlarged, as a fraction of that in the octave below.
DETAIL_PIXELS, FINE_SCALE, NOISE_ENERGY, MIN_FINE_DETAIL = 512, 0.7, 0.2, 0.15
# Sampling interval, in pixels, of the estimate of the steepest gradients.
GRADIENT_SAMPLING = 16
# Fractions of all pixels: outliers of the contrast (a stain, a logo), and the steepest gradients.
OUTLIERS, STEEPEST = 0.005, 0.004
# Side of the square around an edge in which its lightest and darkest pixels are searched.
EDGE_WINDOW_PIXELS = 25
# Maximum width of the strokes of a letter, and their minimum difference from the background in grey
# levels.
MAX_STROKE_PIXELS, MIN_STROKE_CONTRAST = 9, 48
MIN_LETTER_HEIGHT, MAX_LETTER_HEIGHT = 5, 56
MIN_LETTER_AREA = 3
# Letters of a line of text, or parts of words whose letters touch.
MIN_LETTERS = 3
# Difference of the baselines of two adjacent letters, as a fraction of their height.
MAX_BASELINE_DIFFERENCE = 0.08
# Rendered text is uniform and photographed texture is not. Maximum difference of the ink and of the
# background between two adjacent letters, and standard deviation in a line, in grey levels.
MAX_INK_DIFFERENCE, MAX_GROUND_DIFFERENCE = 5, 4
MAX_INK_DEVIATION, MAX_GROUND_DEVIATION = 3, 2
# Relative deviation of the widths, and deviation of the fill ratios, of the letters of a line.
MIN_WIDTH_DEVIATION, MIN_FILL_DEVIATION = 0.03, 0.035


@dataclass(frozen=True)
class ImageQuality:
    """Measurements of a photo.

    Attributes:
        contrast: Levels between its darkest and lightest pixels without outliers, the largest of
            the YCrCb channels.
        blur: Median width of the sharpest edges in pixels of a photo at most 384 pixels long; 2 is
            sharp.
        text: Fraction of the photo that lines of text cover.
    """

    contrast: float
    blur: float
    text: float


def measure(image: Image.Image) -> ImageQuality:
    """Measure an RGB image."""
    channels = cv2.split(
        cv2.cvtColor(np.asarray(shrink(image, WORKING_PIXELS)), cv2.COLOR_RGB2YCrCb)
    )
    return ImageQuality(
        float(max(_contrast(channel) for channel in channels)),
        round(edge_width(channels[0]), 3),
        round(text_coverage(channels[0]), 4),
    )


def effective_pixels(image: Image.Image) -> float:
    """Return the number of pixels of a photo, a quarter of them if it seems enlarged.

    An enlarged photo has little of the finest detail in relation to the octave below it, whose
    energy is about equal in photos (Field, "Relations between the statistics of natural images and
    the response properties of cortical cells", JOSA A 1987).
    """
    width, height = image.size
    left, top = (max(0, (side - DETAIL_PIXELS) // 2) for side in image.size)
    middle = image.crop((left, top, width - left, height - top)).convert("L")
    fine, coarse = (_energy_above(middle, scale) for scale in (FINE_SCALE, FINE_SCALE / 2))
    is_enlarged = fine - NOISE_ENERGY < MIN_FINE_DETAIL * (coarse - fine)
    return width * height / (4 if is_enlarged else 1)


def _energy_above(grey: Image.Image, scale: float) -> float:
    """Return the mean square of what a photo loses if it is resized by a factor and back."""
    size = max(4, round(grey.width * scale)), max(4, round(grey.height * scale))
    small = grey.resize(size, Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, np.float32)
    back = np.asarray(small.resize(grey.size, Image.Resampling.BICUBIC), np.float32)
    return float(np.square(pixels - back).mean())


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Return an image, resized if a side has more than `side` pixels."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    width, height = (max(1, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def _contrast(channel: np.ndarray) -> int:
    """Return the levels between the darkest and the lightest pixel, without outliers."""
    count = np.cumsum(cv2.calcHist([channel], [0], None, [256], [0, 256]))
    low, high = np.searchsorted(count, [OUTLIERS * count[-1], (1 - OUTLIERS) * count[-1]])
    return int(high - low)


def edge_width(grey: np.ndarray) -> float:
    """Return the median width of the sharpest edges in pixels.

    Args:
        grey: Greyscale image, (height, width) uint8.
    """
    if min(grey.shape) < 2:
        return 0.0
    right, down = (
        cv2.Sobel(grey, cv2.CV_32F, *order, ksize=1, scale=0.5) for order in ((1, 0), (0, 1))
    )
    steep = np.square(down) + np.square(right)
    limit = _nth_largest(steep, int(steep.size * STEEPEST) + 1)
    if limit <= 0:
        return 0.0
    edges = np.nonzero(steep >= limit)
    lightest, darkest = (
        cv2.dilate(grey, _square(EDGE_WINDOW_PIXELS)),
        cv2.erode(grey, _square(EDGE_WINDOW_PIXELS)),
    )
    return float(np.median(cv2.subtract(lightest, darkest)[edges] / np.sqrt(steep[edges])))


def _nth_largest(values: np.ndarray, count: int) -> float:
    """Return the smallest of the `count` largest values."""
    # Sorting is not needed below an estimate from a sample that is too low on purpose.
    sample = np.sort(values.ravel()[::GRADIENT_SAMPLING])[-max(1, 2 * count // GRADIENT_SAMPLING) :]
    above = values[values >= sample[0]]
    if len(above) < count:
        above = values.ravel()
    return float(np.partition(above, len(above) - count)[len(above) - count])


def _square(side: int) -> np.ndarray:
    return np.ones((side, side), np.uint8)


def text_coverage(grey: np.ndarray) -> float:
    """Return the fraction of a greyscale image, (height, width) uint8, that text covers."""
    covered = np.zeros(grey.shape, bool)
    for times in TEXT_SCALES:
        smaller = np.asarray(Image.fromarray(grey).reduce(times)) if times > 1 else grey
        for dark in (smaller, ~smaller):
            for line in _text_lines(_letters(dark)):
                top, bottom, left, right = line * times
                covered[top:bottom, left:right] = True
    return float(covered.mean())


@dataclass(frozen=True)
class _Components:
    """Connected components that may be letters.

    Attributes:
        top: Bounds in pixels, as `bottom`, `left` and `right`, (n,) int.
        filled: Fraction of the bounding box that is filled, (n,) float.
        ink: Darkest grey level, (n,) int.
        ground: Mean grey level of the background, (n,) float.
    """

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

    def take(self, selected: np.ndarray) -> "_Components":
        return _Components(*(column[selected] for column in vars(self).values()))


def _letters(grey: np.ndarray) -> _Components:
    """Return the dark components with the shape of a letter, sorted by their baselines."""
    ground = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, _square(MAX_STROKE_PIXELS))
    strokes = cv2.subtract(ground, grey) > MIN_STROKE_CONTRAST
    # 16 bits suffice for all components of an image of this size and are much faster than 32.
    _, numbered, statistics, _ = cv2.connectedComponentsWithStats(
        strokes.view(np.uint8), connectivity=8, ltype=cv2.CV_16U
    )
    left, top, width, height, area = statistics.T
    filled = area / (width * height)
    fits = (area >= MIN_LETTER_AREA) & (height >= MIN_LETTER_HEIGHT) & (height <= MAX_LETTER_HEIGHT)
    fits &= (width <= 3 * height) & (filled > 0.2) & (filled < 0.95)
    # The first component is the background.
    fits[0] = False
    kept = np.flatnonzero(fits)
    kept = kept[np.argsort((top + height)[kept], kind="stable")]
    if len(kept) < MIN_LETTERS:
        kept = kept[:0]
    pixels = np.flatnonzero(strokes)
    levels = _ink_and_ground(kept, *(image.ravel()[pixels] for image in (numbered, grey, ground)))
    bounds = [column[kept] for column in (top, top + height, left, left + width, filled)]
    return _Components(*[*bounds, *levels])


def _ink_and_ground(
    kept: np.ndarray, number: np.ndarray, grey: np.ndarray, ground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the darkest level and the mean background of each kept component, (n,) each.

    Args:
        kept: Numbers of the components.
        number: Component of each stroke pixel.
        grey: Grey level of each stroke pixel.
        ground: Background level of each stroke pixel.
    """
    ink = np.full(len(kept), 255)
    if not len(kept):
        return ink, ink
    rank = np.full(number.max() + 1, -1)
    rank[kept] = np.arange(len(kept))
    component = rank[number]
    is_kept = component >= 0
    component = component[is_kept]
    np.minimum.at(ink, component, grey[is_kept])
    return ink, np.bincount(component, ground[is_kept]) / np.bincount(component)


def _text_lines(letters: _Components) -> list[np.ndarray]:
    """Return top, bottom, left and right of each line of text."""
    first, second = _adjacent_pairs(letters)
    if len(first) < MIN_LETTERS - 1:
        return []
    count = len(letters.top)
    links = coo_array((np.ones(len(first), bool), (first, second)), (count, count))
    groups, group = connected_components(links, directed=False)
    rows = np.flatnonzero(np.bincount(group, minlength=groups) >= MIN_LETTERS)
    lines = (letters.take(group == number) for number in rows)
    return [
        np.array([line.top.min(), line.bottom.max(), line.left.min(), line.right.max()])
        for line in lines
        if _is_text(line)
    ]


def _adjacent_pairs(letters: _Components) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of pairs of letters, sorted by baseline, that may be adjacent."""
    bottom, height = letters.bottom, letters.height
    last = np.searchsorted(
        bottom, bottom + max(1, MAX_BASELINE_DIFFERENCE * MAX_LETTER_HEIGHT), "right"
    )
    count = last - np.arange(1, len(bottom) + 1)
    first = np.repeat(np.arange(len(bottom)), count)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    tall, low = np.maximum(height[first], height[second]), np.minimum(height[first], height[second])
    start, stop = np.maximum(letters.left[first], letters.left[second]), letters.right
    gap = start - np.minimum(stop[first], stop[second])
    adjacent = (
        (tall < 1.5 * low)
        & (bottom[second] - bottom[first] <= np.maximum(1, MAX_BASELINE_DIFFERENCE * tall))
        & (np.abs(letters.ink[first] - letters.ink[second]) <= MAX_INK_DIFFERENCE)
        & (np.abs(letters.ground[first] - letters.ground[second]) <= MAX_GROUND_DIFFERENCE)
        & (gap > -0.2 * tall)
        & (gap < 1.3 * tall)
    )
    return first[adjacent], second[adjacent]


def _is_text(line: _Components) -> bool:
    """Return whether a line is even, straight and long, and consists of different letters.

    Checks and stripes form lines too, but of equal components.
    """
    return bool(
        line.ink.std() <= MAX_INK_DEVIATION
        and line.ground.std() <= MAX_GROUND_DEVIATION
        and line.width.std() > MIN_WIDTH_DEVIATION * line.width.mean()
        and line.filled.std() > MIN_FILL_DEVIATION
        and line.bottom.std() <= 0.12 * line.height.mean() + 0.5
        and line.right.max() - line.left.min() > 1.5 * line.height.max()
    )
