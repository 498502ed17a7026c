"""How alike two photos are: one is laid over the other as well as it can be, then compared.

Shift, scale, shear and small turns are found by Gauss-Newton on the little pictures, first on
pictures of half the side (Lucas-Kanade with gain and offset taken out, so light does not count).
What is compared is the detail that is left when the picture's own blur is subtracted: two garments
laid out alike share their outline, not their folds.
"""

from collections.abc import Sequence

import numpy as np

from dataset.duplicates.fingerprint import Fingerprint

# From benchmarks/duplicates.py; the README has the table. Above FOLD at least 999 pairs of 1,000
# are one photo; from POSSIBLE on they may be, and stay in one split.
FOLD, POSSIBLE = 0.93, 0.86
# Standard deviations of the blurs, in parts of a side: for either step, and for the detail.
COARSE, FINE, DETAIL = 1 / 30, 1 / 70, 1 / 24
STEPS_COARSE, STEPS_FINE = 12, 5
# A residual of this many standard deviations counts half; a step is damped by this part.
ROBUST, DAMPING = 0.7, 1e-3
# A pair that is this different after the coarse step is not looked at again.
HOPELESS = 0.4
# The worst pixels, a twentieth, may be a watermark.
KEPT = 0.95
# Less of the photo than this in common is no copy.
LEAST_OVERLAP = 0.5
# Colours that vary less than this tell nothing; below this correlation they differ.
GREYISH, SAME_COLOURS = 3.0, 0.6
AT_ONCE = 256


