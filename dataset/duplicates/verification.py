"""Decide from the pixels whether two photos are near duplicates, possible ones, or unrelated.

One photo is placed on the other (see features.py), and the area that both show is compared in small
windows. A common logo, caption or screenshot frame does not make two photos one, since the rest
differs. A small print, another colour or another brightness may be another product, so such photos
share a split, but they are not one photo.

The thresholds are from benchmarks/duplicates.py.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import cv2
import numpy as np

from dataset.duplicates.alignment import DUPLICATE_SIMILARITY
from dataset.duplicates.hashing import content_box

# Longer side of the area that is compared, in pixels: at most, and at least.
COMPARED_SIDE, MIN_COMPARED_SIDE = 200, 40
# Side of the squares by which whole photos are aligned.
ALIGNED_SIDE = 96
# Scales at which one photo may lie in the other one.
MIN_SCALE, MAX_SCALE = 0.05, 20.0
# Side of a window as a fraction of the area, in pixels at least, and the fewest windows.
WINDOW_FRACTION, MIN_WINDOW_PIXELS, MIN_WINDOWS = 1 / 14, 9, 9
# Standard deviation, in grey levels, from which a window has texture or strong texture, and below
# which it has none.
TEXTURE, STRONG_TEXTURE, NO_TEXTURE = 5.0, 12.0, 3.5
# Correlations of windows that agree, and of those that differ.
AGREEING_CORRELATION, DIFFERING_CORRELATION = 0.6, 0.4
# A pixel is flat if the grey levels around it differ by at most this; a window whose pixels are
# mostly flat is a graphic: text, a bar, a white background.
FLAT_RANGE, GRAPHIC_FRACTION = 4, 0.5
# Difference up to which two windows are equally flat; otherwise the flatter one was drawn over.
MAX_EQUAL_FLATNESS = 0.15
# Fraction of a side beside each edge where watermarks are: differences there may be one.
EDGE = 0.15
# Near duplicates: smallest covered fraction of the better covered photo, and of the other one.
MIN_WHOLE, MIN_COVERAGE = 0.93, 0.72
# Largest fraction of windows that differ: of all, and of those away from the edges.
MAX_DIFFERENT, MAX_CENTRAL_DIFFERENT = 0.1, 0.005
# Largest local difference in grey levels; largest difference of colours in CIELAB units, and of
# the lightness.
MAX_PEAK, MAX_COLOUR_DIFFERENCE, MAX_LIGHTNESS_DIFFERENCE = 13.0, 5.0, 5.0
# Possible near duplicates: smallest covered fraction of one of the photos; fraction of the windows
# with texture that agree; and fraction of the area in which they are connected.
MIN_COVERAGE_OF_PART = 0.45
MIN_AGREEMENT, MIN_REGION = 0.75, 0.05
# With many key points that agree, fewer windows need to agree, if they are connected and the others
# are at the edges, such as a removed background. Two garments before one background differ in the
# middle.
MANY_INLIERS = 30
MIN_AGREEMENT_OF_LARGE, MIN_LARGE_REGION, MAX_CENTRAL_OF_LARGE = 0.33, 0.25, 0.12
# The same, where graphics count: nearly all of both photos, and pixels that are nearly equal.
MIN_GRAPHIC_AGREEMENT, MIN_GRAPHIC_COVERAGE, MAX_DIFFERENT_OF_GRAPHIC = 0.9, 0.9, 0.03
LESS_STRICT_FOR_GRAPHICS = 0.4
# Photos that were aligned as a whole have few key points. Garments of one outline look alike, so
# their pixels must be nearer, and a part of them must be photographic.
STRICTER_FOR_LOOK_ALIKES, MIN_PHOTOGRAPHIC = 1.6, 0.1
MIN_AGREEMENT_OF_WHOLE, MIN_WHOLE_REGION = 0.9, 0.4
# A photo's lightness may be changed by this gain.
MIN_GAIN, MAX_GAIN = 0.6, 1.6
_SQUARE = np.ones((3, 3), np.uint8)


class Relation(StrEnum):
    """Relation of two photos.

    Photos are possible near duplicates if one may be a part of the other one, or a changed copy.
    """

    NEAR_DUPLICATE = "same"
    POSSIBLE = "part"
    UNRELATED = "none"


class Picture:
    """A photo, resized to `PICTURE_SIDE`, with cached data for comparisons.

    Attributes:
        pixels: The picture, (height, width, 3) uint8.
        grey: The same in grey levels, (height, width) uint8.
        content: Left, top, right and bottom without its uniform border.
    """

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        self.content = content_box(self.grey)
        self._texture: _Texture | None = None

    @property
    def texture(self) -> "_Texture":
        """What is known of its texture."""
        # Not a cached_property, whose lock is one for all pictures.
        if self._texture is None:
            self._texture = _Texture.of(self.grey)
        return self._texture


@dataclass(frozen=True)
class _Texture:
    """Texture of the window around each pixel, (height, width).

    Attributes:
        is_textured: Whether it has texture, bool.
        is_graphic: Whether it is a graphic, bool.
        detail: Standard deviation of the Laplacian, float32.
    """

    is_textured: np.ndarray
    is_graphic: np.ndarray
    detail: np.ndarray

    @classmethod
    def of(cls, grey: np.ndarray) -> "_Texture":
        size = _window_size(grey)
        flat = cv2.blur(_flat_pixels(grey).astype(np.float32), (size, size))
        deviation = _deviation(grey.astype(np.float32), size)
        return cls(
            deviation > TEXTURE,
            (deviation > STRONG_TEXTURE) & (flat > GRAPHIC_FRACTION),
            _deviation(cv2.Laplacian(grey, cv2.CV_32F), size),
        )


@dataclass(frozen=True)
class Comparison:
    """Two photos compared in windows of the area that both show.

    Attributes:
        coverages: Fraction of each photo, without its uniform border, that the area covers.
        agreeing: Fraction of the windows in which both photos have texture and agree.
        photographic: The same without windows of graphics.
        region: Fraction of the windows in the largest connected area of photographic agreement.
        different: Fraction of the windows that differ, or have texture in one photo only.
        central: The same, of the windows that are not at the edges.
        peak: Largest difference of a few pixels away from the edges, in levels. It, `colour` and
            `lightness` are measured only if they matter, and infinite otherwise.
        colour: Difference of the colours, after a common shift, in CIELAB units.
        lightness: Difference of the lightness, after a common change of brightness and contrast.
        decorations: Fraction of each photo that seems added: text, stickers, blurred sides. It is
            measured of related photos only.
        mirrored: Whether one photo is mirrored.
        inliers: Key points that agree on the placement; 0 if the photos were aligned as a whole.
        thumbnail_similarity: Similarity of the thumbnails of photos that were aligned as a whole.
    """

    coverages: tuple[float, float]
    agreeing: float
    photographic: float
    region: float
    different: float
    central: float
    peak: float = math.inf
    colour: float = math.inf
    lightness: float = math.inf
    decorations: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False
    inliers: int = 0
    thumbnail_similarity: float = 1.0

    @property
    def similarity(self) -> float:
        """Return the fraction of the windows with texture that agree."""
        return self.agreeing / (self.agreeing + self.different) if self.agreeing else 0.0

    @property
    def agreement(self) -> float:
        """Return the same of the windows that are not graphics."""
        return self.photographic / (self.photographic + self.different + 1e-6)

    @property
    def relation(self) -> Relation:
        """Return what the photos have in common."""
        if self._is_whole and self._is_equal(1.0 if self.inliers else STRICTER_FOR_LOOK_ALIKES):
            return Relation.NEAR_DUPLICATE
        if max(self.coverages) < MIN_COVERAGE_OF_PART:
            # A caption or a logo that both have.
            return Relation.UNRELATED
        if self._is_graphic and self._is_equal(LESS_STRICT_FOR_GRAPHICS):
            return Relation.POSSIBLE
        if not self.inliers:
            is_part = self.agreement >= MIN_AGREEMENT_OF_WHOLE and self.region >= MIN_WHOLE_REGION
            return Relation.POSSIBLE if is_part else Relation.UNRELATED
        is_part = self.agreement >= MIN_AGREEMENT and self.region >= MIN_REGION
        is_large_part = (
            self.inliers >= MANY_INLIERS
            and self.agreement >= MIN_AGREEMENT_OF_LARGE
            and self.region >= MIN_LARGE_REGION
            and self.central <= MAX_CENTRAL_OF_LARGE
        )
        return Relation.POSSIBLE if is_part or is_large_part else Relation.UNRELATED

    @property
    def _is_whole(self) -> bool:
        """Return whether one photo shows the whole of the other one, without a difference."""
        return (
            max(self.coverages) >= MIN_WHOLE
            and min(self.coverages) >= MIN_COVERAGE
            and self.agreeing > 0
            and self.different <= MAX_DIFFERENT
            and self.central <= MAX_CENTRAL_DIFFERENT
            and self.thumbnail_similarity >= DUPLICATE_SIMILARITY
        )

    def _is_equal(self, strictness: float) -> bool:
        """Return whether the pixels are equal up to compression and a common change."""
        return (
            self.peak * strictness <= MAX_PEAK
            and self.colour * strictness <= MAX_COLOUR_DIFFERENCE
            and self.lightness * strictness <= MAX_LIGHTNESS_DIFFERENCE
        )

    @property
    def may_be_equal(self) -> bool:
        """Return whether the relation depends on whether the pixels are equal."""
        return self._is_whole or self._is_graphic

    @property
    def _is_graphic(self) -> bool:
        """Return whether nearly all of both photos agrees, graphics included."""
        return (
            self.similarity >= MIN_GRAPHIC_AGREEMENT
            and self.different <= MAX_DIFFERENT_OF_GRAPHIC
            and min(self.coverages) >= MIN_GRAPHIC_COVERAGE
            and (self.inliers > 0 or self.photographic >= MIN_PHOTOGRAPHIC)
        )

    @property
    def is_related(self) -> bool:
        """Return whether the photos match as a whole or in part."""
        return self.relation != Relation.UNRELATED

    def swapped(self) -> "Comparison":
        """Return the comparison of the second photo with the first."""
        return replace(self, coverages=self.coverages[::-1], decorations=self.decorations[::-1])


def compare_whole(
    first: Picture, second: Picture, thumbnail_similarity: float
) -> Comparison | None:
    """Compare two photos that are alike as a whole, straight or mirrored.

    Args:
        first: Picture of a photo.
        second: Picture of the other one, of any size.
        thumbnail_similarity: Similarity of their thumbnails.

    Returns:
        The comparison; None if the photos can't be aligned.
    """
    transform = _place_whole(first, second)
    comparison = None if transform is None else compare(first, second, transform)
    if comparison is None:
        return None
    return replace(comparison, thumbnail_similarity=thumbnail_similarity)


def _place_whole(first: Picture, second: Picture) -> np.ndarray | None:
    """Place the content of a photo on that of another one by their pixels.

    Returns:
        Affine transform of pixels, (2, 3); None if they can't be aligned.
    """
    (square, to_square), (other, to_other) = map(_content_square, (first, second))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
    everywhere = np.full_like(square, 255)
    best, transform = 0.0, None
    for is_mirrored in (False, True):
        oriented = cv2.flip(square, 1) if is_mirrored else square
        warp: np.ndarray = np.eye(2, 3, dtype=np.float32)
        try:
            correlation, refined = cv2.findTransformECC(
                oriented, other, warp, cv2.MOTION_AFFINE, criteria, everywhere, 5
            )
        except cv2.error:
            # The alignment does not converge: the photos differ.
            continue
        if correlation > best:
            aligned = np.vstack([np.asarray(refined, float), [0, 0, 1]])
            if is_mirrored:
                aligned = aligned @ np.array([[-1, 0, ALIGNED_SIDE - 1], [0, 1, 0], [0, 0, 1]])
            best, transform = correlation, (np.linalg.inv(to_other) @ aligned @ to_square)[:2]
    return transform


def _content_square(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Return the content of a picture as a small grey square, and the transform to it, (3, 3)."""
    left, top, right, bottom = picture.content
    square = cv2.resize(
        picture.grey[top:bottom, left:right],
        (ALIGNED_SIDE, ALIGNED_SIDE),
        interpolation=cv2.INTER_AREA,
    )
    x, y = ALIGNED_SIDE / (right - left), ALIGNED_SIDE / (bottom - top)
    return square, np.array([[x, 0, -left * x], [0, y, -top * y], [0, 0, 1]])


