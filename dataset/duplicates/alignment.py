"""Compute the similarity of two photos: align one with the other, then correlate their details.

Translation, scale, shear and small rotations are found with Gauss-Newton steps on the small
pictures, first at half their size (Lucas and Kanade, "An Iterative Image Registration Technique
with an Application to Stereo Vision", IJCAI 1981), invariant to gain and offset, so light does not
matter. The correlation is that of the details, the picture less its blur: two garments that are
laid out alike share their outline, but not their folds.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dataset.duplicates.hashing import Fingerprint

# A crawl puts photos into one cluster from DUPLICATE_SIMILARITY on, until `dedup` compares their
# pixels. From POSSIBLE_SIMILARITY on, photos are alike as a whole and are compared by their pixels.
DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY = 0.93, 0.86
# Standard deviations of the blurs as fractions of a side: of the coarse and the fine step, and of
# what is subtracted to get the details.
COARSE_BLUR, FINE_BLUR, DETAIL_BLUR = 1 / 30, 1 / 70, 1 / 24
COARSE_STEPS, FINE_STEPS = 12, 5
# Residual in standard deviations that has half the weight, and the damping of a step.
HALF_WEIGHT_RESIDUAL, DAMPING = 0.7, 1e-3
# Pairs below this similarity after the coarse step are not aligned further.
MIN_COARSE_SIMILARITY = 0.4
# The worst twentieth of the pixels may be a watermark.
KEPT_PIXELS = 0.95
# Smallest overlap of the aligned pictures, as a fraction of the picture.
MIN_OVERLAP = 0.5
# Colours with a smaller deviation are not compared; below this correlation, colours differ.
MIN_COLOUR_DEVIATION, MIN_COLOUR_CORRELATION = 3.0, 0.6
# Pairs per batch, chosen to fit in the CPU's cache.
BATCH_PAIRS = 32


def similarity(
    first: Sequence[Fingerprint], second: Sequence[Fingerprint], orientations: np.ndarray
) -> np.ndarray:
    """Return the similarity of pairs of photos.

    Args:
        first: Fingerprints of n photos.
        second: Fingerprints of the photos that they are compared with.
        orientations: Orientation of each second photo relative to the first (see matching.py),
            (n,) int or bool (mirrored).

    Returns:
        Array of shape (n,), float32, at most 1.
    """
    result = np.zeros(len(first), np.float32)
    for start in range(0, len(first), BATCH_PAIRS):
        batch = slice(start, start + BATCH_PAIRS)
        oriented = [
            (_oriented(f.thumbnail, int(orientation)), _oriented(f.colours, int(orientation)))
            for f, orientation in zip(second[batch], orientations[batch], strict=True)
        ]
        result[batch] = _picture_similarity(
            np.asarray([f.thumbnail for f in first[batch]], np.float32),
            np.asarray([picture for picture, _ in oriented], np.float32),
        )
        differ = ~_colours_agree(
            np.asarray([f.colours for f in first[batch]], np.float32),
            np.asarray([colours for _, colours in oriented], np.float32),
        )
        # The same product in another colour: possibly, but never certainly a near duplicate.
        result[batch][differ] = np.minimum(
            result[batch][differ], np.float32(DUPLICATE_SIMILARITY - 1e-3)
        )
    return result


def _oriented(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Mirror a picture, (…, side, side), if the orientation is odd, then turn it by quarters."""
    mirrored = picture[..., ::-1] if orientation % 2 else picture
    return np.rot90(mirrored, orientation // 2, (-2, -1))


def _picture_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the similarity of pictures, both (n, side, side) float32."""
    result = np.zeros(len(first), np.float32)
    first_half, second_half = _halved(first), _halved(second)
    warps = np.zeros((len(first), 6), np.float32)
    warps = _align(
        _blurred(first_half, COARSE_BLUR), _blurred(second_half, COARSE_BLUR), warps, COARSE_STEPS
    )
    close = np.flatnonzero(_compare(first_half, second_half, warps) > MIN_COARSE_SIMILARITY)
    if len(close):
        first, second, warps = first[close], second[close], warps[close]
        warps = _align(_blurred(first, FINE_BLUR), _blurred(second, FINE_BLUR), warps, FINE_STEPS)
        result[close] = _compare(first, second, warps)
    return result


def _halved(pictures: np.ndarray) -> np.ndarray:
    count, side, _ = pictures.shape
    return pictures.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4))


def _blurred(pictures: np.ndarray, fraction: float) -> np.ndarray:
    blur = _blur_matrix(pictures.shape[1], fraction)
    return blur @ pictures @ blur.T


@lru_cache
def _blur_matrix(side: int, fraction: float) -> np.ndarray:
    """Return the matrix that blurs a line of pixels, mirrored at its edges.

    At this size a matrix product is faster than a filter and needs no large library.

    Args:
        side: Length of the line.
        fraction: Standard deviation as a fraction of the length.

    Returns:
        Array of shape (side, side), float32.
    """
    sigma = fraction * side
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    matrix = np.zeros((side, side))
    # Mirrored at the outer edges of the first and last pixel: 1 0 | 0 1 2 … | n-1 n-2.
    columns = (np.arange(side)[:, None] + offsets) % (2 * side)
    np.add.at(
        matrix,
        (np.arange(side)[:, None], np.minimum(columns, 2 * side - 1 - columns)),
        weights / weights.sum(),
    )
    return matrix.astype(np.float32)


@lru_cache
def _grid(side: int) -> np.ndarray:
    """Return x, y (fractions of a side from the centre) and 1 of each pixel, (3, side * side)."""
    line = ((np.arange(side) - (side - 1) / 2) / side).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return np.stack([x, y, np.ones_like(x)]).reshape(3, -1)


class _Warp:
    """Bilinear sampling of pictures at the positions of affine warps.

    Attributes:
        inside: 1 where the position is inside the picture, else 0, (n, side * side) float32.
    """

    def __init__(self, side: int, warps: np.ndarray) -> None:
        """Prepare the sampling.

        Args:
            side: Side of the pictures in pixels.
            warps: Parameters of n affine warps, (n, 6).
        """
        grid = _grid(side)
        # x and y of each pixel: (n, 2, side * side).
        target = (warps.reshape(-1, 2, 3) @ grid + grid[:2]) * side + np.float32((side - 1) / 2)
        clipped = np.minimum(np.maximum(target, 0), np.float32(side - 1))
        self.inside = (target == clipped).all(1).astype(np.float32)
        target = np.minimum(clipped, np.float32(side - 1.001))
        whole = target.astype(np.int32)
        (right, down), (column, row) = (target - whole).swapaxes(0, 1), whole.swapaxes(0, 1)
        picture = (np.arange(len(warps), dtype=np.int32) * (side * side))[:, None]
        self._index = picture + row * np.int32(side) + column
        low = right * down
        self._corners = (
            (0, 1 - right - down + low),
            (1, right - low),
            (side, down - low),
            (side + 1, low),
        )

    def sample(self, planes: np.ndarray) -> np.ndarray:
        """Sample k planes of n pictures, (k, n * side * side): (k, n, side * side)."""
        parts = [planes.take(self._index + step, 1) * weight for step, weight in self._corners]
        return (parts[0] + parts[1]) + (parts[2] + parts[3])


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of values, (…, n, pixels), by weights, (n, pixels): (…, n, 1)."""
    total = weights.sum(-1, keepdims=True) + 1e-6
    return np.einsum("...np,np->...n", values, weights)[..., None] / total


def _centre(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the mean from values, (…, n, pixels).

    Returns:
        The centred values, and the standard deviation of each picture, (…, n, 1).
    """
    centred = values - _mean(values, weights)
    return centred, np.sqrt(_mean(centred * centred, weights)) + 1e-3


def _align(first: np.ndarray, second: np.ndarray, warps: np.ndarray, steps: int) -> np.ndarray:
    """Refine warps so that the warped second pictures match the first ones.

    Args:
        first: Pictures, (n, side, side) float32.
        second: Pictures to be warped, of the same shape.
        warps: Initial parameters, (n, 6).
        steps: Number of Gauss-Newton steps.

    Returns:
        Refined parameters, (n, 6).
    """
    count, side, _ = first.shape
    grid = _grid(side)
    slope_y, slope_x = np.gradient(second, axis=(1, 2))
    planes = np.stack([second, slope_x, slope_y]).reshape(3, -1)
    first, damping = first.reshape(1, count, -1), np.eye(6, dtype=np.float32) * (DAMPING / 6)
    for _ in range(steps):
        warp = _Warp(side, warps)
        samples = warp.sample(planes)
        scaled, deviations = _centre(np.concatenate([first, samples[:1]]), warp.inside)
        first_scaled, second_scaled = scaled / deviations
        residual = first_scaled - second_scaled
        weights = warp.inside / (1 + (residual / HALF_WEIGHT_RESIDUAL) ** 2)
        slopes = (samples[1:] * (side / deviations[1])).swapaxes(0, 1)
        slopes = (slopes[:, :, None] * grid).reshape(count, 6, -1)
        weighted = slopes * weights[:, None]
        hessian = weighted @ slopes.transpose(0, 2, 1)
        size = np.trace(hessian, axis1=1, axis2=2)[:, None, None] + np.float32(6e-6)
        step = np.linalg.solve(hessian + damping * size, weighted @ residual[..., None])
        warps = np.minimum(np.maximum(warps + step[..., 0], -0.5), 0.5)
    return warps


def _compare(first: np.ndarray, second: np.ndarray, warps: np.ndarray) -> np.ndarray:
    """Return the mean of the details' correlations over all pixels and over the best ones, (n,)."""
    count, side, _ = first.shape
    warp = _Warp(side, warps)
    mask = warp.inside
    both = np.concatenate([first.reshape(1, count, -1), warp.sample(second.reshape(1, -1))])
    first_scaled, second_scaled = _detail(both, mask, side)
    difference = np.where(mask > 0, np.abs(first_scaled - second_scaled), np.inf)
    kept = np.maximum((mask.sum(1) * KEPT_PIXELS).astype(int) - 1, 0)
    limit = np.take_along_axis(np.sort(difference, axis=1), kept[:, None], 1)
    best = mask * (difference <= limit)
    correlation = (
        _correlation(first_scaled, second_scaled, mask)
        + _correlation(first_scaled, second_scaled, best)
    ) / 2
    return np.where(mask.mean(1) >= MIN_OVERLAP, correlation, 0)


def _detail(pictures: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """Subtract the blur from pictures, (…, n, pixels), and scale them to unit deviation."""
    centred, deviation = _centre(pictures, mask)
    sharp = centred / deviation * mask
    blurred = _blurred(sharp.reshape(-1, side, side), DETAIL_BLUR).reshape(sharp.shape)
    detail, deviation = _centre(sharp - blurred, mask)
    return detail / deviation


def _correlation(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    first_centred, first_deviation = _centre(first, mask)
    second_centred, second_deviation = _centre(second, mask)
    return (_mean(first_centred * second_centred, mask) / (first_deviation * second_deviation))[
        :, 0
    ]


def _colours_agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return whether the colours of pictures vary alike, (n,) bool.

    A shift of all colours and their strength do not matter; pictures without colours agree.

    Args:
        first: Colours of n pictures, (n, 2, 8, 8).
        second: Colours of the pictures they are compared with, of the same shape.
    """
    flat = [colours.reshape(len(colours), 2, -1) for colours in (first, second)]
    first, second = (colours - colours.mean(2, keepdims=True) for colours in flat)
    first_deviation, second_deviation = (
        np.sqrt((colours * colours).mean((1, 2))) for colours in (first, second)
    )
    correlation = (first * second).mean((1, 2)) / (first_deviation * second_deviation + 1e-6)
    return (
        (correlation >= MIN_COLOUR_CORRELATION)
        | (first_deviation < MIN_COLOUR_DEVIATION)
        | (second_deviation < MIN_COLOUR_DEVIATION)
    )