def likeness(
    ones: Sequence[Fingerprint], others: Sequence[Fingerprint], turns: np.ndarray
) -> np.ndarray:
    """How alike each of ONES and its one of OTHERS are: (n,) float32, at most 1.

    TURNS: (n,) int, how the other one is turned first (see search.py); True mirrors it.
    """
    found = np.zeros(len(ones), np.float32)
    for start in range(0, len(ones), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        turned = [
            (_turned(f.picture, int(turn)), _turned(f.colours, int(turn)))
            for f, turn in zip(others[part], turns[part], strict=True)
        ]
        found[part] = _alike(
            np.asarray([f.picture for f in ones[part]], np.float32),
            np.asarray([picture for picture, _ in turned], np.float32),
        )
        differ = ~_colours_agree(
            np.asarray([f.colours for f in ones[part]], np.float32),
            np.asarray([colours for _, colours in turned], np.float32),
        )
        # The same thing in another colour: worth keeping together, never one photo.
        found[part][differ] = np.minimum(found[part][differ], np.float32(FOLD - 1e-3))
    return found


def _turned(picture: np.ndarray, turn: int) -> np.ndarray:
    """PICTURE, (…, side, side), mirrored where TURN is odd, then turned left by its quarters."""
    return np.rot90(picture[..., ::-1] if turn % 2 else picture, turn // 2, (-2, -1))


def _alike(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Likeness of ONES and OTHERS, both (n, side, side) float32."""
    found = np.zeros(len(ones), np.float32)
    half, its_half = _halved(ones), _halved(others)
    moves = np.zeros((len(ones), 6), np.float32)
    moves = _align(_blurred(half, COARSE), _blurred(its_half, COARSE), moves, STEPS_COARSE)
    worth = np.flatnonzero(_compare(half, its_half, moves) > HOPELESS)
    if len(worth):
        ones, others, moves = ones[worth], others[worth], moves[worth]
        moves = _align(_blurred(ones, FINE), _blurred(others, FINE), moves, STEPS_FINE)
        found[worth] = _compare(ones, others, moves)
    return found


def _halved(pictures: np.ndarray) -> np.ndarray:
    count, side, _ = pictures.shape
    return pictures.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4))


def _blurred(pictures: np.ndarray, part: float) -> np.ndarray:
    # A tenth of what a crawl imports, which needs it only where two photos look alike.
    from scipy.ndimage import gaussian_filter

    sigma = part * pictures.shape[1]
    return gaussian_filter(pictures, (0, sigma, sigma))


def _places(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel in parts of a side, from the middle: (1, side, side) both."""
    line = ((np.arange(side) - (side - 1) / 2) / side).astype(np.float32)
    return line[None, None, :] + 0 * line[None, :, None], line[None, :, None] + 0 * line[
        None, None, :
    ]


def _sampler(side: int, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where MOVES, (n, 6) affine, take each pixel: index, fractions, and whether it is inside."""
    x, y = _places(side)
    a, b, right, c, d, down = (moves[:, i, None, None] for i in range(6))
    middle = (side - 1) / 2
    to_x = ((1 + a) * x + b * y + right) * side + middle
    to_y = (c * x + (1 + d) * y + down) * side + middle
    inside = (to_x >= 0) & (to_x <= side - 1) & (to_y >= 0) & (to_y <= side - 1)
    to_x, to_y = to_x.clip(0, side - 1.001), to_y.clip(0, side - 1.001)
    column, row = to_x.astype(np.int32), to_y.astype(np.int32)
    first = np.arange(len(moves))[:, None, None] * side * side
    return first + row * side + column, to_x - column, to_y - row, inside


def _sample(
    pictures: np.ndarray, where: np.ndarray, right: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """PICTURES between the pixels, bilinear."""
    flat, side = pictures.reshape(-1), pictures.shape[1]
    above = flat[where] * (1 - right) + flat[where + 1] * right
    below = flat[where + side] * (1 - right) + flat[where + side + 1] * right
    return above * (1 - down) + below * down


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each picture, (n, 1, 1)."""
    total = weights.sum((1, 2), keepdims=True) + 1e-6
    return (values * weights).sum((1, 2), keepdims=True) / total


def _scale(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """VALUES less their mean, and the deviation of each picture, (n, 1, 1)."""
    centred = values - _mean(values, weights)
    return centred, np.sqrt(_mean(centred * centred, weights)) + 1e-3


def _align(ones: np.ndarray, others: np.ndarray, moves: np.ndarray, steps: int) -> np.ndarray:
    """MOVES, (n, 6), made better by STEPS: OTHERS moved by them lie on ONES."""
    count, side, _ = ones.shape
    x, y = _places(side)
    slope_y, slope_x = np.gradient(others, axis=(1, 2))
    for _ in range(steps):
        *place, inside = _sampler(side, moves)
        weights = inside.astype(np.float32)
        moved, deviation = _scale(_sample(others, *place), weights)
        centred, own = _scale(ones, weights)
        wrong = centred / own - moved / deviation
        weights /= 1 + (wrong / ROBUST) ** 2
        to_x = _sample(slope_x, *place) * (side / deviation)
        to_y = _sample(slope_y, *place) * (side / deviation)
        slopes = np.stack([to_x * x, to_x * y, to_x, to_y * x, to_y * y, to_y], 1)
        slopes = slopes.reshape(count, 6, -1)
        weighed = slopes * weights.reshape(count, 1, -1)
        square = weighed @ slopes.transpose(0, 2, 1)
        size = np.trace(square, axis1=1, axis2=2)[:, None, None] / 6 + 1e-6
        square += np.eye(6, dtype=np.float32) * (DAMPING * size)
        moves = moves + np.linalg.solve(square, weighed @ wrong.reshape(count, -1, 1))[..., 0]
        moves = moves.clip(-0.5, 0.5)
    return moves


def _compare(ones: np.ndarray, others: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(n,) likeness: the mean of the details' correlation over all pixels and over the best."""
    *place, inside = _sampler(ones.shape[1], moves)
    mask = inside.astype(np.float32)
    one, other = (_detail(p, mask) for p in (ones, _sample(others, *place)))
    apart = np.where(inside, np.abs(one - other), np.inf).reshape(len(ones), -1)
    kept = np.maximum((mask.sum((1, 2)) * KEPT).astype(int) - 1, 0)
    limit = np.take_along_axis(np.sort(apart, axis=1), kept[:, None], 1)
    best = mask * (apart <= limit).reshape(mask.shape)
    alike = (_correlation(one, other, mask) + _correlation(one, other, best)) / 2
    return np.where(mask.mean((1, 2)) >= LEAST_OVERLAP, alike, 0)


def _detail(pictures: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """PICTURES less their blur, evened out; a picture without detail stays flat."""
    centred, deviation = _scale(pictures, mask)
    sharp = centred / deviation * mask
    fine, spread = _scale(sharp - _blurred(sharp, DETAIL), mask)
    return fine / spread


def _correlation(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    (one, own), (other, its) = _scale(one, mask), _scale(other, mask)
    return (_mean(one * other, mask) / (own * its))[:, 0, 0]


def _colours_agree(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: whether the colours of ONES and OTHERS, (n, 2, 8, 8), vary alike.

    A shift of all colours and their strength don't count, nor photos without colours.
    """
    flat = [c.reshape(len(c), 2, -1) for c in (ones, others)]
    one, other = (c - c.mean(2, keepdims=True) for c in flat)
    own, its = (np.sqrt((c * c).mean((1, 2))) for c in (one, other))
    correlation = (one * other).mean((1, 2)) / (own * its + 1e-6)
    return (correlation >= SAME_COLOURS) | (own < GREYISH) | (its < GREYISH)