def compare(
    first: Picture, second: Picture, transform: np.ndarray, inliers: int = 0
) -> Comparison | None:
    """Compare two photos in the area that both show.

    Args:
        first: Picture of a photo.
        second: Picture of the other one, of any size.
        transform: Affine transform of pixels of the first picture to those of the second one,
            (2, 3).
        inliers: Number of key points that agree on it.

    Returns:
        The comparison; None if both show too small an area.
    """
    scale = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    if not MIN_SCALE < scale < MAX_SCALE:
        return None
    if scale > 1:
        # The photo with the smaller content is not enlarged.
        comparison = compare(second, first, cv2.invertAffineTransform(transform), inliers)
        return None if comparison is None else comparison.swapped()
    height, width = second.grey.shape
    solid = np.ones(first.grey.shape, np.float32)
    inside = _warp(solid, transform, (width, height)) > 0.99
    left, top, *size = cv2.boundingRect(inside.view(np.uint8))
    if max(size) < MIN_COMPARED_SIDE:
        return None
    ratio = min(1.0, COMPARED_SIDE / max(size))
    to_area = np.array([[ratio, 0, -left * ratio], [0, ratio, -top * ratio], [0, 0, 1]])
    from_first = (to_area @ np.vstack([transform, [0, 0, 1]]))[:2]
    shape = (max(8, round(size[0] * ratio)), max(8, round(size[1] * ratio)))
    windows = _Windows.of(
        _resampled(first.pixels, from_first, shape),
        _resampled(second.pixels, to_area[:2], shape),
        cv2.erode((_warp(solid, from_first, shape) > 0.99).view(np.uint8), _SQUARE),
    )
    if windows is None:
        return None
    back = cv2.invertAffineTransform(transform)
    shown = _warp(inside.astype(np.float32), back, first.grey.shape[::-1]) > 0.5
    coverages = _coverage(first, shown), _coverage(second, inside)
    is_mirrored = bool(np.linalg.det(transform[:, :2]) < 0)
    comparison = windows.comparison(coverages, is_mirrored, inliers)
    if not comparison.is_related:
        return comparison
    inner = windows.decorations()
    return replace(
        comparison,
        decorations=(
            inner[0] * _fraction(shown) + _added(first, shown),
            inner[1] * _fraction(inside) + _added(second, inside),
        ),
    )


def _warp(plane: np.ndarray, transform: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpAffine(plane, transform, size, flags=cv2.INTER_LINEAR)


def _resampled(picture: np.ndarray, transform: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warp a picture without aliasing."""
    scale = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    sigma = 0.5 * np.sqrt(max(0.0, 1 / scale**2 - 1))
    if sigma > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    return cv2.warpAffine(
        picture, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _coverage(picture: Picture, shown: np.ndarray) -> float:
    """Return the fraction of a picture, without its uniform border, that is shown."""
    left, top, right, bottom = picture.content
    content = shown[top:bottom, left:right]
    return _fraction(content) if content.size else 0.0


def _fraction(selected: np.ndarray) -> float:
    """Return the mean of an array of bool, which `mean` takes longer for."""
    return float(np.count_nonzero(selected) / selected.size)


def _added(picture: Picture, shown: np.ndarray) -> float:
    """Return the fraction of a picture outside the common area that is graphics or blurred."""
    if _fraction(shown) > MIN_WHOLE:
        return 0.0
    texture = picture.texture
    inner = texture.detail[shown & texture.is_textured]
    typical = float(np.median(inner)) if inner.size else 0.0
    is_blurred = texture.is_textured & (texture.detail < typical / 6)
    return _fraction((texture.is_graphic | is_blurred) & ~shown)


def _flat_pixels(grey: np.ndarray) -> np.ndarray:
    """Return 1 where a pixel is flat, else 0, uint8."""
    spread = cv2.dilate(grey, _SQUARE) - cv2.erode(grey, _SQUARE)
    return (spread <= FLAT_RANGE).view(np.uint8)


def _deviation(plane: np.ndarray, size: int) -> np.ndarray:
    mean = cv2.blur(plane, (size, size))
    return np.sqrt(np.maximum(cv2.blur(plane * plane, (size, size)) - mean * mean, 0))


@dataclass(frozen=True)
class _Windows:
    """Two aligned pictures, and what their windows have in common.

    Attributes:
        labs: CIELAB values of both pictures, (height, width, 3) uint8.
        mask: 1 where both pictures show something, else 0, (height, width) uint8.
        valid: Windows that lie in the mask, (rows, columns) bool, as all that follow.
        flat: Fraction of flat pixels of each picture's windows.
        means: Mean CIELAB values of each picture's windows, (rows, columns, 3).
        deviation: Standard deviation of the lightness.
        correlation: Correlation of both pictures.
    """

    labs: tuple[np.ndarray, np.ndarray]
    mask: np.ndarray
    valid: np.ndarray
    flat: tuple[np.ndarray, np.ndarray]
    means: tuple[np.ndarray, np.ndarray]
    deviation: tuple[np.ndarray, np.ndarray]
    correlation: np.ndarray

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> "_Windows | None":
        """Measure the windows of two pictures; None if there are too few.

        Args:
            first: Picture, (height, width, 3) uint8.
            second: Picture of the same size.
            mask: 1 where both pictures show something, else 0, (height, width) uint8.
        """
        size = _window_size(mask)
        weight = _means(mask, size)
        valid = weight > 0.6
        if np.count_nonzero(valid) < MIN_WINDOWS:
            return None
        weight = np.maximum(weight, 1e-3)
        labs, masked, means, deviations, flat = [], [], [], [], []
        for picture in (first, second):
            lab = cv2.cvtColor(cv2.GaussianBlur(picture, (0, 0), 0.8), cv2.COLOR_RGB2LAB)
            labs.append(lab)
            masked.append(cv2.bitwise_and(lab, lab, mask=mask))
            means.append(_means(masked[-1], size) / weight[..., None])
            lightness = means[-1][..., 0]
            square = _means(np.square(masked[-1][..., 0], dtype=np.uint16), size) / weight
            deviations.append(np.sqrt(np.maximum(square - lightness * lightness, 0)))
            grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            flat.append(_means(_flat_pixels(grey), size, cv2.BORDER_REFLECT_101))
        product = np.multiply(masked[0][..., 0], masked[1][..., 0], dtype=np.uint16)
        covariance = _means(product, size) / weight - means[0][..., 0] * means[1][..., 0]
        return cls(
            (labs[0], labs[1]),
            mask,
            valid,
            (flat[0], flat[1]),
            (means[0], means[1]),
            (deviations[0], deviations[1]),
            covariance / (deviations[0] * deviations[1] + 1e-3),
        )

    def comparison(
        self, coverages: tuple[float, float], is_mirrored: bool, inliers: int
    ) -> Comparison:
        """Summarize the windows.

        Args:
            coverages: Fraction of each photo that the area covers.
            is_mirrored: Whether one photo is mirrored.
            inliers: Key points that agree on the placement.
        """
        agree = self._have_texture & (self.correlation > AGREEING_CORRELATION)
        different, _ = self._differences
        photographic = agree & (np.maximum(*self.flat) < GRAPHIC_FRACTION)
        count = np.count_nonzero(self.valid)
        _, _, stats, _ = cv2.connectedComponentsWithStats(photographic.view(np.uint8))
        region = stats[1:, cv2.CC_STAT_AREA].max() if len(stats) > 1 else 0
        rows, columns = map(_inner_range, different.shape)
        comparison = Comparison(
            coverages,
            float(np.count_nonzero(agree) / count),
            float(np.count_nonzero(photographic) / count),
            float(region / count),
            float(np.count_nonzero(different) / count),
            float(np.count_nonzero(different[rows, columns]) / count),
            mirrored=is_mirrored,
            inliers=inliers,
        )
        if not comparison.may_be_equal:
            return comparison
        colour, shift = self._colour_difference()
        lightness, gain, offset = self._lightness_difference()
        peak = self._peak(gain, offset, shift)
        return replace(comparison, peak=peak, colour=colour, lightness=lightness)

    @property
    def _have_texture(self) -> np.ndarray:
        """Windows in which both pictures have texture."""
        one, other = self.deviation
        return (one > TEXTURE) & (other > TEXTURE) & self.valid

    @property
    def _differences(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The windows that differ, and those in which the second or the first has no texture."""
        one, other = self.deviation
        missing = [
            (strong > STRONG_TEXTURE) & (weak < np.maximum(NO_TEXTURE, strong / 4)) & self.valid
            for strong, weak in ((one, other), (other, one))
        ]
        different = self._have_texture & (self.correlation < DIFFERING_CORRELATION)
        return different | missing[0] | missing[1], missing

    def decorations(self) -> tuple[float, float]:
        """Return the fraction of the windows that each picture seems to have added."""
        different, missing = self._differences
        flatter = self.flat[0] - self.flat[1]
        is_equal = np.abs(flatter) <= MAX_EQUAL_FLATNESS
        first = different & np.where(is_equal, missing[0], flatter > 0)
        second = different & np.where(is_equal, missing[1], flatter < 0)
        count = np.count_nonzero(self.valid)
        return np.count_nonzero(first) / count, np.count_nonzero(second) / count

    def _colour_difference(self) -> tuple[float, np.ndarray]:
        """Return the difference of the colours, and the common shift of both chroma channels."""
        difference = (self.means[0][..., 1:] - self.means[1][..., 1:])[self.valid]
        shift = np.median(difference, 0)
        return float(np.percentile(np.linalg.norm(difference - shift, axis=1), 90)), shift

    def _lightness_difference(self) -> tuple[float, float, float]:
        """Return the difference of the lightness, and the gain and the offset that change it."""
        one, other = (means[..., 0][self.valid] for means in self.means)
        gain = 1.0
        if one.std() > 3 and other.std() > 3:
            gain = float(np.clip(_slope(one, other), MIN_GAIN, MAX_GAIN))
        residual = other - gain * one
        offset = float(np.median(residual))
        return float(np.percentile(np.abs(residual - offset), 90)), gain, offset

    def _peak(self, gain: float, offset: float, shift: np.ndarray) -> float:
        """Return the largest difference of a few pixels, which may be one pixel apart."""
        # Beside the area whose difference counts, the filters need 3 pixels.
        inner = [_inner_range(length) for length in self.mask.shape]
        rows, columns = (slice(max(0, part.start - 3), part.stop + 3) for part in inner)
        levels = np.arange(256, dtype=np.float32)[:, None] * np.array([gain, 1, 1], np.float32)
        levels = np.clip(levels + np.array([offset, *-shift], np.float32), 0, 255)
        first = cv2.LUT(np.ascontiguousarray(self.labs[0][rows, columns]), levels[None])
        second = self.labs[1][rows, columns].astype(np.float32)
        darker = cv2.max(cv2.erode(second, _SQUARE) - first, cv2.erode(first, _SQUARE) - second)
        lighter = cv2.max(first - cv2.dilate(second, _SQUARE), second - cv2.dilate(first, _SQUARE))
        lightness, *chroma = cv2.split(cv2.max(darker, lighter))
        difference = cv2.max(lightness, cv2.max(*chroma))
        local = cv2.blur(np.maximum(difference, 0) * self.mask[rows, columns], (5, 5))
        return float(
            local[
                inner[0].start - rows.start : inner[0].stop - rows.start,
                inner[1].start - columns.start : inner[1].stop - columns.start,
            ].max()
        )


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    """Return the slope of the line through points, fitted by least squares."""
    distances = x - x.mean(dtype=float)
    return float((distances * y).sum() / np.square(distances).sum())


def _means(plane: np.ndarray, size: int, border: int = cv2.BORDER_REFLECT) -> np.ndarray:
    """Return the means of windows of a plane that overlap by half.

    Args:
        plane: Plane, (height, width) uint8 or uint16, or planes, (height, width, n) uint8.
        size: Side of the windows in pixels, an odd number.
        border: How OpenCV continues the plane beyond its borders.

    Returns:
        Array of shape (rows, columns) or (rows, columns, n), float32.
    """
    half, step = size // 2, size // 2
    height, width = plane.shape[:2]
    # Integers, so sums are exact.
    sums = cv2.integral(cv2.copyMakeBorder(plane, half, half, half, half, border))
    start = step // 2
    rows = sums[start + size : height + size : step] - sums[start:height:step]
    windows = rows[:, start + size : width + size : step] - rows[:, start:width:step]
    return (windows * (1 / size**2)).astype(np.float32)


def _window_size(plane: np.ndarray) -> int:
    """Return the side of the windows of a plane in pixels, an odd number."""
    return max(MIN_WINDOW_PIXELS, int(max(plane.shape) * WINDOW_FRACTION) | 1)


@lru_cache
def _inner_range(length: int) -> slice:
    """Return the places of a line that are not near its ends."""
    places = np.linspace(0, 1, length)
    inner = np.flatnonzero((places > EDGE) & (places < 1 - EDGE)).tolist()
    return slice(inner[0], inner[-1] + 1) if inner else slice(0, 0)
